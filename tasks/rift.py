"""Fine-tune the module whose weight robustness depends on least, then go back as far as robustness asks.

RiFT (Zhu et al., ICCV 2023, arXiv:2308.02533): characterise, fine-tune, interpolate. Differs: every choice is made on
validation images, the module on one half and α on the other, so that α is not chosen on what chose the module; the
ascent takes full-batch steps, goes back onto the ball's surface whenever it leaves it, and keeps the highest loss;
`rift.selection: trial` fine-tunes several modules, the main path's before 1×1 shortcuts, and takes the best; robust
accuracy is compared image by image, and on fewer images than can tell a loss of `rift.tolerance` the verdict is
`undecided` and α is 0. `rift.statistics: frozen` keeps batch norm's statistics; the published code lets them follow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from data.files import write_json, write_whole
from data.layout import Arm
from data.shards import Images
from tasks import attacks
from tasks.adaptation.criticality import AttackedImages, characterise, compared, report
from tasks.adaptation.fine_tuning import fine_tuned
from tasks.adaptation.shortcuts import shortcuts
from tasks.config.kinds import kind
from tasks.config.params import Params
from tasks.config.params import Rift as Choices
from tasks.config.seeds import derive
from tasks.engine import checkpoint, inference, stage
from tasks.engine.devices import Compute
from tasks.evaluation.paired import paired
from tasks.workspace import inputs

ALPHAS = tuple(step / 10 for step in range(11))
RULE_OF_THREE = 3  # where none of n images was lost, up to 3 / n may be in truth, at 95%

Tensors = Mapping[str, torch.Tensor]  # by the parameter's or the buffer's name


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
    if params.rift.report:
        stage.say("rift.report adds nothing any more: `python -m benchmarks.rift` measures other modules and arms")
    train, validation = (inputs.images(arm.round.workspace, split) for split in ("train", "validation"))
    outcome = tune(net.to(compute.device), train, validation, params)
    if outcome["alpha"] == 0:
        write_whole(arm.model, arm.trained.read_bytes())
    else:
        checkpoint.save(arm.model, net, card)
    write_json(arm.rift, {"enabled": True, "selection": params.rift.selection, **outcome})
    where = f"{outcome['module']} at alpha {outcome['alpha']:g}, " if "module" in outcome else "alpha 0, "
    stage.say(f"rift {arm.label}: {where}{outcome['verdict']}")


def tune(net: nn.Module, train: Images, validation: Images, params: Params) -> dict[str, Any]:
    """RiFT's three steps on `net`, which ends with the weights at the chosen α, in eval mode.

    Returns {"modules", "shortcuts", "exceeded", "trials", "module", "path", "alpha", "n", "verdict"}: the modules from
    the least critical on, those of them on a shortcut, those whose MRC is known to be too low, the tried ones' best
    points on the first half of validation, and the chosen one's path on the second half, of n images. verdict: `taken`
    where α > 0, `kept` where nothing is gained within the tolerance, `undecided` where n images cannot tell; no module
    is fine-tuned then, there is no path, and "needs" says how many images could.
    """
    if len(validation) < 2:
        raise ValueError(f"RiFT needs at least two validation images, got {len(validation)}; raise data.validation")
    choices = params.rift
    first, second = halves(validation)
    net.eval()
    fixed = attacked_once(net, first, params)
    modules = characterise(net, fixed, params)
    aside = shortcuts(net)
    if aside is None:
        stage.say("rift: torch.fx cannot trace this network, so shortcuts are not told apart from its main path")
    beside = [each.module for each in modules if each.module in (aside or ())]
    outcome: dict[str, Any] = {"shortcuts": beside, "n": len(second)}
    needed = images_needed(choices.tolerance)
    if len(second) < needed:
        report(modules)
        stage.say(f"rift: undecided, the trained weights are kept: {_too_few(len(second), needed, choices)}")
        untried = {"exceeded": [each.module for each in modules if each.exceeded], "trials": [], "alpha": 0.0}
        return {"modules": [asdict(each) for each in modules], **outcome, **untried, "verdict": "undecided"} | (
            {"needs": int(needed)} if math.isfinite(needed) else {}
        )
    tried = [modules[0].module]
    if choices.selection == "trial":
        ranked = sorted(modules, key=lambda each: each.module in beside)  # stable: least critical first within each
        tried = [each.module for each in ranked[: choices.candidates]]
    tuned = {name: fine_tuned(net, [f"{name}.weight"], train, params) for name in tried}
    modules = [
        compared(net, each, tuned[each.module], fixed, choices) if each.module in tuned else each for each in modules
    ]
    report(modules)
    trials = {}
    if len(tried) > 1:
        trials = {name: choose(path(net, tuned[name], first, params), choices) for name in tried}
    chosen = best_trial(trials) if trials else tried[0]
    points = path(net, tuned[chosen], second, params)
    point = choose(points, choices)
    place(net, tuned[chosen], point.alpha)
    return {
        "modules": [asdict(each) for each in modules],
        **outcome,
        "exceeded": [each.module for each in modules if each.exceeded],
        "trials": [{"module": name, **trial.shares()} for name, trial in trials.items()],
        "module": chosen,
        "path": [each.shares() for each in points],
        "alpha": point.alpha,
        "verdict": "taken" if point.alpha > 0 else "kept",
    }


def images_needed(tolerance: float) -> float:
    """On how many images a loss of that share can be told at all: on fewer, even none lost leaves a larger one open."""
    return math.ceil(RULE_OF_THREE / tolerance - 1e-9) if tolerance > 0 else math.inf


def _too_few(n: int, needed: float, choices: Choices) -> str:
    tolerable = stage.amended(f"raise rift.tolerance to {RULE_OF_THREE / n:.4f} at least")
    if math.isinf(needed):
        return f"no number of images can tell that nothing is lost (rift.tolerance: 0); {tolerable}"
    return (
        f"{n} images, half of validation, cannot tell a robust loss of {choices.tolerance:.2%} (rift.tolerance), "
        f"{needed:.0f} can; {tolerable}, or begin a campaign with data.validation: {2 * needed:.0f}"
    )


def halves(images: Images) -> tuple[Images, Images]:
    """Every class's images, dealt out in turn: the half that the module is chosen on, and the one that α is."""
    order = images.labels_N.argsort(stable=True)
    return images.take(order[0::2]), images.take(order[1::2])


