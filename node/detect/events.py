"""Which impulses are one event: a burst with its echoes, ended by quiet or by its length."""

from __future__ import annotations

from typing import Final

from node.types import Event, Impulse

# An impulse is judged on so much sound before it; frames lost there count as lost to its event.
LEAD_S: Final = 0.25


class EventGrouper:
    """Collects impulses and gives events as soon as nothing can join them any more."""

    def __init__(self, gap_frames: int, event_frames: int, lead_frames: int) -> None:
        self._gap = gap_frames
        self._longest = event_frames
        self._lead = lead_frames
        self._impulses: list[Impulse] = []
        self._losses: list[tuple[int, int]] = []

    @property
    def first_onset(self) -> float | None:
        """The first onset of the event that is still open; None where none is."""
        return self._impulses[0].onset_sample if self._impulses else None

    def lose(self, at_sample: int, frames: int) -> None:
        """Note that `frames` are missing before `at_sample`."""
        self._losses.append((at_sample, frames))

    def add(self, impulse: Impulse) -> list[Event]:
        """Take the next impulse; give the event before it if it does not belong to that one."""
        closed: list[Event] = []
        if self._impulses and (
            impulse.onset_sample - self._impulses[-1].onset_sample > self._gap
            or impulse.onset_sample - self._impulses[0].onset_sample > self._longest
        ):
            closed = self.close()
        self._impulses.append(impulse)
        return closed

    def advance(self, to_sample: int) -> list[Event]:
        """Say that no further impulse comes before `to_sample`."""
        if self._impulses:
            if to_sample - self._impulses[-1].onset_sample > self._gap:
                return self.close()
        else:
            self._losses = [loss for loss in self._losses if loss[0] >= to_sample - self._lead]
        return []

    def close(self) -> list[Event]:
        """Give the open event, if there is one."""
        if not self._impulses:
            return []
        first = self._impulses[0].onset_sample - self._lead
        last = self._impulses[-1].onset_sample
        lost = sum(frames for at, frames in self._losses if first <= at <= last + self._gap)
        event = Event(tuple(self._impulses), lost)
        self._impulses = []
        self._losses = [loss for loss in self._losses if loss[0] >= last - self._lead]
        return [event]

    def restart(self) -> list[Event]:
        """Give the open event and forget every loss: sample indices mean something else now."""
        closed = self.close()
        self._losses = []
        return closed
