"""Activation maps: by hand on a network that one can see through, and on every network of models/."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tasks.config.kinds import module_of, names_in
from tasks.engine.explanations import activation_maps

NETWORKS = names_in("models")


class Corners(nn.Module):
    """Class 0 counts ink in the left half, class 1 in the right."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1, bias=False)
        nn.init.ones_(self.conv.weight)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        maps_BCHW = self.conv(images_BCHW)
        half = images_BCHW.shape[-1] // 2
        mask_W = (torch.arange(2 * half) < half).float()
        return torch.stack([(maps_BCHW[:, 0] * mask_W).sum((1, 2)), (maps_BCHW[:, 1] * (1 - mask_W)).sum((1, 2))], 1)


def test_the_map_is_the_weighted_sum_of_the_maps() -> None:
    images_BCHW = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    maps_BHW = activation_maps(Corners(), images_BCHW, torch.tensor([0, 1, 0]))
    # either class weights its own map with 1/2, the mean slope, and the other with 0
    expected_BHW = images_BCHW[:, 0] / images_BCHW[:, 0].amax((1, 2), keepdim=True)
    assert torch.allclose(maps_BHW, expected_BHW)


def test_what_speaks_against_the_class_is_not_shown() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Flatten(), nn.Linear(16, 2, bias=False))
    with torch.no_grad():
        net[0].weight.fill_(1)
        net[2].weight[0], net[2].weight[1] = 1, -1
    maps_BHW = activation_maps(net, torch.ones(2, 1, 4, 4), torch.tensor([0, 1]))
    assert maps_BHW[0].eq(1).all()
    assert maps_BHW[1].eq(0).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_shows_where_it_looks(name: str) -> None:
    if name == "wrn_34_10":
        from models.wrn_34_10 import network

        net: nn.Module = network(3, 1, 10, 1)  # the same blocks, fewer and narrower
    else:
        torch.manual_seed(0)
        net = module_of("models", name, "model.name").build(3, 1, 16)
    net.train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    images_BCHW = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    for chosen in (torch.tensor([0, 1]), torch.tensor([2, 2])):
        maps_BHW = activation_maps(net, images_BCHW, chosen)
        assert maps_BHW.shape == (2, 16, 16)
        assert maps_BHW.min() >= 0
        assert maps_BHW.max() <= 1
    assert all(layer.training for layer in net.modules())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert not any(layer._forward_hooks for layer in net.modules())
    alone_BHW = activation_maps(net, images_BCHW[:1], torch.tensor([2]))
    assert torch.allclose(alone_BHW[0], maps_BHW[0], atol=1e-4), "images of a batch do not touch each other"


def test_what_is_no_network_for_it_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a network with a convolution, Sequential has none"):
        activation_maps(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(1, 1, 2, 2), torch.tensor([0]))
    with pytest.raises(ValueError, match="expected a class for each of 2 images, got 1"):
        activation_maps(Corners(), torch.rand(2, 1, 8, 8), torch.tensor([0]))