def attacked_once(net: nn.Module, images: Images, params: Params) -> AttackedImages:
    """The worst images that `rift.attack` finds on the weights as they are."""
    device = inference.device_of(net)
    return AttackedImages(_attacked(net, images, params).images.detach().to(device), images.labels_N.to(device))


def path(
    net: nn.Module, tuned: Tensors, images: Images, params: Params, alphas: Sequence[float] = ALPHAS
) -> list[Point]:
    """The network at every α between its tensors and the tuned ones, each attacked anew; `net` is left as it was."""
    start = {name: tensor.detach().clone() for name, tensor in named(net).items() if name in tuned}
    points = []
    try:
        for alpha in alphas:
            place(net, start, 1.0)
            place(net, tuned, alpha)
            answers_N, _ = inference.answer(net, images.pixels_NCHW)
            robust = _attacked(net, images, params, drop=True).answers == images.labels_N
            points.append(Point(alpha, tuple((answers_N == images.labels_N).tolist()), tuple(robust.tolist())))
    finally:
        place(net, start, 1.0)
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


def place(net: nn.Module, tuned: Tensors, alpha: float) -> None:
    """Move tensors to α between where they are and the tuned ones; nothing else of `net` changes."""
    tensors = named(net)
    with torch.no_grad():
        for name, value in tuned.items():
            tensors[name].copy_(torch.lerp(tensors[name], value, alpha))


def named(net: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer by its name, the network's own and no copies."""
    return {**dict(net.named_parameters()), **dict(net.named_buffers())}


def _attacked(net: nn.Module, images: Images, params: Params, *, drop: bool = False) -> attacks.Attacked:
    """drop: leave an image as soon as it fools, for the verdict alone; else go on to the worst image."""
    module, own = kind("attacks", "pgd", {**params.rift.attack, "drop": drop}, "rift.attack")
    start_NCHW = inference.to_float(images.pixels_NCHW)
    seed = derive(params.seed, "rift", "attack")
    return attacks.attack(module, net, start_NCHW, images.labels_N, params.threat, own, seed)


if __name__ == "__main__":
    stage.main("rift", rift)
