"""Networks by name and by import path, and a target of one's own: trained elsewhere, taken as it is."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from round_states import begin
from safetensors.torch import load_file, save_file
from torch import nn

from data.files import md5
from data.layout import Round, Workspace
from tasks.config.params import ParamsError, read
from tasks.engine import checkpoint, networks, stage
from tasks.freeze import freeze
from tasks.prepare import check_same, freeze_data
from tasks.train import train
from tasks.workspace.git import WorkspaceError, git

OWN = """
import torch
from torch import nn


def build(num_classes, channels, size):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, num_classes))


def half(num_classes, channels, size):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, num_classes - 1))


def nothing(num_classes, channels, size):
    return None


def other(path):
    raise AssertionError("called")


def lazy(num_classes, channels, size):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))


def shared(num_classes, channels, size):
    twice, drop = nn.Conv2d(channels, channels, 3, padding=1), nn.Dropout(torch.linspace(0, 0.2, 3)[1].item())
    return nn.Sequential(twice, nn.ReLU(), twice, drop, nn.Flatten(), nn.Linear(size * size, num_classes))


class Own(nn.Module):
    def __init__(self, num_classes, size, answer):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 2, 3, padding=1), nn.Linear(2 * size * size, num_classes)
        self.answer = answer

    def forward(self, images):
        return self.answer(self, images)


def viewing(num_classes, channels, size):
    return Own(num_classes, size, lambda net, images: net.last(net.first(images).view(len(images), -1)))


def cut(num_classes, channels, size):
    return Own(num_classes, size, lambda net, images: net.last(net.first((images > 0.2).float()).flatten(1)))


def auxiliary(num_classes, channels, size):
    def answer(net, images):
        logits = net.last(net.first(images).flatten(1))
        return (logits, images) if net.training else logits

    return Own(num_classes, size, answer)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder one may import from, with a package of one's own; the module is forgotten afterwards."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").touch()
    (tmp_path / "mine" / "net.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("mine", "mine.net"):
        sys.modules.pop(name, None)


def test_a_network_of_ones_own_is_named_by_import_path(here: Path) -> None:
    net = networks.build("mine.net:build", 4, 1, 8)
    assert net(torch.rand(3, 1, 8, 8)).shape == (3, 4)
    networks.check(net, "mine.net:build", 4, 1, 8)
    assert networks.source("mine.net:build") == (here / "mine" / "net.py").resolve()
    assert networks.source("nsl_cnn") is None
    card = checkpoint.Card("mine.net:build", ("a", "b"), 1, 8, 0)
    path = here / "net.safetensors"
    checkpoint.save(path, card.build(), card)
    assert checkpoint.load(path)[1] == card


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mine.net:missing", "cannot be imported .*has no attribute 'missing'.*expected package.module:function"),
        ("nowhere.net:build", "cannot be imported .*No module named 'nowhere'"),
        ("mine.net:other", r"must be a function of \(num_classes, channels, size\)"),
        ("os:system", r"must be a function of \(num_classes, channels, size\)"),
        ("mine.net:nothing", "must give a torch.nn.Module, got NoneType"),
        ("mine.net:lazy", "must give a network with all its weights, 1.weight has no shape yet"),
    ],
)
def test_what_is_no_network_is_refused(here: Path, name: str, said: str) -> None:
    with pytest.raises(ParamsError, match=said):
        networks.build(name, 4, 1, 8)


def test_a_checkpoint_cannot_have_another_function_called(here: Path) -> None:
    card = checkpoint.Card("mine.net:build", ("a", "b"), 1, 8, 0)
    path = here / "net.safetensors"
    checkpoint.save(path, card.build(), card)
    text = json.dumps({"model": "mine.net:other", "classes": ["a", "b"], "channels": 1, "size": 8, "round": 0})
    save_file(load_file(path), path, metadata={"dadc": text})
    with pytest.raises(ValueError, match=r"'mine.net:other' that cannot be built: .*must be a function of"):
        checkpoint.load(path)


def test_a_network_that_gives_no_logits_is_refused(here: Path) -> None:
    with pytest.raises(ValueError, match=r"into logits of 2×4, got \(2, 3\)"):
        networks.check(networks.build("mine.net:half", 4, 1, 8), "mine.net:half", 4, 1, 8)
    with pytest.raises(ValueError, match="and fails: .*shapes cannot be multiplied"):
        networks.check(networks.build("mine.net:build", 4, 1, 8), "mine.net:build", 4, 3, 8)
    broken = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    nn.init.constant_(broken[1].weight, float("nan"))
    with pytest.raises(ValueError, match="got NaN"):
        networks.check(broken, "mine", 4, 1, 8)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "viewing",
            r"into logits of 2×4, and fails: view .*in place of view take reshape, or flatten\(1\)",
        ),
        ("auxiliary", "into logits of 2×4, in train mode too, got tuple"),
        ("cut", "with a gradient that attacks can follow to the images, and gives none"),
    ],
)
def test_what_training_or_an_attack_would_stumble_over_is_said_before(here: Path, name: str, said: str) -> None:
    net = networks.build(f"mine.net:{name}", 4, 1, 8)
    with pytest.raises(ValueError, match=said):
        networks.check(net, f"mine.net:{name}", 4, 1, 8)


