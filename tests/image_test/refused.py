"""Revoked, copied, there twice, run out: whom the fleet no longer wants, and how each is told."""

from __future__ import annotations

import time
from typing import Any, Final

from tests.evidence import Claim, Detail
from tests.hil.virtual_receiver import VirtualReceiver
from tests.image_test.bench import ON_S, Bench, bench, is_online
from tests.image_test.inside import UNITS, wait_inside
from tests.parts import Part, Tell

REVOKED, COPIED, TWICE, LATE = "node-0001", "node-0002", "node-0003", "node-0004"
ERROR: Final = "gunfire-node-error.txt"
OTHER_MAC: Final = "52:54:00:65:43:21"
ALONE_S: Final = 60.0
"""For so long a box that is refused must stay away from the broker."""
LATER_DAYS: Final = 800
"""Certificates live for 730 days."""


def measure(tell: Tell) -> Part:
    """Enrol four nodes, and make each of them unwanted in its own way."""
    with bench("refused") as stage:
        claims: list[Claim] = []
        rows: list[tuple[str, str, str]] = []
        for name, strike in (
            ("revoked", _revoked), ("copied card", _copied), ("there twice", _twice),
            ("run out", _late),
        ):  # fmt: skip
            tell(name)
            refused, by_node, by_fleet = strike(stage, tell)
            claims.append(
                Claim(f"{name}: refused, and told by node or card, and by the fleet",
                      int(refused), "", "1", refused)
            )  # fmt: skip
            rows.append((name, by_node, by_fleet))
    return Part(
        tuple(claims),
        (Detail("Unwanted nodes", ("what", "the node says", "the fleet says"), tuple(rows)),),
    )


Told = tuple[bool, str, str]


def _revoked(stage: Bench, tell: Tell) -> Told:
    office, card = stage.office, stage.card(REVOKED)
    with stage.guest(card, units=UNITS) as (guest, _):
        office.wait("status", REVOKED, ON_S, is_online)
        office.fleet("revoke", REVOKED)
        office.use_revocations()
        now = wait_inside(
            guest,
            ON_S,
            lambda now: not now["status"]["broker"]["connected"],
        )
        heard = len(office.words())
        time.sleep(ALONE_S)
        now = wait_inside(guest, ON_S, lambda now: bool(now["status"]))
        words = [w for w in office.words()[heard:] if w["node_id"] == REVOKED and is_online(w)]
    said = "; ".join(
        check["figure"] for check in now["status"]["checks"] if check["name"] == "broker"
    )
    state = str(office.member(REVOKED)["state"])
    return not words and state == "revoked" and "revoked" in said, said, state


def _copied(stage: Bench, tell: Tell) -> Told:
    office, card = stage.office, stage.card(COPIED)
    with stage.guest(card):
        office.wait("status", COPIED, ON_S, is_online)
        office.wait("detection", COPIED, ON_S)
    copy = card.copy(stage.folder / "copy.img")
    heard = len(office.words())
    with stage.guest(copy, mac=OTHER_MAC):
        until_s = time.monotonic() + ON_S
        while (words := copy.read(ERROR)) is None and time.monotonic() < until_s:
            time.sleep(1.0)
        time.sleep(ALONE_S)
        came = [w for w in office.words()[heard:] if w["node_id"] == COPIED and is_online(w)]
    said = " ".join((words or b"nothing").decode("utf-8-sig").split())
    return not came and "board" in said, said, "nothing: it never came"


def _twice(stage: Bench, tell: Tell) -> Told:
    """Two boxes that cannot be told apart: a copy on purpose."""
    office, card = stage.office, stage.card(TWICE)
    office.watch()
    with stage.guest(card):
        office.wait("status", TWICE, ON_S, is_online)
        office.wait("detection", TWICE, ON_S)
    copy = card.copy(stage.folder / "copy.img")
    with (
        VirtualReceiver() as another,
        stage.guest(card),
        stage.guest(copy, nmea=another.device),
    ):
        until_s = time.monotonic() + 3 * ON_S
        while not office.member(TWICE).get("cloned_utc") and time.monotonic() < until_s:
            time.sleep(2.0)
        said = office.wait("status", TWICE, ON_S, lambda word: bool(_other_client(word)))
        office.fleet("revoke", TWICE)
        office.use_revocations()
        time.sleep(ALONE_S / 2)
        heard = len(office.words())
        time.sleep(ALONE_S)
        came = [w for w in office.words()[heard:] if w["node_id"] == TWICE and is_online(w)]
    member = office.member(TWICE)
    told = bool(member.get("cloned_utc"))
    return (
        told and not came,
        _other_client(said),
        f"{member['state']}, twice since {member.get('cloned_utc')}",
    )


def _other_client(status: dict[str, Any]) -> str:
    return "; ".join(reason for reason in status.get("reasons", ()) if "other client" in reason)


def _late(stage: Bench, tell: Tell) -> Told:
    """Its certificate has run out while it lay in a drawer; so the whole world is later."""
    office, card = stage.office, stage.card(LATE)
    with stage.guest(card):
        office.wait("status", LATE, ON_S, is_online)
    with office.later(LATER_DAYS) as ahead_s:
        stage.receiver.off_s = ahead_s
        heard = len(office.words())
        with stage.guest(card, units=UNITS) as (guest, _):
            now = wait_inside(guest, 2 * ON_S, lambda now: now["enrolment"]["verdict"] == "fail")
            time.sleep(ALONE_S)
            came = [w for w in office.words()[heard:] if w["node_id"] == LATE and is_online(w)]
        stage.receiver.off_s = 0.0
        state = str(office.member(LATE)["state"])
    said = str(now["enrolment"]["figure"])
    return not came and "expired" in state, said, state
