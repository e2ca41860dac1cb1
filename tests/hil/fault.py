"""A fault: how it strikes, what must be told of it and how soon, and what became of it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from typing import Final, Generic, Literal, TypeVar

from node.messages import Detection, Status
from tests.hil.bench import Bench, Part
from tests.hil.container import NODE
from tests.hil.ear import onset_utc_ns
from tests.hil.unit_stage import RATE

WELL_S: Final = 90.0
LATELY_NS: Final = 8 * 10**9
"""Within which a node that hears has told a shot of the street."""
CATCH_UP_S: Final = 15.0
"""In which all that was heard has to have come, once a node is well again."""
SAME_S: Final = 0.2
"""A detection this near to a shot tells it."""
APART_S: Final = 1.5
"""Shots are so far apart at least."""
MARGIN_S: Final = 1.0
"""So soon after a blow a shot may be one that was heard before it."""
IN_HAND_S: Final = 3.0
"""From a shot to its detection at the subscriber, at most."""
AZIMUTH_DEG: Final = 29.745
"""Of the street's shots: 40 m east, 70 m north."""
NAMED_S: Final = 10.0
"""In which the status file, which is written every 5 s, names what a subscriber was told."""
STATUS_FILE: Final = "/run/gunfire-node/status.json"
# What a node says of the past, however well it is now.
_PAST: Final = re.compile(
    r"samples lost so far|^the last run|outbox .* is (set aside|put back)|, [01] s wait: so far"
)

B = TypeVar("B", bound=Bench)
Mend = Callable[[], None]


@dataclass(frozen=True)
class Fault(Generic[B]):
    """A row of the matrix, as it stands before it is struck.

    Attributes
    ----------
    name
        What breaks.
    strike
        Breaks it on a bench, and gives what mends it.
    told
        Matches the words that have to be told, in a reason of the status or in a line of the
        node's status file; empty where nothing is to be told, since nothing is lost by it.
    where
        Matches the check of the node's status file that has to tell it then, where what is broken
        is one of several.
    by
        Who has to know: a `subscriber` by the status or the last will, or whoever looks at the
        `node` (its status file, and so its light), where no word of the node's can get out.
    told_s, recovers_s
        Bounds in s: from the blow until it is told; from the mending, or from the blow where the
        node `heals` it by itself, until a shot is heard and nothing is told but of the past.
    stands_s
        How long it stands at least.
    deaf
        Whether the microphones cannot hear meanwhile: what was shot then is not owed.
    blind_s
        So much sound after the blow is lost, and what was shot in it is not owed.
    keeps_sound
        Whether it may not cost a single sample, be there a shot in it or not.
    may_lose_sound
        Whether it may cost sound, if the node tells how much: what could be shot in so much sound
        is forgiven.
    late_s
        In which all that was heard has to have come, once the node is well again.
    alone
        Whether it disturbs whatever else runs on the same machine.
    untold_bearings
        Whether bearings go wrong and no sound can tell (docs/decisions/0017).
    needs
        What it takes hold of.
    """

    name: str
    strike: Callable[[B], Mend]
    told: str = ""
    where: str = ""
    by: Literal["subscriber", "node"] = "subscriber"
    told_s: float = 15.0
    recovers_s: float = 30.0
    stands_s: float = 8.0
    deaf: bool = False
    blind_s: float = 0.0
    keeps_sound: bool = False
    may_lose_sound: bool = False
    late_s: float = CATCH_UP_S
    heals: bool = False
    alone: bool = False
    untold_bearings: bool = False
    needs: tuple[Part, ...] = ()


