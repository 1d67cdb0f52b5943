"""Trained weights of one's own: what fits is taken, a classifier of other classes is new, all else is refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn
from torchvision import models as published

from models import densenet121, mobilenet_v2, nsl_cnn, resnet18
from models._pretrained import start_from


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A state dict of torchvision's MobileNetV2 with its 1,000 classes."""
    torch.manual_seed(1)
    path = tmp_path / "mobilenet.safetensors"
    save_file(published.mobilenet_v2(weights=None).state_dict(), path)
    return path


def test_all_but_the_classifier_is_taken(weights: Path) -> None:
    net = mobilenet_v2.build(10, 1, 28)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert start_from(net, weights) == ("network.classifier.1.weight", "network.classifier.1.bias")
    torch.manual_seed(1)
    theirs = published.mobilenet_v2(weights=None).state_dict()
    for name, value in net.state_dict().items():
        short = name.removeprefix("network.")
        assert torch.equal(value, before[name] if "classifier" in name else theirs[short]), name


def test_the_answers_are_torchvisions(tmp_path: Path) -> None:
    theirs = published.densenet121(weights=None, num_classes=4).eval()
    state = theirs.state_dict()
    for layer in ("norm", "conv"):  # as torchvision's published file names them
        state = {
            name.replace(f"{layer}1.", f"{layer}.1.").replace(f"{layer}2.", f"{layer}.2.")
            if "denselayer" in name
            else name: value
            for name, value in state.items()
            if "num_batches" not in name
        }
    save_file(state, tmp_path / "densenet.safetensors")
    net = densenet121.build(4, 3, 96).eval()
    assert start_from(net, tmp_path / "densenet.safetensors") == ()
    images = torch.rand(1, 3, 96, 96)
    normalized = (images - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    with torch.no_grad():
        assert torch.allclose(net(images), theirs(normalized), atol=1e-5)


def test_another_network_is_refused_and_nothing_is_changed(weights: Path) -> None:
    net = resnet18.build(10, 3, 32)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ValueError, match=r"holds another network: .* more; choose model.* or set model\.weights: null"):
        start_from(net, weights)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_the_names_of_a_wrapped_network_are_its_own(tmp_path: Path, prefix: str) -> None:
    theirs, net = nsl_cnn.build(10, 1, 28), nsl_cnn.build(10, 1, 28)
    save_file({prefix + name: value for name, value in theirs.state_dict().items()}, tmp_path / "wrapped.safetensors")
    assert start_from(net, tmp_path / "wrapped.safetensors", "first.weights", whole=True) == ()
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in net.state_dict().items())


def test_a_network_whose_own_module_is_called_module_keeps_its_names(tmp_path: Path) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(2, 2)

    theirs, net = Own(), Own()
    save_file(theirs.state_dict(), tmp_path / "own.safetensors")
    assert start_from(net, tmp_path / "own.safetensors", whole=True) == ()
    assert torch.equal(net.module.weight, theirs.module.weight)


def test_a_stem_of_another_size_is_named(tmp_path: Path) -> None:
    save_file(published.resnet18(weights=None).state_dict(), tmp_path / "resnet.safetensors")
    with pytest.raises(ValueError, match=r"conv1\.weight expected as 64×3×3×3, got 64×3×7×7"):
        start_from(resnet18.build(10, 3, 32), tmp_path / "resnet.safetensors")
    assert start_from(resnet18.build(1000, 3, 96), tmp_path / "resnet.safetensors") == ()


@pytest.mark.parametrize(("channels", "got"), [(1, 3), (3, 1)])
def test_weights_for_other_channels_name_the_key(tmp_path: Path, channels: int, got: int) -> None:
    save_file(nsl_cnn.build(10, got, 28).state_dict(), tmp_path / "net.safetensors")
    with pytest.raises(ValueError, match=rf"expected as 32×{channels}×3×3, got 32×{got}×3×3; choose .*data\.channels"):
        start_from(nsl_cnn.build(10, channels, 28), tmp_path / "net.safetensors")


def test_a_weight_that_layers_share_may_stand_in_the_file_once(tmp_path: Path) -> None:
    def build() -> nn.Module:
        twice = nn.Conv2d(1, 1, 3, padding=1)
        return nn.Sequential(twice, nn.ReLU(), twice, nn.Flatten(), nn.Linear(16, 2))

    theirs, net = build(), build()
    save_model(theirs, str(tmp_path / "shared.safetensors"))
    assert start_from(net, tmp_path / "shared.safetensors", "first.weights", whole=True) == ()
    images = torch.rand(2, 1, 4, 4)
    assert torch.equal(net(images), theirs(images))


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "opened",)  # type: ignore[return-value]

    (tmp_path / "old.pth").write_bytes(pickle.dumps(Trap()))
    torch.save({"weight": torch.zeros(1)}, tmp_path / "new.pth")
    for name in ("old.pth", "new.pth"):
        with pytest.raises(ValueError, match="is a pickle, which can run code and is never opened"):
            start_from(nn.Linear(1, 1), tmp_path / name)
    assert not (tmp_path / "opened").exists()


def test_broken_and_missing_files_have_a_word(tmp_path: Path, weights: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model\.weights: expected a safetensors file"):
        start_from(nn.Linear(1, 1), tmp_path / "none.safetensors")
    (tmp_path / "half.safetensors").write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ValueError, match="no sound safetensors file"):
        start_from(mobilenet_v2.build(10, 3, 32), tmp_path / "half.safetensors")
    save_file({"weight": torch.tensor([[float("nan")]]), "bias": torch.zeros(1)}, tmp_path / "nan.safetensors")
    with pytest.raises(ValueError, match="weight holds NaN"):
        start_from(nn.Linear(1, 1), tmp_path / "nan.safetensors")
