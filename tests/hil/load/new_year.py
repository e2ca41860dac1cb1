"""New Year's Eve at one node: ten impulses a second, shots among them, and less and less of a core.

Nodes with the real daemon hear the same display in real time, each from a virtual sound card of its
own, through PortAudio, and publish to a Mosquitto on loopback. One has a whole core, the others a
share of one, all at the same time. Known is when each shot reaches the microphone; a node's card
goes on whether it is heard or not, so that what a node does not fetch in time is lost and counted.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil

from node.capture.portaudio import QUEUE_S
from node.network import PrivateBroker, Subscription, subscribe
from tests.evidence import Claim, Detail
from tests.hil.load.display import IMPULSES_PER_S, RATE_HZ, Display, display
from tests.hil.load.stage import At, LoadedNode, Record, Shots, follow
from tests.hil.virtual_card import build_plugin, missing_tools
from tests.parts import Part, Tell

WHOLE: Final = 1.0
SHARES: Final = (WHOLE, 0.25, 0.10, 0.05)
SECONDS: Final = 90.0
SETTLE_S: Final = 6.0
# An event is told once it is heard out: 4 s, and the second of sound after it.
MOST_BEHIND_S: Final = 1.0
FALLS_BEHIND_S: Final = 10.0
"""What waits by then still shrinks; the queue holds 30 s."""


@dataclass(frozen=True)
class Passed:
    """What a share of a core came to.

    Attributes
    ----------
    share
        Of one core.
    cores
        That the node took while it was watched.
    lost_s, starved_s
        Seconds of sound that were lost, and those of them that came while the node's own queue was
        full; the others were overwritten in the card's buffer of 0.17 s, which a machine does that
        is busy with other things.
    behind_s, most_behind_s
        By how much it was behind the card as the watch ended, and at most.
    hasty
        Events that were understood by one impulse each, since there was no time for more.
    waits_s
        From the last impulse of each event to its first message at the subscriber.
    course
        Its lines, for the picture.
    """

    share: float
    cores: float
    lost_s: float
    starved_s: float
    behind_s: float
    most_behind_s: float
    abstained: float
    hasty: int
    waits_s: tuple[float, ...]
    shots: Shots
    course: tuple[At, ...]


def measure(tell: Tell) -> Part:
    """Measure nodes with a whole core and with shares of one."""
    return night(SECONDS, tell)


def night(seconds: float, tell: Tell) -> Part:
    """Measure them for so long."""
    if (tool := missing_tools()) is not None:
        raise RuntimeError(f"the virtual card needs {tool}")
    tell("new year: rendering the display")
    sound = display()
    how, passed = through_the_night(sound, SHARES, seconds, tell)
    whole = passed[0]
    name = f"{seconds:g} s of New Year's Eve"
    return Part(
        (*_of_whole(name, whole), *_of_shares(name, passed[1:])),
        (_where_time_goes(whole), _by_share(name, how, passed)),
        draws=(lambda axes: _draw_behind(axes, passed), lambda axes: _draw_stages(axes, whole)),
    )


def through_the_night(
    sound: Display, shares: Sequence[float], seconds: float, tell: Tell
) -> tuple[str, list[Passed]]:
    """Let nodes with shares of a core hear a display, all at the same time.

    Returns
    -------
    What held them back, and how busy the machine was in all; and what came of each.
    """
    how = "nothing"
    with (
        tempfile.TemporaryDirectory(prefix="gunfire-new-year-") as scratch,
        PrivateBroker() as broker,
        ExitStack() as opened,
    ):
        folder = Path(scratch)
        plugin = build_plugin(folder)
        words = opened.enter_context(subscribe(broker.url, kinds=["detection"]))
        nodes = [
            opened.enter_context(
                LoadedNode(folder / str(i), f"share-{i}", sound.frames, plugin, broker.url)
            )
            for i in range(len(shares))
        ]
        for one in nodes:
            one.wait_until_it_hears()
        time.sleep(SETTLE_S)
        begun_s = time.monotonic()
        psutil.cpu_percent()
        for one, share in zip(nodes, shares, strict=True):
            if share < WHOLE:
                how = one.slow_down(share)
        received: dict[tuple[str, str, int], float] = {}
        while (left_s := begun_s + seconds - time.monotonic()) > 0:
            tell(f"new year: {seconds - left_s:.0f} of {seconds:g} s")
            _take(words, min(left_s, 1.0), received)
        ended_s = time.monotonic()
        busy = f"the machine {psutil.cpu_percent():.0f} % busy in all"
        records = [one.end() for one in nodes]
        _take(words, 2.0, received)
    return f"{how}; {busy}", [
        _passed(sound, share, record, name, received, begun_s, ended_s)
        for share, record, name in zip(
            shares, records, (f"share-{i}" for i in range(len(shares))), strict=True
        )
    ]


def _take(words: Subscription, seconds: float, into: dict[tuple[str, str, int], float]) -> None:
    """Note when detections come, on the machine's monotonic clock."""
    for word in words.within(seconds):
        said: Any = word.message
        into[said.node_id, said.event_id, said.revision] = time.monotonic()


