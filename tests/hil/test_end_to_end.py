"""From the microphone to the message: how far published times are off, end to end.

Impulses are heard at moments that are known to nanoseconds; their published times are set beside
them. What is constant is measured in one run and taken off in others, each with a stream of its
own: a converter may begin anywhere within a block.

Wire for a rig: its player into the inputs of the microphones (docs/do/build-a-rig.md).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from node.detect import Detector
from node.settings import DetectSettings
from node.simulate.render import RenderedNode
from node.types import Block
from tests.hil import suite
from tests.hil.bench import Bench
from tests.hil.container import NODE
from tests.hil.ear import onset_utc_ns
from tests.hil.end_to_end import CONSTANT_US, P99_US, p99_us
from tests.hil.fault import IN_HAND_S, wait_until_well
from tests.hil.rig_bench import RigBench
from tests.hil.unit_stage import RATE, Installed
from tests.hil.virtual_bench import HEARD_FROM_M, impulses, street, virtual_bench

LISTEN_S = (60.0, 100.0)
"""In the run to calibrate by, and in the one that is measured."""
CALIBRATED_S = 20.0
"""After which a clock has seen as much as it ever weighs."""
SAME_NS = 0.1e9
MICROPHONES, BLOCK = 4, 4096
METHODS = {True: "pulse in a channel", False: "host's time stamps"}
"""By whether there is a pulse."""


@dataclass(frozen=True)
class Heard:
    """What was published of impulses.

    Attributes
    ----------
    errors_ns
        By how much each published time is off.
    due, missed
        Impulses whose times should have come, and those of them that none was near.
    """

    errors_ns: list[float]
    due: int
    missed: int


def listen(bench: Bench, seconds: float) -> Heard:
    """Set what is published in so many seconds beside the impulses."""
    began_ns, began_s = time.time_ns(), time.monotonic()
    time.sleep(seconds)
    published = np.array(
        [onset_utc_ns(d) for d in bench.ear.detections(began_s) if d.revision == 0]
    )
    ended_ns, in_hand_ns = time.time_ns(), round(IN_HAND_S * 1e9)
    onsets = np.array(bench.onsets_utc_ns(began_ns - in_hand_ns, ended_ns))
    off = published[:, np.newaxis] - onsets
    nearest = off[np.arange(len(off)), np.argmin(np.abs(off), axis=1)]
    is_due = (onsets > began_ns) & (onsets < ended_ns - in_hand_ns)
    came = np.any(np.abs(off) < SAME_NS, axis=0)
    return Heard(
        nearest[np.abs(nearest) < SAME_NS].tolist(),
        due=int(np.sum(is_due)),
        missed=int(np.sum(is_due & ~came)),
    )


def trigger_errors_us(sound: RenderedNode) -> list[float]:
    """Give by how much the trigger alone errs on the same impulses."""
    frames = np.asarray(sound.frames(), np.int32)[:, :MICROPHONES]
    detector = Detector(DetectSettings(), RATE, MICROPHONES)
    events = [
        event
        for first in range(0, len(frames), BLOCK)
        for event in detector.push(Block(first, frames[first : first + BLOCK], RATE))
    ]
    onsets = np.array([e.impulses[0].onset_sample for e in (*events, *detector.flush())])
    true = np.array([arrival.sample for arrival in sound.arrivals()])
    errors = onsets[:, np.newaxis] - true
    nearest = errors[np.arange(len(onsets)), np.argmin(np.abs(errors), axis=1)]
    near = nearest[np.abs(nearest) < SAME_NS * RATE / 1e9]
    return (near / RATE * 1e6).tolist()


@contextmanager
def hearing_impulses(
    rig: RigBench | None, request: pytest.FixtureRequest, *, pulse: bool
) -> Iterator[Bench]:
    """Have a node hear impulses, on the rig or on a bench of their own."""
    if rig is None:
        product: Installed = request.getfixturevalue("product")
        plugin: Path = request.getfixturevalue("wavclock_plugin")
        named, sound = f"timing-{pulse:d}", impulses(pulse=pulse)
        with virtual_bench(named, product, plugin, pulse=pulse, sound=sound) as bench:
            yield bench
    elif pulse != rig.pulse_in_channel:
        has = "has" if rig.pulse_in_channel else "does not have"
        pytest.skip(f"the rig's node {has} the pulse in a channel of its card")
    else:
        rig.hear(impulses(pulse=False))
        try:
            yield rig
        finally:
            rig.hear(street(pulse=False))


@pytest.mark.hil
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "pulse",
    [pytest.param(pulse, id=method) for pulse, method in METHODS.items()],
)
def test_published_times_are_right_end_to_end(
    rig: RigBench | None, request: pytest.FixtureRequest, pulse: bool
) -> None:
    runs = []
    with hearing_impulses(rig, request, pulse=pulse) as bench:
        for run, seconds in enumerate(LISTEN_S):
            if run:
                bench.machine.systemctl("restart", NODE)
                time.sleep(3.0)  # else it is still well
            wait_until_well(bench)
            time.sleep(CALIBRATED_S)
            runs.append(listen(bench, seconds))
    constant = float(np.mean(runs[0].errors_ns))
    errors = np.array(runs[1].errors_ns) - constant
    figures = {
        "pulse": pulse,
        "method": METHODS[pulse],
        "constant_us": constant / 1e3,
        "errors_us": (errors / 1e3).tolist(),
        "mean_us": float(np.mean(errors)) / 1e3,
        "sigma_us": float(np.std(errors)) / 1e3,
        "p99_us": p99_us(errors / 1e3),
        "worst_us": float(np.max(np.abs(errors))) / 1e3,
        "due": runs[1].due,
        "missed": runs[1].missed,
    }
    suite.record(f"timing-{1 - pulse}", figures)
    print({name: figure for name, figure in figures.items() if name != "errors_us"})
    assert figures["due"] >= 40
    assert not figures["missed"], figures
    assert abs(figures["constant_us"]) <= CONSTANT_US, figures
    if pulse:
        assert figures["p99_us"] <= P99_US, figures
    assert abs(figures["mean_us"]) <= 50.0, figures
    assert figures["sigma_us"] <= 20.0, figures


@pytest.mark.hil
@pytest.mark.timeout(300)
def test_the_trigger_alone_errs_less_than_the_way_to_the_message_may() -> None:
    errors_us = {
        range_m: trigger_errors_us(impulses(pulse=False, range_m=range_m))
        for range_m in (80, HEARD_FROM_M, 300)
    }
    suite.record("trigger", {"trigger_us": errors_us})
    errors = np.array(errors_us[HEARD_FROM_M])
    assert p99_us(errors - np.mean(errors)) <= P99_US
