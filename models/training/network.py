"""The network: depthwise-separable convolutions over the picture, small enough for a Pi 3.

After DS-CNN (Zhang, Suda, Lai & Chandra, "Hello Edge", arXiv:1711.07128), but the bands are kept
apart to the end: where in the spectrum something happens tells a shot from a burst.
"""

from __future__ import annotations

from typing import Any, Final

from node.classify import features
from node.types import LABELS

CHANNELS: Final = ((32, 2), (48, 1), (64, 2), (96, 1), (96, 1), (128, 2))
"""Output channels and stride of each depthwise-separable block."""


def build(keras: Any) -> Any:
    """Build the untrained Keras model: picture in 0…1 to four logits."""
    layers = keras.layers
    picture = layers.Input((features.FRAMES, features.BANDS, 1))
    x = layers.Conv2D(16, (5, 3), strides=2, padding="same", use_bias=False)(picture)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    for channels, stride in CHANNELS:
        x = layers.DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Conv2D(channels, 1, use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    frames = x.shape[1]
    mean = layers.AveragePooling2D((frames, 1))(x)
    most = layers.MaxPooling2D((frames, 1))(x)
    x = layers.Flatten()(layers.Concatenate()([mean, most]))
    x = layers.Dropout(0.3)(x)
    return keras.Model(picture, layers.Dense(len(LABELS))(x))
