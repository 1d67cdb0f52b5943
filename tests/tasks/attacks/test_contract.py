"""The contract of every file of tasks/attacks/, and what the base makes of what a file proposes."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models import nsl_cnn, space_cnn
from tasks.attacks import Attacked, attack, own_budget
from tasks.config.kinds import names_in
from tasks.config.params import Frozen, Threat
from tasks.engine.inference import logits_of

NAMES = names_in("tasks.attacks")
THREAT = Threat(norm="linf", epsilon=0.1)
REQUIRED: dict[str, dict[str, Any]] = {  # of kinds without defaults for all, or whose defaults take long
    "pgd": {"steps": 4, "step_size": 0.05},
    "apgd_ce": {"steps": 10},
    "apgd_t": {"steps": 10},
    "square": {"queries": 200},
    "spatial": {"degrees": 180.0, "translate": 0.5},
}
L2 = {channels: Threat(norm="l2", epsilon=1.5 * channels**0.5) for channels in (1, 3)}  # the same for each pixel


def params_of(name: str, threat: Threat = THREAT) -> Frozen:
    module, given = importlib.import_module(f"tasks.attacks.{name}"), REQUIRED.get(name, {})
    if "step_size" in given:  # written for THREAT, the same share of any other radius
        given = {**given, "step_size": given["step_size"] * threat.epsilon / THREAT.epsilon}
    params: Frozen = module.Params(**given)
    return params


def trained(channels: int) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A network that tells where the light square is, and images it answers rightly; in training mode."""
    torch.manual_seed(0)
    labels = torch.arange(24) % 2
    images = torch.rand(24, channels, 12, 12) * 0.4
    for i, label in enumerate(labels):
        left = 6 * int(label)
        images[i, :, 3:9, left : left + 6] += 0.2
    net = nsl_cnn.build(2, channels, 12)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        optimizer.step()
    optimizer.zero_grad()
    assert (logits_of(net, images).argmax(1) == labels).all()
    return net.train(), images, labels


def furthest(found: torch.Tensor, images: torch.Tensor, norm: str) -> float:
    change = (found - images).flatten(1)
    return float((change.abs().amax(1) if norm == "linf" else change.norm(dim=1)).max())


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_an_attack_keeps_the_contract(name: str, channels: int, norm: str) -> None:
    threat = THREAT if norm == "linf" else L2[channels]
    net, images, labels = trained(channels)
    frozen = next(net.parameters()).requires_grad_(False)
    before = [value.clone() for value in (images, labels, *net.state_dict().values())]
    found = attack(name, net, images, labels, threat, params_of(name, threat), 7, batch=10)

    for value, old in zip((images, labels, *net.state_dict().values()), before, strict=True):
        assert torch.equal(value, old)
    assert net.training
    assert not frozen.requires_grad
    assert all(p.grad is None for p in net.parameters())
    assert all(p.requires_grad for p in net.parameters() if p is not frozen)

    assert found.images.shape == images.shape
    assert found.images.dtype == torch.float32
    if not own_budget(importlib.import_module(f"tasks.attacks.{name}")):
        assert furthest(found.images, images, threat.norm) <= threat.epsilon + 1e-5
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    assert not found.images.requires_grad
    assert torch.equal(found.answers, logits_of(net, found.images).argmax(1))
    assert torch.equal(found.success, found.answers != labels)
    assert found.right.all()
    assert found.success_rate >= 0.45, "it does not attack"

    again = attack(name, net, images, labels, threat, params_of(name, threat), 7, batch=10)
    assert torch.equal(again.images, found.images)


@pytest.mark.parametrize("name", NAMES)
def test_an_attack_works_inside_no_grad_and_on_nothing(name: str) -> None:
    net, images, labels = trained(1)
    wanted = attack(name, net, images, labels, THREAT, params_of(name), 7)
    with torch.no_grad():
        assert torch.equal(attack(name, net, images, labels, THREAT, params_of(name), 7).images, wanted.images)
    none = attack(name, net, images[:0], labels[:0], THREAT, params_of(name), 7)
    assert none.images.shape == (0, 1, 12, 12)
    assert none.answers.dtype == torch.int64
    assert none.success.dtype == none.right.dtype == torch.bool


