"""PyAudio, PortAudio and ALSA for real, on a virtual sound card with a clock of its own.

Each sample of the card's sound tells which frame and channel it is, so that whatever comes out can
be held against where it belongs. `GUNFIRE_SOAK_S=60` makes the first test as long as the claim.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hil.virtual_card import VirtualCard

from node.timing import HostClock, HostSampleClock
from node.types import Block

SOAK_S = float(os.environ.get("GUNFIRE_SOAK_S", "15"))
RECORDER = Path(__file__).parents[1] / "hil" / "capture_to_disk.py"
SCRAMBLE = 2_654_435_761  # odd, so that it can be undone in any number of bits
MakeCard = Callable[..., VirtualCard]


def coded(seconds: float, rate: int, channels: int, bits: int) -> npt.NDArray[np.integer[Any]]:
    """Make frames that use all bits and tell their own number (modulo what the bits can hold)."""
    n = np.arange(int(seconds * rate) * channels, dtype=np.uint64).reshape(-1, channels)
    code = n * SCRAMBLE % 2**bits
    if bits == 16:
        return code.astype(np.uint16).view(np.int16)
    return (code << (32 - bits)).astype(np.uint32).view(np.int32)


def number(frames: npt.NDArray[np.integer[Any]], bits: int) -> npt.NDArray[np.int64]:
    """Undo `coded`: frame · channels + channel, modulo 2**bits."""
    code = frames.view(np.uint16 if bits == 16 else np.uint32).astype(np.uint64)
    code >>= 0 if bits == 16 else 32 - bits
    return (code * pow(SCRAMBLE, -1, 2**bits) % 2**bits).astype(np.int64)


@dataclass
class Recorded:
    """What a run of the recorder left behind, beside the truth."""

    card: VirtualCard
    bits: int
    blocks: list[dict[str, int]]
    frames: list[npt.NDArray[np.integer[Any]]]
    end: dict[str, Any]

    def offsets(self, block: int) -> npt.NDArray[np.int64]:
        """Give, for each frame of a block, its index minus its true number on the card."""
        frames = self.frames[block]
        channels = frames.shape[1]
        index = self.blocks[block]["first_sample"] + np.arange(len(frames))
        expected = index[:, None] * channels + np.arange(channels)
        wrong = (expected - number(frames, self.bits) + 2 ** (self.bits - 1)) % 2**self.bits
        wrong -= 2 ** (self.bits - 1)
        assert (wrong % channels == 0).all(), "a channel stands in another's place"
        assert (wrong == wrong[:, :1]).all(), "the channels are not of one frame"
        return np.asarray(wrong[:, 0] // channels)

    def time_errors_s(self, after: int) -> npt.NDArray[np.float64]:
        """Give the errors of the clock's answers for the first frames of later blocks."""
        clock = HostSampleClock(48_000)
        clock.observe_host(HostClock().read())
        truth, errors = self.card.truth(), []
        for i, (told, frames) in enumerate(zip(self.blocks, self.frames, strict=True)):
            clock.observe_block(
                Block(
                    told["first_sample"],
                    frames,
                    48_000,
                    told["host_time_ns"],
                    told["lost_before"],
                    told["stream"],
                )
            )
            if i >= after:
                frame = told["first_sample"] - int(self.offsets(i)[0])
                instant = clock.at(told["first_sample"])
                errors.append((instant.utc_ns - truth.utc_ns(frame)) * 1e-9)
        return np.array(errors)


class Recorder:
    """The recorder in a process of its own, as PortAudio reads ALSA's configuration once."""

    def __init__(self, card: VirtualCard, folder: Path, seconds: float, **capture: Any) -> None:
        self.card = card
        self.folder = folder
        self.bits = capture.get("bits", 32)
        asked = {"device": card.name, "channels": 4, "silence_s": 2.0} | capture
        slow_s = asked.pop("slow_s", 0)
        self.process = subprocess.Popen(
            [sys.executable, RECORDER, json.dumps(asked), folder, str(seconds)],
            env=card.environment | {"CAPTURE_SLOW_S": str(slow_s)},
            stderr=subprocess.DEVNULL,  # PortAudio floods it when a device is lost
        )
        # Ahead of whatever else the machine builds, as a node's capture is of all else: a real
        # overrun is no fault of what is tested here.
        with suppress(PermissionError):
            os.sched_setscheduler(self.process.pid, os.SCHED_RR, os.sched_param(5))

    def wait_for_blocks(self, count: int, timeout_s: float = 20) -> None:
        deadline = time.monotonic() + timeout_s
        while self._told().count("\n") < count:
            assert time.monotonic() < deadline, "the recorder delivers nothing"
            assert self.process.poll() is None, f"the recorder ended: {self.process.returncode}"
            time.sleep(0.02)

    def finish(self, timeout_s: float = 60) -> Recorded:
        try:
            self.process.wait(timeout_s)
        finally:
            self.process.kill()
            self.process.wait()
        blocks = [json.loads(line) for line in self._told().splitlines()]
        end = json.loads((self.folder / "end.json").read_text())
        frames = []
        if blocks:
            whole = np.load(self.folder / "frames.npy")
            frames = np.split(whole, np.cumsum([b["frames"] for b in blocks])[:-1])
        return Recorded(self.card, self.bits, blocks, frames, end)

    def _told(self) -> str:
        path = self.folder / "blocks.jsonl"
        return path.read_text() if path.exists() else ""


