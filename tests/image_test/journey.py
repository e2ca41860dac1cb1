"""From power-on to `online`, by a card that was written as the pages say; a shot, and its time."""

from __future__ import annotations

import time
from dataclasses import dataclass
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
"""So many passes of the recording are judged, that the emulator handed on whole."""
PATIENCE: Final = 3
"""Times as many are played at most: beside other work the emulator loses samples."""
PULSE_S: Final = 600.0
VERIFIED_S: Final = 900
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
    office = stage.office
    with (
        office.verifying(NODE, VERIFIED_S) as verifying,
        stage.guest(card, units=UNITS) as (_, heard),
    ):
        tell("waiting for the node at the broker")
        office.wait("status", NODE, ON_S, is_online)
        at_broker_s = time.monotonic() - began_s
        tell("waiting for the pulse to discipline its clock")
        office.wait("status", NODE, PULSE_S, by_pulse)
        by_pulse_s = time.monotonic() - began_s
        tell("waiting for gunfire-fleet to verify it")
        said = verifying.communicate(timeout=VERIFIED_S)[0].splitlines()
        tell("listening")
        expected = stage.sound.expected(stage.folder)
        first = len(office.words())
        until_s = time.monotonic() + PATIENCE * PASSES * stage.sound.seconds
        shots: list[Shot] = []
        # One more: the last may still be revised.
        while sum(shot.whole for shot in shots) <= PASSES and time.monotonic() < until_s:
            time.sleep(2.0)
            shots = _judge(office.words()[first:], heard, expected, stage.sound.seconds)
            tell(f"listening, {len(shots)} shots")
        del shots[-1:]
        online = [w for w in office.words() if w["schema"].startswith("gunfire.status/")][-1]
    whole = [shot for shot in shots if shot.whole]
    errors_s = np.array([shot.error_s for shot in whole])
    right = sum(shot.right for shot in whole)
    passes = [shot.of_pass for shot in shots]
    untold = len(set(range(min(passes), max(passes) + 1)) - set(passes))
    token_stays = b"\ntoken" in (card.read("gunfire-node.toml") or b"\ntoken")
    member = office.member(NODE)
    issued_utc = member["certificates"][-1]["issued_utc"]
    verdict = office.verify()
    return Part(
        (
            Claim("power-on to the broker, enrolled by token", at_broker_s, "s", f"≤ {ON_S:.0f}",
                  at_broker_s <= ON_S),
            Claim("one-time token left on the card", int(token_stays), "", "0", not token_stays),
            Claim("power-on to a clock by the pulse", by_pulse_s, "s"),
            Claim("verified by one command, gunfire-fleet verify", int(not verifying.returncode),
                  "", "1", not verifying.returncode),
            Claim("shots judged: samples whole", len(whole), "", f"≥ {PASSES}",
                  len(whole) >= PASSES),
            Claim("of them told as replay tells them (label, grade, rounds)", right, "",
                  f"= {len(whole)}", right == len(whole)),
            Claim("shots in which the emulator lost samples, and the node said so",
                  len(shots) - len(whole), ""),
            Claim("shots that were played meanwhile, and not told", untold, "", "0", untold == 0),
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
                ("gunfire-fleet verify", said[-1] if said else "nothing"),
                ("state", f"{online['state']}: {'; '.join(online['reasons']) or 'nothing wrong'}"),
                ("clock", str(online["clock"])),
                ("inventory", f"{member['state']}, enrolled {issued_utc}"),
            )),
        ),
    )  # fmt: skip


@dataclass(frozen=True)
class Shot:
    """One shot that the node told of, and what to think of it."""

    of_pass: int
    error_s: float
    right: bool
    whole: bool


def _judge(
    told: list[dict[str, Any]], heard: VirtualCard, expected: list[Expected], loop_s: float
) -> list[Shot]:
    """Judge the last word on each shot that was told while the pulse gave the time."""
    truth = heard.truth()
    shots: dict[str, Shot] = {}
    for word in told:
        if (
            not word["schema"].startswith("gunfire.detection/")
            or word["grade"] == "not_gunfire"
            or word["clock"]["source"] != "pps"
        ):
            continue
        at_s = (parse_utc_ns(word["onset_utc"]) - truth.frame0_utc_ns) / 1e9 * truth.rate_hz / RATE
        errors = [
            (one, (at_s - one.onset_s + loop_s / 2) % loop_s - loop_s / 2) for one in expected
        ]
        shot, error_s = min(errors, key=lambda pair: abs(pair[1]))
        as_expected = all(
            word[key] == getattr(shot, key) for key in ("label", "grade", "round_count")
        )
        shots[word["event_id"]] = Shot(
            of_pass=round((at_s - shot.onset_s) / loop_s),
            error_s=error_s,
            right=as_expected and abs(error_s) < SAME_S,
            whole=word["audio"]["lost_samples"] == 0,
        )
    return list(shots.values())


def _faults(verdict: dict[str, Any]) -> int:
    return int(verdict["found"])
