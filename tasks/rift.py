"""Fine-tune the module whose weight robustness hangs on least, then go back as far as robustness asks.

RiFT (Zhu et al., ICCV 2023, arXiv:2308.02533): characterise, fine-tune, interpolate. Differs: every choice is made on
validation images, the module on one half and α on the other, so that α is not chosen on what chose the module; the
ascent takes full-batch steps, goes back onto the ball's surface whenever it leaves it, and keeps the highest loss; the
whole network stays in eval mode, so that no batch norm's statistics move; robust accuracy is compared image by image;
and `rift.selection: trial` may take another than the least critical module.

`rift.report` adds what the paper's figures show and the choice does not need: what either selection ends at, and the
paths of the least critical module, of the most critical one and of all parameters together, on the same images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from data.files import write_json, write_whole
from data.layout import Arm
from data.shards import Images
from tasks import attacks, augments
from tasks.config.kinds import kind
from tasks.config.params import Params
from tasks.config.params import Rift as Choices
from tasks.config.seeds import derive
from tasks.engine import checkpoint, inference, stage
from tasks.engine.devices import Compute
from tasks.evaluation.paired import paired
from tasks.workspace import inputs

ALPHAS = tuple(step / 10 for step in range(11))
MOMENTUM = 0.9  # of the fine-tuning's SGD
DECAY_AT = 0.5  # share of the epochs after which its learning rate falls to a tenth
BATCH = 256  # images at a time where no gradient step hangs on the batch
CHANCES = 2  # random points of each module's ball that the ascent is held against

Tensors = Mapping[str, torch.Tensor]  # by the parameter's name


@dataclass(frozen=True)
class AttackedImages:
    """Images attacked once, on the weights as they were, on the network's device. fp32 N×C×H×W; int64 N."""

    images_NCHW: torch.Tensor
    labels_N: torch.Tensor


@dataclass(frozen=True)
class Criticality:
    """How much the loss on fixed adversarial images can be raised by moving one module's weight within the ball.

    An ascent finds a lower bound of the true maximum only; `elsewhere` is what it is held against.
    """

    module: str
    parameters: int
    loss: float  # mean cross-entropy where it began
    reached: float  # the highest that the ascent found
    mrc: float  # reached − loss
    drop: float  # share of those images that is answered rightly no more where the ascent found the highest loss
    elsewhere: float  # the highest rise at other points: one step to the surface, random ones, the fine-tuned weight

    @property
    def exceeded(self) -> bool:
        """Whether the ascent missed a point of the ball that is worse than all it found."""
        return self.elsewhere > self.mrc


@dataclass(frozen=True)
class Point:
    """The network at one place between the trained weight (alpha 0) and the fine-tuned one (alpha 1)."""

    alpha: float
    clean: tuple[bool, ...]
    robust: tuple[bool, ...]

    def shares(self) -> dict[str, float]:
        """The point as rift.json has it."""
        clean, robust = (sum(part) / len(part) for part in (self.clean, self.robust))
        return {"alpha": self.alpha, "clean": clean, "robust": robust}


def rift(arm: Arm, params: Params, compute: Compute) -> None:
    """Write the arm's model.safetensors and rift.json. Of several processes, the first does it all."""
    if not compute.first:
        return
    net, card = checkpoint.load(arm.trained)
    enabled = params.rift.enabled and (arm.round.number > 0 or params.first.rift)
    if not enabled:
        write_whole(arm.model, arm.trained.read_bytes())
        write_json(arm.rift, {"enabled": False, "alpha": 0.0})
        stage.say(f"rift {arm.label}: not enabled, the trained weights are kept")
        return
    train, validation = (inputs.images(arm.round.workspace, split) for split in ("train", "validation"))
    outcome = tune(net.to(compute.device), train, validation, params)
    if outcome["alpha"] == 0:
        write_whole(arm.model, arm.trained.read_bytes())
    else:
        checkpoint.save(arm.model, net, card)
    write_json(arm.rift, {"enabled": True, "selection": params.rift.selection, **outcome})
    stage.say(f"rift {arm.label}: {outcome['module']} at alpha {outcome['alpha']:g}")


