"""Self-test of the way out: whether a broker lets this node in, and takes what it publishes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final

import node
from node.board.findings import Finding
from node.check.bounded import failure
from node.check.holder import outbox_user
from node.deliver import BrokerAddress, publish_batch
from node.errors import BrokerError
from node.messages import Origin, build_status, node_topic, to_json
from node.settings import Settings
from node.timing import utc_now_ns

BROKER_S: Final = 15.0
_TESTED: Final = "somebody tests this node: gunfire-node check"


def broker(settings: Settings) -> Iterator[Finding]:
    """Try each broker at the same time; where several are named, one that answers will do.

    A status goes out, which the broker does not keep: some let a node in and take nothing of it.
    Brokers that name a client by its certificate, as ours does, would throw a node that runs out
    for this one; so such a node is asked instead, or let be.
    """
    pid = outbox_user(settings.outbox.path)
    if pid is not None:
        figure = f"not tested: a node runs (pid {pid}), and would be thrown out"
        advice = "let it write health.status_file; stop it where it does and hangs"
        yield Finding("broker", "warn", figure, advice, lit=False)
        return
    addresses = BrokerAddress.all_from_settings(settings.mqtt)
    words = [(_topic(settings), _word(settings))]
    with ThreadPoolExecutor(len(addresses), "check-broker") as pool:
        several = len(addresses) > 1
        found = list(pool.map(lambda address: _try(address, words, several), addresses))
    if any(finding.verdict == "pass" for finding in found):
        found = [replace(f, verdict="warn") if f.verdict == "fail" else f for f in found]
    tls = addresses[0].tls
    for number, validity in enumerate(() if tls is None else tls.validities()):
        trouble = validity.trouble(utc_now_ns())
        if not trouble:
            continue
        what, _, advice = trouble.partition(": ")
        if validity.not_after_utc_ns <= utc_now_ns() and validity.source.startswith("mqtt.cert"):
            # That is why nobody lets us in.
            found = [replace(f, figure=what, advice=advice) if _bad(f) else f for f in found]
        if not any(f.figure == what for f in found):
            found.append(Finding("certificate", "warn", what, advice, str(number + 1)))
    yield from found


def _bad(finding: Finding) -> bool:
    return finding.verdict == "fail"


def _try(address: BrokerAddress, words: list[tuple[str, bytes]], several: bool) -> Finding:
    which = str(address) if several else ""
    try:
        publish_batch(address, words)
    except BrokerError as error:
        return replace(failure("broker", error), which=which)
    takes = "lets us in, takes messages"
    if address.protocol != "5":
        takes = "lets us in, cannot say what it takes"
    return Finding("broker", "pass", f"{address}: {takes}, MQTT {address.protocol}", which=which)


def _topic(settings: Settings) -> str:
    return node_topic(settings.node.site, settings.node.id, "status")


def _word(settings: Settings) -> bytes:
    """Give a status that is true: nobody but this self-test runs."""
    who = Origin(settings.node.site, settings.node.id, str(uuid.uuid4()), node.__version__)
    return to_json(build_status(who, "offline", utc_ns=utc_now_ns(), reasons=(_TESTED,)))
