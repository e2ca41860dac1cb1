"""The collector passes over what stays, and still takes what has become garbage."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from multiprocessing import Pipe

import pytest

from node.network import garbage
from node.network.garbage import Garbage
from tests.unit.locating import NotingLocator, serve_here


@pytest.fixture(autouse=True)
def _thawed() -> Iterator[None]:
    gc.disable()
    yield
    gc.unfreeze()
    gc.enable()


class Clock:
    """A clock that is put on by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(garbage, "time", made)
    return made


class Knot:
    """Something that holds itself."""

    def __init__(self) -> None:
        self.itself = self


def tied() -> weakref.ref[Knot]:
    return weakref.ref(Knot())


def kept(count: int) -> list[list[int]]:
    return [[at] for at in range(count)]


def test_what_is_remembered_is_looked_through_no_more() -> None:
    gc.collect()
    before = gc.get_freeze_count()
    remembered = kept(1000)
    Garbage().tidy()
    assert gc.get_freeze_count() >= before + len(remembered)


def test_cycles_of_the_last_second_are_collected(clock: Clock) -> None:
    tidying = Garbage()
    tidying.tidy()
    gone = tied()
    assert gone() is not None
    clock.now_s += 1.0
    tidying.tidy()
    assert gone() is None


def test_it_is_done_once_a_second_however_often_it_is_asked_for(clock: Clock) -> None:
    tidying = Garbage()
    tidying.tidy()
    frozen = gc.get_freeze_count()
    remembered, gone = kept(1000), tied()
    for _ in range(9):
        clock.now_s += 0.1
        tidying.tidy()
    assert gone() is not None
    assert gc.get_freeze_count() < frozen + len(remembered)
    clock.now_s += 0.2
    tidying.tidy()
    assert gone() is None
    assert gc.get_freeze_count() >= frozen + len(remembered)


def test_the_first_time_is_at_once() -> None:
    gone = tied()
    Garbage().tidy()
    assert gone() is None


def test_a_locators_process_tidies_when_it_has_done_what_was_ordered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    orders, ours = Pipe(duplex=False)
    theirs, answers = Pipe(duplex=False)
    ours.send([("tick", (7,))])
    ours.close()
    gone = tied()
    frozen = gc.get_freeze_count()
    remembered = kept(1000)
    serve_here(monkeypatch, orders, answers, NotingLocator)
    assert gone() is None
    assert gc.get_freeze_count() >= frozen + len(remembered)
    for end in (orders, theirs, answers):
        end.close()
