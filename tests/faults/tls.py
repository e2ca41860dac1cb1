"""Broker and network fail as they do for a node in a city: under mutual TLS, as is shipped.

Handshakes and records are torn too; and certificates are renewed, revoked and left to expire while
shots go on.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.evidence import Detail
from tests.faults.book import Tally
from tests.faults.delivery import (
    AWAY_S,
    BREAKS,
    COLUMNS,
    KILLS_OF_BROKER,
    Row,
    Strike,
    answers_swallowed,
    black_hole,
    broken,
    claims,
    cut,
    flapping,
    hold,
    killed,
    one,
    until,
    went_on,
)
from tests.faults.fleet import Fleet, put
from tests.faults.stage import NODE_ID, Stage
from tests.parts import Part, Tell

HALF_DONE_S: Final = 1.0
"""Between a certificate that is put in place and its key."""

OfFleet = Callable[[Stage, Fleet], None]


def measure(tell: Tell) -> Part:
    """Strike with each fault in turn."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="gunfire-tls-") as scratch:
        fleet = Fleet(Path(scratch) / "fleet", NODE_ID)
        with Stage(Path(scratch), fleet=fleet) as stage:
            for name, strike in strikes(fleet).items():
                tell(name)
                rows.append(one(stage, name, strike, random.Random(name)))
            faults = stage.book.chain_faults()
            strangers = stage.book.strangers(stage.lives)
    total, what = sum((row.tally for row in rows), Tally()), f"mutual TLS, {len(rows)} faults"
    return Part(
        (*claims(what, total, strangers, faults), went_on(what, rows)),
        (Detail("Faults under mutual TLS", COLUMNS, tuple(row.cells() for row in rows)),),
    )


def strikes(fleet: Fleet) -> dict[str, Strike]:
    """Give each fault by its name."""

    def of(strike: OfFleet) -> Strike:
        return lambda stage, rng: strike(stage, fleet)

    return {
        f"network cut for {AWAY_S:.0f} s": cut,
        "network cut 10 times in 10 s": flapping,
        f"network swallows all for {2 * AWAY_S:.0f} s": black_hole,
        "network swallows the broker's answers, then breaks": answers_swallowed,
        f"half-closed in the middle of a handshake or publish, {BREAKS} times": broken(
            "half_close"
        ),
        f"reset in the middle of a handshake or publish, {BREAKS} times": broken("reset"),
        f"broker killed −9, {KILLS_OF_BROKER} times": killed(),
        "the node's certificate renewed, the old one then revoked": of(renewed),
        "the node's certificate renewed, cut off before its key is": of(renewed_by_halves),
        "the node's certificate revoked, then another put in its place": of(revoked),
        f"the broker's certificate expired for {AWAY_S:.0f} s": of(broker_expired),
        f"the broker's list of what is revoked out of date for {AWAY_S:.0f} s": of(list_expired),
    }


def renewed(stage: Stage, fleet: Fleet) -> None:
    """Renew under way; with the old one, which the node has loaded, it would not get in after."""
    before = connections(stage)
    fleet.revoke_node()
    put(fleet.issue_node(), fleet.node)
    until(lambda: connections(stage) > before, "the new certificate is not taken up")
    hold(1.0)
    read_again(stage, fleet)


def renewed_by_halves(stage: Stage, fleet: Fleet) -> None:
    new = fleet.issue_node()
    new.certificate.replace(fleet.node.certificate)
    hold(HALF_DONE_S)
    stage.proxy.cut()
    stage.proxy.mend()
    hold(AWAY_S)
    refused(stage)
    new.key.replace(fleet.node.key)


def revoked(stage: Stage, fleet: Fleet) -> None:
    fleet.revoke_node()
    read_again(stage, fleet)
    hold(AWAY_S)
    refused(stage)
    put(fleet.issue_node(), fleet.node)


def broker_expired(stage: Stage, fleet: Fleet) -> None:
    fleet.certify_broker(expired=True)
    read_again(stage, fleet)
    hold(AWAY_S)
    refused(stage)
    fleet.certify_broker()
    stage.broker.reload(fleet.configuration)


def list_expired(stage: Stage, fleet: Fleet) -> None:
    # Nobody is let in any more, the auditor neither. A running broker would use the old list on.
    stage.broker.stop()
    fleet.list_revoked(expired=True)
    stage.broker.start()
    hold(AWAY_S)
    refused(stage)
    fleet.list_revoked()
    stage.broker.reload(fleet.configuration)


def read_again(stage: Stage, fleet: Fleet) -> None:
    """Have the broker read its files again, and the node connect to it anew."""
    stage.broker.reload(fleet.configuration)
    hold(0.5)
    stage.proxy.cut()
    stage.proxy.mend()


def refused(stage: Stage) -> None:
    """See that the fault is one: what was durable a while ago has not come."""
    life, soon_s = stage.lives[-1], time.monotonic() - AWAY_S / 2
    missing = stage.book.missing([life])
    assert any(life.durable_s[key] < soon_s for key in missing), "the node is not refused"


def connections(stage: Stage) -> int:
    """Count how often the present life was let in."""
    return stage.lives[-1].log.read_text("utf-8").count(f" as {NODE_ID}\n")
