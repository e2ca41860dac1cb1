"""A short run of `make faults`: deaths of node and broker, a broken publish, a step of the clock.

Each claim is judged by the same book as the long run's, and the book itself is shown to notice.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from node.utc import parse_utc_ns, utc_text
from tests.faults import clock, writes
from tests.faults.auditor import Heard
from tests.faults.book import Tally
from tests.faults.delivery import broken, killed, one
from tests.faults.fleet import Fleet
from tests.faults.kills import kill_at_random, verified
from tests.faults.nursery import Life
from tests.faults.stage import NODE_ID, Stage
from tests.faults.tls import renewed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("mosquitto") is None, reason="needs mosquitto (apt: mosquitto)"
    ),
]


@pytest.mark.timeout(300)
def test_what_is_durable_arrives_once_and_unchanged_whoever_dies_on_the_way(tmp_path: Path) -> None:
    with Stage(tmp_path) as stage:
        kill_at_random(stage, 6, random.Random(3), lambda _: None)
        rows = [
            one(stage, "broker killed", killed(3), random.Random(1)),
            one(stage, "half-closed", broken("half_close", 3), random.Random(2)),
        ]
        total = stage.book.tally(stage.lives)
        assert total.made > 80
        assert total.shots > 50
        assert total.is_good, total
        assert total.samples_lost == 0
        assert all(row.tally.made > 10 for row in rows)
        assert stage.book.strangers(stage.lives) == 0
        assert stage.book.chain_faults() == []
        assert verified(stage) is None

        _assert_that_the_book_notices(stage, total)


def _assert_that_the_book_notices(stage: Stage, good: Tally) -> None:
    book, lives = stage.book, stage.lives
    heard = next(h for h in book.heard if h.kind == "detection")
    key = json.loads(heard.payload)["event_id"], json.loads(heard.payload)["revision"]
    copies = book.copies.pop(key)
    assert book.tally(lives).lost == good.lost + 1
    assert book.chain_faults() != []
    book.copies[key] = copies

    document = json.loads(heard.payload)
    later = utc_text(parse_utc_ns(document["onset_utc"]) + 1)
    document["onset_utc"] = document["rounds"][0]["utc"] = later
    book.take(Heard(heard.topic, json.dumps(document).encode(), heard.at_s))
    altered = book.tally(lives)
    assert (altered.altered, altered.retimed) == (1, 1)
    book.copies[key].pop()

    document["event_id"] = "00000000-0000-5000-8000-000000000000"
    book.take(Heard(heard.topic, json.dumps(document).encode(), heard.at_s))
    assert book.strangers(lives) == 1


def test_so_it_does_under_mutual_tls_and_with_a_certificate_that_is_renewed_meanwhile(
    tmp_path: Path,
) -> None:
    fleet = Fleet(tmp_path / "fleet", NODE_ID)
    with Stage(tmp_path, fleet=fleet) as stage:
        rows = [
            one(stage, "reset", broken("reset", 3), random.Random(5)),
            one(stage, "renewed", lambda stage, _: renewed(stage, fleet), random.Random(6)),
        ]
        assert all(row.went_on and row.tally.is_good and row.tally.made > 10 for row in rows), rows
        assert stage.book.strangers(stage.lives) == 0
        assert stage.book.chain_faults() == []


def test_a_clock_of_another_hour_is_noticed_as_wrong(tmp_path: Path) -> None:
    with Stage(tmp_path) as stage:
        life = stage.live()
        stage.wait_until_heard(life, 5)
        life.end()
        assert stage.book.tally([life]).is_good
        life.offsets_ns = [offset_ns + 3_600 * 10**9 for offset_ns in life.offsets_ns]
        late: Tally = stage.book.tally([life])
        assert late.wrong >= 5
        assert late.unheard == late.shots


@pytest.mark.skipif(writes.why_not() is not None, reason=f"{writes.why_not()}")
@pytest.mark.timeout(180)
def test_an_outbox_killed_or_failed_at_a_write_keeps_what_was_durable(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    writes.fill(full)
    count = writes.count_calls(full)
    numbers = random.Random(4).sample(range(1, count + 1), 12)
    found = {
        (kind, number): writes.strike(full, error, number)
        for kind, error in writes.ERRORS.items()
        for number in numbers[:: 3 if kind != "killed" else 1]
    }
    assert {where: wrong for where, wrong in found.items() if wrong} == {}


@pytest.mark.skipif(writes.why_not() is not None, reason=f"{writes.why_not()}")
def test_the_inspection_of_an_outbox_notices_what_is_gone(tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    with writes.Outbox(new / "outbox.sqlite3", writes.BOUND_BYTES) as outbox:
        for number in range(3):
            outbox.append(f"{number}", 0, number, writes.render)
        outbox.acknowledge([2])
    told = writes.Told(durable={1, 2, 3})
    assert "seq 2 was durable and is gone" in writes.inspect(new, told)


@pytest.mark.skipif(clock.fake_time() is None, reason="needs faketime (apt: faketime)")
@pytest.mark.timeout(180)
def test_a_step_of_the_clock_moves_no_time_that_is_durable(tmp_path: Path) -> None:
    offset = tmp_path / "offset"
    with clock.stage(tmp_path, offset) as stage:
        row = clock.stepped(stage, "an hour back", -3_600, offset)
        life: Life = stage.lives[0]
        assert len(life.offsets_ns) > 1
        assert row.tally.is_good, row.tally
        assert row.tally.made > 5
        assert stage.book.chain_faults() == []
