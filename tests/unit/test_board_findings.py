"""The registry of checks: order, worst first, and what the one light says of many."""

import threading

import pytest

from node.board.findings import CHECKS, Book, Finding, condition, light_code
from node.board.light import Code


def test_every_check_that_is_not_well_has_a_light_and_a_next_step() -> None:
    for name, check in CHECKS.items():
        for verdict, code in (("warn", check.warn), ("fail", check.fail)):
            finding = Finding(name, verdict, "7")  # type: ignore[arg-type]
            assert finding.next_step, name
            assert code.is_fault or code is Code.MAINTENANCE, name
            assert finding.code is code


def test_what_is_well_needs_no_next_step() -> None:
    assert Finding("clock", "pass", "pps", "nothing").next_step == ""
    assert Finding("clock", "pass", "pps").code is Code.WELL


def test_what_whoever_measured_advises_goes_before_the_registry() -> None:
    assert Finding("clock", "warn", "free", "buy one").next_step == "buy one"


def test_a_check_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="no check of the registry"):
        Finding("weather", "pass", "fine")


def test_the_condition_is_the_worst_that_was_found() -> None:
    well, odd, bad = (Finding("clock", v, "7") for v in ("pass", "warn", "fail"))  # type: ignore[arg-type]
    assert condition([]) == condition([well]) == "ok"
    assert condition([well, odd]) == "degraded"
    assert condition([odd, bad, well]) == "failed"


def test_the_light_shows_what_keeps_from_hearing_before_all_else() -> None:
    broker = Finding("broker", "warn", "away")
    card = Finding("sound card", "fail", "gone")
    working = Finding("maintenance", "warn", "somebody works at the node")
    assert light_code([]) is Code.WELL
    assert light_code([broker]) is Code.NO_BROKER
    assert light_code([broker, working]) is Code.MAINTENANCE
    assert light_code([broker, working, card]) is Code.SOUND_CARD


def test_a_book_gives_its_findings_in_the_order_in_which_a_sound_passes() -> None:
    book = Book()
    book.warn("broker", "away")
    book.settle("clock", "pps")
    book.write(Finding("microphone", "warn", "silent", which="2"))
    book.write(Finding("microphone", "pass", "-60 dBFS", which="0"))
    book.fail("sound card", "gone")
    assert [f.name for f in book] == [
        "sound card",
        "microphone 0",
        "microphone 2",
        "clock",
        "broker",
    ]
    assert [f.name for f in book.wrong()] == ["sound card", "microphone 2", "broker"]


def test_a_finding_takes_the_place_of_the_one_before() -> None:
    book = Book()
    book.judge("clock", "nothing disciplines it", "free")
    assert book.says("clock") == "nothing disciplines it"
    book.judge("clock", "", "pps")
    assert book.says("clock") == ""
    assert [f.figure for f in book] == ["pps"]
    book.settle("clock")
    assert list(book) == []


def test_a_book_is_read_on_one_thread_while_it_is_written_on_another() -> None:
    book, done = Book(), threading.Event()

    def write() -> None:
        for i in range(20_000):
            book.write(Finding("microphone", "pass", "-60 dBFS", which=str(i % 50)))
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert len(book.wrong()) == 0
    writer.join()
