"""1×1 shortcuts are found by what a network does, not by their names."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tasks.adaptation.shortcuts import shortcuts
from tasks.engine import networks


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", {f"network.layer{i}.0.downsample.0" for i in (2, 3, 4)}),
        ("resnext50", {f"network.layer{i}.0.downsample.0" for i in (1, 2, 3, 4)}),
        ("wrn_34_10", {f"network.{i}.shortcut" for i in (1, 6, 11)}),
        ("mobilenet_v2", set()),
        ("efficientnet_b0", set()),
        ("nsl_cnn", set()),
    ],
)
def test_shortcuts_of_the_networks_of_models(name: str, expected: set[str]) -> None:
    """1×1 convolutions on the main path, as mobilenet_v2's blocks have them, are none."""
    with torch.device("meta"):
        net = networks.build(name, 10, 3, 32)
    assert shortcuts(net) == expected


class Forked(nn.Module):
    """The path depends on the image."""

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return images_BCHW if images_BCHW.sum() > 0 else -images_BCHW


def test_a_network_that_cannot_be_traced_has_shortcuts_unknown() -> None:
    assert shortcuts(Forked()) is None
