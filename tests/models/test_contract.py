"""The contract of every file of models/: pixels in [0, 1] in, logits out, and a checkpoint that needs nothing else."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

from models import nsl_cnn, space_cnn
from tasks.config.kinds import names_in
from tasks.engine.checkpoint import Card, load, save
from tasks.engine.networks import check

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = names_in("models")
SMALL = ("nsl_cnn", "space_cnn")
CLASSES = ("cat", "dog", "eel")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_a_network_keeps_the_contract(name: str, channels: int) -> None:
    torch.manual_seed(0)
    net = importlib.import_module(f"models.{name}").build(len(CLASSES), channels, 32)
    check(net, name, len(CLASSES), channels, 32)
    images = torch.rand(2, channels, 32, 32)
    before = images.clone()
    net.train()
    logits = net(images)
    assert logits.shape == (2, 3)
    assert logits.dtype == torch.float32
    assert torch.equal(images, before)
    logits.sum().backward()
    without = [weight for weight, p in net.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    net.eval()
    with torch.no_grad():
        together, alone = net(images), net(images[:1])
    assert torch.allclose(together[:1], alone, atol=1e-4)
    assert not torch.allclose(together.exp().sum(1), torch.ones(2), atol=1e-3), "probabilities, not logits"


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_holds_the_bare_network(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    card = Card(name, CLASSES, 3, 32, 4)
    net = card.build().eval()
    save(tmp_path / "net.safetensors", net, card)
    again, found = load(tmp_path / "net.safetensors")
    assert found == card
    assert not again.training
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in net.state_dict().items())
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(net(images), again(images))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 12, 15, 16, 17, 18, 28, 45])
@pytest.mark.parametrize("name", SMALL)
def test_small_networks_fit_any_size(name: str, size: int, channels: int) -> None:
    net = importlib.import_module(f"models.{name}").build(10, channels, size)
    assert net(torch.rand(2, channels, size, size)).shape == (2, 10)


@pytest.mark.parametrize("name", SMALL)
def test_too_small_an_image_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} needs images of at least 8 pixels, got 7; set data.size"):
        importlib.import_module(f"models.{name}").build(10, 1, 7)


def test_weights_are_as_many_as_in_the_originals() -> None:
    def shapes(net: torch.nn.Module) -> list[tuple[int, ...]]:
        return [tuple(p.shape) for p in net.parameters() if p.ndim > 1]

    nsl = [(32, 1, 3, 3), (64, 32, 3, 3), (64, 64, 3, 3), (64, 576), (10, 64)]
    assert shapes(nsl_cnn.build(10, 1, 28)) == nsl
    assert shapes(space_cnn.build(10, 1, 28)) == [(10, 1, 5, 5), (20, 10, 5, 5), (50, 320), (10, 50)]


@pytest.mark.parametrize("size", [16, 18, 19, 20, 21, 22, 28, 32])
def test_what_nsl_cnn_cuts_off_an_image_reaches_no_logit(size: int) -> None:
    torch.manual_seed(0)
    net = nsl_cnn.build(10, 1, size).double()
    whole = torch.nn.Sequential(*net.children())
    images = torch.rand(4, 1, size, size, dtype=torch.double, requires_grad=True)
    assert torch.allclose(net(images), whole(images), rtol=1e-12)
    (ours,), (wanted,) = (torch.autograd.grad(answers(images).logsumexp(1).sum(), images) for answers in (net, whole))
    assert torch.allclose(ours, wanted, rtol=1e-12)


def test_the_space_drops_in_training_only() -> None:
    torch.manual_seed(0)
    net, images = space_cnn.build(10, 1, 28), torch.rand(2, 1, 28, 28)
    assert not torch.equal(net(images), net(images))
    net.eval()
    assert torch.equal(net(images), net(images))
