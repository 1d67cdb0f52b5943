"""WRN-34-10: the published size, and blocks that activate before they convolve."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.wrn_34_10 import Block, build, network


def test_it_has_the_published_number_of_weights_and_answers() -> None:
    net = build(10, 3, 32).eval()
    assert sum(p.numel() for p in net.parameters()) == 46_160_474
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(convolutions) == 31  # with two 1×1 shortcuts less the first, and the classifier: 34 layers
    with torch.no_grad():
        assert net(torch.rand(1, 3, 8, 8)).shape == (1, 10)


def test_a_block_of_one_shape_adds_to_what_came() -> None:
    block = Block(4, 4, 1).eval()
    nn.init.zeros_(block.conv2.weight)
    maps = torch.randn(2, 4, 5, 5)
    assert torch.equal(block(maps), maps)


def test_narrow_ones_learn_and_depths_are_checked() -> None:
    net = network(3, 1, 10, 1)
    net(torch.rand(2, 1, 8, 8)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    with pytest.raises(ValueError, match="6n \\+ 4 layers, got 33"):
        network(10, 3, 33, 10)
