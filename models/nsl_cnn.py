"""The convolutional network of the adversarial-regularization tutorial of Neural Structured Learning.

Three 3×3 convolutions with 32, 64 and 64 filters, the first two max-pooled 2×2, 64 hidden units. Pixels go in as
they are, as there. Differs: under 18 pixels, where the third convolution would have nothing left to see, the
convolutions are padded; and a ReLU comes after the max-pool, which changes no answer and no gradient, and costs a
quarter.
"""

from __future__ import annotations

from torch import nn

from models._few_channels import FirstConv2d

SMALLEST = 8  # pixels


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
    return nn.Sequential(
        FirstConv2d(channels, 32, 3, padding=padding),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=padding),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=padding),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * side * side, 64),
        nn.ReLU(),
        nn.Linear(64, num_classes),
    )
