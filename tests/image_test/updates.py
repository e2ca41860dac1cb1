"""Releases, good, deaf, forged and older, offered to a node that boots from the image."""

from __future__ import annotations

import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import node
from provisioning.update.repository import Repository
from tests.evidence import Claim, Detail
from tests.hil.release_server import DEAF
from tests.image_test.bench import ON_S, Bench, bench, is_online
from tests.image_test.inside import UNITS, said, wait_inside
from tests.image_test.releases import packed, under
from tests.parts import Part, Tell

NODE: Final = "node-0001"
TRIAL_S: Final = 1200.0
"""Ten minutes is what a release has to prove itself in; unpacking under emulation comes on top."""
GOOD, BAD, FORGED = "9.0.1", "9.0.2", "9.0.3"
# Once in 6 h is what a node asks in; each boot of these tests asks at once, and every minute again.
ASKS: Final = """\
[Unit]
After=gunfire-node.service
[Service]
ExecStart=/bin/sh -c 'while sleep 60; do systemctl start gunfire-node-update; done'
"""


def measure(tell: Tell) -> Part:
    """Offer a good one, a deaf one, a forged one and an older one, in turn."""
    with bench("updates") as stage:
        return _measure(stage, tell)


def _certified(birth: dict[str, Any]) -> bool:
    """Say whether a birth is of after enrolment: the first may come before its certificate."""
    return bool(birth["key"]["certificate"])


def _measure(stage: Bench, tell: Tell) -> Part:
    office = stage.office
    tell("packing releases")
    folder = stage.folder / "releases"
    good, bad = under(folder, GOOD), under(folder, BAD, DEAF)
    older, forged = _older(stage), _forged(stage)
    card = stage.card(NODE)
    rows = [("as flashed", node.__version__)]
    with stage.guest(card, units=UNITS | {"asks.service": ASKS}) as (guest, _):
        tell("waiting for the node at the broker")
        office.wait("status", NODE, ON_S, is_online)
        office.wait("detection", NODE, ON_S)
        first = office.wait("node", NODE, ON_S, _certified)

        tell(f"{GOOD}: a good one")
        office.fleet("release", "add", good)
        began_s = time.monotonic()
        proven = wait_inside(guest, TRIAL_S, lambda now: _runs(now, GOOD) and _proven(now, GOOD))
        proven_s = time.monotonic() - began_s
        rows.append((f"{GOOD}, good", proven["update"]["figure"]))
        after = office.wait("node", NODE, ON_S, lambda word: word["firmware"] == GOOD)
        same = all(first[key] == after[key] for key in ("node_id", "site", "key"))

        tell(f"{BAD}: deaf")
        office.fleet("release", "add", bad)
        began_s = time.monotonic()
        wait_inside(guest, TRIAL_S, lambda now: _trial_of(now, BAD))
        back = wait_inside(guest, TRIAL_S, lambda now: _runs(now, GOOD) and _blames(now, BAD))
        back_s = time.monotonic() - began_s
        rows.append((f"{BAD}, deaf", back["update"]["figure"]))
        office.wait("detection", NODE, ON_S, after=len(office.words()))

        refused = []
        for what, other in (("forged", forged), ("older", older)):
            tell(f"{what}: in the place of the owner's")
            before = said(guest)["update"]["figure"]
            _serve(stage, other)
            now = wait_inside(
                guest,
                TRIAL_S,
                partial(_complains_anew, before),
            )
            refused.append(_runs(now, GOOD))
            rows.append((what, now["update"]["figure"]))
        heard = [w for w in office.words() if w["schema"].startswith("gunfire.detection/")]
    verdict = office.verify()
    return Part(
        (
            Claim("good release: from published to proven, unpacked under emulation", proven_s,
                  "s"),
            Claim("good release: same name and signing key", int(same), "", "1", same),
            Claim("deaf release: from published to taken back by itself", back_s, "s",
                  f"≤ {TRIAL_S:.0f}", back_s <= TRIAL_S),
            Claim("forged; older metadata: refused, told, the good one runs on", sum(refused), "",
                  "2", sum(refused) == 2),
            Claim("detections of its life across all that, in one chain",
                  max(word["seq"] for word in heard), ""),
            Claim("of them altered, missing, foreign, forked", verdict["found"], "", "0",
                  verdict["found"] == 0),
        ),
        (Detail("What the node says of each release", ("release", "says"), tuple(rows)),),
    )  # fmt: skip


def _runs(now: dict[str, Any], version: str) -> bool:
    return bool(now["status"]["firmware"] == version and now["status"]["hears"])


def _proven(now: dict[str, Any], version: str) -> bool:
    # While it is on trial, all is well too: "tries 9.0.1 in place of ...".
    return _well(now) and now["update"]["figure"].startswith(f"{version},")


def _well(now: dict[str, Any]) -> bool:
    return bool(now["update"]["verdict"] == "pass")


def _trial_of(now: dict[str, Any], version: str) -> bool:
    return version in now["update"]["figure"]


def _blames(now: dict[str, Any], version: str) -> bool:
    return version in now["update"]["figure"] and not _well(now)


def _complains_anew(before: str, now: dict[str, Any]) -> bool:
    return not _well(now) and now["update"]["figure"] != before


def _older(stage: Bench) -> Path:
    """Make the owner's first release, and keep a copy of all that is served of it."""
    stage.office.fleet("release", "init")
    stage.office.fleet("release", "add", packed())
    kept = stage.folder / "older"
    shutil.copytree(stage.office.fleet_folder / "releases", kept)
    return kept


def _forged(stage: Bench) -> Path:
    """Have somebody else sign a higher version."""
    repository = Repository(stage.folder / "forger", lambda role: "")
    repository.make(None)
    repository.add(under(stage.folder / "releases", FORGED))
    return stage.folder / "forger" / "releases"


def _serve(stage: Bench, other: Path) -> None:
    """Put other files where the owner's releases are served."""
    served = stage.office.fleet_folder / "releases"
    shutil.rmtree(served)
    shutil.copytree(other, served)
