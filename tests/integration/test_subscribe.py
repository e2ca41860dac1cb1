"""`node.network.subscribe` at a real Mosquitto: each once, what is missing, what is no news."""

import itertools
import json
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deliver_node import NODE_ID, SITE, make_detection, wait_until
from paho.mqtt import publish

from node.deliver import BrokerAddress, publish_batch
from node.messages import node_topic, numbered, to_json, with_transport
from node.network import PrivateBroker, Subscription, Word, subscribe
from tests.hil.process import GUNFIRE_NODE

EXAMPLES = Path(__file__).parents[1] / "contract"
DETECTION = node_topic(SITE, NODE_ID, "detection")
MODULE = sys.modules[Subscription.__module__]
CHECKPOINT = node_topic(SITE, NODE_ID, "checkpoint")


@pytest.fixture(scope="module")
def broker() -> Iterator[PrivateBroker]:
    with PrivateBroker() as running:
        yield running


def detection(seq: int, *, number: int | None = None, revision: int = 0, late: bool = False) -> Any:
    made = make_detection(seq if number is None else number)
    made = made.model_copy(update={"revision": revision, "type": "update" if revision else "new"})
    return DETECTION, with_transport(to_json(numbered(made, seq)), 10**18, late)


def checkpoint(seq: int, *gaps: tuple[int, int]) -> Any:
    said = json.loads((EXAMPLES / "checkpoint.json").read_text("utf-8"))
    said |= {"site": SITE, "node_id": NODE_ID, "seq": seq}
    said["gaps"] = [
        {"from_seq": first, "to_seq": last, "count": last - first + 1, "reason": "dropped"}
        for first, last in gaps
    ]
    return CHECKPOINT, json.dumps(said).encode()


def hear(broker: PrivateBroker, *messages: Any, kinds: Any = ("detection", "checkpoint")) -> Any:
    """Publish while subscribed; give the words that came, and what is missing at the end."""
    said = json.loads((EXAMPLES / "status.json").read_bytes()) | {"site": "end", "node_id": "end"}
    end = (node_topic("end", "end", "status"), json.dumps(said).encode())
    with subscribe(broker.url, kinds=[*kinds, "status"]) as words:
        publish_batch(BrokerAddress.from_url(broker.url), [*messages, end])
        come: list[Word] = []
        for word in words.within(20):
            if word.topic == end[0]:
                return come, words
            come.append(word)
    pytest.fail("the last message did not come")


def test_a_detection_that_comes_twice_is_given_once(broker: PrivateBroker) -> None:
    come, words = hear(broker, detection(1), detection(1, late=True), detection(2))
    assert [word.message.seq for word in come] == [1, 2]
    assert words.repeated == 1


def test_a_hole_in_the_numbers_is_told_and_closed_by_what_comes_late(broker: PrivateBroker) -> None:
    come, words = hear(broker, detection(1), detection(5), detection(3, late=True))
    assert [word.missing for word in come] == [range(0), range(2, 5), range(0)]
    assert words.missing() == {(SITE, NODE_ID): (range(2, 3), range(4, 5))}


def test_a_gap_that_the_node_tells_is_no_hole_and_a_cut_tail_is(broker: PrivateBroker) -> None:
    come, words = hear(broker, detection(1), detection(5), checkpoint(8, (2, 4)))
    assert come[-1].missing == range(6, 9)
    assert words.missing() == {(SITE, NODE_ID): (range(6, 9),)}


def test_what_had_to_wait_is_no_news(broker: PrivateBroker) -> None:
    come, _ = hear(broker, detection(1), detection(2, late=True))
    assert [(word.delayed, word.is_news) for word in come] == [(False, True), (True, False)]


def test_an_older_revision_that_comes_after_a_newer_one_says_so(broker: PrivateBroker) -> None:
    come, _ = hear(broker, detection(2, number=9, revision=1), detection(1, number=9))
    assert [(word.superseded, word.is_news) for word in come] == [(False, True), (True, False)]


