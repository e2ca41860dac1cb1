"""docs/do/subscribe-in-five-minutes.md: its two subscribers, as they stand there, print a shot."""

import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from deliver_node import NODE_ID, SITE, make_detection, wait_until

from node.deliver import BrokerAddress, publish_batch
from node.messages import node_topic, numbered, to_json, with_transport
from node.network import PrivateBroker

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "do" / "subscribe-in-five-minutes.md").read_text("utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return found


@pytest.fixture
def broker() -> Iterator[PrivateBroker]:
    with PrivateBroker() as running:
        yield running


def first_line(command: list[str], broker: PrivateBroker) -> str:
    """Run a subscriber, publish detections until it prints a line, and give that."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    numbers = iter(range(1, 1000))

    def prints_what_is_published() -> bool:
        number = next(numbers)
        message = to_json(numbered(make_detection(number), number))
        sent = with_transport(message, 10**18, delayed=False)
        topic = node_topic(SITE, NODE_ID, "detection")
        publish_batch(BrokerAddress.from_url(broker.url), [(topic, sent)])
        return bool(select.select([process.stdout], [], [], 0.2)[0])

    try:
        assert wait_until(prints_what_is_published, 30)
        return process.stdout.readline()
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=10)


def test_the_subscriber_in_python_prints_a_shot(broker: PrivateBroker, tmp_path: Path) -> None:
    program = tmp_path / "city.py"
    program.write_text(block("python"), "utf-8")
    assert len(block("python").splitlines()) <= 20
    line = first_line([sys.executable, str(program), broker.url], broker)
    assert re.match(
        rf"now  2020-09-13T12:26:\S+Z {NODE_ID} gunfire 0.90 1 rounds ± 0.1 ms no bearing", line
    )


@pytest.mark.skipif(
    not (shutil.which("mosquitto_sub") and shutil.which("jq")),
    reason="mosquitto-clients or jq is not installed",
)
def test_the_subscriber_of_mosquitto_sub_and_jq_prints_a_shot(broker: PrivateBroker) -> None:
    script = block("sh").replace("-p 1883", f"-p {broker.port}")
    assert len(block("sh").splitlines()) <= 20
    line = first_line(["bash", "-c", script], broker)
    assert line.split("  ")[2:6] == [NODE_ID, "gunfire", "0.9", "1 rounds"]
