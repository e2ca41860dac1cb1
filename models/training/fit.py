"""Fit the network to the pictures, and write it as int8."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.training.network import build, judge
from models.training.pictures import SLACK, Pictures
from node.classify import features
from node.types import LABELS

BATCH: Final = 128
_RATE: Final = 2e-3
_SMOOTHING: Final = 0.02
_TAUGHT: Final = 40.0
"""Weight of what the teacher hears (mean square, of shares of its range) beside the label."""
_MINED_AFTER: Final = 0.3
_WORST: Final = 2.5
_REPRESENTATIVE: Final = 500

Images = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


def tensorflow(seed: int) -> Any:
    """Import TensorFlow with everything random or unordered held still."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    import tensorflow as tf

    tf.keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    return tf


class Batches:
    """The batches of all epochs, each drawn while the one before is learnt from.

    After `_MINED_AFTER` of the epochs, half of each one is the pictures that the network gets most
    wrong, drawn in proportion to their last loss (up to `_WORST`): hard examples are mined from
    the network's own mistakes, whatever their class.
    """

    def __init__(self, learn: Pictures, epochs: int, seed: int) -> None:
        self._learn = learn
        self._epochs = epochs
        self._draw = np.random.default_rng(seed)
        self._targets = np.eye(len(LABELS), dtype=np.float32)[learn.labels]
        self._missed = np.ones(len(learn.labels), dtype=np.float32)

    def __iter__(self) -> Iterator[tuple[Rows, Images, Images, Images]]:
        with ThreadPoolExecutor(1) as ahead:
            waiting = None
            for epoch in range(self._epochs):
                order = self._order(epoch)
                for start in range(0, len(order) - BATCH + 1, BATCH):
                    rows = np.sort(order[start : start + BATCH])
                    ready, waiting = waiting, ahead.submit(self._take, rows)
                    if ready is not None:
                        yield ready.result()
            if waiting is not None:
                yield waiting.result()

    def missed(self, rows: Rows, losses: Images) -> None:
        """Take note of how wrong the network was."""
        self._missed[rows] = losses

    def _order(self, epoch: int) -> Rows:
        count = len(self._missed)
        if epoch < _MINED_AFTER * self._epochs:
            return self._draw.permutation(count)
        weights = np.minimum(self._missed, _WORST).astype(np.float64)
        hard = self._draw.choice(count, count // 2, p=weights / weights.sum())
        some = self._draw.permutation(count)[: count - len(hard)]
        return self._draw.permutation(np.concatenate([hard, some]))

    def _take(self, rows: Rows) -> tuple[Rows, Images, Images, Images]:
        images = augmented(self._learn.images[rows], self._draw)[..., None]
        heard = self._learn.heard[rows].astype(np.float32) / 255
        return rows, images, self._targets[rows], heard


def steps(learn: Pictures, epochs: int) -> int:
    """Count the batches of all epochs."""
    return epochs * (len(learn.labels) // BATCH)


def train(
    tf: Any, learn: Pictures, epochs: int, seed: int, progress: Callable[[int, float], None]
) -> Any:
    """Fit a new network; give the part of it that ships.

    Parameters
    ----------
    tf
        TensorFlow, from `tensorflow`.
    learn
        The pictures to learn from.
    epochs
        Passes over them.
    seed
        Order of the pictures and how they are cut and masked.
    progress
        Called after each batch with the batches done and the running loss.
    """
    network = build(tf.keras, learn.heard.shape[1])
    count = steps(learn, epochs)
    optimizer = tf.keras.optimizers.AdamW(
        tf.keras.optimizers.schedules.CosineDecay(
            1e-4, count, warmup_target=_RATE, warmup_steps=max(1, count // 20)
        ),
        weight_decay=2e-3,
    )
    optimizer.build(network.trainable_variables)
    cost = tf.keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=_SMOOTHING, reduction="none"
    )

    @tf.function
    def step(images: Any, targets: Any, heard: Any) -> Any:
        with tf.GradientTape() as tape:
            logits, told = network(images, training=True)
            missed = cost(targets, logits)
            mean = tf.reduce_mean(missed) + _TAUGHT * tf.reduce_mean(tf.square(told - heard))
        gradients = tape.gradient(mean, network.trainable_variables)
        optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))
        return missed

    loss = 0.0
    drawn = Batches(learn, epochs, seed)
    for done, (rows, images, targets, heard) in enumerate(drawn, start=1):
        missed = step(*map(tf.constant, (images, targets, heard))).numpy()
        drawn.missed(rows, missed)
        mean = float(missed.mean())
        loss = mean if done == 1 else 0.98 * loss + 0.02 * mean
        progress(done, loss)
    return judge(tf.keras, network)


def augmented(cached: npt.NDArray[np.uint8], draw: np.random.Generator) -> Images:
    """Cut cached pictures to the network's size and vary them: shape [n, FRAMES, BANDS].

    The place of the cut, some bands hidden (Park et al., SpecAugment, arXiv:1904.08779), a tilt of
    the spectrum, a raised floor.
    """
    places = draw.integers(0, SLACK + 1, len(cached))
    cut = np.stack([c[p : p + features.FRAMES] for c, p in zip(cached, places, strict=True)])
    images = cut.astype(np.float32) / 255
    across = np.linspace(-1, 1, features.BANDS, dtype=np.float32)
    tilt = draw.normal(0.0, 3.0, (len(images), 1, 1)).astype(np.float32) / features.RANGE_DB
    images = np.where(images > 0, images + tilt * across, 0.0)
    images += 1 - images.max(axis=(1, 2), keepdims=True)
    for row in np.flatnonzero(draw.random(len(images)) < 0.5):
        image = images[row]
        wide = int(draw.integers(1, 9))
        start = int(draw.integers(0, features.BANDS - wide))
        image[:, start : start + wide] = image.min()
    floor = draw.uniform(-0.3, 0.5, (len(images), 1, 1)).astype(np.float32)
    varied: Images = np.maximum(images, np.maximum(floor, 0.0))
    return varied


def examples(learn: Pictures) -> Images:
    """Choose pictures that stand for all: what quantisation is fitted to."""
    every = max(1, len(learn.images) // _REPRESENTATIVE)
    chosen = learn.images[::every, : features.FRAMES].astype(np.float32)[..., None] / 255
    # The ends of the range must be met, or quantisation would be fitted to less than 0…1.
    chosen[0, 0, 0, 0], chosen[0, 0, 1, 0] = 0.0, 1.0
    return chosen


def to_int8(tf: Any, network: Any, chosen: Images) -> bytes:
    """Convert to a .tflite whose weights, activations and both ends are int8."""
    converter = tf.lite.TFLiteConverter.from_keras_model(network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([chosen[i : i + 1]] for i in range(len(chosen)))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def to_float(tf: Any, network: Any) -> bytes:
    """Convert to a .tflite of float32, to tell what int8 costs."""
    return bytes(tf.lite.TFLiteConverter.from_keras_model(network).convert())
