"""Two classes that anything learns, a network of every kind of layer that RiFT meets, and its parameters in a test."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from data.shards import Images
from tasks.config.params import Params, read
from tasks.engine import inference

PARAMS = read(Path(__file__).parents[1] / "params.yaml")
ATTACK = {"steps": 2, "step_size": 0.1, "restarts": 1}


def given(**changes: object) -> Params:
    chosen = {"steps": 5, "steps_of_tuning": 4, "attack": ATTACK, "tolerance": 0.2, **changes}
    return PARAMS.model_copy(update={"rift": PARAMS.rift.model_copy(update=chosen)})


def blobs(n: int, seed: int = 0) -> Images:
    """Two classes that differ in the brightness of the left half."""
    torch.manual_seed(seed)
    labels = torch.arange(n) % 2
    pixels = torch.randint(60, 140, (n, 1, 8, 8))
    pixels[:, :, :, :4] += 60 * labels.reshape(-1, 1, 1, 1)
    return Images(pixels.to(torch.uint8), labels, tuple(f"k{i}" for i in range(n)), ("dark", "light"))


def network() -> nn.Module:
    """Convolution, batch norm and dropout, statistics as if it had been trained."""
    torch.manual_seed(3)
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(144, 2)]
    net = nn.Sequential(*layers)
    net.train()
    for _ in range(50):
        net(inference.to_float(blobs(32).pixels_NCHW))
    return net.eval()


def state(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}
