"""What a broker may lose after its acknowledgement, which no node can know; told, not judged.

A real Mosquitto with durable acknowledgements, set up or treated so that it drops what it has
taken. What is judged is that a subscriber can find each such loss by the numbers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from node.errors import BrokerError
from tests.evidence import Claim, Detail
from tests.faults.delivery import hold, restart
from tests.faults.disk import small_disk
from tests.faults.stage import Stage
from tests.integration.full_disk import fill
from tests.parts import Part, Tell

AWAY_S: Final = 6.0
QUEUE: Final = 20
SOON_S: Final = 8.0


def measure(tell: Tell) -> Part:
    """Have a broker lose in two ways what it has acknowledged."""
    rows, hidden = [], 0
    for name, lose in (
        (f"subscriber away, its queue at the broker bounded to {QUEUE}", queue_full),
        (
            f"subscriber away, the broker's own disk full for {AWAY_S:.0f} s, then killed −9",
            no_disk,
        ),
    ):
        tell(name)
        made, lost, found = _lost(lose)
        hidden += lost - found
        rows.append((name, *(("–",) * 3 if not made else (str(made), str(lost), str(found)))))
    columns = ("broker", "acknowledged and sent", "lost by the broker", "seen as holes in seq")
    return Part(
        (
            Claim(
                "lost by a broker after its acknowledgement, and not to be seen as a hole in seq",
                hidden, "", "0", hidden == 0,
            ),
        ),
        (Detail("What only the broker can promise", columns, tuple(rows)),),
    )  # fmt: skip


def _lost(lose: Callable[[Stage, Path], None]) -> tuple[int, int, int]:
    with tempfile.TemporaryDirectory(prefix="gunfire-beyond-") as scratch:
        disk = Path(scratch) / "broker"
        disk.mkdir()
        with small_disk(disk, "1m") as is_small, Stage(Path(scratch)) as stage:
            if lose is no_disk and not is_small:
                return 0, 0, 0
            lose(stage, disk)
            life = stage.lives[0]
            stage.catch_up(SOON_S)
            life.end()
            stage.catch_up(SOON_S)
            missing = len(stage.book.missing([life]))
            holes = sum(fault.endswith("missing") for fault in stage.book.chain_faults())
            return len(life.durable_s), missing, holes


def queue_full(stage: Stage, disk: Path) -> None:
    restart(stage, f"max_queued_messages {QUEUE}")
    life = stage.live()
    stage.wait_until_heard(life, 3)
    stage.auditor.leave()
    hold(AWAY_S)
    stage.auditor.connect()


def no_disk(stage: Stage, disk: Path) -> None:
    life = stage.live()
    stage.wait_until_heard(life, 3)
    stage.auditor.leave()
    fill(disk / "filler")
    hold(AWAY_S)
    stage.broker.kill()
    (disk / "filler").unlink()
    try:
        stage.broker.start()
    except BrokerError:
        # Mosquitto 2.0.11 has put a torn file in place of its database, and refuses to start by it.
        (disk / "mosquitto.db").unlink()
        stage.broker.start()
    stage.auditor.connect()
