"""The peer: YAMNet run without pause over one channel.

YAMNet (Google, 521 AudioSet classes) is what Frigate and others run on a Pi to hear gunshots; it
has no trigger, so it looks at every 0.48 s. It is read from ../shared/peers and never shipped.
Nothing of ours is imported here, so that its memory is its own; nor anything to resample with, so
the recording has to be at `RATE_HZ`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import soundfile

MODEL: Final = Path(__file__).parents[3] / "shared" / "peers" / "yamnet.tflite"
RATE_HZ: Final = 16_000
WINDOW: Final = 15_600
HOP: Final = 7_680  # 0.48 s, the hop of its own patches


def workload(recording: Path) -> Callable[[], int]:
    """Give a function that runs YAMNet over a recording at `RATE_HZ` and counts its looks."""
    interpreter = _interpreter(str(MODEL))
    interpreter.allocate_tensors()
    into, out = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def run() -> int:
        looks = 0
        kept = np.zeros(0, np.float32)
        with soundfile.SoundFile(recording) as file:
            for block in file.blocks(file.samplerate, dtype="float32", always_2d=True):
                kept = np.concatenate((kept, block[:, 0]))
                while len(kept) >= WINDOW:
                    interpreter.set_tensor(into["index"], kept[:WINDOW].reshape(into["shape"]))
                    interpreter.invoke()
                    interpreter.get_tensor(out["index"])
                    kept = kept[HOP:]
                    looks += 1
        return looks

    return run


def _interpreter(model: str) -> Any:
    try:
        from tflite_runtime.interpreter import Interpreter
    except ImportError:
        from ai_edge_litert.interpreter import Interpreter
    return Interpreter(model_path=model, num_threads=1)
