"""Fine-tune the module whose weight robustness hangs on least, then go back as far as robustness asks.

RiFT (Zhu et al., ICCV 2023, arXiv:2308.02533): characterise, fine-tune, interpolate. Differs: every choice is made on
validation images, the module on one half and α on the other, so that α is not chosen on what chose the module; the
ascent takes full-batch steps, goes back onto the ball's surface whenever it leaves it, and keeps the highest loss; the
whole network stays in eval mode, so that no batch norm's statistics move; robust accuracy is compared image by image;
and `rift.selection: trial` may take another than the least critical module.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from data.files import write_whole
from data.layout import Round
from data.shards import Images
from tasks import attacks, checkpoint, stage
from tasks.compute import Compute
from tasks.metrics import paired
from tasks.params import Params, kind
from tasks.params import Rift as Choices
from tasks.seeds import derive

ALPHAS = tuple(step / 10 for step in range(11))
MOMENTUM = 0.9  # of the fine-tuning's SGD
DECAY_AT = 0.5  # share of the epochs after which its learning rate falls to a tenth
BATCH = 256  # images at a time where no gradient step hangs on the batch


@dataclass(frozen=True)
class Criticality:
    """How much the loss on fixed adversarial images can be raised by moving one module's weight within the ball.

    An ascent finds a lower bound of the true maximum only.
    """

    module: str
    parameters: int
    loss: float  # mean cross-entropy where it began
    reached: float  # the highest that was found
    mrc: float  # reached − loss


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


def rift(round_: Round, params: Params, where: Compute) -> None:
    """Write the round's model.safetensors and rift.json. Of several processes, the first does it all."""
    if not where.first:
        return
    net, card = checkpoint.load(round_.trained)
    enabled = params.rift.enabled and (round_.number > 0 or params.first.rift)
    if not enabled:
        write_whole(round_.model, round_.trained.read_bytes())
        stage.write_json(round_.rift, {"enabled": False, "alpha": 0.0})
        stage.say(f"rift {round_.name}: not enabled, the trained weights are kept")
        return
    train, validation = (stage.images(round_.workspace, split) for split in ("train", "validation"))
    found = tune(net.to(where.device), train, validation, params)
    if found["alpha"] == 0:
        write_whole(round_.model, round_.trained.read_bytes())
    else:
        checkpoint.save(round_.model, net, card)
    stage.write_json(round_.rift, {"enabled": True, "selection": params.rift.selection, **found})
    stage.say(f"rift {round_.name}: {found['module']} at alpha {found['alpha']:g}")


def tune(net: nn.Module, train: Images, validation: Images, params: Params) -> dict[str, Any]:
    """RiFT's three steps on `net`, which ends with the weights at the chosen α, in eval mode.

    Returns {"modules", "trials", "module", "path", "alpha", "n"}: the modules from the least critical on, the tried
    ones' best points on the first half of validation, and the chosen one's path on the second half, of n images.
    """
    if len(validation) < 2:
        raise ValueError(f"RiFT needs at least two validation images, got {len(validation)}; raise data.validation")
    first, second = halves(validation)
    net.eval()
    modules = characterise(net, first, params)
    for found in modules:
        stage.say(f"rift: {found.module} MRC {found.mrc:.4f}")
    tried = modules[: params.rift.candidates if params.rift.selection == "trial" else 1]
    tuned = {found.module: fine_tuned(net, found.module, train, params) for found in tried}
    trials = {}
    if len(tried) > 1:
        trials = {name: choose(path(net, name, weight, first, params), params.rift) for name, weight in tuned.items()}
    chosen = best_trial(trials) if trials else tried[0].module
    points = path(net, chosen, tuned[chosen], second, params)
    point = choose(points, params.rift)
    place(net, chosen, tuned[chosen], point.alpha)
    return {
        "modules": [asdict(found) for found in modules],
        "trials": [{"module": name, **trial.shares()} for name, trial in trials.items()],
        "module": chosen,
        "path": [each.shares() for each in points],
        "alpha": point.alpha,
        "n": len(second),
    }


def halves(images: Images) -> tuple[Images, Images]:
    """Every class's images, dealt out in turn: the half that the module is chosen on, and the one that α is."""
    order = images.labels_N.argsort(stable=True)
    return images.take(order[0::2]), images.take(order[1::2])


def weights(net: nn.Module) -> dict[str, torch.Tensor]:
    """The weight of every convolution and linear layer, by the module's name: what RiFT may move."""
    found: dict[str, torch.Tensor] = {}
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            found[name] = module.weight
    if not found:
        raise ValueError("RiFT needs a network with a Conv2d or Linear module, got one without")
    return found


def characterise(net: nn.Module, images: Images, params: Params) -> list[Criticality]:
    """Module robust criticality of every module, the least critical first.

    The adversarial images are made once, on the weights as they are.
    """
    device = checkpoint.device_of(net)
    adversarial_NCHW = _attacked(net, images, params).images.detach().to(device)
    labels_N = images.labels_N.to(device)
    found = [
        _ascend(net, name, weight, adversarial_NCHW, labels_N, params.rift) for name, weight in weights(net).items()
    ]
    return sorted(found, key=lambda each: (each.mrc, each.module))


