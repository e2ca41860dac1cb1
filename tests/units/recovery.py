"""What strikes a node where nobody is, and how soon it hears again by itself."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Final

from tests.evidence import Claim, Detail
from tests.hil.container import NODE
from tests.hil.shots import SHOT_EVERY_S, detections, street
from tests.hil.unit_stage import (
    Installed,
    Recovery,
    Stage,
    hang,
    installed,
    leak,
    recover_from,
    stage,
    stall_disk,
)
from tests.hil.virtual_card import build_plugin
from tests.parts import Part, Tell

MOST_S: Final = 30.0
MOST_BYTES: Final = 320 * 2**20
AWAY_S: Final = 20.0
DISK_STALL_S: Final = 25.0
Begin = Callable[..., AbstractContextManager[Stage]]


def measure(tell: Tell) -> Part:
    """Strike it, each time in a container of its own."""
    claims: list[Claim] = []
    rows: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory() as folder, installed() as product:
        begin = partial(_begin, product, build_plugin(Path(folder)))
        for name, strike in (
            ("hung (SIGSTOP)", lambda begun: partial(hang, begun)),
            ("capture stalled", lambda begun: begun.card.stall),
            ("card unplugged and back within the restart", lambda begun: begun.card.unplug),
        ):
            tell(name)
            with begin() as begun:
                recovery = recover_from(begun, strike(begun))
            claims += _claims(name, recovery)
            rows.append(_row(name, recovery))
        tell("card away, and back under another number")
        waited, again_s = _unplugged(begin)
        claims += [
            Claim(
                f"card away for {AWAY_S:g} s: waits, without another restart",
                float(waited),
                "",
                "1",
                waited,
            ),
            Claim(
                "back under another number: until it hears",
                again_s,
                "s",
                f"≤ {MOST_S:g}",
                again_s <= MOST_S,
            ),
        ]
        tell("a disk that stalls")
        claims += _stalled_disk(begin)
        for bound, off in (("LimitDATA", "MemoryMax"), ("MemoryMax", "LimitDATA")):
            tell(f"a leak, bound by {bound}")
            with begin(drop_ins={"off": f"[Service]\n{off}=infinity\n"}) as begun:
                if bound == "MemoryMax" and not begun.machine.bounds_memory():
                    rows.append((f"a leak, bound by {bound}", "no controller here", "", ""))
                    continue
                recovery, most = leak(begun)
            name = f"memory leaks, bound by {bound}"
            heals = recovery.hearing_s is not None
            claims += [
                Claim(f"{name}: hears again", float(heals), "", "1", heals),
                Claim(
                    f"{name}: the most that it had",
                    most / 2**20,
                    "MiB",
                    "≤ 320",
                    most <= MOST_BYTES,
                ),
            ]
            rows.append(_row(name, recovery))
    return Part(
        tuple(claims),
        (
            Detail(
                "What a subscriber was told", ("fault", "told, s", "hears, s", "words"), tuple(rows)
            ),
        ),
    )


def _begin(
    product: Installed, plugin: Path, drop_ins: dict[str, str] | None = None
) -> AbstractContextManager[Stage]:
    return stage("recovery", product, plugin, street(90.0), drop_ins=drop_ins, loop=True)


def _claims(name: str, recovery: Recovery) -> list[Claim]:
    rows = []
    for what, seconds in (("told", recovery.told_s), ("hears again", recovery.hearing_s)):
        value = float("inf") if seconds is None else seconds
        rows.append(Claim(f"{name}: {what} after", value, "s", f"≤ {MOST_S:g}", value <= MOST_S))
    return rows


def _row(name: str, recovery: Recovery) -> tuple[str, ...]:
    told, hears = (
        "never" if seconds is None else f"{seconds:.1f}"
        for seconds in (recovery.told_s, recovery.hearing_s)
    )
    return (name, told, hears, "; ".join(recovery.reasons))


def _unplugged(begin: Begin) -> tuple[bool, float]:
    """Take the card away for a while; say whether the node waited, and how soon it heard again."""
    with begin() as begun, begun.subscribed() as words:
        assert detections(words, 30.0, wanted=1)
        begun.card.hide()
        begun.card.unplug()
        begun.machine.until(NODE, "activating/start", 30.0)
        time.sleep(AWAY_S)
        waited = begun.machine.show(NODE, "NRestarts") == "1"
        list(words.within(0.5))
        back_s = time.monotonic()
        begun.card.show(before=2)
        heard = detections(words, 60.0, wanted=1)
        return waited, time.monotonic() - back_s if heard else float("inf")


def _stalled_disk(begin: Begin) -> tuple[Claim, Claim]:
    """Have a commit take longer than the watchdog waits for sound."""
    with begin() as begun:
        heard = stall_disk(begun, DISK_STALL_S)
        unheard = begun.unheard(heard)
        restarts = int(begun.machine.show(NODE, "NRestarts"))
    what = f"a commit takes {DISK_STALL_S:g} s: "
    went_on = len(heard) > DISK_STALL_S / SHOT_EVERY_S
    return (
        Claim(
            f"{what}shots unheard beside {len(heard)} heard",
            unheard,
            "",
            "0",
            unheard == 0 and went_on,
        ),
        Claim(f"{what}restarts", restarts, "", "0", restarts == 0),
    )