def tune(net: nn.Module, train: Images, validation: Images, params: Params) -> dict[str, Any]:
    """RiFT's three steps on `net`, which ends with the weights at the chosen α, in eval mode.

    Returns {"modules", "exceeded", "trials", "module", "path", "alpha", "n"}: the modules from the least critical on,
    those whose MRC is known to be too low, the tried ones' best points on the first half of validation, and the chosen
    one's path on the second half, of n images. Under `rift.report` also {"selections", "paths"}: what either selection
    ends at, and the paths of the least and the most critical module and of full fine-tuning, on the second half.
    """
    if len(validation) < 2:
        raise ValueError(f"RiFT needs at least two validation images, got {len(validation)}; raise data.validation")
    choices = params.rift
    first, second = halves(validation)
    net.eval()
    fixed = attacked_once(net, first, params)
    modules = characterise(net, fixed, params)
    order = [found.module for found in modules]
    tried = order[: choices.candidates if choices.report or choices.selection == "trial" else 1]
    tuned = {
        name: fine_tuned(net, [f"{name}.weight"], train, params)
        for name in dict.fromkeys([*tried, *([order[-1]] if choices.report else [])])
    }
    modules = [
        held_against(net, found, tuned[found.module], fixed, choices) if found.module in tuned else found
        for found in modules
    ]
    for found in modules:
        stage.say(f"rift: {found.module} MRC {found.mrc:.4f}, at the cost of {found.drop:.1%} robust accuracy")
        if found.exceeded:
            stage.say(
                f"rift: warning: the loss of {found.module} rises by {found.elsewhere:.4f} elsewhere in the ball, more "
                "than its MRC: ascent finds a lower bound only; raise rift.ascent_rate or rift.steps"
            )
    trials = {}
    if len(tried) > 1:
        trials = {name: choose(path(net, tuned[name], first, params), choices) for name in tried}
    ends = {"paper": order[0], "trial": best_trial(trials) if trials else order[0]}
    chosen = ends[choices.selection]
    wanted = [*ends.values(), order[-1]] if choices.report else []
    paths = {name: path(net, tuned[name], second, params) for name in dict.fromkeys([chosen, *wanted])}
    told: dict[str, Any] = {
        "modules": [asdict(found) for found in modules],
        "exceeded": [found.module for found in modules if found.exceeded],
        "trials": [{"module": name, **trial.shares()} for name, trial in trials.items()],
        "module": chosen,
        "path": shares(paths[chosen]),
        "n": len(second),
    }
    if choices.report:
        trained = [name for name, weight in net.named_parameters() if weight.requires_grad]
        everything = fine_tuned(net, trained, train, params)
        told["selections"] = {
            way: {"module": name, **choose(paths[name], choices).shares()} for way, name in ends.items()
        }
        told["paths"] = {
            "least": {"module": order[0], "path": shares(paths[order[0]])},
            "most": {"module": order[-1], "path": shares(paths[order[-1]])},
            "all": {"module": None, "path": shares(path(net, everything, second, params))},
        }
    point = choose(paths[chosen], choices)
    place(net, tuned[chosen], point.alpha)
    return {**told, "alpha": point.alpha}


def halves(images: Images) -> tuple[Images, Images]:
    """Every class's images, dealt out in turn: the half that the module is chosen on, and the one that α is."""
    order = images.labels_N.argsort(stable=True)
    return images.take(order[0::2]), images.take(order[1::2])


def weights(net: nn.Module) -> dict[str, torch.Tensor]:
    """The weight of every convolution and linear layer, by the module's name: what RiFT may move."""
    found: dict[str, torch.Tensor] = {}
    for name, module in net.named_modules():
        if name and isinstance(module, nn.Conv2d | nn.Linear) and isinstance(module.weight, nn.Parameter):
            found[name] = module.weight
    if not found:
        raise ValueError("RiFT needs a network with a Conv2d or Linear module, got one without")
    return found


def in_use(net: nn.Module, fixed: AttackedImages) -> dict[str, torch.Tensor]:
    """Those weights that may be trained and that the answers hang on: a head may be frozen, or of no use any more."""
    found = {name: weight for name, weight in weights(net).items() if weight.requires_grad}
    value = functional.cross_entropy(net(fixed.images_NCHW[:2]), fixed.labels_N[:2])
    if found and value.requires_grad:
        gradients = torch.autograd.grad(value, list(found.values()), allow_unused=True)
        found = {name: found[name] for name, each in zip(list(found), gradients, strict=True) if each is not None}
    if not (found and value.requires_grad):
        raise ValueError("RiFT needs a Conv2d or Linear module that may be trained and is used, got none")
    return found