@dataclass
class Outcome:
    """What became of a fault; None is what never came.

    Attributes
    ----------
    told_s, words
        When it was told, and how.
    unasked
        What else was told while it stood, but of the past.
    recovered_s
        From the mending until all was well.
    owed, lost, doubled
        Shots that the microphones heard; those of them that no detection tells; detections more
        than one of a shot.
    strays
        Detections near no shot, but for echoes of those whose direct sound was lost.
    forgiven
        Shots besides that fell into sound of which the node says that it was lost.
    worst_s, beyond
        Largest error of a published time; how many were off by more than 3 of their own σ.
    astray
        Published bearings that were off by more than 3 of their own σ and 2°.
    """

    told_s: float | None = None
    words: str = ""
    unasked: str = ""
    recovered_s: float | None = None
    owed: int = 0
    forgiven: int = 0
    lost_samples: int = 0
    lost: int = 0
    doubled: int = 0
    strays: int = 0
    worst_s: float = 0.0
    beyond: int = 0
    astray: int = 0
    complaints: list[str] = field(default_factory=list)


def strike(bench: B, fault: Fault[B]) -> Outcome:
    """Strike a node that is well, mend it, and see what it told and what it lost."""
    outcome = Outcome()
    _begin_anew(bench, fault)
    wait_until_well(bench)
    before = {detection.boot_id for detection in bench.ear.detections()}
    status = bench.ear.status()
    began_ns, struck_s = time.time_ns(), time.monotonic()
    mend = fault.strike(bench)
    try:
        if fault.told:
            outcome.told_s, outcome.words = _wait_until_told(bench, fault, struck_s)
        if fault.where:
            _wait_until_named(bench, fault, outcome)
        time.sleep(max(0.0, struck_s + fault.stands_s - time.monotonic()))
    finally:
        mend()
    mended_s, mended_ns = time.monotonic(), time.time_ns()
    outcome.unasked = _unasked(bench, fault, struck_s)
    if fault.heals:
        outcome.recovered_s = _wait_until_heard_anew(bench, fault, struck_s, before)
    else:
        outcome.recovered_s = _wait_until_recovered(bench, fault, mended_s, mended_ns)
    _count(bench, fault, outcome, began_ns, mended_ns, status)
    outcome.complaints += _complaints(fault, outcome)
    try:
        wait_until_well(bench)
    except AssertionError as error:
        outcome.complaints.append(f"long after, {error}")
    return outcome


def wait_until_well(bench: Bench) -> None:
    """Wait until a node hears, and nothing is told but of the past.

    Raises
    ------
    AssertionError
        If it does not come to that, with what it says.
    """
    if not bench.ear.wait(lambda: _is_well(bench, time.time_ns() - LATELY_NS), WELL_S):
        raise AssertionError(f"the node is not well: {bench.ear.status()}")


def _is_well(bench: Bench, since_ns: int) -> bool:
    """Say whether a node has heard a shot since, and tells nothing but of the past."""
    status = bench.ear.status()
    return (
        status is not None
        and status.state != "offline"
        and all(_PAST.search(reason) for reason in status.reasons)
        and _last_onset_ns(bench) > since_ns
    )


def _begin_anew(bench: Bench, fault: Fault[B]) -> None:
    """Begin a new run where the words that are waited for stand from one before."""
    status = bench.ear.status()
    if fault.told and status is not None and _match(fault, status.reasons):
        bench.machine.systemctl("restart", NODE)
        bench.ear.wait(lambda: bench.ear.status() is not status, 10.0)


def _wait_until_told(bench: Bench, fault: Fault[B], struck_s: float) -> tuple[float | None, str]:
    words = ""

    def is_told() -> bool:
        nonlocal words
        if fault.by == "node":
            words = _match(fault, _local(bench))
        else:
            said = [t.message for t in bench.ear.told(struck_s) if isinstance(t.message, Status)]
            words = next(filter(None, (_match(fault, status.reasons) for status in said)), "")
        return bool(words)

    told = bench.ear.wait(is_told, fault.told_s + struck_s - time.monotonic() + 10.0)
    return (time.monotonic() - struck_s if told else None), words


def _wait_until_named(bench: Bench, fault: Fault[B], outcome: Outcome) -> None:
    """Wait until the node's status file names what is broken."""

    def is_named() -> bool:
        return any(re.search(fault.where, reason) for reason in _local(bench))

    if not bench.ear.wait(is_named, NAMED_S):
        outcome.complaints.append(f"the status file does not name {fault.where}: {_local(bench)}")


