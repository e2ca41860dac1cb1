"""The node is killed at random moments, some hundred times, and starts again where it was.

While it lives, the broker dies now and then and the network breaks, so that some of its deaths
fall upon a full outbox. In the end everything that was ever durable has to have come, in one chain
from the first message of the first life to the last of the last.
"""

from __future__ import annotations

import random
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization

from tests.evidence import ROOT, Claim, Detail
from tests.faults.book import Tally
from tests.faults.delivery import claims, hold
from tests.faults.stage import Stage
from tests.hil.process import GUNFIRE_NODE
from tests.parts import Part, Tell

KILLS: Final = 220
MEAN_S: Final = 1.0
LONGEST_S: Final = 4.0
VERIFY_S: Final = 120.0


def measure(tell: Tell) -> Part:
    """Kill, and count in the end."""
    with (
        tempfile.TemporaryDirectory(prefix="gunfire-kills-") as scratch,
        Stage(Path(scratch)) as stage,
    ):
        troubles = kill_at_random(
            stage, KILLS, random.Random(7), lambda n: tell(f"kill {n} of {KILLS}")
        )
        tell("receiving what is left")
        life = stage.live()
        stage.wait_until_heard(life)
        life.end()
        stage.settle()
        total = stage.book.tally(stage.lives)
        mute = sum(not life.durable_s for life in stage.lives[:KILLS])
        faults = stage.book.chain_faults()
        strangers = stage.book.strangers(stage.lives)
        verdict = verified(stage)
    what = f"node killed −9 at random, {KILLS} times"
    return Part(
        (
            *claims(what, total, strangers, faults),
            Claim(
                f"{what}: `gunfire-node verify` on all that was received: faults found",
                0 if verdict is None else 1, "", "0", verdict is None,
            ),
        ),
        (_table(total, mute, troubles, verdict),),
    )  # fmt: skip


def kill_at_random(
    stage: Stage, kills: int, rng: random.Random, count: Callable[[int], None]
) -> dict[str, int]:
    """Kill lives at random moments, in the middle of other trouble too; count that."""
    troubles = {"none": 0, "broker killed": 0, "network reset": 0, "network cut": 0}
    for number in range(1, kills + 1):
        count(number)
        trouble = rng.choices(list(troubles), (7, 1, 1, 1))[0]
        troubles[trouble] += 1
        life = stage.live()
        hold(min(LONGEST_S, rng.expovariate(1 / MEAN_S)) / 2)
        if trouble == "broker killed":
            stage.broker.kill()
            stage.broker.start()
        elif trouble == "network reset":
            stage.proxy.break_after(rng.randrange(1, 6_000), "reset")
        elif trouble == "network cut":
            stage.proxy.cut()
        hold(min(LONGEST_S, rng.expovariate(1 / MEAN_S)) / 2)
        assert life.alive, f"life {number} ended by itself: {life.log.read_text()[-2000:]}"
        life.kill()
        stage.proxy.mend()
    return troubles


def verified(stage: Stage) -> str | None:
    """Have `gunfire-node verify` judge all that was received; None if it finds it good."""
    log, key = stage.folder / "received.jsonl", stage.folder / "public.pem"
    kinds = ("detection", "checkpoint", "node")
    log.write_bytes(
        b"".join(heard.payload + b"\n" for heard in stage.book.heard if heard.kind in kinds)
    )
    private = serialization.load_pem_private_key((stage.folder / "node.key").read_bytes(), None)
    key.write_bytes(
        private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    done = subprocess.run(
        [*GUNFIRE_NODE, "verify", log, "--key", key],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=VERIFY_S,
        check=False,
    )
    return None if done.returncode == 0 else (done.stdout + done.stderr).strip()[-300:]


def _table(total: Tally, mute: int, troubles: dict[str, int], verdict: str | None) -> Detail:
    rows = (
        ("lives killed", str(KILLS)),
        ("of them before anything was durable", str(mute)),
        *((f"of them with trouble beside: {name}", str(n)) for name, n in troubles.items()),
        ("messages durable", str(total.made)),
        ("events", str(total.events)),
        ("received", str(total.received)),
        ("came again", str(total.doubled)),
        ("shots well inside a life", str(total.shots)),
        ("longest way, over several lives", f"{total.latest_s:.1f} s"),
        ("`gunfire-node verify`", verdict or "good"),
    )
    return Detail("The node killed at random", ("", "value"), rows)
