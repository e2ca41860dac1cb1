"""New Year's Eve at one node: ten impulses a second, shots among them, and ever less processor.

Nodes with the real daemon hear the same display in real time, each from a virtual sound card of its
own, through PortAudio, and publish to a Mosquitto on loopback. First all have a core, for one turn
of the display, which tells what a node needs on this machine; then one goes on so, and the others
have some multiple of that need, all at the same time: a share of a core would be more work on one
machine than on the next. Known is when each shot reaches the microphone; a node's card goes on
whether it is heard or not, so that what a node does not fetch in time is lost and counted.
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
from tests.hil.load.display import IMPULSES_PER_S, LOOP_S, RATE_HZ, Display, display
from tests.hil.load.stage import At, LoadedNode, Need, Record, Shots, follow, heard_s, need
from tests.hil.virtual_card import build_plugin, missing_tools
from tests.parts import Part, Tell

ENOUGH: Final = (3.0, 1.5, 0.7)
"""What nodes have, in multiples of what one needs: with less than one they shed."""
TOO_LITTLE: Final = 0.5
"""Less than what is never shed: what comes of it is shown, and has no bar."""
SECONDS: Final = 90.0
SETTLE_S: Final = 6.0
# An event is told once it is heard out: 4 s, and the second of sound after it.
MOST_BEHIND_S: Final = 1.0
FALLS_BEHIND_S: Final = 10.0
"""What waits by then still shrinks; the queue holds 30 s."""


@dataclass(frozen=True)
class Passed:
    """What came of a node.

    Attributes
    ----------
    times
        What it had, in multiples of what one needs; None if nothing held it back.
    needs
        What one needs.
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

    times: float | None
    needs: Need
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
    """Measure nodes with a whole core, and with multiples of what they need of one."""
    return night(SECONDS, tell)


def night(seconds: float, tell: Tell) -> Part:
    """Measure them for so long."""
    if (tool := missing_tools()) is not None:
        raise RuntimeError(f"the virtual card needs {tool}")
    tell("new year: rendering the display")
    sound = display()
    how, passed = through_the_night(sound, (None, *ENOUGH, TOO_LITTLE), seconds, tell)
    whole, *enough, too_little = passed
    name = f"{seconds:g} s of New Year's Eve"
    return Part(
        (*_of_whole(name, whole), *_of_enough(name, enough), *_of_too_little(name, too_little)),
        (_where_time_goes(whole), _side_by_side(name, how, passed)),
        draws=(lambda axes: _draw_behind(axes, passed), lambda axes: _draw_stages(axes, whole)),
    )


def through_the_night(
    sound: Display, times: Sequence[float | None], seconds: float, tell: Tell
) -> tuple[str, list[Passed]]:
    """Let nodes with multiples of what they need hear a display, all at the same time.

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
                LoadedNode(folder / str(i), f"node-{i}", sound.frames, plugin, broker.url)
            )
            for i in range(len(times))
        ]
        for one in nodes:
            one.wait_until_it_hears()
        time.sleep(SETTLE_S)
        tell(f"new year: {LOOP_S} s to see what a node needs")
        settled_s = time.monotonic()
        time.sleep(LOOP_S)
        needs = _mean([one.need_since(settled_s) for one in nodes])
        begun_s = time.monotonic()
        psutil.cpu_percent()
        for one, of in zip(nodes, times, strict=True):
            if of is not None:
                how = one.slow_down(Need(of * needs.hearing_s, of * needs.process_s))
        received: dict[tuple[str, str, int], float] = {}
        while (left_s := begun_s + seconds - time.monotonic()) > 0:
            tell(f"new year: {seconds - left_s:.0f} of {seconds:g} s")
            _take(words, min(left_s, 1.0), received)
        ended_s = time.monotonic()
        busy = f"the machine {psutil.cpu_percent():.0f} % busy in all"
        records = [one.end() for one in nodes]
        _take(words, 2.0, received)
    return f"{how}; {busy}", [
        _passed(sound, (of, needs), record, f"node-{i}", received, (begun_s, ended_s))
        for i, (of, record) in enumerate(zip(times, records, strict=True))
    ]


def _mean(needs: Sequence[Need]) -> Need:
    return Need(
        float(np.mean([one.hearing_s for one in needs])),
        float(np.mean([one.process_s for one in needs])),
    )


def _take(words: Subscription, seconds: float, into: dict[tuple[str, str, int], float]) -> None:
    """Note when detections come, on the machine's monotonic clock."""
    for word in words.within(seconds):
        said: Any = word.message
        into[said.node_id, said.event_id, said.revision] = time.monotonic()


