"""A fast copy has the network's answers and gradients, keeps to its weights, and leaves the network alone."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models._pooling import RectifiedMaxPool
from tasks.config.kinds import module_of
from tasks.engine import bf16
from tasks.engine.bf16 import _of, bf16_copy

NETWORKS = [
    ("nsl_cnn", 1, 28),
    ("space_cnn", 1, 28),
    ("resnet18", 3, 16),
    ("mobilenet_v2", 3, 16),
    ("densenet121", 1, 16),
]


def network(name: str, channels: int, size: int) -> tuple[nn.Module, torch.Tensor]:
    """With batch norm's statistics off their start, in training mode."""
    torch.manual_seed(0)
    net: nn.Module = module_of("models", name, "model.name").build(4, channels, size).train()
    images = torch.rand(6, channels, size, size)
    net(images)
    return net, images


def gradient(net: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    images = images.detach().requires_grad_()
    logits = net(images)
    (found,) = torch.autograd.grad(F.cross_entropy(logits.float(), torch.arange(6) % 4, reduction="sum"), images)
    return found, logits.detach()


@pytest.mark.parametrize(("name", "channels", "size"), NETWORKS)
def test_before_it_is_cast_it_has_the_networks_answers_and_gradients(name: str, channels: int, size: int) -> None:
    net, images = network(name, channels, size)
    copy = bf16_copy(net, images)
    assert copy is not net
    assert net.training
    for layer in copy.modules():
        if isinstance(layer, bf16._Layer):
            layer.take(torch.float64)
    net.eval().double()  # in which no rounding decides on which side of a ReLU's edge a number lies
    wanted, ours = gradient(net, images.double()), gradient(copy, images.double())
    assert torch.allclose(ours[1], wanted[1], atol=1e-6)
    assert torch.allclose(ours[0], wanted[0], atol=1e-6 * float(wanted[0].abs().max()))
    assert all(weight.grad is None for weight in net.parameters())


@pytest.mark.parametrize(("size", "seen"), [(28, 26), (30, 30), (31, 30)])
def test_what_a_max_pool_drops_is_not_computed(size: int, seen: int) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.LazyLinear(4),
    ).eval()
    images = torch.rand(6, 1, size, size)
    net(images)
    asked: list[torch.Size] = []
    copy = bf16_copy(net, images)
    next(m for m in copy.modules() if isinstance(m, bf16._Convolution)).register_forward_pre_hook(
        lambda _, given: asked.append(given[0].shape)
    )
    for layer in copy.modules():
        if isinstance(layer, bf16._Layer):
            layer.take(torch.float64)
    ours, wanted = gradient(copy, images.double()), gradient(net.double(), images.double())
    assert asked == [(6, 1, seen, seen)]
    assert torch.allclose(ours[0], wanted[0], atol=1e-12)
    assert torch.equal(ours[0] == 0, wanted[0] == 0)


def test_a_max_pool_and_a_relu_become_one_layer_only_where_they_are_as_good_as_that() -> None:
    torch.manual_seed(0)
    pools = [nn.MaxPool2d(2), nn.MaxPool2d(2, 1), nn.MaxPool2d(2, padding=1), nn.MaxPool2d(2, ceil_mode=True)]
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        *(layer for pool in pools for layer in (nn.ReLU(), pool)),  # a ReLU before each
        *(nn.Conv2d(4, 4, 1), nn.MaxPool2d(2), nn.Conv2d(4, 4, 1)),  # and none about this one
        *(nn.Flatten(), nn.LazyLinear(4)),
    ).eval()
    images = torch.rand(6, 1, 20, 20)
    net(images)
    copy = bf16_copy(net, images)
    assert copy is not net
    assert isinstance(copy, torch.fx.GraphModule)
    called = [type(copy.get_submodule(str(n.target))) for n in copy.graph.nodes if n.op == "call_module"]
    assert called.count(RectifiedMaxPool) == 1
    assert called.count(nn.MaxPool2d) == 4
    with torch.autocast("cpu", torch.bfloat16):
        ours = gradient(copy, images.contiguous(memory_format=torch.channels_last))
    assert torch.allclose(ours[1].float(), net(images), atol=0.02)