def _unasked(bench: Bench, fault: Fault[B], struck_s: float) -> str:
    """Give what the node told besides, since the blow, of how it is now."""
    said = [t.message for t in bench.ear.told(struck_s) if isinstance(t.message, Status)]
    # The last will was written when the node connected.
    own = [status for status in said if status.state != "offline"]
    reasons = dict.fromkeys(reason for status in own for reason in status.reasons)
    return "; ".join(
        reason
        for reason in reasons
        if not _PAST.search(reason) and not (fault.told and re.search(fault.told, reason))
    )


def _wait_until_recovered(
    bench: Bench, fault: Fault[B], mended_s: float, mended_ns: int
) -> float | None:
    def is_well() -> bool:
        if not _is_well(bench, mended_ns):
            return False
        return fault.by != "node" or not _match(fault, _local(bench))

    well = bench.ear.wait(is_well, fault.recovers_s + mended_s - time.monotonic() + 10.0)
    return time.monotonic() - mended_s if well else None


def _wait_until_heard_anew(
    bench: Bench, fault: Fault[B], struck_s: float, before: set[str]
) -> float | None:
    """Give how long after the blow a run that is none of those before has told a shot."""
    at_s: float | None = None

    def is_heard() -> bool:
        nonlocal at_s
        at_s = next(
            (
                told.at_s
                for told in bench.ear.told(struck_s)
                if isinstance(told.message, Detection) and told.message.boot_id not in before
            ),
            None,
        )
        return at_s is not None

    bench.ear.wait(is_heard, fault.recovers_s + struck_s - time.monotonic() + 10.0)
    return None if at_s is None else at_s - struck_s


def _count(
    bench: Bench,
    fault: Fault[B],
    outcome: Outcome,
    began_ns: int,
    mended_ns: int,
    before: Status | None,
) -> None:
    """Set what was published beside what was shot."""
    end_ns = time.time_ns()
    shots = bench.onsets_utc_ns(began_ns - round(IN_HAND_S * 1e9), end_ns)
    heard: dict[int, list[Detection]] = {}

    def look() -> bool:
        heard.clear()
        for detection in _latest(bench.ear.detections()):
            onset_ns = onset_utc_ns(detection)
            near = min(shots, key=lambda shot: abs(shot - onset_ns), default=None)
            if near is not None and abs(near - onset_ns) <= SAME_S * 1e9:
                heard.setdefault(near, []).append(detection)
        return all(shot in heard for shot in owed)

    lost_ns = began_ns + round(fault.blind_s * 1e9)
    owed_ns = lost_ns
    if not fault.deaf and not fault.blind_s:
        owed_ns = _hearing_since_ns(bench, before)  # what was on its way at the blow too
    owed = [shot for shot in shots if shot >= owed_ns]
    again_ns = 0
    if fault.deaf:
        look()
        after_ns = began_ns + MARGIN_S * 1e9 if fault.heals else mended_ns
        again_ns = min((shot for shot in heard if shot > after_ns), default=end_ns)
        owed = [shot for shot in owed if shot >= again_ns]
    bench.ear.wait(look, fault.late_s)
    missing = [shot for shot in owed if shot not in heard]
    outcome.lost_samples = _told_lost(bench, before)
    if fault.may_lose_sound and outcome.lost_samples:
        outcome.forgiven = min(len(missing), int(outcome.lost_samples / RATE / APART_S) + 1)
    outcome.owed = len(owed) - outcome.forgiven
    outcome.lost = len(missing) - outcome.forgiven
    outcome.doubled = sum(len(told) - 1 for told in heard.values())
    # Of a shot whose direct sound was lost the echo is told.
    cut_off = {shot for shot in shots if began_ns < shot <= max(lost_ns, again_ns)}
    cut_off.update(missing)
    outcome.strays = _strays(bench, shots, cut_off)
    if outcome.forgiven:
        return
    for shot in heard.keys() - cut_off:
        for detection in heard[shot]:
            _judge(outcome, detection, shot)


