"""Samples from a file: any format, rate and channel count that libsndfile reads, streamed.

Takes the place of the sound device at the head of the pipeline for `replay` and `classify`.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal, Self

import numpy as np
import soundfile

from node.capture.geometry import ArrayGeometry, load_geometry
from node.capture.identity import RecordingIdentity, read_identity
from node.errors import RecordingError, SceneError
from node.types import Block, PcmArray

LOWEST_RATE_HZ: Final = 4_000
HIGHEST_RATE_HZ: Final = 384_000
MOST_CHANNELS: Final = 64

# libsndfile gives these whole in 16 or 32 bit; what is left (float and the perceptual codecs) has
# no integers to keep.
_INT16: Final = frozenset(
    {"PCM_S8", "PCM_U8", "PCM_16", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "GSM610", "DPCM_8"}
    | {"DPCM_16", "ALAC_16", "DWVW_12", "DWVW_16", "VOX_ADPCM", "G721_32", "G723_24", "G723_40"}
    | {"NMS_ADPCM_16", "NMS_ADPCM_24", "NMS_ADPCM_32"}
)
_INT32: Final = frozenset({"PCM_24", "PCM_32", "ALAC_20", "ALAC_24", "ALAC_32", "DWVW_24"})

# What libsndfile notes where a header promises more bytes than the file has.
_PROMISE: Final = re.compile(r":\s*(\d+)\s*\(should be (\d+)\)")
_LENGTH_NOT_KNOWN: Final = 0xFFFFFFFF  # written by recorders that stream into a pipe


class RecordingSource:
    """A recording as a source of blocks.

    Making one reads the header and the `.json` beside the file, so that what is wrong with either
    shows at once; entering opens it for reading.

    Parameters
    ----------
    path
        The recording.
    block_frames
        Frames in a block; the last one may be shorter.
    node_id, start_utc_ns
        Stand above what the `.json` beside the recording says.

    Raises
    ------
    RecordingError
        The file is missing, no recording, empty, or outside of what can be judged.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        block_frames: int = 4096,
        node_id: str | None = None,
        start_utc_ns: int | None = None,
    ) -> None:
        self.path = Path(path)
        self._block_frames = block_frames
        self._file: soundfile.SoundFile | None = None
        self._closed = False
        with self._opened() as file:
            self._rate: int = file.samplerate
            self._channels: int = file.channels
            self._frames: int = file.frames
            self._dtype = _dtype(file.subtype)
            self._cut_short = _promises_more(file.extra_info)
        self._check_shape()
        identity = read_identity(self.path)
        if node_id is not None:
            identity = replace(identity, node_id=node_id)
        if start_utc_ns is not None:
            identity = replace(identity, start_utc_ns=start_utc_ns)
        self.identity: RecordingIdentity = identity

    @property
    def sample_rate_hz(self) -> int:
        """Rate in hertz."""
        return self._rate

    @property
    def channels(self) -> int:
        """Channels in a frame."""
        return self._channels

    @property
    def frames(self) -> int:
        """Frames in the whole recording, by its header."""
        return self._frames

    def geometry(self, array: str | Path, microphones: int) -> ArrayGeometry:
        """Give an array by name or file, for so many of the recording's channels.

        Raises
        ------
        SceneError
            As `load_geometry`; of many recordings, it says which one the array does not fit.
        """
        try:
            return load_geometry(array, channels=microphones)
        except SceneError as error:
            raise SceneError(f"{self.path}: {error}") from error

    def __enter__(self) -> Self:
        self._closed = False
        self._file = self._opened()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
        if self._file is not None:
            self._file.close()
            self._file = None

    def close(self) -> None:
        """End `blocks` after the block under way; may be called from another thread."""
        self._closed = True

    def blocks(self) -> Iterator[Block]:
        """Yield the recording in blocks, from its first frame.

        Raises
        ------
        RecordingError
            The file ends before its time, is corrupt, or holds a sample that is no number. All
            that came before has been yielded by then.
        """
        if self._file is None:
            raise RuntimeError("enter the RecordingSource before reading its blocks")
        if not self._file.seekable():  # GSM 6.10 in WAV: there is only one way through
            self._file.close()
            self._file = self._opened()
        file, first = self._file, 0
        while not self._closed:
            frames = self._read(file, first)
            if len(frames) == 0:
                break
            self._check_numbers(frames, first)
            yield Block(first_sample=first, frames=frames, sample_rate_hz=self._rate)
            first += len(frames)
        if not self._closed and (self._cut_short or first < self._frames):
            raise RecordingError(
                f"{self.path}: cut short after {first} frames ({first / self._rate:.3f} s), its "
                "header promises more; copy it anew from where it came"
            )

    def _read(self, file: soundfile.SoundFile, first: int) -> PcmArray:
        try:
            frames: PcmArray = file.read(self._block_frames, dtype=self._dtype, always_2d=True)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise RecordingError(
                f"{self.path}: corrupt or cut short after about {first} frames "
                f"({first / self._rate:.3f} s); copy it anew from where it came"
            ) from error
        return frames

    def _opened(self) -> soundfile.SoundFile:
        if self.path.is_dir():
            raise RecordingError(f"{self.path}: a directory; name the recordings in it")
        try:
            status = self.path.stat()
            # Before it is opened: to open a pipe that nobody writes to would wait for ever.
            if not stat.S_ISREG(status.st_mode):
                raise RecordingError(f"{self.path}: not a regular file; save it to a file first")
            with self.path.open("rb"):
                pass
        except OSError as error:
            raise RecordingError(f"{self.path}: {error.strerror}; see the name") from error
        if status.st_size == 0:
            raise RecordingError(f"{self.path}: empty; record or copy it anew")
        try:
            return soundfile.SoundFile(self.path)
        except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
            # TypeError: a name that ends in .raw, which says neither rate nor width.
            raise RecordingError(
                f"{self.path}: not a recording in any format that libsndfile reads, or corrupt "
                "from its start; WAV and FLAC are safe choices"
            ) from error

    def _check_shape(self) -> None:
        if self._frames < 2 and not self._cut_short:
            held = "no samples" if self._frames == 0 else "a single sample"
            raise RecordingError(f"{self.path}: holds {held}; there is nothing to be heard in it")
        if not LOWEST_RATE_HZ <= self._rate <= HIGHEST_RATE_HZ:
            raise RecordingError(
                f"{self.path}: {self._rate} Hz is outside {LOWEST_RATE_HZ}–{HIGHEST_RATE_HZ} Hz; "
                "convert it, or mend its header"
            )
        if self._channels > MOST_CHANNELS:
            raise RecordingError(
                f"{self.path}: {self._channels} channels, at most {MOST_CHANNELS} are taken; "
                "keep those of one array"
            )

    def _check_numbers(self, frames: PcmArray, first: int) -> None:
        if frames.dtype != np.float32 or np.isfinite(frames).all():
            return
        frame, channel = np.argwhere(~np.isfinite(frames))[0]
        raise RecordingError(
            f"{self.path}: sample {first + int(frame)} of channel {int(channel)} is "
            f"{frames[frame, channel]}, not a number; make the recording anew"
        )


def _dtype(subtype: str) -> Literal["int16", "int32", "float32"]:
    if subtype in _INT16:
        return "int16"
    return "int32" if subtype in _INT32 else "float32"


def _promises_more(libsndfile_notes: str) -> bool:
    return any(
        int(held) < int(promised) < _LENGTH_NOT_KNOWN
        for promised, held in _PROMISE.findall(libsndfile_notes)
    )