def _passed(
    sound: Display,
    had: tuple[float | None, Need],
    record: Record,
    name: str,
    received: dict[tuple[str, str, int], float],
    watch_s: tuple[float, float],
) -> Passed:
    begun_s, ended_s = watch_s
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
        times=had[0],
        needs=had[1],
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
    return (
        Claim(f"{where}: samples lost", whole.lost_s * RATE_HZ, "", "0", whole.lost_s == 0),
        Claim(
            f"{where}: pipeline behind the card, at most",
            whole.most_behind_s,
            "s",
            f"≤ {MOST_BEHIND_S:g}",
            whole.most_behind_s <= MOST_BEHIND_S,
        ),
        Claim(f"{where}: processor time", need(whole.course).process_s, "s/s"),
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


def _published(where: str, shots: Shots, bar: str = "100") -> Claim:
    return Claim(
        f"{where}: shots inside a published event",
        100 * shots.inside / shots.fired,
        f"% of {shots.fired}",
        bar,
        not bar or shots.inside == shots.fired,
    )


def _of_enough(name: str, passed: Sequence[Passed]) -> list[Claim]:
    claims = []
    for one in passed:
        of = _with(name, one)
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
    what = f"{_with(name, passed[-1])}: it sheds"
    return [*claims, Claim(what, shed, "events", "> 0", shed > 0)]


def _of_too_little(name: str, one: Passed) -> list[Claim]:
    of = _with(name, one)
    return [
        Claim(f"{of}: sound lost to a full queue", one.starved_s, "s"),
        Claim(f"{of}: behind the card in the end", one.behind_s, "s"),
        _published(of, one.shots, bar=""),
    ]


def _with(name: str, one: Passed) -> str:
    return f"{name} with {one.times:g} × the processor time it needs"


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
    spent = {
        stage: (s - first.stages_s.get(stage, 0.0)) / heard_s(whole.course)
        for stage, s in last.stages_s.items()
    }
    took = need(whole.course)
    spent["the rest of the thread that hears"] = took.hearing_s - sum(spent.values())
    spent["other threads: card, sender"] = took.process_s - took.hearing_s
    return sorted(spent.items(), key=lambda one: -one[1])


def _side_by_side(name: str, how: str, passed: Sequence[Passed]) -> Detail:
    columns = (
        "× its need", "took % of a core", "lost s", "queue full s", "behind at most s",
        "at the end s", "event told after, median s", "worst s", "abstained %",
        "shots", "found", "inside an event", "timed", "graded",
    )  # fmt: skip
    rows = [
        (
            "all" if p.times is None else f"{p.times:g}",
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
    needs = passed[0].needs
    title = (
        f"{name} in real time; a second of sound needs {1e3 * needs.hearing_s:.0f} ms of the "
        f"thread that hears, {1e3 * needs.process_s:.0f} of all; held back by {how}"
    )
    return Detail(title, columns, tuple(rows))


def _draw_behind(axes: Any, passed: Sequence[Passed]) -> None:
    for one in passed:
        begun_s = one.course[0].monotonic_s
        axes.plot(
            [at.monotonic_s - begun_s for at in one.course],
            [at.behind_s for at in one.course],
            label="a whole core" if one.times is None else f"{one.times:g} × its need",
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
