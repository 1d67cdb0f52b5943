"""The network of the MNIST Adversarial Space.

Two 5×5 convolutions with 10 and 20 filters, each max-pooled by 2 and then rectified, whole channels dropped after the
second, 50 hidden units with dropout: 320–50–10 at 28×28. Differs: logits go out instead of log-probabilities, and
under 16 pixels the convolutions are padded.
"""

from __future__ import annotations

import torch
from torch import nn

SMALLEST = 8  # pixels
MNIST_MEAN, MNIST_DEVIATION = 0.1307, 0.3081  # of MNIST's training pixels; grey
COLOUR_MEAN, COLOUR_DEVIATION = 0.5, 0.25


class SpaceCNN(nn.Module):
    def __init__(self, num_classes: int, channels: int, size: int) -> None:
        super().__init__()
        padding = 0 if size >= 16 else 2
        side = size
        for _ in range(2):
            side = (side - 4 + 2 * padding) // 2
        grey = channels == 1
        self.mean = MNIST_MEAN if grey else COLOUR_MEAN
        self.deviation = MNIST_DEVIATION if grey else COLOUR_DEVIATION
        self.features = nn.Sequential(
            nn.Conv2d(channels, 10, 5, padding=padding),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(10, 20, 5, padding=padding),
            nn.Dropout2d(),
            nn.MaxPool2d(2),
            nn.ReLU(),
        )
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(20 * side * side, 50),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(50, num_classes),
        )

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        logits_BK: torch.Tensor = self.head(self.features((images_BCHW - self.mean) / self.deviation))
        return logits_BK


def build(num_classes: int, channels: int, size: int) -> nn.Module:
    """N×channels×size×size pixels in [0, 1] → N×num_classes logits."""
    if size < SMALLEST:
        raise ValueError(
            f"space_cnn needs images of at least {SMALLEST} pixels, got {size}; set data.size in params.yaml"
        )
    return SpaceCNN(num_classes, channels, size)