def test_four_channels_of_32_bits_come_in_real_time_bit_for_bit(
    make_card: MakeCard, tmp_path: Path
) -> None:
    card = make_card(coded(SOAK_S + 5, 48_000, 4, 32), 48_000, ppm=25)
    started = time.monotonic()
    recorder = Recorder(card, tmp_path, SOAK_S)
    recorded = recorder.finish(timeout_s=SOAK_S + 20)
    assert SOAK_S - 1 < time.monotonic() - started < SOAK_S + 10
    assert recorder.process.returncode == 0
    assert recorded.end["lost_frames"] == recorded.end["overruns"] == 0
    assert sum(map(len, recorded.frames)) >= SOAK_S * 48_000
    for i in range(len(recorded.blocks)):
        assert not recorded.offsets(i).any()


@pytest.mark.parametrize(
    ("bits", "channels", "rate"),
    [(16, 1, 16_000), (16, 4, 48_000), (24, 2, 44_100), (24, 4, 48_000), (32, 8, 96_000)],
)
def test_every_width_comes_bit_for_bit(
    make_card: MakeCard, tmp_path: Path, bits: int, channels: int, rate: int
) -> None:
    card = make_card(coded(8, rate, channels, bits), rate, bits=bits)
    recorded = Recorder(
        card,
        tmp_path,
        2,
        bits=bits,
        channels=channels,
        sample_rate_hz=rate,
        block_frames=8192,
    ).finish()
    assert recorded.end["lost_frames"] == 0
    assert recorded.frames[0].dtype == (np.int16 if bits == 16 else np.int32)
    for i in range(len(recorded.blocks)):
        assert not recorded.offsets(i).any()


def test_host_times_are_the_cards_own_and_give_utc_within_a_tenth_of_a_millisecond(
    make_card: MakeCard, tmp_path: Path
) -> None:
    card = make_card(coded(15, 48_000, 4, 32), 48_000, ppm=-40, align=True)
    recorded = Recorder(card, tmp_path, 8).finish()
    truth = card.truth()
    assert truth.frame0_utc_ns % 1_000_000_000 == 0
    silent = sum(len(f) for f in recorded.frames) - 8 * 48_000
    assert silent < 48_000
    sounding = next(i for i, f in enumerate(recorded.frames) if f.any()) + 1
    offset = int(recorded.offsets(sounding)[0])  # index of frame 0 of the card
    for told in recorded.blocks[1:]:
        late_ns = told["host_time_ns"] - truth.monotonic_ns(told["first_sample"] - offset)
        assert -20_000 < late_ns < 1_000_000
    assert np.abs(recorded.time_errors_s(after=sounding + 20)).max() < 1e-4


def test_500_frames_lost_without_a_flag_are_told_and_move_no_later_time(
    make_card: MakeCard, tmp_path: Path
) -> None:
    card = make_card(coded(20, 48_000, 4, 32), 48_000, ppm=25)
    recorder = Recorder(card, tmp_path, 10)
    recorder.wait_for_blocks(60)
    card.skip(500)
    recorded = recorder.finish()
    at = next(i for i, told in enumerate(recorded.blocks) if told["lost_before"])
    assert abs(recorded.end["lost_frames"] - 500) <= 3
    assert recorded.blocks[at]["lost_before"] == recorded.end["lost_frames"]
    assert recorded.end["overruns"] == 0
    assert all(not recorded.offsets(i).any() for i in range(at))
    assert all(np.abs(recorded.offsets(i)).max() <= 3 for i in range(at + 2, len(recorded.frames)))
    assert np.abs(recorded.time_errors_s(after=at + 2)).max() < 1e-3