def test_a_node_cannot_take_the_news_value_of_anothers_event(broker: PrivateBroker) -> None:
    topic, payload = detection(2, number=9, revision=7)
    thief = json.loads(payload) | {"node_id": "node-2"}
    stolen = (node_topic(SITE, "node-2", "detection"), json.dumps(thief).encode())
    come, words = hear(broker, stolen, detection(1, number=9), (topic, payload))
    assert [word.superseded for word in come] == [False, False, False]
    assert words.repeated == 0


def test_what_waits_for_a_slow_reader_waits_at_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "MOST_WAITING_BYTES", 20_000)
    count = 300
    with PrivateBroker(extra="max_queued_messages 0") as broker:
        address = BrokerAddress.from_url(broker.url)
        with subscribe(broker.url, kinds=["detection"]) as words:
            publish_batch(address, [detection(seq) for seq in range(1, count + 1)])
            assert wait_until(lambda: words.waiting > 5, 10)
            time.sleep(1)
            assert words.waiting < 30
            assert [word.message.seq for word in itertools.islice(words, count)] == list(
                range(1, count + 1)
            )
            publish_batch(address, [detection(seq) for seq in range(count + 1, 2 * count)])
            assert wait_until(lambda: words.waiting > 5, 10)
            begun_s = time.monotonic()
        assert time.monotonic() - begun_s < 2


def test_what_the_broker_was_told_has_come_is_given_after_the_end_too() -> None:
    count = 300
    with PrivateBroker(extra="max_queued_messages 0") as broker:
        address = BrokerAddress.from_url(broker.url)

        def subscription() -> Subscription:
            return Subscription(
                address, kinds=["detection"], client_id="log", session_expiry_s=3600
            )

        with subscription():
            pass
        publish_batch(address, [detection(seq) for seq in range(1, count + 1)])
        got: list[int] = []
        with subscription() as words:
            for word in words:
                got.append(word.message.seq)  # type: ignore[union-attr]
                if len(got) == 5:
                    assert wait_until(lambda: words.waiting > 5, 10)
                    words.close()
        assert words.next() is None
        with subscription() as words:
            got += [word.message.seq for word in words.within(2)]  # type: ignore[union-attr]
        assert sorted(got) == list(range(1, count + 1))


@pytest.mark.timeout(120)
def test_who_comes_and_goes_amid_the_flow_gets_each_message_once() -> None:
    count = 1000
    with PrivateBroker(extra="max_queued_messages 0") as broker:
        address = BrokerAddress.from_url(broker.url)

        def stay(seconds: float) -> list[int]:
            words = Subscription(
                address, kinds=["detection"], client_id="log", session_expiry_s=3600
            )
            leaving = threading.Timer(seconds, words.close)
            leaving.start()
            with words:
                come = [word.message.seq for word in words]  # type: ignore[union-attr]
            leaving.join()
            return come

        got = stay(1.0)
        publish_batch(address, [detection(seq) for seq in range(1, count + 1)])
        for n in range(50):
            got += stay(0.03 * n)
            if len(got) >= count:
                break
        got += stay(1.0)
        assert sorted(got) == list(range(1, count + 1))


def test_names_are_cheap_to_invent_and_are_not_all_remembered(
    broker: PrivateBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODULE, "MOST_NODES", 2)

    def of(site: str, seq: int) -> Any:
        said = json.loads(detection(seq)[1]) | {"site": site}
        return node_topic(site, NODE_ID, "detection"), json.dumps(said).encode()

    said = [of(site, seq) for seq in (1, 3) for site in ("a", "b", "c")]
    come, words = hear(broker, *said)
    assert [bool(word.missing) for word in come[3:]] == [True, True, False]
    assert sorted(words.missing()) == [("a", NODE_ID), ("b", NODE_ID)]


