"""Records from a device by `PortAudioSource`, in a process of its own, for the tests to look into.

Usage: capture_to_disk.py CAPTURE_SETTINGS_JSON FOLDER SECONDS

Writes the frames of all blocks to FOLDER/frames.npy and a line of JSON for each block to
FOLDER/blocks.jsonl as it comes; the end, and why, to FOLDER/end.json.
"""

import gc
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from node.capture import portaudio
from node.capture.portaudio import PortAudioSource
from node.errors import DeviceError
from node.settings import CaptureSettings


def main() -> None:
    settings = CaptureSettings.model_validate_json(sys.argv[1])
    folder, seconds = Path(sys.argv[2]), float(sys.argv[3])
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    slow_s = float(os.environ.get("CAPTURE_SLOW_S", "0"))
    if slow_s:
        portaudio.QUEUE_S = 5.0  # so that nobody need be slow for half a minute
    source = PortAudioSource(settings)
    signal.signal(signal.SIGTERM, lambda *_: source.close())
    # A shell that runs the tests in its background has its children deaf to it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Written once the whole is over: a disk that stalls is not what is tested here.
    kept, error = [], None
    try:
        with source, (folder / "blocks.jsonl").open("w", buffering=1) as lines:
            for block in source.blocks():
                kept.append(block.frames)
                told = {
                    "first_sample": block.first_sample,
                    "frames": len(block.frames),
                    "host_time_ns": block.host_time_ns,
                    "lost_before": block.lost_before,
                    "stream": block.stream,
                    "read_ns": time.monotonic_ns(),
                }
                lines.write(json.dumps(told) + "\n")
                if len(kept) == 1 and slow_s:
                    time.sleep(slow_s)
                if block.end_sample >= seconds * settings.sample_rate_hz:
                    source.close()
    except DeviceError as gone:
        error = str(gone)
    gc.collect()  # a lost device that Python lets go of is closed, and that may never return
    if kept:
        np.save(folder / "frames.npy", np.concatenate(kept))
    end = {
        "error": error,
        "at_ns": time.monotonic_ns(),
        "lost_frames": source.lost_frames,
        "overruns": source.overruns,
        "must_exit": source.must_exit,
        "device_name": source.device_name,
    }
    (folder / "end.json").write_text(json.dumps(end))
    if source.must_exit:
        os._exit(3)


if __name__ == "__main__":
    main()
