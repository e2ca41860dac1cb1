"""What is lost, comes under two numbers, is not linked, or tells no shot, is written down."""

import datetime as dt
import json

import pytest

from node.utc import parse_utc_ns
from tests.faults.auditor import Heard
from tests.hil.soak.ledger import Ledger
from tests.unit.signed_log import SignedNode, changed

COUNT = 20


@pytest.fixture
def node() -> SignedNode:
    return SignedNode("roof-1", dt.datetime(2026, 7, 4, tzinfo=dt.UTC))


def received(payloads: list[bytes]) -> Ledger:
    ledger = Ledger()
    for payload in payloads:
        ledger.take(Heard("gunfire/v1/city/roof-1/detection", payload, 0.0))
    return ledger


def test_all_that_was_made_came_once(node: SignedNode):
    tally = received([node.detection() for _ in range(COUNT)]).tally(COUNT, 0, [])

    assert (tally.received, tally.again, tally.lost, tally.doubled, tally.unlinked) == (
        COUNT, 0, 0, 0, 0,
    )  # fmt: skip


def test_a_copy_that_comes_again_is_counted_and_is_no_fault(node: SignedNode):
    payloads = [node.detection() for _ in range(COUNT)]
    later = json.loads(payloads[7])
    later["transport"]["delayed"] = True

    tally = received([*payloads, json.dumps(later).encode()]).tally(COUNT, 0, [])

    assert (tally.again, tally.doubled, tally.unlinked) == (1, 0, 0)


@pytest.mark.parametrize("gone", [0, 11, COUNT - 1])
def test_one_that_did_not_come_is_lost(node: SignedNode, gone: int):
    payloads = [node.detection() for _ in range(COUNT)]
    del payloads[gone]

    assert received(payloads).tally(COUNT, 0, []).lost == 1


def test_one_number_for_two_is_found(node: SignedNode):
    payloads = [node.detection() for _ in range(COUNT)]
    payloads.append(changed(payloads[3], label="other"))

    assert received(payloads).tally(COUNT, 0, []).doubled == 1


def test_two_numbers_for_one_event_are_found(node: SignedNode):
    payloads = [node.detection() for _ in range(COUNT)]
    event = json.loads(payloads[-1])["event_id"]
    payloads.append(node.detection(event_id=event))

    assert received(payloads).tally(COUNT + 1, 0, []).doubled == 1


def test_one_shot_told_as_two_events_is_found(node: SignedNode):
    payloads = [node.detection() for _ in range(COUNT)]
    onset = json.loads(payloads[-1])["onset_utc"]
    payloads.append(node.detection(onset_utc=onset))

    assert received(payloads).tally(COUNT + 1, 0, []).doubled == 1


def test_one_event_told_again_is_not_told_twice(node: SignedNode):
    payloads = [node.detection() for _ in range(COUNT)]
    last = json.loads(payloads[-1])
    payloads.append(
        node.detection(event_id=last["event_id"], onset_utc=last["onset_utc"], revision=9)
    )

    assert received(payloads).tally(COUNT + 1, 0, []).doubled == 0


def test_one_that_names_another_than_the_one_before_is_found(node: SignedNode):
    payloads = [node.detection() for _ in range(COUNT)]
    payloads[5] = changed(payloads[5], prev_hash="sha256:" + "0" * 64)

    # It, and the one after it, whose link is to what stood there.
    assert received(payloads).tally(COUNT, 0, []).unlinked == 2


def test_a_shot_is_told_by_an_onset_within_a_millisecond_by_any_clock(node: SignedNode):
    payloads = [node.detection() for _ in range(COUNT)]
    told_ns = parse_utc_ns(json.loads(payloads[4])["onset_utc"])
    shots_ns = [[told_ns + 900_000], [told_ns - 1_100_000], [0, told_ns - 5_000]]
    ledger = received(payloads)

    assert ledger.unheard(shots_ns) == [1]
    assert ledger.tally(COUNT, 0, shots_ns).unheard == 1


def test_numbers_that_are_still_under_way_are_missing(node: SignedNode):
    payloads = [node.detection() for _ in range(COUNT)]
    del payloads[2:5]

    assert received(payloads).counts() == (COUNT - 3, 0, 3)


def test_other_messages_are_counted_by_kind():
    ledger = Ledger()
    ledger.take(Heard("gunfire/v1/city/roof-1/status", b"{}", 0.0))

    assert ledger.tally(0, 0, []).others == (("status", 1),)
