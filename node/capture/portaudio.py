"""Samples from a sound device, by PyAudio in callback mode.

The first stage of a node's pipeline when it runs live: PortAudio's thread calls back with a block
of PCM, the callback puts it on a queue and does nothing else, and `blocks` turns it into `Block`s
with a gap-proof sample index for whoever iterates.

A device that vanishes makes no sound of its own: PortAudio goes on saying that the stream is
active, calls back no more and raises nothing (platform.md, trap 1). It is noticed by its silence
here. PortAudio can't be stopped then: `Pa_StopStream` may never return, and its thread may print
errors as fast as it can, which are cut off from stderr. So a lost device is left open, `must_exit`
is true, and the process has to leave by `os._exit`, for systemd to start it anew; an ordinary exit
would wait for that thread.
"""

from __future__ import annotations

import itertools
import logging
import math
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final, NamedTuple, Self

import pyaudio

from node.capture.chatter import hush
from node.capture.devices import InputDevice, choose, input_devices, open_portaudio
from node.capture.gaps import Arrival, GapFinder, Placement
from node.capture.pcm import unpack
from node.errors import DeviceError
from node.settings import CaptureSettings
from node.types import NS_PER_S, Block, Unplaced

log = logging.getLogger(__name__)

FORMATS: Final = {16: pyaudio.paInt16, 24: pyaudio.paInt24, 32: pyaudio.paInt32}
# Sound that may wait while the disk keeps a commit waiting, as a worn SD card does for many
# seconds: 23 MB of four channels.
QUEUE_S: Final = 30.0
WAIT_S: Final = 0.25
# So many waits in vain, and PortAudio's own words are cut off: 70 MB a second, if it is lost.
HUSH_WAITS: Final = 2
STOP_S: Final = 3.0
# The converter's time is believed while it lies between the entry of the callback and what a
# device's buffer and a stalled process can account for.
CLOCKS_AGREE_S: Final = 1e-3
OLDEST_BLOCKS: Final = 4
OLDEST_S: Final = 1.0


class _Delivery(NamedTuple):
    """What the callback puts on the queue; `position` counts the frames delivered before it."""

    position: int
    data: bytes
    adc_time_s: float
    stream_time_s: float
    entered_ns: int
    flags: int


