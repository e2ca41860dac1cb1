"""Pictures of a soak: what was looked at, over the time that the node heard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from tests.hil.soak.judge import DAY_S, HOUR_S, MB, Outcome, memory_growth, warm_up_s
from tests.hil.soak.series import Sample, column
from tests.parts import COLUMNS, Draw

_AWAY: Final = "0.9"
_CLOCKS: Final = {"pps": "tab:green", "gps": "tab:olive", "ntp": "tab:orange", "free": "tab:red"}


def pictures(outcome: Outcome, samples: Sequence[Sample]) -> tuple[Draw, ...]:
    """Give what draws them."""
    drawn: tuple[Callable[[Outcome, Sequence[Sample], Any], None], ...] = (
        _memory, _counts, _outbox, _messages, _cpu, _clock,
    )  # fmt: skip
    return tuple(partial(draw, outcome, samples) for draw in drawn)


def save(draws: Sequence[Draw], file: Path) -> None:
    """Draw pictures into one file, as those of other targets are (tests/parts.py)."""
    rows = -(-len(draws) // COLUMNS)
    figure = Figure(figsize=(7 * COLUMNS, 4.2 * rows), layout="constrained")
    for draw, axes in zip(draws, figure.subplots(rows, COLUMNS).ravel(), strict=True):
        draw(axes)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=80)


def _memory(outcome: Outcome, samples: Sequence[Sample], axes: Any) -> None:
    hours = _frame(outcome, samples, axes, "Memory of the node", "MB")
    anonymous = np.array(column(samples, "anonymous_bytes")) / MB
    axes.plot(hours, np.array(column(samples, "resident_bytes")) / MB, label="in all")
    axes.plot(hours, anonymous, label="its own alone")
    grown, unit, bar = memory_growth(outcome, samples, "anonymous_bytes")
    if grown.stretches:
        span_h = np.array([warm_up_s(outcome.heard_s), outcome.heard_s]) / HOUR_S
        middle = np.median(anonymous[hours >= span_h[0]])
        span = np.ptp(span_h) * HOUR_S / DAY_S if unit == "MB a day" else 1.0
        line = middle + np.array([-0.5, 0.5]) * span * grown.per_day
        said = f"{grown.per_day:+.2f} {unit} ({grown.low:.2f} to {grown.high:.2f})"
        axes.plot(span_h, line, "k--", label=f"{said}; ≤ {bar:g} is asked")
    axes.set_ylim(bottom=0)
    axes.legend(loc="lower right")


def _counts(outcome: Outcome, samples: Sequence[Sample], axes: Any) -> None:
    hours = _frame(outcome, samples, axes, "Descriptors and threads of the node", "")
    for name in ("descriptors", "threads"):
        axes.plot(hours, column(samples, name), drawstyle="steps-post", label=name)
    axes.set_ylim(bottom=0)
    axes.legend(loc="lower right")


def _outbox(outcome: Outcome, samples: Sequence[Sample], axes: Any) -> None:
    hours = _frame(outcome, samples, axes, "Outbox (grey: the broker is away)", "detections")
    axes.plot(hours, column(samples, "outbox_depth"), label="wait")
    axes.legend(loc="upper left")
    size = axes.twinx()
    megabytes = np.array(column(samples, "outbox_bytes")) / MB
    size.plot(hours, megabytes, color="tab:red", label="on disk")
    size.set_ylabel("MB")
    size.set_ylim(bottom=0)
    size.legend(loc="upper right")


def _messages(outcome: Outcome, samples: Sequence[Sample], axes: Any) -> None:
    hours = _frame(outcome, samples, axes, "Detections", "")
    axes.plot(hours, column(samples, "received"), label="received")
    axes.plot(hours, column(samples, "again"), label="copies that came again")
    axes.plot(hours, column(samples, "missing"), label="under way, below the highest number")
    axes.legend(loc="upper left")


def _cpu(outcome: Outcome, samples: Sequence[Sample], axes: Any) -> None:
    hours = _frame(outcome, samples, axes, "CPU of the node", "s for each hour heard")
    at_s, cpu_s = np.array(column(samples, "at_s")), np.array(column(samples, "cpu_s"))
    # Over pieces of a hundredth: a clock of hundredths of a second is too coarse for less.
    step = max(1, len(at_s) // 100)
    if len(at_s) > step:
        heard_s, spent_s = at_s[step::step] - at_s[:-step:step], np.diff(cpu_s[::step])
        axes.plot(hours[step::step], spent_s / heard_s[: len(spent_s)] * HOUR_S)
    axes.set_ylim(bottom=0)


def _clock(outcome: Outcome, samples: Sequence[Sample], axes: Any) -> None:
    hours = _frame(outcome, samples, axes, "The clock's σ, by what it rests on", "s")
    sigma_s = np.array(column(samples, "clock_sigma_s"))
    sources = np.array([sample.clock_source for sample in samples])
    for source, colour in _CLOCKS.items():
        if (of := sources == source).any():
            axes.scatter(hours[of], sigma_s[of], s=3, color=colour, label=source)
    axes.set_yscale("log")
    axes.legend(loc="upper right", markerscale=4)


def _frame(
    outcome: Outcome, samples: Sequence[Sample], axes: Any, title: str, label: str
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Title and label a picture, shade where the broker was away, and give the hours."""
    hours = np.array(column(samples, "at_s")) / HOUR_S
    away = np.array(column(samples, "broker_bytes")) == 0
    edges = np.flatnonzero(np.diff(np.concatenate(([False], away, [False])).astype(int)))
    for first, end in edges.reshape(-1, 2):
        axes.axvspan(hours[first], hours[min(end, len(hours) - 1)], color=_AWAY, linewidth=0)
    axes.set_title(title)
    axes.set_xlabel("hours heard")
    axes.set_ylabel(label)
    return hours
