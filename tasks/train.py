"""Shards → challenger: the base split and the verified candidates of every round so far, under params.yaml's loss."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import nn

from data.layout import Round
from data.records import Candidate
from data.shards import Images, candidate_images, read_candidates
from models._pretrained import start_from
from tasks import attacks, augments, checkpoint, networks, stage
from tasks.checkpoint import Card
from tasks.losses import repeatable
from tasks.losses._awp import perturbed
from tasks.params import Loss, Params, TrainCandidates, kind
from tasks.params import Train as Choices
from tasks.seeds import derive

UNDEFENDED = ("plain",)  # losses that promise nothing under attack: what they have of it may fall
QUICK = 256  # validation images, at most, that PGD is tried on after each epoch
QUICK_STEPS = 10  # of that PGD, each a quarter of the radius
MOMENTUM = 0.9  # of SGD
FALL = 0.15  # PGD accuracy on validation, below its best epoch, that ends the training: more is no chance


@dataclass(frozen=True)
class TrainingSet:
    """Images with a weight each in the loss; who is to be seen several times in an epoch is in `order` as often.

    pixels_NCHW: uint8; labels_N: int64; weights_N: float32; order: indices into them.
    """

    pixels_NCHW: torch.Tensor
    labels_N: torch.Tensor
    weights_N: torch.Tensor
    order: torch.Tensor


def train(round_: Round, params: Params) -> None:
    """Write the round's train.safetensors and train.json."""
    lineage = stage.lineage(round_)
    base = stage.images(round_.workspace, "train")
    validation = stage.images(round_.workspace, "validation")
    shards = [read_candidates(path) for path in lineage.shards]
    training = training_set(base, list(chain.from_iterable(shards)), params.train.candidates)
    net = start(params, base, lineage)
    card = Card(params.model.name, base.classes, base.channels, base.size, round_.number)
    if round_.number == 0 and params.first.weights is not None:
        checkpoint.save(round_.trained, net, card)
        stage.write_json(round_.history, {"kept": 0, "epochs": [], "images": 0, "given": params.first.weights})
        stage.say(f"train {round_.name}: nothing to train, the network of {params.first.weights} is taken as it is")
        return
    loss = params.first.loss if round_.number == 0 else params.train.loss
    stage.say(
        f"train {round_.name}: {len(base)} images and {len(training.labels_N) - len(base)} verified candidates, "
        f"{params.model.name} from {params.train.init if lineage.target else 'scratch'}, loss {loss.name}"
    )
    best, history = fit(net, training, validation, params, loss, round_.name)
    checkpoint.save(round_.trained, best, card)
    stage.write_json(round_.history, history)


def training_set(base: Images, candidates: list[Candidate], choices: TrainCandidates) -> TrainingSet:
    """The base split, and the candidates of its `train` part that are verified and fooling (or just verified)."""
    taken = [c for c in candidates if c.split == "train" and c.verified and (c.fooling or choices.non_fooling)]
    if choices.weight == 0:
        taken = []
    if not taken:
        n = len(base)
        return TrainingSet(base.pixels_NCHW, base.labels_N, torch.ones(n), torch.arange(n))
    added = candidate_images(taken, base.channels, base.classes)
    if added.pixels_NCHW.shape[1:] != base.pixels_NCHW.shape[1:]:
        wanted, got = tuple(base.pixels_NCHW.shape[1:]), tuple(added.pixels_NCHW.shape[1:])
        raise ValueError(f"candidates must be images of {wanted} (channels, height, width), got {got}")
    n, m = len(base), len(added)
    return TrainingSet(
        torch.cat([base.pixels_NCHW, added.pixels_NCHW]),
        torch.cat([base.labels_N, added.labels_N]),
        torch.cat([torch.ones(n), torch.full((m,), choices.weight)]),
        torch.cat([torch.arange(n), torch.arange(n, n + m).repeat(choices.repeat)]),
    )


def start(params: Params, base: Images, lineage: stage.Lineage) -> nn.Module:
    """A new network, with the user's weights where the lineage has some, or the target's, as `train.init` says.

    ValueError if the weights or the target are another network's.
    """
    if params.train.init == "scratch" or lineage.target is None:
        net = networks.build(params.model.name, len(base.classes), base.channels, base.size)
        if lineage.weights is not None:
            start_from(net, lineage.weights)
        return net
    net, card = checkpoint.load(lineage.target)
    wanted = replace(card, model=params.model.name, classes=base.classes, channels=base.channels, size=base.size)
    if card != wanted:
        raise ValueError(f"train.init target: wanted {wanted}, got {card}; set train.init to scratch")
    return net


