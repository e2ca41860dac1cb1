"""The faults that a node is struck with, and what is asked of it.

Bounds in seconds stand as they were written before the first run. Mended after it were: words that
the node says otherwise (the disk is full, the receiver's second, the leak); what a fault does
(the outbox is met spoilt at a start, a read-only disk is made by failing calls); sound that is lost
with the frames and so not owed; the bound of a hung broker, which is the sum of three waits and was
30 s (it took 26); what is asked of three (a fiftieth of a processor and chrony without its pulse
have nothing to tell, and a namesake is told at the node); and what is owed where sound is lost and
told, at a fiftieth of a processor, or comes a minute late, after many broken connections. The row
of memory cost sound in many blows; it has the machine alone since the node locks its memory, meets
programs that nobody else has read, and may lose no sample. Later, words were made narrower, broken
microphones are to be named, a removed outbox is to be told of, a dead broker refuses connections,
programs that want the processor are four a core in place of eight, and a step of the clock, which
chronyd does not see here and so vouched for in the end, stands for 8 s in place of 15.

By benches: what one row leaves behind the next one on the same bench may meet, where both fall to
the same worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from tests.hil import strikes as do
from tests.hil.bench import Frames
from tests.hil.fault import Fault
from tests.hil.unit_stage import RATE
from tests.hil.virtual_bench import PPM, PULSE, STATE

Row = Fault[Any]

DEAD_S: Final = 5.0
"""A card that delivers nothing is to be told so soon."""
SEEN_S: Final = 20.0
"""A broken microphone is to be told so soon."""
AWAY_S: Final = 30.0
"""A node that is cut off is to be missed so soon: 1.5 keep-alives of 5 s, and then some."""
SUSPECT_S: Final = 75.0
"""What was under way each time a connection broke may be what breaks it, and waits 60 s (0020)."""
HUNG_S: Final = 40.0
"""10 s without an answer, 10 s of the next connection, the status file's 5 s, and some."""
COLD_S: Final = 5 * 365 * 86400.0
"""So old is what a receiver's own clock says before it has a fix."""
ROLLOVER_S: Final = 1024 * 7 * 86400.0
"""A receiver counts weeks in ten bits. gpsd knows, and mends it."""


def doubled_pulse(frames: Frames) -> None:
    """Put a second pulse 0.3 s after each."""
    late = np.roll(frames[:, PULSE], round(0.3 * RATE))
    strongest = np.abs(late.astype(np.int64)) > np.abs(frames[:, PULSE].astype(np.int64))
    frames[strongest, PULSE] = late[strongest]


