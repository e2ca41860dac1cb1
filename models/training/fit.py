"""Fit the network to the pictures, and write it as int8."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.training.network import build
from models.training.pictures import Pictures

BATCH: Final = 96
_RATE: Final = 2e-3
_SMOOTHING: Final = 0.02
_REPRESENTATIVE: Final = 300


def tensorflow(seed: int) -> Any:
    """Import TensorFlow with everything random or unordered held still."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    import tensorflow as tf

    tf.keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    return tf


def train(
    tf: Any, learn: Pictures, epochs: int, seed: int, progress: Callable[[int, float], None]
) -> Any:
    """Fit a new network.

    Parameters
    ----------
    tf
        TensorFlow, from `tensorflow`.
    learn
        The pictures of the training part.
    epochs
        Passes over them.
    seed
        Order of the pictures and what is masked of them.
    progress
        Called after each batch with the batches done and the running loss.
    """
    network = build(tf.keras)
    steps = epochs * (len(learn.labels) // BATCH)
    network.compile(
        tf.keras.optimizers.AdamW(
            tf.keras.optimizers.schedules.CosineDecay(
                1e-4, steps, warmup_target=_RATE, warmup_steps=max(1, steps // 20)
            ),
            weight_decay=2e-3,
        ),
        tf.keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=_SMOOTHING),
    )
    draw = np.random.default_rng(seed)
    targets = np.eye(4, dtype=np.float32)[learn.labels]
    loss = 0.0
    done = 0
    for _ in range(epochs):
        order = draw.permutation(len(learn.labels))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            rows = np.sort(order[start : start + BATCH])
            images = _masked(learn.images[rows].astype(np.float32) / 255, draw)
            batch_loss = float(network.train_on_batch(images[..., None], targets[rows]))
            network.reset_metrics()
            loss = batch_loss if done == 0 else 0.98 * loss + 0.02 * batch_loss
            done += 1
            progress(done, loss)
    return network


def to_int8(tf: Any, network: Any, examples: npt.NDArray[np.uint8]) -> bytes:
    """Convert to a .tflite whose weights, activations and both ends are int8."""
    every = max(1, len(examples) // _REPRESENTATIVE)
    chosen = examples[::every].astype(np.float32)[..., None] / 255
    # The ends of the range must be met, or quantisation would be fitted to less than 0…1.
    chosen[0, 0, 0, 0], chosen[0, 0, 1, 0] = 0.0, 1.0
    converter = tf.lite.TFLiteConverter.from_keras_model(network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([chosen[i : i + 1]] for i in range(len(chosen)))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def _masked(images: npt.NDArray[np.float32], draw: np.random.Generator) -> npt.NDArray[np.float32]:
    """Hide some bands and raise some floors (Park et al., SpecAugment, arXiv:1904.08779)."""
    count, _, bands = images.shape
    for image in images[: count // 2]:
        wide = int(draw.integers(1, 9))
        start = int(draw.integers(0, bands - wide))
        image[:, start : start + wide] = image.min()
    for image in images[count // 3 :]:
        np.maximum(image, draw.uniform(0.0, 0.5), out=image)
    return images