def fit(
    net: nn.Module, training: TrainingSet, validation: Images, params: Params, loss: Loss, name: str
) -> tuple[nn.Module, dict[str, Any]]:
    """Train `net` and give back its best epoch, by the mean of clean and quick PGD accuracy on validation.

    By PGD accuracy alone a plain loss would keep a first epoch that gives every image the same answer.
    Returns the network in eval mode and the history: one entry for each epoch, and which was kept (from 1).
    """
    choices = params.train
    module, own = kind("losses", loss.name, loss.params, "train.loss.params")
    net = net.to(memory_format=torch.channels_last)
    optimizer, kinds = _optimizer(net, choices), augments.chosen(choices.augment)
    shuffle, noise, change = (stage.generator(params, "train", name, part) for part in ("order", "loss", "augment"))
    best, kept, epochs = copy.deepcopy(net.state_dict()), 0, []
    few = torch.randperm(len(validation), generator=stage.generator(params, "train", "quick"))[:QUICK]
    score, began = (-1.0, -1.0), time.monotonic()
    for epoch in range(1, choices.epochs + 1):
        net.train()
        order = training.order[torch.randperm(len(training.order), generator=shuffle)]
        total, spent = 0.0, time.monotonic()
        # Even parts: a last batch of one image would break batch norm.
        for index in order.tensor_split(math.ceil(len(order) / choices.batch)):
            pixels_BCHW = training.pixels_NCHW.index_select(0, index)
            images_BCHW = augments.augmented(checkpoint.to_float(pixels_BCHW), kinds, change)
            images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
            labels_B, weights_B = training.labels_N[index], training.weights_N[index]
            optimizer.zero_grad(set_to_none=True)
            value = _backward(net, (images_BCHW, labels_B, weights_B), module, own, params, noise)
            if not math.isfinite(value):
                raise ValueError(
                    f"the loss is {value} in epoch {epoch}: training has diverged; "
                    f"lower train.learning_rate (now {choices.learning_rate:g})"
                )
            optimizer.step()
            total += value * len(index)
        speed = len(order) / (time.monotonic() - spent)
        clean, robust = quick(net, validation, few, params)
        epochs.append({"epoch": epoch, "loss": total / len(order), "clean": clean, "robust": robust})
        if (clean + robust, robust) > score:
            score, kept, best = (clean + robust, robust), epoch, copy.deepcopy(net.state_dict())
        left = (time.monotonic() - began) / epoch * (choices.epochs - epoch)
        stage.say(
            f"train {name}: epoch {epoch}/{choices.epochs}  loss {total / len(order):.3f}  clean {clean:.1%}  "
            f"pgd {robust:.1%}  {speed:.0f} images/s  {left:.0f} s left"
        )
        if fallen := _fallen([each["robust"] for each in epochs]) if loss.name not in UNDEFENDED else "":
            stage.say(f"train {name}: stopped after epoch {epoch}, epoch {kept} is kept: {fallen}")
            break
    net.load_state_dict(best)
    net = net.to(memory_format=torch.contiguous_format).eval()
    told = {"kept": kept, "epochs": epochs, "images": len(training.order), "loss": loss.name}
    return net, told | ({"stopped": fallen} if fallen else {})


def _backward(
    net: nn.Module,
    batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    module: Any,
    own: Any,
    params: Params,
    noise: torch.Generator,
) -> float:
    """One batch's loss, whose gradients the weights then have; on moved weights where `train.awp` asks for it."""
    choices = params.train

    def precision() -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=choices.precision == "bf16")

    if choices.awp is None:
        with precision():
            value: torch.Tensor = module.loss(net, *batch, own, params.threat, noise)
        value.backward()
        return value.item()
    with precision():
        again = repeatable(module, net, *batch, own, params.threat, noise)

    def anew() -> torch.Tensor:
        with precision():  # one for each: within it, weights once cast are kept, moved or not
            return again()

    with perturbed(net, anew, choices.awp):
        value = anew()
        value.backward()
    return value.item()


def _fallen(robust: list[float]) -> str:
    """Why training should end, where the last epoch's PGD accuracy lies far below the best one's; else nothing."""
    best = max(robust)
    if best - robust[-1] <= FALL:
        return ""
    return (
        f"PGD accuracy on validation fell from {best:.1%} to {robust[-1]:.1%}, more than {FALL:.0%}, as happens when a "
        "loss is learned by heart; give its attack more steps, or lower train.learning_rate"
    )


def quick(net: nn.Module, validation: Images, few: torch.Tensor, params: Params) -> tuple[float, float]:
    """Clean accuracy on validation, and PGD accuracy on a `few` of its images; leaves the network in eval mode."""
    net.eval()
    answers_N, _ = checkpoint.answer(net, validation.pixels_NCHW)
    clean = (answers_N == validation.labels_N).float().mean().item()
    images_NCHW, labels_N = checkpoint.to_float(validation.pixels_NCHW[few]), validation.labels_N[few]
    given = {"steps": QUICK_STEPS, "step_size": params.threat.epsilon / 4, "drop": True}
    module, own = kind("attacks", "pgd", given, "train")
    seed = derive(params.seed, "train", "quick")
    found = attacks.attack(module, net, images_NCHW, labels_N, params.threat, own, seed)
    return clean, (found.answers == labels_N).float().mean().item()


def _optimizer(net: nn.Module, choices: Choices) -> torch.optim.Optimizer:
    rate, decay = choices.learning_rate, choices.weight_decay
    if choices.optimizer == "adam":
        return torch.optim.Adam(net.parameters(), lr=rate, weight_decay=decay, fused=True)
    return torch.optim.SGD(net.parameters(), lr=rate, momentum=MOMENTUM, weight_decay=decay)


if __name__ == "__main__":
    stage.main("train", train)
