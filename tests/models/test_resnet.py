"""ResNet-18 and ResNet-34: the published sizes, and a stem for each size of image."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models import resnet18, resnet34


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_weights_are_as_many_as_published() -> None:
    assert count(resnet18.build(10, 3, 32)) == 11_173_962
    assert count(resnet34.build(10, 3, 32)) == 21_282_122
    assert count(resnet18.build(1000, 3, 224)) == 11_689_512
    assert count(resnet34.build(1000, 3, 224)) == 21_797_672


@pytest.mark.parametrize(("channels", "size", "side"), [(3, 32, 4), (1, 28, 4), (3, 64, 8), (3, 96, 3), (1, 8, 1)])
def test_the_last_map_is_not_shrunk_to_nothing(channels: int, size: int, side: int) -> None:
    net = resnet18.build(10, channels, size).eval()
    shapes: list[torch.Size] = []
    net.get_submodule("network.layer4").register_forward_hook(lambda _, __, out: shapes.append(out.shape))
    with torch.no_grad():
        assert net(torch.rand(2, channels, size, size)).shape == (2, 10)
    assert shapes == [torch.Size((2, 512, side, side))]


def test_pixels_are_normalized_inside() -> None:
    net = resnet18.build(10, 3, 32).eval()
    seen: list[torch.Tensor] = []
    net.get_submodule("network").register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        net(torch.full((1, 3, 32, 32), 0.4914))
    assert seen[0][0, 0].abs().max() < 1e-6
    assert torch.allclose(seen[0][0, 2], torch.tensor((0.4914 - 0.4465) / 0.2616))


def test_images_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="resnet34 needs images of at least 8 pixels, got 4"):
        resnet34.build(10, 3, 4)
    with pytest.raises(ValueError, match="1 or 3 channels, got 4"):
        resnet18.build(10, 4, 32)
