"""The daemon's own rules, without a card or a broker: what it publishes, and when it says so."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import numpy as np
import pytest

from node.board import Code
from node.capture import SimulatedSource
from node.daemon import NEAR_SETTLED_S, REWORD_S, STATUS_S, TELL_LOSS_S, Daemon
from node.deliver import Appended, Delivery, MqttPublisher, Outbox, Rendered
from node.deliver.database import outbox_error
from node.detect import ChannelOrder
from node.detect.near import ShortOfTrigger
from node.detect.order import OrderState
from node.keeper import MOST_PUBLISHED, SAVE_S
from node.messages import Detection, parse_status
from node.pipeline import Pipeline
from node.settings import Settings
from node.timing import FakeHostClock, Fix, ReceiverState
from node.types import Block, ClockQuality, ClockSource, Instant
from tests.unit.test_pipeline import run, street

DAY_NS = 86_400 * 10**9
HOST = FakeHostClock(10**18, ClockQuality("ntp", 1e-3))
SILENCE = np.zeros((48_000, 1), np.int16)


def daemon(folder: Path, **sections: dict[str, Any]) -> Daemon:
    settings = Settings.model_validate(
        {
            "node": {"id": "roof-1", "site": "test"},
            "capture": {"channels": 1},
            "timing": {"chrony": False},
            "outbox": {"path": folder / "outbox.sqlite3"},
            "integrity": {"key_file": folder / "node.key"},
        }
        | sections
    )
    return Daemon(settings, SimulatedSource(SILENCE, 48_000, paced=False), HOST)


@pytest.fixture(scope="module")
def shot() -> Detection:
    (detection,), _ = run(street((1.0,)), [], "gunfire")
    return detection


def revised(detection: Detection, revision: int, grade: str) -> Detection:
    change = {"revision": revision, "type": "update" if revision else "new", "grade": grade}
    return detection.model_copy(update=change)


@pytest.mark.parametrize(
    ("grades", "published"),
    [
        (("gunfire", "not_gunfire"), [0, 1]),
        (("gunfire", "not_gunfire", "not_gunfire"), [0, 1, 2]),
        (("not_gunfire",), []),
        (("not_gunfire", "gunfire"), [1]),
        (("not_gunfire", "not_gunfire", "probable_gunfire", "not_gunfire"), [2, 3]),
    ],
)
def test_a_verdict_is_taken_back_wherever_it_was_published(
    tmp_path: Path, shot: Detection, grades: tuple[str, ...], published: list[int]
) -> None:
    keeper = daemon(tmp_path, classify={"publish_rejected": False})._keeper
    keeper.take([revised(shot, i, grade) for i, grade in enumerate(grades)])
    assert [d.revision for d in keeper._unsaved] == published


def test_of_events_long_ago_it_is_forgotten_that_they_were_published(
    tmp_path: Path, shot: Detection
) -> None:
    keeper = daemon(tmp_path, classify={"publish_rejected": False})._keeper
    for i in range(MOST_PUBLISHED + 10):
        keeper.take([shot.model_copy(update={"event_id": str(i)})])
    assert len(keeper._published) == MOST_PUBLISHED


def test_a_node_stopped_before_anything_was_read_says_so_and_leaves(tmp_path: Path) -> None:
    # It ended with an error, of which systemd makes a restart, and of many a reboot.
    node = daemon(tmp_path, capture={"channels": 2}, timing={"chrony": False, "pps_channel": 1})
    node.stop()
    node.run()


def test_a_pulse_in_another_channel_is_a_fault_of_the_order_alone(tmp_path: Path) -> None:
    node = daemon(tmp_path, capture={"channels": 2}, timing={"chrony": False, "pps_channel": 1})
    node._read_clock()
    assert [f.check for f in node._book.wrong()] == ["pulse", "clock"]
    state = OrderState(proven=False, reason="the pulse is in channel 0")
    node._ears.order = create_autospec(ChannelOrder, instance=True, state=state)
    node._judge(node._timekeeper.read())
    assert [f.check for f in node._book.wrong()] == ["channel order", "clock"]


@pytest.mark.parametrize(
    ("code", "verdict", "light"),
    [(sqlite3.SQLITE_FULL, "warn", Code.STORE), (sqlite3.SQLITE_IOERR, "fail", Code.DISK)],
)
def test_what_cannot_be_kept_is_told_by_what_mends_it_until_it_is_kept(
    tmp_path: Path, shot: Detection, code: int, verdict: str, light: Code
) -> None:
    cause = sqlite3.OperationalError("refused")
    cause.sqlite_errorcode = code
    node = daemon(tmp_path)
    outbox = create_autospec(Outbox, instance=True, depth=0, dropped=0)
    error = outbox_error(Path("outbox"), cause)
    error.__cause__ = cause
    outbox.append.side_effect = error
    node._keeper.take([shot])
    node._keeper.save(outbox, lambda *_: Rendered(b""))
    (told,) = node._book.wrong()
    assert (told.check, told.verdict, told.code) == ("outbox", verdict, light)
    outbox.append.side_effect = None
    outbox.append.return_value = Appended(1, is_new=True)
    node._keeper.save(outbox, lambda *_: Rendered(b""))
    assert list(node._book.wrong()) != []  # not with every block
    node._keeper.save(outbox, lambda *_: Rendered(b""), last=True)
    assert list(node._book.wrong()) == []


def test_a_backlog_is_written_between_blocks_of_sound_and_whole_at_the_end(
    tmp_path: Path, shot: Detection, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 1e6

    def slow(*_: object) -> Appended:
        nonlocal now_s
        now_s += SAVE_S / 4
        return Appended(1, is_new=True)

    monkeypatch.setattr("node.keeper.time", SimpleNamespace(monotonic=lambda: now_s))
    node = daemon(tmp_path)
    outbox = create_autospec(Outbox, instance=True, depth=0, dropped=0)
    outbox.append.side_effect = slow
    node._keeper.take([revised(shot, n, "gunfire") for n in range(20)])
    for _ in range(10):
        node._keeper.save(outbox, lambda *_: Rendered(b""))
    assert outbox.append.call_count == 4
    now_s += SAVE_S
    node._keeper.save(outbox, lambda *_: Rendered(b""))
    assert outbox.append.call_count == 8
    node._keeper.save(outbox, lambda *_: Rendered(b""), last=True)
    assert outbox.append.call_count == 20


class Hour:
    """A clock to be turned by hand, an outbox, and all the statuses that are said."""

    def __init__(self, node: Daemon, outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
        node._read_clock()
        for finding in tuple(node._book):
            node._book.settle(finding.check)
        self.now_s = time.monotonic()
        monkeypatch.setattr("node.daemon.time", SimpleNamespace(monotonic=lambda: self.now_s))
        self.node = node
        self.outbox = outbox
        self.publisher = create_autospec(MqttPublisher, instance=True)
        self.publisher.delivery.return_value = Delivery(True, (), 0, 0)
        self.said: list[tuple[float, tuple[str, ...]]] = []

    def tell(self) -> None:
        """Let the node say its status, if it has a reason to."""
        self.publisher.set_status.reset_mock()
        self.node._tell(self.outbox, self.publisher)
        for call in self.publisher.set_status.call_args_list:
            self.said.append((self.now_s, parse_status(call.args[0]).reasons))


@pytest.fixture
def hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hour]:
    with Outbox(tmp_path / "outbox.sqlite3", 2**20) as outbox:
        yield Hour(daemon(tmp_path), outbox, monkeypatch)


def test_a_reason_that_counts_seconds_is_not_a_status_a_second(hour: Hour) -> None:
    for second in range(60):
        hour.node._book.warn("clock", f"the receiver has been silent for {second} s")
        hour.tell()
        hour.now_s += 1
    assert len(hour.said) == 60 / REWORD_S
    assert hour.said[1][1] == (f"the receiver has been silent for {REWORD_S:.0f} s",)


def test_a_trouble_that_comes_or_goes_is_told_at_once(hour: Hour) -> None:
    hour.tell()
    hour.now_s += 1
    hour.node._book.warn("channel order", "no direction is told")
    hour.tell()
    hour.now_s += 1
    hour.publisher.delivery.return_value = Delivery(True, ("1 refused",), 0, 0)
    hour.tell()
    hour.now_s += 1
    hour.node._book.settle("channel order")
    hour.tell()
    assert [reasons for _, reasons in hour.said] == [
        (),
        ("no direction is told",),
        ("no direction is told", "1 refused"),
        ("1 refused",),
    ]


def test_another_source_of_the_clock_is_told_at_once(hour: Hour) -> None:
    hour.tell()
    hour.now_s += 1
    gps = replace(HOST.read(), quality=ClockQuality("gps", 1e-5))
    hour.node._ears.clock.observe_host(gps)
    hour.tell()
    assert len(hour.said) == 2


def test_a_status_without_news_is_said_once_a_minute(hour: Hour) -> None:
    for _ in range(round(3 * STATUS_S)):
        hour.tell()
        hour.now_s += 1
    after_s = [at_s - hour.said[0][0] for at_s, _ in hour.said]
    assert after_s == pytest.approx([0, STATUS_S, 2 * STATUS_S], abs=1e-3)


ULAANBAATAR = Fix(lat_deg=47.9, lon_deg=106.9, alt_m=1350.0, sigma_m=3.0)


def test_a_place_that_was_not_surveyed_is_the_receivers(tmp_path: Path) -> None:
    node = daemon(tmp_path)
    node._place(ULAANBAATAR)
    assert node._origin.position is not None
    assert node._origin.position.alt_m == 1350.0


@pytest.mark.parametrize(
    "odd",
    [
        {"alt_m": 9300.0},
        {"alt_m": -612.0},
        {"alt_m": 1e200},
        {"alt_m": math.nan},
        {"sigma_m": math.inf},
        {"sigma_m": -1.0},
        {"lon_deg": 180.0000001},
        {"lat_deg": math.inf},
    ],
)
@pytest.mark.parametrize("surveyed", [False, True])
def test_a_place_where_no_node_can_be_is_told_and_stops_no_hearing(
    tmp_path: Path, odd: dict[str, float], surveyed: bool
) -> None:
    where = {"lat_deg": 47.9, "lon_deg": 106.9, "alt_m": 1350.0, "sigma_m": 1.0}
    about = {"id": "roof-1", "site": "test"}
    node = daemon(tmp_path, node=about | ({"position": where} if surveyed else {}))
    node._place(ULAANBAATAR)
    before = node._origin.position
    node._place(replace(ULAANBAATAR, **odd))
    assert node._origin.position == before
    assert "the receiver's place is not used" in node._book.says("position")
    node._place(ULAANBAATAR)
    assert not node._book.says("position")


def test_a_receiver_that_says_oddities_costs_a_health_and_no_more(
    hour: Hour, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = ReceiverState(
        fix=3,
        satellites_used=-1,
        satellites_seen=8,
        utc_valid=True,
        reason="",
        pps_seen=True,
        position=None,
    )
    assert hour.node._moment is not None
    moment = replace(hour.node._moment, receiver=receiver)
    pipeline = create_autospec(Pipeline, instance=True)
    pipeline.floor_dbfs = (None,)
    hour.node._moment = moment
    hour.now_s += 10_000
    hour.node._tell_health(pipeline, hour.outbox, hour.publisher)
    assert not hour.publisher.say.called
    assert "no health is told" in caplog.text
    hour.node._moment = replace(moment, receiver=replace(receiver, satellites_used=7))
    hour.now_s += 10_000
    hour.node._tell_health(pipeline, hour.outbox, hour.publisher)
    assert hour.publisher.say.called


@pytest.mark.parametrize(
    ("source", "doubts", "dropped"),
    [("free", (), 0), ("ntp", (), 1), ("gps", ("no other clock says so",), 0)],
)
def test_nothing_is_dropped_for_its_age_by_a_clock_that_nothing_vouches_for(
    tmp_path: Path, source: ClockSource, doubts: tuple[str, ...], dropped: int
) -> None:
    node = daemon(tmp_path)
    with Outbox(tmp_path / "outbox.sqlite3", 2**20) as outbox:
        outbox.append("a", 0, 0, lambda _link: Rendered(b"x"))
        outbox.expire(10**18, 1.0)
        node._host_clock = FakeHostClock(10**18 + 31 * DAY_NS, ClockQuality(source, 1e-3))
        node._read_clock()
        assert node._moment is not None
        node._moment = replace(node._moment, host=node._host_clock.read(), doubts=doubts)
        node._expire(outbox)
        assert outbox.dropped == dropped


def test_an_outbox_where_nothing_waits_is_not_written_for_its_age(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.sqlite3", 2**20) as outbox:
        outbox.append("a", 0, 0, lambda _link: Rendered(b"x"))
        outbox.expire(10**18, 3600)
        log = tmp_path / "outbox.sqlite3-wal"
        before = (log.stat().st_mtime_ns, log.stat().st_size)
        for second in range(100):
            outbox.expire(10**18 + second, 3600)
        assert (log.stat().st_mtime_ns, log.stat().st_size) == before


def test_a_stop_that_comes_just_before_the_card_is_opened_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = daemon(tmp_path)
    keep_up, heard = node._keep_up, create_autospec(node._vitals.heard)

    def stop_and_keep_up(*given: Any) -> None:
        keep_up(*given)
        node.stop()

    monkeypatch.setattr(node, "_keep_up", stop_and_keep_up)
    monkeypatch.setattr(node._vitals, "heard", heard)
    node.run()
    heard.assert_not_called()


def test_haste_is_told_and_for_a_while_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = daemon(tmp_path)

    def wrong() -> list[str]:
        return [finding.figure for finding in node._book.wrong()]

    node._tell_load(0.0, 0)
    assert not wrong()
    node._tell_load(12.0, 3)
    (told,) = wrong()
    assert "12 s wait: so far 3 events judged by one impulse each" in told
    node._tell_load(0.0, 3)
    assert wrong()
    late_s = time.monotonic() + TELL_LOSS_S + 1
    monkeypatch.setattr("node.daemon.time.monotonic", lambda: late_s)
    node._tell_load(0.0, 3)
    assert not wrong()


def test_the_clock_is_asked_of_a_near_miss_until_it_is_settled_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = daemon(tmp_path)
    asked: list[float] = []
    at = node._ears.clock.at

    def counted(sample: float) -> Instant:
        asked.append(sample)
        return at(sample)

    monkeypatch.setattr(node._ears.clock, "at", counted)
    node._read_clock()
    node._ears.clock.observe_block(Block(0, SILENCE, 48_000, host_time_ns=10**18))
    pipeline = create_autospec(Pipeline, instance=True)
    misses = [ShortOfTrigger(sample, "rise", 3.0, 4.0, 9.0, 6.0, 0, 1, 1) for sample in (100, 200)]
    pipeline.near_misses.side_effect = lambda: tuple(misses)
    node._end_sample = 300
    first = node._near_misses(pipeline)
    node._end_sample = 100 + round(NEAR_SETTLED_S * 48_000)  # the first is settled, not the second
    assert node._near_misses(pipeline) == first
    asked.clear()
    assert node._near_misses(pipeline) == first
    assert asked == [200]
    misses.clear()
    assert node._near_misses(pipeline) == []
    assert node._near_utc == {}