def test_what_is_longer_than_any_message_is_not_read(broker: PrivateBroker) -> None:
    topic, payload = detection(1)
    long = json.dumps(json.loads(payload) | {"more": "x" * 2**20}).encode()
    come, words = hear(broker, (topic, long), detection(2))
    assert [word.message.seq for word in come] == [2]
    assert words.invalid == 1


def test_a_flood_of_what_cannot_be_read_is_told_in_a_few_lines(
    broker: PrivateBroker, caplog: pytest.LogCaptureFixture
) -> None:
    _, words = hear(broker, *[(DETECTION, b"{}")] * 100)
    assert words.invalid == 100
    told = [line for line in caplog.messages if DETECTION in line]
    assert len(told) == 7  # the first, second, fourth …
    assert "64 so far" in told[-1]


def test_what_is_no_message_is_counted_and_passed_over(broker: PrivateBroker) -> None:
    come, words = hear(broker, (DETECTION, b"{}"), (DETECTION, b"\xff"), detection(1))
    assert [word.message.seq for word in come] == [1]
    assert words.invalid == 2


def test_a_node_cannot_speak_for_another_on_its_own_topics(broker: PrivateBroker) -> None:
    _, payload = detection(7)
    forged = (node_topic(SITE, "node-2", "detection"), payload)
    come, words = hear(broker, detection(1), forged, detection(2))
    assert [word.message.seq for word in come] == [1, 2]
    assert words.invalid == 1
    assert words.missing() == {}


@pytest.mark.parametrize("kind", ["detection", "status", "health", "node", "checkpoint", "snippet"])
def test_every_kind_that_a_node_publishes_is_read(kind: Any, broker: PrivateBroker) -> None:
    example = (EXAMPLES / f"{kind}.json").read_bytes()
    said = json.loads(example)
    come, _ = hear(broker, (node_topic(said["site"], said["node_id"], kind), example), kinds=[kind])
    assert json.loads(to_json(come[0].message)) == json.loads(example)


def test_incidents_of_a_site_are_read(broker: PrivateBroker) -> None:
    example = (EXAMPLES / "incident.json").read_bytes()
    topic = f"gunfire/v1/{json.loads(example)['site']}/incident"
    come, _ = hear(broker, (topic, example), kinds=["incident"])
    assert come[0].topic == topic


def test_what_watch_prints_is_a_line_a_message_and_cannot_steer_the_terminal(
    broker: PrivateBroker,
) -> None:
    said = json.loads((EXAMPLES / "status.json").read_bytes())
    said |= {"site": SITE, "node_id": "node-retained", "reasons": ["\x1b[2K\x9b gone\r\nforged"]}
    topic = node_topic(SITE, "node-retained", "status")
    pretty = json.dumps(said, indent=1).replace("\n", "\r\n")
    publish.single(topic, pretty, retain=True, port=broker.port, hostname="127.0.0.1")

    def line(*options: str) -> bytes:
        program = str(Path(sys.executable).with_name("gunfire-node"))
        process = subprocess.Popen(
            [program, "watch", "--broker", broker.url, "--node", "node-retained", *options],
            stdout=subprocess.PIPE,
        )
        with process:
            try:
                assert process.stdout is not None
                return process.stdout.readline()
            finally:
                process.kill()

    assert json.loads(line("--jsonl")) == said
    shown = line().decode().rstrip("\n")
    assert shown.endswith("forged")
    assert shown.isprintable()

    said = json.loads((EXAMPLES / "node.json").read_bytes())
    said |= {"site": SITE, "node_id": "node-retained"}
    said["array"]["name"] = "\x9b2J\u202e"
    topic = node_topic(SITE, "node-retained", "node")
    pretty = json.dumps(said, indent="\t", ensure_ascii=False)
    publish.single(topic, pretty, retain=True, port=broker.port, hostname="127.0.0.1")
    shown = line("--kind", "node").decode().rstrip("\n")
    assert shown.startswith(f"{topic}  {{ ")
    assert shown.isprintable()