@pytest.mark.parametrize("name", NAMES)
def test_dropout_is_off_while_it_runs(name: str) -> None:
    torch.manual_seed(0)
    net = space_cnn.build(3, 1, 16).train()
    images, labels = torch.rand(4, 1, 16, 16), torch.arange(4) % 3
    first = attack(name, net, images, labels, THREAT, params_of(name), 1)
    torch.manual_seed(99)
    assert torch.equal(attack(name, net, images, labels, THREAT, params_of(name), 1).images, first.images)


def invented(perturb: Any, **fields: Any) -> tuple[ModuleType, Frozen]:
    """An attack that a user could have written in a file of their own."""
    module: Any = ModuleType("invented")
    module.Params = type("Params", (Frozen,), {"__annotations__": dict.fromkeys(fields, "int"), **fields})
    module.perturb = perturb
    return module, module.Params()


def test_the_base_cuts_to_the_threat_model_and_judges_for_itself() -> None:
    net, images, labels = trained(1)

    def cheat(net: nn.Module, images: torch.Tensor, labels: torch.Tensor, *_: Any) -> torch.Tensor:
        return images.flip(0) * 3 - 1  # far outside of the ball and of [0, 1]

    module, params = invented(cheat)
    found = attack(module, net, images, labels, THREAT, params, 0)
    assert float((found.images - images).abs().max()) <= THREAT.epsilon + 1e-6
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    assert torch.equal(found.success, logits_of(net, found.images).argmax(1) != labels)


def test_the_worst_of_all_restarts_and_of_the_clean_image_is_kept() -> None:
    net, images, labels = trained(1)

    def blind(net: nn.Module, images: torch.Tensor, labels: torch.Tensor, threat: Any, _: Any, g: Any) -> torch.Tensor:
        return images + threat.epsilon * torch.randn(images.shape, generator=g).sign()

    wide = Threat(norm="linf", epsilon=0.3)

    def margins(found: Attacked) -> torch.Tensor:
        logits = logits_of(net, found.images)
        return logits[torch.arange(24), 1 - labels] - logits[torch.arange(24), labels]

    module, params = invented(lambda net, images, *_: images)
    clean = previous = margins(attack(module, net, images, labels, wide, params, 3))
    for restarts in (1, 4, 16):
        module, params = invented(blind, restarts=restarts)
        now = margins(attack(module, net, images, labels, wide, params, 3))
        assert (now >= previous).all()
        previous = now
    assert (previous > clean).any()


def test_success_is_counted_over_what_was_right() -> None:
    net, images, labels = trained(1)
    wrong = labels.clone()
    wrong[:6] = 1 - wrong[:6]

    module, params = invented(lambda net, images, *_: images)
    found = attack(module, net, images, wrong, THREAT, params, 0)
    assert found.right.tolist() == [False] * 6 + [True] * 18
    assert found.success.tolist() == [True] * 6 + [False] * 18
    assert found.success_rate == 0


def test_what_is_wrong_with_the_input_is_said() -> None:
    net, images, labels = trained(1)
    given = {"net": net, "images": images, "labels": labels, "threat": THREAT, "params": params_of("fgsm"), "seed": 0}
    for changed, word in (
        ({"images": (images * 255).to(torch.uint8)}, r"fp32 images of shape N×C×H×W, got torch\.uint8"),
        ({"images": images * 255}, r"pixels must lie in \[0, 1\]"),
        ({"images": images[0]}, "N×C×H×W"),
        ({"labels": labels[:3]}, "24 images want as many int64 labels"),
        ({"labels": labels.float()}, r"int64 labels, got torch\.float32"),
        ({"labels": labels + 2}, r"labels must lie in 0\.\.1, the network.s classes, got 2\.\.3"),
        ({"params": params_of("pgd")}, r"tasks\.attacks\.fgsm wants its own Params, got tasks\.attacks\.pgd\.Params"),
    ):
        with pytest.raises(ValueError, match=word):
            attack("fgsm", **{**given, **changed})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"expected a file of tasks/attacks/ \(.*fgsm.*\), got 'none'"):
        attack("none", **given)  # type: ignore[arg-type]


def test_a_network_that_answers_nan_is_not_robust() -> None:
    net, images, labels = trained(1)
    with torch.no_grad():
        next(net.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="NaN or infinity"):
        attack("fgsm", net, images, labels, THREAT, params_of("fgsm"), 0)