def test_layers_may_share_weights_and_building_may_read_numbers(here: Path) -> None:
    card = checkpoint.Card("mine.net:shared", ("a", "b"), 1, 8, 0)
    torch.manual_seed(0)  # of some weights this small network's ReLU passes nothing on, and it has no gradient
    net, path = card.build(), here / "net.safetensors"
    networks.check(net, card.model, 2, 1, 8)
    checkpoint.save(path, net, card)
    found = checkpoint.load(path)[0]
    assert found[0] is found[2]
    images = torch.rand(3, 1, 8, 8)
    assert torch.allclose(found(images), net.eval()(images), atol=1e-6)


@pytest.fixture
def begun(make_workspace: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Round]]:
    """Round 000 of a workspace with a network of its own in my_net.py, ready to be frozen."""

    def make(**changes: object) -> Round:
        workspace = Workspace(make_workspace(data={"size": 12}, **changes))
        monkeypatch.syspath_prepend(workspace.root)
        (workspace.root / "my_net.py").write_text(OWN)
        git(workspace, "add", "my_net.py")
        git(workspace, "commit", "--quiet", "--message", "network")
        freeze_data(workspace, read(workspace.params), print)
        return begin(workspace, 0)

    yield make
    sys.modules.pop("my_net", None)


def test_a_campaign_starts_from_a_trained_network(begun: Callable[..., Round]) -> None:
    round_ = begun(model={"name": "my_net:build"}, first={"weights": "trained.safetensors"})
    params, trained = read(round_.params), round_.workspace.root / "trained.safetensors"
    own = nn.Sequential(nn.Flatten(), nn.Linear(144, 10))
    save_file(own.state_dict(), trained)
    check_same(round_.workspace, params)
    freeze(round_, [], params, None)
    told = json.loads(round_.lineage.read_text())
    assert told["weights"] == {"path": "data/rounds/000/weights.safetensors", "md5": md5(trained)}
    assert told["network"] == {"name": "my_net:build", "md5": md5(round_.workspace.root / "my_net.py")}

    trained.unlink()  # the round has its own copy
    stage.run("train", train, round_.challenger)
    net, card = checkpoint.load(round_.challenger.trained)
    assert all(torch.equal(own.state_dict()[name], value) for name, value in net.state_dict().items())
    assert card.model == "my_net:build"
    assert json.loads(round_.challenger.history.read_text())["epochs"] == []

    round_.weights.write_bytes(round_.weights.read_bytes() + b" ")
    with pytest.raises(ValueError, match=r"weights\.safetensors is not what was frozen"):
        stage.run("train", train, round_.challenger)


def test_weights_to_start_from_are_part_of_the_lineage(begun: Callable[..., Round]) -> None:
    round_ = begun(model={"name": "my_net:build", "weights": "start.safetensors"}, train={"learning_rate": 1e-9})
    own = nn.Sequential(nn.Flatten(), nn.Linear(144, 10))
    save_file(own.state_dict(), round_.workspace.root / "start.safetensors")
    freeze(round_, [], read(round_.params), None)
    stage.run("train", train, round_.challenger)
    after = checkpoint.load(round_.challenger.trained)[0].state_dict()
    assert torch.allclose(after["1.weight"], own.state_dict()["1.weight"], atol=1e-5)
    assert json.loads(round_.challenger.history.read_text())["epochs"]


def test_what_does_not_fit_is_said_before_the_round_begins(begun: Callable[..., Round]) -> None:
    round_ = begun(model={"name": "my_net:build"}, first={"weights": "trained.safetensors"})
    params, path = read(round_.params), round_.workspace.root / "trained.safetensors"
    with pytest.raises(FileNotFoundError, match=r"first\.weights: expected a safetensors file at"):
        check_same(round_.workspace, params)
    save_file(nn.Sequential(nn.Flatten(), nn.Linear(144, 7)).state_dict(), path)
    with pytest.raises(ValueError, match=r"first\.weights: .* holds another network: 1\.bias expected as 10, got 7"):
        check_same(round_.workspace, params)
    with pytest.raises(ValueError, match=r"first\.weights"):
        freeze(round_, [], params, None)
    assert not round_.lineage.exists()

    save_file(nn.Sequential(nn.Flatten(), nn.Linear(144, 10)).state_dict(), path)
    (round_.workspace.root / "my_net.py").write_text(OWN + "# changed\n")
    with pytest.raises(WorkspaceError, match=r"network's file must be committed, changed: my_net\.py"):
        freeze(round_, [], params, None)
