"""What the benchmarks of robustness share: the images, and networks trained as a round trains them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks import _frame
from data.sets import digits, mnist
from data.shards import Images
from tasks import train
from tasks.config.params import Params, TrainCandidates, read
from tasks.engine import devices, networks
from tasks.engine.training_set import training_set

PARAMS = Path(__file__).parent.parent / "params.yaml"
HELP = "folder that holds MNIST/raw, or where torchvision may put it; without it scikit-learn's digits are taken"


def arguments(about: str | None) -> argparse.ArgumentParser:
    """The options of every benchmark, and where MNIST lies."""
    parser = _frame.arguments(about)
    parser.add_argument("--root", type=Path, metavar="DIR", help=HELP)
    return parser


def images(root: Path | None, split: str) -> Images:
    """One part of MNIST where a root is given, else of the digits that scikit-learn brings; 28×28, grey."""
    if root is None:
        return digits.load(split, root=Path(), size=None, channels=None, seed=0)
    return mnist.load(split, root=root, size=None, channels=None, seed=0)


def some(pictures: Images, n: int, seed: int = 0) -> Images:
    """n images by chance, all where there are no more."""
    return pictures.take(torch.randperm(len(pictures), generator=torch.Generator().manual_seed(seed))[:n])


def settings(changes: Mapping[str, Any]) -> Params:
    """params.yaml with some of its keys changed, a mapping within a mapping for each level."""
    return Params.model_validate(_merged(read(PARAMS).model_dump(by_alias=True, exclude_unset=True), changes))


def new(given: Images, params: Params) -> nn.Module:
    """params.model.name for such images, untrained, from params.seed."""
    torch.manual_seed(params.seed)
    return networks.build(params.model.name, len(given.classes), given.channels, given.size)


def tutorial() -> nn.Module:
    """nsl_cnn for 28×28 as its tutorial writes it, a ReLU after each layer; the same answers and the same weights."""
    made = nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(576, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    made.load_state_dict(networks.build("nsl_cnn", 10, 1, 28).state_dict())
    return made


def fitted(
    name: str, given: Images, validation: Images, params: Params, compute: devices.Compute = devices.ONE_PROCESS
) -> nn.Module:
    """A new network, trained on `given` by params.train; in eval mode, on the CPU."""
    return trained(name, new(given, params), given, validation, params, compute)[0].requires_grad_(False)


def trained(
    name: str, net: nn.Module, given: Images, validation: Images, params: Params, compute: devices.Compute
) -> tuple[nn.Module, dict[str, Any]]:
    """A network trained on `given` by params.train, in eval mode on the CPU, and its history."""
    none = TrainCandidates(weight=0.0, repeat=1, non_fooling=False)
    data = training_set(given, [], none)
    return train.fitted(net, data, validation, params, params.train.loss, name, compute=compute)


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Kinds' own parameters are replaced as a whole, for another kind takes others."""
    both = dict(old)
    for key, value in new.items():
        inner = old.get(key)
        if isinstance(value, Mapping) and isinstance(inner, Mapping) and key not in WHOLE:
            both[key] = _merged(inner, value)
        else:
            both[key] = value
    return both


WHOLE = ("params", "kinds", "attacks", "battery", "shifts", "augment", "attack", "awp")