def test_watch_says_once_why_it_does_not_reach_the_broker() -> None:
    done = subprocess.run(
        [*GUNFIRE_NODE, "watch", "--broker",
         "mqtt://127.0.0.1:1"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("nothing listens there") == 1


def test_watch_says_what_it_cannot_read_and_that_the_broker_is_gone_and_back() -> None:
    with PrivateBroker() as broker:
        process = subprocess.Popen(
            [*GUNFIRE_NODE, "watch", "--broker",
             broker.url, "--jsonl"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stderr is not None
        try:
            assert "connected to" in process.stderr.readline()
            future = {**json.loads(detection(1)[1]), "schema": "gunfire.detection/2"}
            publish_batch(
                BrokerAddress.from_url(broker.url), [(DETECTION, json.dumps(future).encode())]
            )
            assert "Input should be 'gunfire.detection/1'" in process.stderr.readline()
            broker.stop()
            assert "connection was lost" in process.stderr.readline()
            broker.start()
            while "connected to" not in (said := process.stderr.readline()):
                assert "refused" in said
        finally:
            process.terminate()
            said, _ = process.communicate(timeout=10)
        assert said == ""
        assert process.returncode == 0


def retain_status(broker: PrivateBroker, node_id: str) -> Any:
    """Leave a node's status at the broker; give what it says."""
    said = json.loads((EXAMPLES / "status.json").read_bytes())
    said |= {"site": SITE, "node_id": node_id}
    topic = node_topic(SITE, node_id, "status")
    publish.single(topic, json.dumps(said), retain=True, port=broker.port, hostname="127.0.0.1")
    return said


def test_a_retained_word_is_no_news(broker: PrivateBroker) -> None:
    retain_status(broker, "node-retained")
    with subscribe(broker.url, kinds=["status"], node_id="node-retained") as words:
        word = words.next(10)
    assert word is not None
    assert (word.retained, word.is_news) == (True, False)


@pytest.mark.parametrize("torn", [b'{"schema": "gunf', b"{}\n\0\0", b"{}\n", b""])
def test_what_watch_adds_to_a_file_begins_on_a_line_of_its_own(
    broker: PrivateBroker, tmp_path: Path, torn: bytes
) -> None:
    said = retain_status(broker, "node-torn")
    kept = tmp_path / "log.jsonl"
    kept.write_bytes(torn)
    with kept.open("ab") as file:
        process = subprocess.Popen(
            [*GUNFIRE_NODE, "watch", "--broker",
             broker.url, "--node", "node-torn", "--jsonl"],
            stdout=file, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        assert wait_until(lambda: b"node-torn" in kept.read_bytes(), 20)
    finally:
        process.terminate()
        process.wait(10)
    *before, last = kept.read_bytes().splitlines()
    assert before == torn.splitlines()
    assert json.loads(last) == said


def test_watch_under_a_name_prints_what_came_while_it_was_away(
    broker: PrivateBroker, tmp_path: Path
) -> None:
    command = [
        *GUNFIRE_NODE, "watch", "--broker", broker.url,
        "--name", "log", "--kind", "detection", "--jsonl",
    ]  # fmt: skip

    def watch(seq: int) -> int:
        """Publish until it prints; give the number of what it prints first."""
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdout is not None
        try:
            numbers = itertools.count(seq)

            def prints() -> bool:
                publish_batch(BrokerAddress.from_url(broker.url), [detection(next(numbers))])
                return bool(select.select([process.stdout], [], [], 0.3)[0])

            assert wait_until(prints, 30)
            return int(json.loads(process.stdout.readline())["seq"])
        finally:
            process.terminate()
            process.communicate(timeout=10)

    watch(1)
    publish_batch(BrokerAddress.from_url(broker.url), [detection(500)])
    assert watch(501) == 500
