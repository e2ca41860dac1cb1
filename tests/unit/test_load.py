"""The parts of the load bench that figures hang on: packets, stamps, shares, shots, fits."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.messages import Detection, parse_detection, with_transport
from tests.hil.load import hearing_node
from tests.hil.load.display import RATE_HZ, Display
from tests.hil.load.fleet import FEW_NODES, FULL, NODES, City
from tests.hil.load.fleet_nodes import sent_at
from tests.hil.load.fleet_stage import Rate
from tests.hil.load.fleet_words import Words
from tests.hil.load.packets import (
    PUBACK,
    PUBLISH,
    Packet,
    Reader,
    acknowledge,
    publish,
    read_publish,
)
from tests.hil.load.stage import At, Need, Shots, Told, follow, need, read
from tests.hil.load.throttle import Turns, period_and_quota_us, throttle

NOBODY = 2**30  # more than any process's number
SPIN = (sys.executable, "-c", "while True: pass")
RATE = Rate("counter", 20, 20, 0.001, 0.002, 0.003, 0, 0.0, 1e-3, 0.1, 0.1, 0.1)


def test_a_stamp_makes_the_bytes_that_a_node_sends() -> None:
    payload = Words(3).detection()
    utc_ns = 1_798_761_599_123_456_789
    assert sent_at(payload, utc_ns) == with_transport(payload, utc_ns, delayed=False)


def test_what_a_node_of_the_fleet_says_is_a_chain_of_signed_detections() -> None:
    words = Words(1)
    first, second = (parse_detection(words.detection()) for _ in range(2))
    assert isinstance(first, Detection)
    assert (first.seq, second.seq) == (1, 2)
    assert first.event_id != second.event_id
    assert second.prev_hash not in (None, first.prev_hash)
    assert second.signature


@given(st.binary(max_size=20_000), st.lists(st.integers(1, 20_000), max_size=8))
def test_packets_are_read_however_the_stream_is_cut(payload: bytes, cuts: list[int]) -> None:
    stream = publish("a/b", payload, 7) + acknowledge(9) + publish("a/b", payload)
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    reader, packets = Reader(), []
    for first, end in itertools.pairwise(edges):
        packets += reader.feed(stream[first:end])
    assert [packet.kind for packet in packets] == [PUBLISH, PUBACK, PUBLISH]
    assert read_publish(packets[0]) == (7, payload)
    assert read_publish(packets[2]) == (0, payload)


@pytest.mark.parametrize(
    ("packet", "refusal"),
    [
        (Packet(PUBACK, 0, b"\0\1"), 0),
        (Packet(PUBACK, 0, b"\0\1\x87\0"), 0x87),
        (Packet(PUBACK, 0, b"\0\1\x10\0"), 0),
        (Packet(2, 0, b"\0\x86\0"), 0x86),
        (Packet(2, 0, b"\0\0\0"), 0),
    ],
)
def test_a_refusal_is_told_from_a_success(packet: Packet, refusal: int) -> None:
    assert packet.refusal == refusal


@pytest.mark.parametrize("share", [0.03, 0.05, 0.1, 0.25, 1.0])
def test_a_share_is_given_in_pieces_that_the_kernel_can_give(share: float) -> None:
    period_us, quota_us = period_and_quota_us(share)
    assert quota_us >= 1000
    assert quota_us / period_us == pytest.approx(share, rel=0.02)
    assert period_us < 50_000


@pytest.mark.parametrize("by", [throttle, Turns])
def test_a_process_is_held_to_its_share_until_that_is_lifted(by: Any) -> None:
    with subprocess.Popen(SPIN) as process:
        try:
            spinning = psutil.Process(process.pid)
            with by(process.pid, 0.2) as held:
                time.sleep(0.3)
                before_s = spinning.cpu_times().user
                time.sleep(1.0)
                assert 0 < spinning.cpu_times().user - before_s < 0.35
                held.lift()
            assert spinning.status() != psutil.STATUS_STOPPED
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("controls", "quota", "members"),
    [
        (("tasks", "cpu.cfs_quota_us"), ("cpu.cfs_quota_us", "2000"), "tasks"),
        (("cpu.max",), ("cpu.max", "6000 10000"), "cgroup.procs"),
    ],
    ids=["one thread", "all threads"],
)
def test_a_share_for_all_threads_counts_where_one_alone_cannot_be_held(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    controls: tuple[str, ...],
    quota: tuple[str, str],
    members: str,
) -> None:
    group = tmp_path / "group"
    group.mkdir()
    for control in controls:
        (group / control).touch()
    monkeypatch.setattr("tests.hil.load.throttle._group", lambda name: group)
    file, words = quota
    with throttle(NOBODY, 0.2, 0.6):
        assert (group / file).read_text() == f"{words}\n"
        assert (group / members).read_text() == f"{NOBODY}\n"


def told(*impulses: float, rounds: tuple[float, ...] = (), grade: str = "not_gunfire") -> Told:
    return Told("event", 0, grade, False, impulses, rounds or impulses[:1])


def test_a_shot_is_followed_from_its_impulse_to_its_grade() -> None:
    near = 0.004 * RATE_HZ
    shots = (1_000.0, 50_000.0, 90_000.0, 200_000.0)
    of = follow(
        shots,
        [
            told(1_000 + near, rounds=(1_000 + near,), grade="gunfire"),
            told(40_000.0, 50_000.0, 95_000.0),
        ],
    )
    assert of == Shots(fired=4, found=2, inside=3, timed=1, graded=1)


def test_what_a_node_needs_is_for_a_second_of_sound() -> None:
    def at(second: float, hearing_s: float, process_s: float) -> At:
        return At(
            100.0 + second, round(second * RATE_HZ), 0, 0, 0.1, 0.1, hearing_s, process_s, {}, 0
        )

    course = [at(3.0, 5.0, 6.0), at(4.0, 5.5, 6.1), at(63.0, 11.0, 13.5)]
    assert need(course) == Need(hearing_s=pytest.approx(0.1), process_s=pytest.approx(0.125))


def test_a_display_goes_on_and_on() -> None:
    loop = Display(np.zeros((1000, 4), np.int32), (100.0, 900.5), ())
    assert loop.shots_between(0, 1000) == [100.0, 900.5]
    assert loop.shots_between(900, 2950) == [900.5, 1100.0, 1900.5, 2100.0, 2900.5]


def test_the_time_of_a_stage_within_another_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr(time, "thread_time", lambda: now_s)
    ledger = hearing_node.Ledger()

    def work(seconds: float, within: Any = None) -> None:
        nonlocal now_s
        now_s += seconds
        if within is not None:
            within(1.0)

    inner = ledger.timed("inner", work)
    ledger.timed("outer", work)(3.0, inner)
    assert ledger.spent_s == {"inner": 1.0, "outer": 3.0}


def test_a_record_is_read_but_for_a_line_that_was_cut_off(tmp_path: Path) -> None:
    at = [1.0, 4096, 0, 0, 0.1, 0.2, 1.0, 2.0, {"rounds": 0.5}, 3]
    lines = [["at", *at], ["told", "id", 1, "gunfire", False, [1.0, 2.0], [1.0]]]
    (tmp_path / "log").write_text("\n".join(map(json.dumps, lines)) + '\n["at", 1')
    record = read(tmp_path / "log")
    assert record.at == (At(*at),)  # type: ignore[arg-type]
    assert record.told == (Told("id", 1, "gunfire", False, (1.0, 2.0), (1.0,)),)


def a_city(few_s: float, many_s: float) -> City:
    seldom = {FEW_NODES: replace(RATE, cost_s=few_s), NODES: replace(RATE, cost_s=many_s)}
    minutes_s = {FEW_NODES: few_s, NODES: many_s}
    return City([RATE], [RATE], seldom, minutes_s, 0.0, 0.0, 0, 0.0, 0)


def test_what_costs_the_same_with_any_number_of_nodes_is_shared_among_them() -> None:
    assert a_city(1e-3, 1e-3).most_nodes(60) == pytest.approx(FULL / (2e-3 / 60))


def test_what_costs_more_with_each_node_is_carried_for_the_root_of_as_many() -> None:
    each_s = 1e-5
    city = a_city(FEW_NODES * each_s, NODES * each_s)
    nodes = city.most_nodes(60)
    assert nodes * (nodes * each_s) * 2 / 60 == pytest.approx(FULL)
