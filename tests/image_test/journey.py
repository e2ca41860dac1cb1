"""From power-on to `online`, by a card that was written as the pages say; a shot, and its time."""

from __future__ import annotations

import time
from typing import Any, Final

import numpy as np

from node.utc import parse_utc_ns
from tests.evidence import Claim, Detail
from tests.hil.virtual_card import VirtualCard
from tests.image_test.bench import ON_S, Bench, bench, by_pulse, is_online
from tests.image_test.inside import UNITS
from tests.image_test.sound import RATE, Expected
from tests.parts import Part, Tell

NODE: Final = "node-0001"
PASSES: Final = 20
"""So many passes of the recording are judged."""
PULSE_S: Final = 600.0
SAME_S: Final = 0.2
"""An onset this near to a true one is of it."""


def measure(tell: Tell) -> Part:
    """Boot a bare card, wait for the node, and judge what it says of a recorded shot."""
    with bench("journey") as stage:
        return _measure(stage, tell)


def _measure(stage: Bench, tell: Tell) -> Part:
    tell("writing the card")
    card = stage.card(NODE)
    began_s = time.monotonic()
    with stage.guest(card, units=UNITS) as (_, heard):
        tell("waiting for the node at the broker")
        office = stage.office
        office.wait("status", NODE, ON_S, is_online)
        at_broker_s = time.monotonic() - began_s
        tell("waiting for the pulse to discipline its clock")
        office.wait("status", NODE, PULSE_S, by_pulse)
        by_pulse_s = time.monotonic() - began_s
        tell("listening")
        expected = stage.sound.expected(stage.folder)
        first = len(office.words())
        until_s = time.monotonic() + (PASSES + 3) * stage.sound.seconds
        while time.monotonic() < until_s:
            tell(f"listening, {len(office.words()) - first} words")
            time.sleep(2.0)
        told = [
            word
            for word in office.words()[first:]
            if word["schema"].startswith("gunfire.detection/")
            and word["grade"] != "not_gunfire"
            and word["clock"]["source"] == "pps"
        ]
        shots = _judge(told, heard, expected, stage.sound.seconds)
        online = [w for w in office.words() if w["schema"].startswith("gunfire.status/")][-1]
    errors_s = np.array([error_s for error_s, _ in shots])
    right = sum(good for _, good in shots)
    member = office.member(NODE)
    issued_utc = member["certificates"][-1]["issued_utc"]
    verdict = office.verify()
    return Part(
        (
            Claim("power-on to the broker, enrolled by token", at_broker_s, "s", f"≤ {ON_S:.0f}",
                  at_broker_s <= ON_S),
            Claim("power-on to a clock by the pulse", by_pulse_s, "s"),
            Claim("shots played", len(shots), "", f"≥ {PASSES}", len(shots) >= PASSES),
            Claim("told as replay tells them (label, grade, rounds)", right, "",
                  f"= {len(shots)}", right == len(shots)),
            Claim("onset: mean error", float(errors_s.mean() * 1e3), "ms"),
            Claim("onset: spread about it", float(errors_s.std() * 1e3), "ms"),
            Claim("onset: worst error", float(abs(errors_s).max() * 1e3), "ms", "≤ 100",
                  bool(abs(errors_s).max() <= 0.1)),
            Claim("in the log of the auditor: altered, missing, foreign", _faults(verdict), "",
                  "0", _faults(verdict) == 0),
        ),
        (
            Detail("The node at the end", ("what", "said"), (
                ("sound", stage.sound.about),
                ("state", f"{online['state']}: {'; '.join(online['reasons']) or 'nothing wrong'}"),
                ("clock", str(online["clock"])),
                ("inventory", f"{member['state']}, enrolled {issued_utc}"),
            )),
        ),
    )  # fmt: skip


def _judge(
    told: list[dict[str, Any]], heard: VirtualCard, expected: list[Expected], loop_s: float
) -> list[tuple[float, bool]]:
    """Give for each shot that was told its error in s, and whether it was told as it should be."""
    truth = heard.truth()
    loop_frames = round(loop_s * RATE)
    shots: dict[str, tuple[float, bool]] = {}
    for word in told:  # the last revision of each counts
        utc_ns = parse_utc_ns(word["onset_utc"])
        frames = (utc_ns - truth.frame0_utc_ns) / 1e9 * truth.rate_hz
        within_s = frames % loop_frames / RATE
        errors = [((within_s - one.onset_s + loop_s / 2) % loop_s - loop_s / 2, one) for one in
                  expected]  # fmt: skip
        error_s, shot = min(errors, key=lambda pair: abs(pair[0]))
        good = (
            abs(error_s) < SAME_S
            and (word["label"], word["grade"], word["round_count"])
            == (shot.label, shot.grade, shot.round_count)
        )  # fmt: skip
        shots[word["event_id"]] = error_s, good
    return list(shots.values())


def _faults(verdict: dict[str, Any]) -> int:
    return int(verdict["found"])