def _passed(
    sound: Display,
    share: float,
    record: Record,
    name: str,
    received: dict[tuple[str, str, int], float],
    begun_s: float,
    ended_s: float,
) -> Passed:
    watched = [at for at in record.at if begun_s <= at.monotonic_s <= ended_s]
    first, last = watched[0], watched[-1]
    told = [one for one in record.told if (name, one.event_id, one.revision) in received]
    # Of the card's, whose first sample was converted so long before a line says where it is.
    zero_s = min(at.monotonic_s - at.behind_s - at.end_sample / RATE_HZ for at in record.at)
    from_sample = round((begun_s - zero_s) * RATE_HZ)
    to_sample = round((ended_s - zero_s - SETTLE_S) * RATE_HZ)
    waits_s = [
        received[name, one.event_id, one.revision] - zero_s - one.impulses[-1] / RATE_HZ
        for one in told
        if one.revision == 0 and from_sample <= one.impulses[0] < to_sample
    ]
    return Passed(
        share=share,
        cores=(last.process_s - first.process_s) / (last.monotonic_s - first.monotonic_s),
        starved_s=(record.at[-1].dropped - first.dropped) / RATE_HZ,
        lost_s=(record.at[-1].lost - first.lost) / RATE_HZ,
        behind_s=last.behind_s,
        most_behind_s=max(at.most_behind_s for at in watched),
        abstained=float(np.mean([one.abstained for one in told])) if told else 0.0,
        hasty=last.hasty - first.hasty,
        waits_s=tuple(waits_s),
        shots=follow(sound.shots_between(from_sample, to_sample), told),
        course=tuple(watched),
    )


def _of_whole(name: str, whole: Passed) -> tuple[Claim, ...]:
    where = f"{name}, {IMPULSES_PER_S:g} impulses/s, a whole core"
    shots = whole.shots
    first, last = whole.course[0], whole.course[-1]
    heard_s = (last.end_sample - first.end_sample) / RATE_HZ
    return (
        Claim(f"{where}: samples lost", whole.lost_s * RATE_HZ, "", "0", whole.lost_s == 0),
        Claim(
            f"{where}: pipeline behind the card, at most",
            whole.most_behind_s,
            "s",
            f"≤ {MOST_BEHIND_S:g}",
            whole.most_behind_s <= MOST_BEHIND_S,
        ),
        Claim(f"{where}: processor time", (last.process_s - first.process_s) / heard_s, "s/s"),
        Claim(f"{where}: events understood in haste", whole.hasty, "", "0", whole.hasty == 0),
        _published(where, shots),
        Claim(
            f"{where}: shots whose moment is a published round's",
            100 * shots.timed / shots.fired,
            f"% of {shots.fired}",
        ),
        Claim(
            f"{where}: shots in a round graded gunfire or probable",
            100 * shots.graded / shots.fired,
            f"% of {shots.fired}",
        ),
    )


def _published(where: str, shots: Shots) -> Claim:
    return Claim(
        f"{where}: shots inside a published event",
        100 * shots.inside / shots.fired,
        f"% of {shots.fired}",
        "100",
        shots.inside == shots.fired,
    )