def test_images_of_another_size_get_a_copy_of_their_own() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    for size in (8, 9, 8, 11):
        images = torch.rand(2, 1, size, size)
        copy = bf16_copy(net, images)
        with torch.no_grad():
            assert torch.allclose(copy(images).float(), net(images), atol=0.02)


def test_each_call_takes_the_weights_as_they_are_now() -> None:
    net, images = network("resnet18", 3, 16)
    first = bf16_copy(net, images)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        before = first(images)
        for weight in net.parameters():
            weight.mul_(1.2)
        net.train()(images)  # moves the statistics too
        assert torch.equal(first(images), before)
        again = bf16_copy(net, images)
        after = again(images)
    assert again is first, "it is traced once"
    assert not torch.equal(after, before)
    with torch.no_grad():
        assert torch.allclose(after.float(), net.eval()(images), atol=0.1 * float(after.abs().max()))


def test_what_cannot_be_traced_or_is_not_the_same_is_left_as_it_is() -> None:
    class Forked(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean((2, 3)) if images.sum() > 0 else images.amax((2, 3))

    class Random(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean((2, 3)) + torch.rand(())

    for net in (Forked(), Random()):
        assert bf16_copy(net, torch.rand(4, 3, 8, 8)) is net


def test_a_layer_that_overwrites_what_another_keeps_is_left_as_it_is() -> None:
    class Overwriting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(2), nn.Linear(4, 4)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.head(F.relu(self.pool(F.relu(self.conv(images))), inplace=True).mean((2, 3)))

    torch.manual_seed(0)
    net, images = Overwriting(), torch.rand(6, 1, 8, 8)
    assert bf16_copy(net, images) is net, "its pool's answer became what the ReLU before it keeps"
    with torch.autocast("cpu", torch.bfloat16):
        gradient(bf16_copy(net, images), images)


def test_layers_may_be_called_by_keyword_and_sizes_be_lists() -> None:
    class ByKeyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.relu = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()
            self.pool, self.head = nn.MaxPool2d([2, 2]), nn.Linear(4 * 3 * 3, 3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            maps = self.norm(input=self.conv(input=images))
            return self.head(input=self.pool(input=self.relu(input=maps)).flatten(1))

    torch.manual_seed(0)
    net, images = ByKeyword(), torch.rand(6, 1, 9, 9)
    copy = bf16_copy(net, images)
    assert copy is not net, "it is rewritten like any other"
    assert any(isinstance(layer, RectifiedMaxPool) for layer in copy.modules())


def test_a_module_used_twice_is_folded_with_what_follows_each_time() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.one, self.two = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.BatchNorm2d(8)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            images = images.repeat(1, 8, 1, 1)
            return self.two(self.conv(self.one(self.conv(images)).relu())).mean((2, 3))

    torch.manual_seed(0)
    net = Twice().train()
    images = torch.rand(6, 1, 8, 8)
    for _ in range(3):
        net(images)
    assert bf16_copy(net, images) is not net, "both answer alike, or it would have been left"


def test_a_network_that_was_changed_is_copied_anew_and_one_that_is_gone_is_forgotten() -> None:
    net, images = network("nsl_cnn", 1, 28)
    first = bf16_copy(net, images)
    net.set_submodule("0", nn.Conv2d(1, 32, 3))
    second = bf16_copy(net, images)
    assert second is not first
    gone = weakref.ref(net)
    del net, first, second
    gc.collect()
    assert gone() is None


def test_a_network_that_was_moved_to_another_device_is_another() -> None:
    """Its buffers are new ones then, and the traced copy would hold the old."""
    net, images = network("resnet18", 3, 32)
    there = _of(net, images)
    assert _of(net.to("meta"), images) != there
