"""The network: a few small convolutions over the picture, fast on a Pi 3 without any delegate.

Plain convolutions and not depthwise ones (DS-CNN, arXiv:1711.07128): tflite-runtime 2.14 has no
fast depthwise kernel for int8 on x86 without XNNPACK (the first, smaller network took 0.2 ms plain
and 1.3 ms depthwise, at half the multiplications). The bands are kept apart to the end: where in
the spectrum something happens tells a shot from a burst.
"""

from __future__ import annotations

from typing import Any, Final

from node.classify import features
from node.types import LABELS

FILTERS: Final = ((24, 2), (32, 1), (48, 2), (64, 1), (128, 2))
"""Output channels and stride of each block."""
HIDDEN: Final = 96


def build(keras: Any, families: int) -> Any:
    """Build the untrained Keras model: picture in 0…1 to four logits.

    Its second output, of `families` values, is what the teacher hears: both are read off the same
    hidden layer, so that this one must tell apart what the teacher does. `judge` leaves it away.
    """
    layers = keras.layers
    picture = layers.Input((features.FRAMES, features.BANDS, 1))
    x = picture
    for channels, size, stride in ((16, (5, 3), 2), *((c, 3, s) for c, s in FILTERS)):
        x = layers.Conv2D(channels, size, strides=stride, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    frames = x.shape[1]
    mean = layers.AveragePooling2D((frames, 1))(x)
    most = layers.MaxPooling2D((frames, 1))(x)
    x = layers.Flatten()(layers.Concatenate()([mean, most]))
    x = layers.Dense(HIDDEN, use_bias=False)(layers.Dropout(0.25)(x))
    x = layers.Dropout(0.25)(layers.ReLU()(layers.BatchNormalization()(x)))
    return keras.Model(picture, [layers.Dense(len(LABELS))(x), layers.Dense(families)(x)])


def judge(keras: Any, network: Any) -> Any:
    """Give the part of a network that ships: picture to four logits."""
    return keras.Model(network.inputs, network.outputs[0])