def attacked_once(net: nn.Module, images: Images, params: Params) -> AttackedImages:
    """The worst images that `rift.attack` finds on the weights as they are."""
    device = inference.device_of(net)
    return AttackedImages(_attacked(net, images, params).images.detach().to(device), images.labels_N.to(device))


def characterise(net: nn.Module, fixed: AttackedImages, params: Params) -> list[Criticality]:
    """Module robust criticality of every module, the least critical first; `net` is left as it was."""
    found = []
    for name, weight in in_use(net, fixed).items():
        draws = stage.generator(params, "rift", "chance", name)
        chances = [torch.randn(weight.shape, generator=draws).to(weight) for _ in range(CHANCES)]
        found.append(_ascend(net, name, weight, fixed, params.rift, chances))
    return sorted(found, key=lambda each: (each.mrc, each.module))


def _ascend(
    net: nn.Module,
    name: str,
    weight: torch.Tensor,
    fixed: AttackedImages,
    choices: Choices,
    chances: Sequence[torch.Tensor],
) -> Criticality:
    start = weight.detach().clone()
    radius = choices.radius * start.norm().item()
    try:
        begun, right, gradient = _loss(net, weight, fixed)
        reached, left, steepest = begun, right, gradient
        for _ in range(choices.steps):
            with torch.no_grad():
                away = weight + choices.ascent_rate * gradient - start
                weight.copy_(start + away * min(1.0, radius / max(away.norm().item(), 1e-12)))
            value, count, gradient = _loss(net, weight, fixed)
            if value > reached:
                reached, left = value, count
        rises = [_rise(net, weight, start, towards, radius, begun, fixed) for towards in (steepest, *chances)]
    finally:
        with torch.no_grad():
            weight.copy_(start)
    drop = (right - left) / len(fixed.labels_N)
    return Criticality(name, weight.numel(), begun, reached, reached - begun, drop, max(rises))


def held_against(
    net: nn.Module, found: Criticality, tuned: Tensors, fixed: AttackedImages, choices: Choices
) -> Criticality:
    """The criticality, its ascent also held against the fine-tuned weight, brought back to the ball if it left it."""
    weight = weights(net)[found.module]
    start = weight.detach().clone()
    away = tuned[f"{found.module}.weight"] - start
    length = min(away.norm().item(), choices.radius * start.norm().item())
    try:
        rise = _rise(net, weight, start, away, length, found.loss, fixed)
    finally:
        with torch.no_grad():
            weight.copy_(start)
    return replace(found, elsewhere=max(found.elsewhere, rise))


def _rise(
    net: nn.Module,
    weight: torch.Tensor,
    start: torch.Tensor,
    towards: torch.Tensor,
    length: float,
    begun: float,
    fixed: AttackedImages,
) -> float:
    """How much higher than `begun` the loss is so far from `start`; the weight stays there."""
    with torch.no_grad():
        weight.copy_(start + towards * (length / max(towards.norm().item(), 1e-12)))
        return _loss(net, None, fixed)[0] - begun


def _loss(net: nn.Module, weight: torch.Tensor | None, fixed: AttackedImages) -> tuple[float, int, torch.Tensor]:
    """Mean cross-entropy over all images, how many are answered rightly, and the gradient for a weight, if any."""
    total, right, n = 0.0, 0, len(fixed.labels_N)
    gradient = torch.zeros(0) if weight is None else torch.zeros_like(weight)
    for at in range(0, n, BATCH):
        labels_B = fixed.labels_N[at : at + BATCH]
        logits_BK = net(fixed.images_NCHW[at : at + BATCH])
        value = functional.cross_entropy(logits_BK, labels_B, reduction="sum") / n
        if weight is not None:
            gradient += torch.autograd.grad(value, weight)[0]
        total += value.item()
        right += int((logits_BK.argmax(1) == labels_B).sum())
    return total, right, gradient