def jittering_pulse(frames: Frames) -> None:
    """Have each pulse come up to 200 µs early or late, in whole samples."""
    rng = np.random.default_rng(11)
    second = round(RATE * (1 + PPM * 1e-6))
    for first in range(second // 2, len(frames) - second, second):
        stretch = slice(first, first + second)
        frames[stretch, PULSE] = np.roll(frames[stretch, PULSE], int(rng.integers(-10, 11)))


def no_pulse(frames: Frames) -> None:
    """Cut the pulse's line to the card."""
    frames[:, PULSE] = 0


def strong_pulse(frames: Frames) -> None:
    """Leave the attenuator out."""
    louder = frames[:, PULSE].astype(np.float64) * 20
    frames[:, PULSE] = np.clip(louder, -(2**31), 2**31 - 256).astype(np.int32)


def _frames_lost(by: str = "") -> tuple[Row, Row]:
    """Give the rows of a loss without a flag: at any moment, and in a shot's own block."""
    at_once = Row(
        f"480 frames lost without a flag{by}",
        do.lose_frames(480),
        told="samples lost",
        blind_s=0.5,
        needs=("software",),
    )
    name = f"480 frames lost without a flag amid a shot{by}"
    return at_once, replace(
        at_once, name=name, strike=do.lose_frames(480, amid_shot=True), blind_s=0.0
    )


CARD: Final = (
    Row(
        "card unplugged, and back under another number",
        do.take("card"),
        told="delivered nothing|is not there",
        told_s=DEAD_S,
        deaf=True,
        needs=("card",),
    ),
    Row(
        "card stalls: there, and delivers nothing",
        do.stall_card,
        told="delivered nothing",
        told_s=DEAD_S,
        deaf=True,
        needs=("software",),
    ),
    *_frames_lost(),
    Row(
        "half a second of frames lost without a flag",
        do.lose_frames(24_000),
        told="samples lost",
        blind_s=1.0,
        needs=("software",),
    ),
)

MICROPHONES: Final = (
    Row(
        "a microphone is dead",
        do.hear(do.silence(1)),
        told="silent",
        where="^microphone 1: silent",
        told_s=SEEN_S,
        needs=("microphones",),
    ),
    Row(
        "a microphone is stuck",
        do.hear(do.constant(2, 0.3)),
        told="stuck",
        where="^microphone 2: stuck",
        told_s=SEEN_S,
        needs=("microphones", "software"),
    ),
    Row(
        "a microphone clips half of the time",
        do.hear(do.clipped(0)),
        told="full scale",
        where="^microphone 0: .*full scale",
        told_s=SEEN_S,
        needs=("microphones",),
    ),
    Row(
        "a microphone hums",
        do.hear(do.humming(3)),
        told="hums",
        where="^microphone 3: hums",
        told_s=SEEN_S,
        needs=("microphones",),
    ),
    Row(
        "a microphone hisses",
        do.hear(do.hissing(1)),
        told="louder than",
        where="^microphone 1: .*louder than",
        told_s=SEEN_S,
        needs=("microphones",),
    ),
    Row(
        "a channel is copied into another",
        do.hear(do.copied(2, 1)),
        told="carries the same",
        where="^microphone [12]: carries the same as microphone [12]",
        told_s=SEEN_S,
        needs=("microphones", "software"),
    ),
    Row(
        "two microphones exchanged",
        do.hear(do.exchanged(0, 2)),
        stands_s=15.0,
        untold_bearings=True,
        needs=("microphones",),
    ),
    Row(
        "a microphone inverted",
        do.hear(do.inverted(1)),
        stands_s=15.0,
        needs=("microphones",),
    ),
    Row(
        "channels rotated by one",
        do.hear(do.rotated),
        told="has rotated its channels",
        told_s=SEEN_S,
        needs=("microphones", "software"),
    ),
    Row(
        "all microphones dead",
        do.hear(do.all_silent),
        told="0 of 4 work",
        told_s=SEEN_S,
        deaf=True,
        needs=("microphones", "software"),
    ),
)

TIME: Final = (
    Row(
        "the pulse's line to the card is cut",
        do.hear(no_pulse),
        told="no pulse",
        told_s=20.0,
        stands_s=25.0,
        needs=("microphones", "software"),
    ),
    Row(
        "a second pulse after each",
        do.hear(doubled_pulse),
        stands_s=20.0,
        needs=("microphones", "software"),
    ),
    Row(
        "the pulse jitters by 200 µs",
        do.hear(jittering_pulse),
        stands_s=20.0,
        needs=("microphones", "software"),
    ),
    Row(
        "the pulse at full scale",
        do.hear(strong_pulse),
        told="full scale",
        told_s=SEEN_S,
        needs=("microphones", "software"),
    ),
    Row(
        "the receiver's pulse gone altogether",
        do.take("pulse"),
        told="no pulse",
        told_s=20.0,
        stands_s=25.0,
        needs=("pulse",),
    ),
    Row(
        "the receiver loses its fix",
        do.take("receiver"),
        told="no fix",
        needs=("receiver",),
    ),
    Row(
        "the receiver begins cold, with a date of years ago",
        do.receiver(fix=False, off_s=-COLD_S),
        told="no fix",
        needs=("software",),
    ),
    Row(
        "the receiver's week rolls over",
        do.receiver(off_s=-ROLLOVER_S),
        stands_s=20.0,
        recovers_s=60.0,
        needs=("software",),
    ),
    Row(
        "the receiver is silent",
        do.receiver(silent=True),
        told="nothing of a receiver|silent|says nothing",
        told_s=20.0,
        needs=("software",),
    ),
    Row(
        "the receiver names a wrong second",
        do.receiver(off_s=1.0),
        told="does not run steadily|has jumped",
        told_s=30.0,
        stands_s=20.0,
        recovers_s=60.0,
        needs=("software",),
    ),
    Row(
        "the receiver is a kilometre away",
        do.receiver(north_m=1000.0),
        told="m from where node.position says",
        told_s=60.0,
        recovers_s=120.0,
        needs=("software",),
    ),
    Row(
        "gpsd killed",
        lambda bench: (bench.gpsd.stop(), bench.gpsd.start)[1],
        told="gpsd",
        needs=("software",),
    ),
    Row(
        "gpsd hangs",
        lambda bench: (bench.gpsd.send(19), lambda: bench.gpsd.send(18))[1],
        told="gpsd",
        told_s=20.0,
        needs=("software",),
    ),
    Row(
        "chrony stopped",
        do.on_machine("systemctl stop chrony", "systemctl start chrony"),
        told="disciplines the clock|chrony",
        told_s=20.0,
        recovers_s=60.0,
        needs=("machine",),
    ),
)

NETWORK: Final = (
    Row(
        "the broker stopped",
        do.stop_broker,
        told="broker.*nothing listens there",
        by="node",
        told_s=AWAY_S,
        stands_s=20.0,
        needs=("broker",),
    ),
    Row(
        "the broker killed",
        do.kill_broker,
        told="broker.*nothing listens there",
        by="node",
        told_s=AWAY_S,
        stands_s=20.0,
        needs=("broker",),
    ),
    Row("the network cut", do.cut, told="cut off", told_s=AWAY_S, needs=("network",)),
    Row(
        "the network swallows everything",
        do.black_hole,
        told="cut off",
        told_s=AWAY_S,
        stands_s=20.0,
        needs=("network",),
    ),
    Row(
        "no answer comes through",
        do.deaf_broker,
        told="cut off|broker",
        told_s=AWAY_S,
        stands_s=20.0,
        needs=("network",),
    ),
    Row("the network carries 1 kB a second", do.slow(1000.0), stands_s=20.0, needs=("network",)),
    Row("the network loses three packets in ten", do.lossy, stands_s=20.0, needs=("packets",)),
    Row(
        "the broker hangs (SIGSTOP)",
        do.hang_broker,
        told="broker.*does not answer",
        by="node",
        told_s=HUNG_S,
        stands_s=20.0,
        needs=("broker",),
    ),
)

TLS: Final = (
    Row(
        "the broker's name is not known",
        do.without_name,
        told="name is not known",
        by="node",
        told_s=AWAY_S,
        needs=("machine", "network"),
    ),
    Row(
        "the broker's certificate has expired",
        do.certificate_expired,
        told="certificate.*expired",
        by="node",
        told_s=AWAY_S,
        needs=("software",),
    ),
    Row(
        "the broker refuses the node's certificate",
        do.revoked,
        told="revoked|refuse",
        by="node",
        told_s=AWAY_S,
        needs=("software",),
    ),
    Row(
        "the network breaks connections in the middle of packets",
        do.breaking,
        told="cut off|broker",
        told_s=AWAY_S,
        stands_s=20.0,
        late_s=SUSPECT_S,
        needs=("network",),
    ),
    Row(
        "another machine comes by the node's name",
        do.namesake,
        told="no other client|took our place",
        by="node",
        told_s=AWAY_S,
        stands_s=20.0,
        late_s=SUSPECT_S,
        needs=("software",),
    ),
)

PROCESS: Final = (
    Row(
        "the node hangs (SIGSTOP)",
        do.signal_node("STOP"),
        told="cut off|hung",
        told_s=AWAY_S,
        deaf=True,
        heals=True,
        needs=("machine",),
    ),
    Row(
        "the node killed",
        do.signal_node("KILL"),
        told="cut off|killed",
        deaf=True,
        heals=True,
        needs=("machine",),
    ),
    Row(
        "the node leaks memory",
        do.leak,
        told="are usual|used up its memory|ended with an error",
        told_s=AWAY_S,
        deaf=True,
        needs=("software",),
    ),
    Row(
        "the power cut",
        do.take("power"),
        told="cut off",
        told_s=AWAY_S,
        stands_s=10.0,
        recovers_s=60.0,
        deaf=True,
        needs=("power",),
    ),
    Row(
        "the node may have half a processor",
        do.quota(50),
        stands_s=15.0,
        needs=("machine",),
    ),
    Row(
        "the node may have a fiftieth of a processor",
        do.quota(2, throttled=1),
        stands_s=15.0,
        may_lose_sound=True,
        needs=("machine",),
    ),
    Row(
        "the node does not run for two seconds: an overrun",
        do.unscheduled(2.0),
        told="samples lost",
        blind_s=3.5,
        needs=("machine",),
    ),
)

DISK: Final = (
    Row(
        "the disk is full",
        do.fill_disk,
        told="full|No space|GiB free",
        stands_s=15.0,
        needs=("software",),
    ),
    Row(
        "the disk is read-only",
        do.failing_disk("EROFS", "pwrite64,fsync,fdatasync,ftruncate"),
        told="the disk failed",
        stands_s=15.0,
        needs=("software",),
    ),
    Row(
        "every sync of the disk fails",
        do.failing_disk("EIO", "fsync,fdatasync"),
        told="the disk failed",
        stands_s=15.0,
        needs=("software",),
    ),
    Row(
        "the outbox is overwritten, and the node begins anew",
        do.spoil_outbox,
        told="aside",
        told_s=30.0,
        deaf=True,
        needs=("machine",),
    ),
    Row(
        "the outbox is removed",
        do.on_machine(f"rm -f {STATE}/outbox.sqlite3*"),
        told="somebody removed or replaced it",
        stands_s=10.0,
        needs=("machine",),
    ),
)

HOST: Final = (
    Row(
        "the card's crystal drifts by 50 ppm at once",
        do.drift(PPM + 50.0, PPM),
        stands_s=25.0,
        needs=("software",),
    ),
    *_frames_lost(", by host time stamps"),
    Row(
        "chrony without its pulse",
        do.chrony_pulse_off,
        stands_s=30.0,
        recovers_s=60.0,
        needs=("software",),
    ),
)

STEP: Final = (
    Row(
        "the host's clock stepped by 5 s",
        do.step_clock(5.0),
        told="clock was stepped",
        # No longer: chronyd sees no step here, and the node would believe it again after 14 s.
        stands_s=8.0,
        recovers_s=60.0,
        needs=("software",),
    ),
)


MEMORY: Final = (
    Row(
        "another program takes all the memory",
        do.take_memory,
        alone=True,
        stands_s=15.0,
        keeps_sound=True,
        needs=("machine", "memory"),
    ),
)

BUSY: Final = (
    Row(
        "four other programs for each core want the processor",
        do.load_processor,
        alone=True,
        stands_s=15.0,
        needs=("machine",),
    ),
)


@dataclass(frozen=True)
class Setup:
    """A bench, and the faults that strike it, one after another."""

    rows: tuple[Row, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


# A capability in place of the unit's LimitMEMLOCK=: few containers may raise a limit. In a
# namespace of users of its own the node would have none.
_LOCKS: Final = """[Service]
PrivateUsers=no
CapabilityBoundingSet=CAP_IPC_LOCK
AmbientCapabilities=CAP_IPC_LOCK
"""
_SMALL: Final = {"state_bytes": 400 * 2**20, "settings": "[outbox]\nmax_bytes = 2097152\n"}
BENCHES: Final = {
    "card": Setup(CARD),
    "microphones": Setup(MICROPHONES),
    "time": Setup(TIME),
    "network": Setup((*NETWORK, *TLS)),
    "process": Setup(PROCESS),
    "disk": Setup(DISK, _SMALL),
    "host": Setup(HOST, {"pulse": False}),
    "step": Setup(STEP, {"pulse": False, "clock_steps": True}),
    "memory": Setup(MEMORY, {"memory_bytes": 512 * 2**20, "drop_ins": {"locks": _LOCKS}}),
    "busy": Setup(BUSY),
}
