"""The convolutional network of the adversarial-regularization tutorial of Neural Structured Learning.

Three 3×3 convolutions with 32, 64 and 64 filters, the first two max-pooled 2×2, 64 hidden units. Pixels go in as
they are, as there. Differs: under 18 pixels, where the third convolution would have nothing left to see, the
convolutions are padded. Two things change no answer and no gradient, only the time: a ReLU comes after the max-pool;
and rows and columns that a max-pool drops, for they fill no window, are cut off the image already: of 28 pixels, two.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from models._convolution import QuickConv2d
from models._pooling import RectifiedMaxPool

SMALLEST = 8  # pixels


class _Cut(nn.Sequential):
    """Layers that see the first `seen` rows and columns of an image."""

    def __init__(self, seen: int, layers: dict[int, nn.Module]) -> None:
        super().__init__(OrderedDict((str(number), layer) for number, layer in layers.items()))
        self.seen = seen

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        values = images_BCHW[:, :, : self.seen, : self.seen]
        for layer in self:
            values = layer(values)
        return values


def build(num_classes: int, channels: int, size: int) -> nn.Module:
    """N×channels×size×size pixels in [0, 1] → N×num_classes logits."""
    if size < SMALLEST:
        raise ValueError(
            f"nsl_cnn needs images of at least {SMALLEST} pixels, got {size}; set data.size in params.yaml"
        )
    padding = 0 if size >= 18 else 1
    side = size
    for _ in range(2):
        side = (side - 2 + 2 * padding) // 2
    side = side - 2 + 2 * padding
    return _Cut(
        ((side + 2) * 2 + 2) * 2 + 2 if padding == 0 else size,
        {  # by these numbers saved weights are called
            0: QuickConv2d(channels, 32, 3, padding=padding),
            1: RectifiedMaxPool(),
            3: nn.Conv2d(32, 64, 3, padding=padding),
            4: RectifiedMaxPool(),
            6: QuickConv2d(64, 64, 3, padding=padding),
            7: nn.ReLU(),
            8: nn.Flatten(),
            9: nn.Linear(64 * side * side, 64),
            10: nn.ReLU(),
            11: nn.Linear(64, num_classes),
        },
    )