def _ascend(
    net: nn.Module, name: str, weight: torch.Tensor, images_NCHW: torch.Tensor, labels_N: torch.Tensor, choices: Choices
) -> Criticality:
    start, radius = weight.detach().clone(), choices.radius * weight.detach().norm().item()
    begun = reached = -math.inf
    try:
        for step in range(choices.steps + 1):
            value, gradient = _loss_and_gradient(net, weight, images_NCHW, labels_N)
            begun, reached = (value if step == 0 else begun), max(reached, value)
            with torch.no_grad():
                away = weight + choices.ascent_rate * gradient - start
                weight.copy_(start + away * min(1.0, radius / max(away.norm().item(), 1e-12)))
    finally:
        with torch.no_grad():
            weight.copy_(start)
    return Criticality(name, weight.numel(), begun, reached, reached - begun)


def _loss_and_gradient(
    net: nn.Module, weight: torch.Tensor, images_NCHW: torch.Tensor, labels_N: torch.Tensor
) -> tuple[float, torch.Tensor]:
    """Mean cross-entropy over all images and its gradient with respect to one weight."""
    total, gradient = 0.0, torch.zeros_like(weight)
    for at in range(0, len(labels_N), BATCH):
        images_BCHW, labels_B = images_NCHW[at : at + BATCH], labels_N[at : at + BATCH]
        value = functional.cross_entropy(net(images_BCHW), labels_B, reduction="sum") / len(labels_N)
        gradient += torch.autograd.grad(value, weight)[0]
        total += value.item()
    return total, gradient


def fine_tuned(net: nn.Module, name: str, train: Images, params: Params) -> torch.Tensor:
    """The module's weight after fine-tuning it alone on clean images; `net` is left as it was.

    The network stays in eval mode: no statistics move and nothing is dropped.
    """
    choices, weight, device = params.rift, weights(net)[name], checkpoint.device_of(net)
    start = weight.detach().clone()
    optimizer = torch.optim.SGD(
        [weight], lr=choices.learning_rate, momentum=MOMENTUM, weight_decay=choices.weight_decay
    )
    later = max(1, round(choices.epochs * DECAY_AT))
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [later])
    shuffle = stage.generator(params, "rift", "order")
    try:
        for epoch in range(1, choices.epochs + 1):
            total = 0.0
            order = torch.randperm(len(train), generator=shuffle)
            for index in order.tensor_split(math.ceil(len(order) / choices.batch)):
                images_BCHW = checkpoint.to_float(train.pixels_NCHW[index].to(device))
                labels_B = train.labels_N[index].to(device)
                value = functional.cross_entropy(net(images_BCHW), labels_B)
                if not torch.isfinite(value):
                    raise ValueError(
                        f"the loss of {name} is {value.item()} in epoch {epoch} of fine-tuning; "
                        f"lower rift.learning_rate (now {choices.learning_rate:g})"
                    )
                (weight.grad,) = torch.autograd.grad(value, weight)
                optimizer.step()
                total += value.item() * len(index)
            schedule.step()
            stage.say(f"rift: {name} epoch {epoch}/{choices.epochs}  loss {total / len(order):.4f}")
        return weight.detach().clone()
    finally:
        weight.grad = None
        with torch.no_grad():
            weight.copy_(start)


def path(net: nn.Module, name: str, tuned: torch.Tensor, images: Images, params: Params) -> list[Point]:
    """The network at every α, each attacked anew; `net` is left as it was."""
    weight = weights(net)[name]
    start = weight.detach().clone()
    points = []
    try:
        for alpha in ALPHAS:
            with torch.no_grad():
                weight.copy_(torch.lerp(start, tuned, alpha))
            answers_N, _ = checkpoint.answer(net, images.pixels_NCHW)
            robust = _attacked(net, images, params, drop=True).answers == images.labels_N
            points.append(Point(alpha, tuple((answers_N == images.labels_N).tolist()), tuple(robust.tolist())))
    finally:
        with torch.no_grad():
            weight.copy_(start)
    return points


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


def place(net: nn.Module, name: str, tuned: torch.Tensor, alpha: float) -> None:
    """Move the module's weight to α between where it is and the tuned one; nothing else of `net` changes."""
    weight = weights(net)[name]
    with torch.no_grad():
        weight.copy_(torch.lerp(weight, tuned, alpha))


def _attacked(net: nn.Module, images: Images, params: Params, *, drop: bool = False) -> attacks.Attacked:
    """drop: leave an image as soon as it fools, for the verdict alone; else go on to the worst image."""
    module, own = kind("attacks", "pgd", {**params.rift.attack, "drop": drop}, "rift.attack")
    start_NCHW = checkpoint.to_float(images.pixels_NCHW)
    seed = derive(params.seed, "rift", "attack")
    return attacks.attack(module, net, start_NCHW, images.labels_N, params.threat, own, seed)


if __name__ == "__main__":
    stage.main("rift", rift)