def test_an_overrun_is_told_and_moves_no_later_time(make_card: MakeCard, tmp_path: Path) -> None:
    card = make_card(coded(20, 48_000, 4, 32), 48_000, ppm=25)
    recorder = Recorder(card, tmp_path, 10)
    recorder.wait_for_blocks(60)
    recorder.process.send_signal(signal.SIGSTOP)
    time.sleep(0.7)
    recorder.process.send_signal(signal.SIGCONT)
    recorded = recorder.finish()
    at = next(i for i, told in enumerate(recorded.blocks) if told["lost_before"])
    assert recorded.end["overruns"] >= 1
    assert recorded.end["lost_frames"] > 0.5 * 48_000
    assert recorded.end["lost_frames"] == sum(b["lost_before"] for b in recorded.blocks)
    for i in range(len(recorded.frames)):
        assert np.abs(recorded.offsets(i)).max() <= 3
    assert np.abs(recorded.time_errors_s(after=at)).max() < 1e-3


def test_a_consumer_that_is_too_slow_loses_whole_blocks_and_knows_how_many(
    make_card: MakeCard, tmp_path: Path
) -> None:
    card = make_card(coded(20, 48_000, 4, 32), 48_000)
    recorded = Recorder(card, tmp_path, 10, slow_s=7).finish()
    assert recorded.end["overruns"] == 0
    assert recorded.end["lost_frames"] > 48_000
    assert recorded.end["lost_frames"] % 4096 == 0
    assert not any(recorded.offsets(i).any() for i in range(len(recorded.frames)))


@pytest.mark.parametrize("fault", ["unplug", "stall"])
def test_a_card_that_is_gone_is_noticed_within_five_seconds(
    make_card: MakeCard, tmp_path: Path, fault: str
) -> None:
    card = make_card(coded(20, 48_000, 4, 32), 48_000)
    recorder = Recorder(card, tmp_path, 60)
    recorder.wait_for_blocks(20)
    at_ns = time.monotonic_ns()
    getattr(card, fault)()
    recorded = recorder.finish(timeout_s=10)
    assert recorder.process.returncode == 3
    assert recorded.end["must_exit"]
    assert recorded.end["at_ns"] - at_ns < 5e9
    assert "microphones" in recorded.end["error"]
    assert "gone or hangs" in recorded.end["error"]


LOSES_ITS_CARD = """
import logging, os, sys, time
from node.capture.portaudio import PortAudioSource
from node.errors import DeviceError
from node.settings import CaptureSettings
logging.basicConfig(level=logging.ERROR)
source = PortAudioSource(CaptureSettings(device="microphones", channels=4, silence_s=2))
try:
    with source:
        for block in source.blocks():
            print(block.first_sample, flush=True)
except DeviceError as error:
    print("NOTICED", error, file=sys.stderr, flush=True)
time.sleep(1)
logging.getLogger("any").error("STILL LOGGED")
os._exit(0 if source.must_exit else 1)
"""


def test_a_card_that_is_gone_floods_nothing_once_it_is_noticed(make_card: MakeCard) -> None:
    card = make_card(coded(20, 48_000, 4, 32), 48_000)
    with subprocess.Popen(
        [sys.executable, "-c", LOSES_ITS_CARD],
        env=card.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            process.stdout.readline()
            card.unplug()
            said = b""
            while some := process.stderr.read1(65536):
                said += some
                if b"NOTICED" not in said:
                    said = said[-100:]  # PortAudio prints as fast as we read
                assert len(said) < 500_000, "PortAudio prints on"
            assert process.wait(10) == 0
        finally:
            process.kill()
    after = said.partition(b"NOTICED")[2]
    assert b"gone or hangs" in after
    assert b"STILL LOGGED" in after
    assert after.count(b"Expression") < 5  # what was on its way already


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_it_cleanly(make_card: MakeCard, tmp_path: Path, name: str) -> None:
    card = make_card(coded(10, 48_000, 4, 32), 48_000)
    recorder = Recorder(card, tmp_path, 60)
    recorder.wait_for_blocks(10)
    at = time.monotonic()
    recorder.process.send_signal(getattr(signal, name))
    recorder.process.wait(10)
    assert time.monotonic() - at < 5
    if name == "SIGTERM":
        assert recorder.process.returncode == 0
        assert not recorder.finish().end["must_exit"]


@pytest.mark.parametrize(
    ("capture", "told"),
    [
        ({"device": "nobody's"}, "not there; set capture.device to one of: 'microphones'"),
        ({"channels": 8}, "has 4 input channels, 8 were asked for"),
        ({"sample_rate_hz": 32_000}, "refuses 4 channels, 32000 Hz, 32 bit"),
    ],
)
def test_what_the_card_refuses_is_a_sentence(
    make_card: MakeCard, tmp_path: Path, capture: dict[str, Any], told: str
) -> None:
    card = make_card(coded(1, 48_000, 4, 32), 48_000)
    recorded = Recorder(card, tmp_path, 2, **capture).finish()
    assert told in recorded.end["error"]
    assert "\n" not in recorded.end["error"]
    assert not recorded.end["must_exit"]
