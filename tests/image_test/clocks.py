"""No battery: the clock says 2023 as the power comes on, and nothing tells the time for a while."""

from __future__ import annotations

import time
from typing import Any, Final

from tests.evidence import Claim, Detail
from tests.image_test.bench import ON_S, Bench, bench, by_pulse, is_online
from tests.image_test.inside import UNITS, wait_inside
from tests.parts import Part, Tell

NODE: Final = "node-0001"
WAITS_S: Final = 30.0


def measure(tell: Tell) -> Part:
    """Boot with no time, see that it waits and says so; then give it the time."""
    with bench("clocks") as stage:
        return _measure(stage, tell)


def _measure(stage: Bench, tell: Tell) -> Part:
    card, office = stage.card(NODE), stage.office
    stage.receiver.silent = True
    with stage.guest(card, units=UNITS) as (guest, _):
        tell("waiting for it to hear")
        wait_inside(guest, ON_S, lambda now: now["status"]["hears"])
        hears_s = time.monotonic() - guest.on_s
        tell("waiting for it to say that it waits")
        waits = wait_inside(guest, ON_S, lambda now: "clock" in now["enrolment"]["figure"])
        tell("seeing that it does wait")
        time.sleep(WAITS_S)
        refused = [word for word in office.words() if word["node_id"] == NODE]
        stage.receiver.silent = False
        given_s = time.monotonic()
        tell("the receiver speaks: waiting for the node at the broker")
        office.wait("status", NODE, ON_S, is_online)
        connected_s = time.monotonic() - given_s
        now = wait_inside(guest, ON_S, lambda said: said["enrolment"]["verdict"] == "pass")
        office.wait("status", NODE, ON_S, by_pulse)
    restarts = int(_run(now) != _run(waits))
    return Part(
        (
            Claim("clock at 2023: hears after", hears_s, "s"),
            Claim("clock at 2023: words at the broker before it has the time", len(refused), "",
                  "0", not refused),
            Claim("from the receiver's first word to the broker", connected_s, "s",
                  f"≤ {ON_S:.0f}", connected_s <= ON_S),
            Claim("restarts of the node for that", restarts, "", "0", restarts == 0),
        ),
        (
            Detail("What it says meanwhile", ("who", "says"), (
                ("enrolment", waits["enrolment"]["figure"]),
                *((check["name"], check["figure"]) for check in waits["status"]["checks"]
                  if check["name"] in ("clock", "broker") and check["verdict"] != "pass"),
                ("enrolment, later", now["enrolment"]["figure"]),
            )),
        ),
    )  # fmt: skip


def _run(said: dict[str, Any]) -> int:
    return int(said["status"]["pid"])
