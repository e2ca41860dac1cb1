"""Power is cut in the midst of whatever it does; each time it boots, and nothing is lost."""

from __future__ import annotations

import random
import shutil
import sqlite3
import time
from dataclasses import dataclass
from typing import Final

from tests.evidence import Claim, Detail
from tests.hil.guest import Guest
from tests.image_test.bench import ON_S, Bench, bench, is_online
from tests.image_test.office import Office
from tests.parts import Part, Tell

NODE: Final = "node-0001"
CUTS: Final = 20
BOOT_S: Final = 60.0
"""Every other cut comes within so many seconds of power-on; the others while it hears."""
HEARS_S: Final = 12.0
DRAIN_S: Final = 120.0


@dataclass(frozen=True)
class Cut:
    """One cut of the power."""

    when: str
    after_s: float
    shots: int
    outbox: str


def measure(tell: Tell) -> Part:
    """Cut the power twenty times, then let it run, and verify all that it ever signed."""
    with bench("power") as stage:
        return _measure(stage, tell)


def _measure(stage: Bench, tell: Tell) -> Part:
    chance = random.Random(20)
    card, office = stage.card(NODE), stage.office
    cuts: list[Cut] = []
    boots_s: list[float] = []
    with stage.guest(card) as (guest, _):
        for number in range(CUTS + 1):
            if number:
                guest.power_on()
            tell(f"cut {number} of {CUTS}")
            early = number % 2 == 1
            before = len(office.words())
            if early:
                time.sleep(chance.uniform(5.0, BOOT_S))
            else:
                office.wait("status", NODE, ON_S, is_online, after=before)
                boots_s.append(time.monotonic() - guest.on_s)
                office.wait("detection", NODE, 60.0, after=before)
                if number == CUTS:
                    break
                time.sleep(chance.uniform(0.0, HEARS_S))
            on_s = time.monotonic() - guest.on_s
            guest.cut_power()
            shots = sum(
                word["schema"].startswith("gunfire.detection/") for word in office.words()[before:]
            )
            cuts.append(Cut("at boot" if early else "hearing", on_s, shots, _outbox(guest)))
        tell("waiting for what waited")
        office.wait("detection", NODE, DRAIN_S, lambda _: _without_holes(office))
        # Told anew at each connection: all that was signed before the last cut.
        vouched = office.wait("checkpoint", NODE, ON_S, after=before)["seq"]
        last = max(w["seq"] for w in office.words() if w["schema"].startswith("gunfire.detection/"))
    verdict = office.verify()
    whole = sum(cut.outbox == "ok" for cut in cuts)
    return Part(
        (
            Claim("power cuts, at boot and while it writes", len(cuts), "", f"≥ {CUTS}",
                  len(cuts) >= CUTS),
            Claim("boots to the broker after them", len(boots_s), "",
                  f"= {CUTS // 2 + 1}", len(boots_s) == CUTS // 2 + 1),
            Claim("longest way from power-on to the broker", max(boots_s), "s"),
            Claim("outbox whole after the cut (SQLite's own check)", whole, "", f"= {len(cuts)}",
                  whole == len(cuts)),
            Claim("detections of its life, verified from the first on", last, ""),
            Claim("of them vouched for by the checkpoint after the last cut", vouched, ""),
            Claim("of them altered, missing, foreign, forked", verdict["found"], "", "0",
                  verdict["found"] == 0 and verdict["holds"]),
        ),
        (
            Detail("Each cut", ("when", "s after power-on", "messages before it", "outbox"), tuple(
                (cut.when, f"{cut.after_s:.0f}", str(cut.shots), cut.outbox) for cut in cuts)),
        ),
    )  # fmt: skip


def _without_holes(office: Office) -> bool:
    """Say whether each detection from the first to the newest has arrived."""
    heard = {
        word["seq"] for word in office.words() if word["schema"].startswith("gunfire.detection/")
    }
    return heard == set(range(1, max(heard) + 1))


def _outbox(guest: Guest) -> str:
    """Say what SQLite finds in the outbox, on a copy of what the cut has left."""
    folder = guest.folder / "after-cut"
    folder.mkdir()
    try:
        file = guest.card.data(folder) / "node" / "outbox.sqlite3"
        if not file.exists():
            return "ok"  # cut before its first start
        with sqlite3.connect(file) as outbox:
            return str(outbox.execute("PRAGMA integrity_check").fetchone()[0])
    finally:
        shutil.rmtree(folder)