class PortAudioSource:
    """A sound device as a source of blocks.

    Entering opens and starts the device; leaving stops it, unless it was lost.

    Parameters
    ----------
    settings
        Device, rate, channels, width and block length.
    """

    _openings: ClassVar[Iterator[int]] = itertools.count()
    # For ever: Python closes a stream that nothing holds any more, and of a lost device that may
    # never return, nor let another thread go on.
    _lost: ClassVar[list[tuple[pyaudio.PyAudio, Any]]] = []

    def __init__(self, settings: CaptureSettings) -> None:
        self._settings = settings
        self._queue: queue.SimpleQueue[_Delivery | None] = queue.SimpleQueue()
        self._queue_blocks = max(
            8, math.ceil(QUEUE_S * settings.sample_rate_hz / settings.block_frames)
        )
        self._audio: pyaudio.PyAudio | None = None
        self._stream: Any = None
        self._device_name = settings.device
        self._opening = 0
        self._next_sample = 0
        self._lost_frames = 0
        self._overruns = 0
        self._must_exit = False
        self._adc_clock_is_monotonic = False
        # Written by the callback alone.
        self._delivered = 0
        self._flags_of_dropped = 0

    @property
    def sample_rate_hz(self) -> int:
        """Nominal rate in hertz."""
        return self._settings.sample_rate_hz

    @property
    def channels(self) -> int:
        """Channels in a frame."""
        return self._settings.channels

    @property
    def device_name(self) -> str:
        """Name of the device in use; the one asked for before it is opened."""
        return self._device_name

    @property
    def lost_frames(self) -> int:
        """Frames known to be lost since the source was made, whatever the cause."""
        return self._lost_frames

    @property
    def overruns(self) -> int:
        """Overruns that the driver flagged since the source was made."""
        return self._overruns

    @property
    def must_exit(self) -> bool:
        """Whether PortAudio could not be stopped, so that only `os._exit` ends the process."""
        return self._must_exit

    def __enter__(self) -> Self:
        self._queue = queue.SimpleQueue()
        self._delivered = 0
        self._flags_of_dropped = 0
        self._opening = next(self._openings)
        self._audio = open_portaudio()
        try:
            device = choose(self._settings.device, input_devices(self._audio))
            self._device_name = device.name
            self._stream = self._open(self._audio, device)
        except BaseException:
            self._audio.terminate()
            self._audio = None
            raise
        log.info(
            "opened %s: %d channels, %d Hz, %d bit, blocks of %d frames, stream %d",
            device.name,
            self.channels,
            self.sample_rate_hz,
            self._settings.bits,
            self._settings.block_frames,
            self._opening,
        )
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
        self._stop()

    def close(self) -> None:
        """End `blocks`; may be called from another thread or from a signal handler."""
        self._queue.put(None)  # SimpleQueue is reentrant, as a signal handler needs

    def blocks(self) -> Iterator[Block]:
        """Yield blocks until `close`.

        Raises
        ------
        DeviceError
            The device delivered nothing for `silence_s`: it is gone.
        """
        finder = GapFinder(self.sample_rate_hz, self._settings.block_frames)
        lost_before_opening = self._lost_frames
        expected = 0
        while delivery := self._wait():
            if expected == 0:
                # Not sooner: a driver may have stamped nothing yet, and PyAudio closes a stream
                # that is asked for its time and has none.
                has_time = delivery.stream_time_s > 0
                self._adc_clock_is_monotonic = has_time and self._compare_clocks()
            dropped = delivery.position - expected
            if dropped:
                log.warning("dropped %d frames: too slow for %s", dropped, self._device_name)
            arrival = self._arrival(delivery, dropped)
            expected = delivery.position + arrival.frames
            placements = finder.push(arrival)
            self._lost_frames = lost_before_opening + finder.lost_frames
            for placed in placements:
                yield self._block(placed)
        for placed in finder.flush():
            yield self._block(placed)
        if self._must_exit:
            raise DeviceError(
                f"sound device {self._device_name!r} has delivered nothing for "
                f"{self._settings.silence_s:g} s: it is gone or hangs; plug it in again, then "
                "start anew"
            )

    def _wait(self) -> _Delivery | None:
        """Give the next delivery, or None at the end, which may be the device's."""
        # In short waits, so that a process that was stopped for long does not take its own
        # absence for the device's.
        block_s = self._settings.block_frames / self.sample_rate_hz
        patience_s = max(self._settings.silence_s, 3 * block_s)
        for waited in range(math.ceil(patience_s / WAIT_S)):
            if waited == HUSH_WAITS:
                hush()
            try:
                return self._queue.get(timeout=WAIT_S)
            except queue.Empty:
                continue
        self._must_exit = True
        hush()
        return None

    def _open(self, audio: pyaudio.PyAudio, device: InputDevice) -> Any:
        settings = self._settings
        asked = f"{settings.channels} channels, {settings.sample_rate_hz} Hz, {settings.bits} bit"
        if device.max_channels < settings.channels:
            raise DeviceError(
                f"sound device {device.name!r} has {device.max_channels} input channels, "
                f"{settings.channels} were asked for; set capture.channels to "
                f"{device.max_channels} or fewer"
            )
        try:
            return audio.open(
                format=FORMATS[settings.bits],
                channels=settings.channels,
                rate=settings.sample_rate_hz,
                input=True,
                input_device_index=device.index,
                frames_per_buffer=settings.block_frames,
                stream_callback=self._callback,
            )
        except (OSError, ValueError) as error:
            reason = " ".join(str(error.args[-1] if error.args else error).split())
            raise DeviceError(
                f"sound device {device.name!r} refuses {asked} ({reason}); set capture.channels, "
                "capture.sample_rate_hz and capture.bits to what `arecord --dump-hw-params` "
                "shows for it, and see that no other program holds it"
            ) from error

    def _compare_clocks(self) -> bool:
        before = time.monotonic_ns()
        try:
            reading_s = float(self._stream.get_time())
        except OSError:
            return False  # it has vanished since, which is noticed by its silence
        after = time.monotonic_ns()
        slack = CLOCKS_AGREE_S * NS_PER_S
        same = before - slack <= reading_s * NS_PER_S <= after + slack
        if not same:
            log.warning(
                "the clock of %s is not CLOCK_MONOTONIC; using the callbacks' times",
                self._device_name,
            )
        return same

    def _callback(
        self, data: bytes, frames: int, times: Mapping[str, float], flags: int
    ) -> tuple[None, int]:
        entered_ns = time.monotonic_ns()
        flags |= self._flags_of_dropped
        if self._queue.qsize() < self._queue_blocks:
            self._queue.put(
                _Delivery(
                    self._delivered,
                    data,
                    times["input_buffer_adc_time"],
                    times["current_time"],
                    entered_ns,
                    flags,
                )
            )
            self._flags_of_dropped = 0
        else:
            self._flags_of_dropped = flags
        self._delivered += frames
        return None, pyaudio.paContinue

    def _arrival(self, delivery: _Delivery, dropped: int) -> Arrival:
        frame_bytes = self.channels * self._settings.bits // 8
        frames = len(delivery.data) // frame_bytes
        complete_ns = delivery.entered_ns - frames * NS_PER_S // self.sample_rate_hz
        adc_ns = round(delivery.adc_time_s * NS_PER_S)
        oldest_ns = OLDEST_S * NS_PER_S + OLDEST_BLOCKS * (delivery.entered_ns - complete_ns)
        by_converter = (
            self._adc_clock_is_monotonic
            and complete_ns - oldest_ns <= adc_ns <= complete_ns + CLOCKS_AGREE_S * NS_PER_S
        )
        overrun = bool(delivery.flags & pyaudio.paInputOverflow)
        self._overruns += overrun
        return Arrival(
            data=delivery.data,
            frames=frames,
            host_time_ns=adc_ns if by_converter else complete_ns,
            by_converter=by_converter,
            overrun=overrun,
            dropped_before=dropped,
        )

    def _block(self, placed: Placement) -> Block:
        arrival, lost, reach = placed
        if lost:
            log.warning(
                "lost %d frames before sample %d of %s, %d in all, %d overruns flagged",
                lost,
                self._next_sample + lost,
                self._device_name,
                self._lost_frames,
                self._overruns,
            )
        first = self._next_sample + lost
        self._next_sample = first + arrival.frames
        return Block(
            first_sample=first,
            frames=unpack(arrival.data, self._settings.bits, self.channels),
            sample_rate_hz=self.sample_rate_hz,
            host_time_ns=arrival.host_time_ns,
            lost_before=lost,
            unplaced=Unplaced(reach.frames, first - reach.back, first + reach.on)
            if reach
            else None,
            stream=self._opening,
            # What the finder of gaps holds back, half a second at most, is left out.
            waiting_frames=self._queue.qsize() * self._settings.block_frames,
        )

    def _stop(self) -> None:
        audio, stream = self._audio, self._stream
        self._audio = self._stream = None
        if audio is None:
            return
        if self._must_exit:
            self._lost.append((audio, stream))
            return
        # A device can vanish at the very moment of closing, and then this does not return.
        stopping = threading.Thread(
            target=_stop_portaudio, args=(audio, stream), name="portaudio-stop", daemon=True
        )
        stopping.start()
        stopping.join(STOP_S)
        if stopping.is_alive():
            self._must_exit = True
            hush()
            log.error("%s does not let itself be closed", self._device_name)


def _stop_portaudio(audio: pyaudio.PyAudio, stream: Any) -> None:
    try:
        stream.stop_stream()
        stream.close()
    except OSError as error:
        log.warning("closing the sound device: %s", error)
    finally:
        audio.terminate()