def _of_shares(name: str, passed: Sequence[Passed]) -> list[Claim]:
    claims = []
    for one in passed:
        of = f"{name} with {100 * one.share:g} % of a core"
        in_time = one.behind_s <= FALLS_BEHIND_S
        claims += [
            Claim(f"{of}: sound lost to a full queue", one.starved_s, "s", "0",
                  one.starved_s == 0),
            Claim(f"{of}: behind the card at most", one.most_behind_s, "s"),
            Claim(f"{of}: behind the card in the end", one.behind_s, "s",
                  f"≤ {FALLS_BEHIND_S:g}", in_time),
            Claim(f"{of}: events understood in haste", one.hasty, ""),
            _published(of, one.shots),
        ]  # fmt: skip
    shed = passed[-1].hasty
    what = f"{name}, the least share of a core that was tried: events in haste, so that it sheds"
    return [*claims, Claim(what, shed, "", "> 0", shed > 0)]


def _where_time_goes(whole: Passed) -> Detail:
    rows = [
        (stage, f"{1e3 * per_s:.1f}", f"{100 * per_s / whole.cores:.0f}")
        for stage, per_s in _stages(whole)
    ]
    return Detail(
        f"Where a node's time goes at {IMPULSES_PER_S:g} impulses/s, of one core",
        ("stage", "ms a second of sound", "% of all"),
        tuple(rows),
    )


def _stages(whole: Passed) -> list[tuple[str, float]]:
    """Give processor seconds a second of sound, by stage, the dearest first."""
    first, last = whole.course[0], whole.course[-1]
    heard_s = (last.end_sample - first.end_sample) / RATE_HZ
    spent = {
        stage: (s - first.stages_s.get(stage, 0.0)) / heard_s for stage, s in last.stages_s.items()
    }
    hearing = (last.hearing_s - first.hearing_s) / heard_s
    process = (last.process_s - first.process_s) / heard_s
    spent["the rest of the thread that hears"] = hearing - sum(spent.values())
    spent["other threads: card, sender"] = process - hearing
    return sorted(spent.items(), key=lambda one: -one[1])


def _by_share(name: str, how: str, passed: Sequence[Passed]) -> Detail:
    columns = (
        "% of a core", "took %", "lost s", "queue full s", "behind at most s", "at the end s",
        "event told after, median s", "worst s", "abstained %",
        "shots", "found", "inside an event", "timed", "graded",
    )  # fmt: skip
    rows = [
        (
            f"{100 * p.share:g}",
            f"{100 * p.cores:.1f}",
            f"{p.lost_s:.1f}",
            f"{p.starved_s:.1f}",
            f"{p.most_behind_s:.1f}",
            f"{p.behind_s:.1f}",
            f"{np.median(p.waits_s):.1f}" if p.waits_s else "–",
            f"{max(p.waits_s):.1f}" if p.waits_s else "–",
            f"{100 * p.abstained:.0f}",
            *(str(n) for n in (p.shots.fired, p.shots.found, p.shots.inside)),
            *(str(n) for n in (p.shots.timed, p.shots.graded)),
        )
        for p in passed
    ]
    title = f"{name} in real time, the processor held back by {how}"
    return Detail(title, columns, tuple(rows))


def _draw_behind(axes: Any, passed: Sequence[Passed]) -> None:
    for one in passed:
        begun_s = one.course[0].monotonic_s
        axes.plot(
            [at.monotonic_s - begun_s for at in one.course],
            [at.behind_s for at in one.course],
            label=f"{100 * one.share:g} % of a core",
        )
    axes.axhline(QUEUE_S, linestyle=":", color="gray")
    axes.set(
        title=f"New Year's Eve, {IMPULSES_PER_S:g} impulses/s: how far the pipeline is behind",
        xlabel="seconds",
        ylabel="seconds behind the card",
    )
    axes.legend(loc="upper left")
    axes.grid(visible=True, alpha=0.3)


def _draw_stages(axes: Any, whole: Passed) -> None:
    names, spent = zip(*reversed(_stages(whole)), strict=True)
    axes.barh(names, [1e3 * s for s in spent])
    axes.set(title="where a node's time goes", xlabel="ms of a core, a second of sound")
