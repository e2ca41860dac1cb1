"""What is timed: our whole pipeline over a recording, and YAMNet without pause over a channel.

YAMNet (Google, 521 AudioSet classes) is what Frigate and others run on a Pi to hear gunshots; it
has no trigger, so it looks at every 0.48 s. It is read from ../shared/peers and never shipped.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy.signal import resample_poly

from node.capture import RecordingSource
from node.classify import TfliteClassifier
from node.replay import Replay
from node.settings import DetectSettings

YAMNET: Final = Path(__file__).parents[3] / "shared" / "peers" / "yamnet.tflite"
YAMNET_RATE_HZ: Final = 16_000
YAMNET_WINDOW: Final = 15_600
YAMNET_HOP: Final = 7_680  # 0.48 s, the hop of its own patches


def our_pipeline(recording: Path) -> Callable[[], int]:
    """Give a function that runs the pipeline over a recording and counts its detections."""
    replay = Replay(TfliteClassifier.load(), DetectSettings())
    return lambda: sum(1 for _ in replay.detections(recording))


def yamnet(recording: Path) -> Callable[[], int]:
    """Give a function that runs YAMNet over channel 0 without pause and counts its looks."""
    interpreter = _interpreter(str(YAMNET))
    interpreter.allocate_tensors()
    into, out = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def run() -> int:
        looks = 0
        with RecordingSource(recording, block_frames=48_000 * 48 // 100 * 2) as source:
            kept = np.zeros(0, np.float32)
            for block in source.blocks():
                sound = resample_poly(block.samples()[:, 0], YAMNET_RATE_HZ, block.sample_rate_hz)
                kept = np.concatenate((kept, sound.astype(np.float32)))
                while len(kept) >= YAMNET_WINDOW:
                    interpreter.set_tensor(
                        into["index"], kept[:YAMNET_WINDOW].reshape(into["shape"])
                    )
                    interpreter.invoke()
                    interpreter.get_tensor(out["index"])
                    kept = kept[YAMNET_HOP:]
                    looks += 1
        return looks

    return run


def _interpreter(model: str) -> Any:
    try:
        from tflite_runtime.interpreter import Interpreter
    except ImportError:
        from ai_edge_litert.interpreter import Interpreter
    return Interpreter(model_path=model, num_threads=1)


WORKLOADS: Final = {"pipeline": our_pipeline, "yamnet": yamnet}