def _hearing_since_ns(bench: Bench, before: Status | None) -> int:
    """Give the first shot that the run before the blow has told."""
    boot_id = before and before.boot_id
    told = (onset_utc_ns(d) for d in bench.ear.detections() if d.boot_id == boot_id)
    return min(told, default=time.time_ns()) - round(SAME_S * 1e9)


def _strays(bench: Bench, shots: Sequence[int], cut_off: Set[int]) -> int:
    """Count the detections that tell none of these shots, nor one before or after them.

    Not counted is what came from a shot whose direct sound was lost, and soon after it.
    """
    onsets_ns = [onset_utc_ns(detection) for detection in _latest(bench.ear.detections())]
    within = [at for at in onsets_ns if shots and shots[0] <= at <= shots[-1]]
    return sum(
        min(abs(shot - at) for shot in shots) > SAME_S * 1e9
        and not any(0 < at - shot < APART_S * 1e9 for shot in cut_off)
        for at in within
    )


def _judge(outcome: Outcome, detection: Detection, shot_ns: int) -> None:
    error_s = (onset_utc_ns(detection) - shot_ns) / 1e9
    outcome.worst_s = max(outcome.worst_s, abs(error_s))
    outcome.beyond += abs(error_s) > 3 * detection.rounds[0].sigma_s
    if detection.direction is not None:
        off_deg = (detection.direction.azimuth_deg - AZIMUTH_DEG + 180) % 360 - 180
        outcome.astray += abs(off_deg) > max(2.0, 3 * detection.direction.sigma_deg)


def _complaints(fault: Fault[B], outcome: Outcome) -> Sequence[str]:
    """Say in which ways a fault was not taken as it should be."""
    said = []
    if fault.told and (outcome.told_s is None or outcome.told_s > fault.told_s):
        said.append(f"not told within {fault.told_s:g} s")
    if outcome.recovered_s is None or outcome.recovered_s > fault.recovers_s:
        said.append(f"not well again within {fault.recovers_s:g} s")
    for count, what in (
        (outcome.lost, "shots lost"),
        (outcome.lost_samples * fault.keeps_sound, "samples lost"),
        (outcome.doubled, "shots told twice"),
        (outcome.strays, "detections of no shot"),
        (outcome.beyond, "times off by more than 3 σ"),
        (outcome.astray * (not fault.untold_bearings), "bearings astray"),
    ):
        if count:
            said.append(f"{count} {what}")
    return said


def _told_lost(bench: Bench, before: Status | None) -> int:
    """Give how many samples the node says it has lost since."""
    now = bench.ear.status()
    if now is None or now.lost_samples is None:
        return 0
    same_run = before is not None and before.boot_id == now.boot_id
    return now.lost_samples - ((before.lost_samples or 0) if before and same_run else 0)


def _latest(detections: Sequence[Detection]) -> list[Detection]:
    """Give the highest revision of each event."""
    latest: dict[str, Detection] = {}
    for detection in detections:
        known = latest.get(detection.event_id)
        if known is None or detection.revision > known.revision:
            latest[detection.event_id] = detection
    return [detection for detection in latest.values() if detection.type != "cancel"]


def _last_onset_ns(bench: Bench) -> int:
    """Give when the latest shot was; one told as yet to come, by a clock ahead, is none."""
    onsets = (onset_utc_ns(detection) for detection in bench.ear.detections()[-8:])
    return max((onset for onset in onsets if onset <= time.time_ns()), default=0)


def _match(fault: Fault[B], reasons: Sequence[str]) -> str:
    return next((reason for reason in reasons if re.search(fault.told, reason)), "")


def _local(bench: Bench) -> list[str]:
    """Give what the node's status file says is wrong."""
    done = bench.machine.run("cat", STATUS_FILE, check=False)
    try:
        checks = json.loads(done.stdout)["checks"]
    except (ValueError, KeyError):
        return []
    return [f"{c['name']}: {c['figure']}" for c in checks if c["verdict"] != "pass"]