def fine_tuned(net: nn.Module, names: Sequence[str], train: Images, params: Params) -> dict[str, torch.Tensor]:
    """These parameters after fine-tuning them alone on clean images, by name; `net` is left as it was.

    Images are augmented as `train.augment` says. The network stays in eval mode: no statistics move and nothing is
    dropped.
    """
    choices, device = params.rift, inference.device_of(net)
    moving = [net.get_parameter(name) for name in names]
    start = [weight.detach().clone() for weight in moving]
    what = names[0] if len(names) == 1 else "all parameters"
    optimizer = torch.optim.SGD(moving, lr=choices.learning_rate, momentum=MOMENTUM, weight_decay=choices.weight_decay)
    later = max(1, round(choices.epochs * DECAY_AT))
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [later])
    shuffle = stage.generator(params, "rift", "order")
    kinds, draws = augments.chosen(params.train.augment), stage.generator(params, "rift", "augment", device=device)
    try:
        for epoch in range(1, choices.epochs + 1):
            total = 0.0
            order = torch.randperm(len(train), generator=shuffle)
            for index in order.tensor_split(math.ceil(len(order) / choices.batch)):
                images_BCHW = augments.augmented(train.pixels_NCHW[index].to(device), kinds, draws)
                labels_B = train.labels_N[index].to(device)
                value = functional.cross_entropy(net(images_BCHW), labels_B)
                if not torch.isfinite(value):
                    cure = stage.amended(f"lower rift.learning_rate (now {choices.learning_rate:g})")
                    raise ValueError(f"the loss of {what} is {value.item()} in epoch {epoch} of fine-tuning; {cure}")
                gradients = torch.autograd.grad(value, moving, allow_unused=True)
                for weight, gradient in zip(moving, gradients, strict=True):
                    weight.grad = gradient
                optimizer.step()
                total += value.item() * len(index)
            schedule.step()
            stage.say(f"rift: {what} epoch {epoch}/{choices.epochs}  loss {total / len(order):.4f}")
        return {name: weight.detach().clone() for name, weight in zip(names, moving, strict=True)}
    finally:
        for weight, before in zip(moving, start, strict=True):
            weight.grad = None
            with torch.no_grad():
                weight.copy_(before)


def path(net: nn.Module, tuned: Tensors, images: Images, params: Params) -> list[Point]:
    """The network at every α between its parameters and the tuned ones, each attacked anew; `net` is left as it was."""
    start = {name: net.get_parameter(name).detach().clone() for name in tuned}
    points = []
    try:
        for alpha in ALPHAS:
            place(net, start, 1.0)
            place(net, tuned, alpha)
            answers_N, _ = inference.answer(net, images.pixels_NCHW)
            robust = _attacked(net, images, params, drop=True).answers == images.labels_N
            points.append(Point(alpha, tuple((answers_N == images.labels_N).tolist()), tuple(robust.tolist())))
    finally:
        place(net, start, 1.0)
    return points


def shares(points: Sequence[Point]) -> list[dict[str, float]]:
    """A path as rift.json has it."""
    return [point.shares() for point in points]


def choose(points: Sequence[Point], choices: Choices) -> Point:
    """The point with the most clean images gained that loses no more robust ones, on balance, than `tolerance`.

    Of equals the smallest α; the first point, α = 0, when nothing is gained.
    """
    start = points[0]
    best, most = start, 0
    for point in points[1:]:
        gained = paired(start.clean, point.clean).net
        if gained > most and paired(start.robust, point.robust).within(choices.tolerance):
            best, most = point, gained
    return best


def best_trial(trials: dict[str, Point]) -> str:
    """The module whose trial has the most right clean answers, then robust ones, then the least critical."""
    return max(trials, key=lambda name: (sum(trials[name].clean), sum(trials[name].robust)))


def place(net: nn.Module, tuned: Tensors, alpha: float) -> None:
    """Move parameters to α between where they are and the tuned ones; nothing else of `net` changes."""
    with torch.no_grad():
        for name, value in tuned.items():
            weight = net.get_parameter(name)
            weight.copy_(torch.lerp(weight, value, alpha))


def _attacked(net: nn.Module, images: Images, params: Params, *, drop: bool = False) -> attacks.Attacked:
    """drop: leave an image as soon as it fools, for the verdict alone; else go on to the worst image."""
    module, own = kind("attacks", "pgd", {**params.rift.attack, "drop": drop}, "rift.attack")
    start_NCHW = inference.to_float(images.pixels_NCHW)
    seed = derive(params.seed, "rift", "attack")
    return attacks.attack(module, net, start_NCHW, images.labels_N, params.threat, own, seed)


if __name__ == "__main__":
    stage.main("rift", rift)
