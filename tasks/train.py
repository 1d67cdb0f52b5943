"""Shards → a trained arm: the base split and the verified candidates so far, under params.yaml's loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

from torch import nn

from data.files import write_json
from data.layout import CHALLENGER, CONTROL, Arm
from data.records import Candidate
from data.shards import Images, read_candidates
from models._pretrained import start_from
from tasks import augments
from tasks.attacks._validation import clean_and_robust
from tasks.config.params import Loss, Params
from tasks.engine import checkpoint, fit, networks, stage, train_state
from tasks.engine.checkpoint import Card
from tasks.engine.devices import ONE_PROCESS, Compute
from tasks.engine.training_set import TrainingSet, training_set
from tasks.losses import loss_of
from tasks.losses._awp import perturbed
from tasks.workspace import inputs


def train(arm: Arm, params: Params, compute: Compute) -> None:
    """Write the arm's train.safetensors and train.json."""
    round_ = arm.round
    lineage = inputs.lineage(round_)
    params = lineage.settled(params)
    base = inputs.images(round_.workspace, "train")
    validation = inputs.images(round_.workspace, "validation")
    training = training_set(base, candidates_of(arm, lineage), params.train.candidates)
    net = start(params, base, lineage)
    card = Card(params.model.name, base.classes, base.channels, base.size, round_.number)
    arm.folder.mkdir(exist_ok=True)
    if round_.number == 0 and params.first.weights is not None:
        if compute.first:
            checkpoint.save(arm.trained, net, card)
            write_json(arm.history, {"kept": 0, "epochs": [], "images": 0, "given": params.first.weights})
        compute.say(f"train {arm.label}: nothing to train, the network of {params.first.weights} is taken as it is")
        return
    loss = params.first.loss if round_.number == 0 else params.train.loss
    compute.say(
        f"train {arm.label}: {len(base)} images and {len(training.labels) - len(base)} verified candidates, "
        f"{params.model.name} from {params.train.init if lineage.target else 'scratch'}, loss {loss.name}"
    )
    store = train_state.store(arm, "train")
    best, history = fitted(net, training, validation, params, loss, arm.label, compute=compute, store=store)
    if compute.first:
        checkpoint.save(arm.trained, best, card)
        write_json(arm.history, history)
        store.remove()


def fitted(
    net: nn.Module,
    training: TrainingSet,
    validation: Images,
    params: Params,
    loss: Loss,
    name: str,
    *,
    compute: Compute = ONE_PROCESS,
    store: train_state.Store | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """`tasks.engine.fit` with the loss, augmentation, weight perturbation and check that the parameters name.

    name: what random numbers are derived from, besides `seed`. Returns the best epoch's network, in eval mode on the
    CPU, and the history.
    """
    recipe, kinds = params.train, augments.chosen(params.train.augment)
    return fit.fit(
        net,
        training,
        validation,
        recipe,
        loss=loss_of(loss.name, loss.params, params.threat),
        check=partial(clean_and_robust, threat=params.threat, seed=params.seed),
        augment=lambda pixels_BCHW, draws: augments.augmented(pixels_BCHW, kinds, draws),
        perturb=None if recipe.awp is None else partial(perturbed, awp=recipe.awp),
        perturb_from=1 if recipe.awp is None else recipe.awp.from_epoch,
        seed=params.seed,
        name=name,
        compute=compute,
        store=store,
    )


def candidates_of(arm: Arm, lineage: inputs.Lineage) -> Iterator[Candidate]:
    """The candidates that an arm trains on, one shard in memory at a time.

    The challenger has those of every round so far; the reference has none of this round; the control has its own
    instead of this round's.
    """
    shards = list(lineage.shards)
    if arm.name != CHALLENGER:
        shards.remove(arm.round.candidates)
    if arm.name == CONTROL:
        shards.append(arm.folder / arm.round.candidates.name)
    return chain.from_iterable(map(read_candidates, shards))


def start(params: Params, base: Images, lineage: inputs.Lineage) -> nn.Module:
    """A new network, with the user's weights where the lineage has some, or the target's, as `train.init` says.

    ValueError if the weights or the target are another network's.
    """
    if params.train.init == "scratch" or lineage.target is None:
        net = networks.build(params.model.name, len(base.classes), base.channels, base.size)
        if lineage.weights is not None:
            start_from(net, lineage.weights)
        return net
    net, card = checkpoint.load(lineage.target)
    expected = replace(card, model=params.model.name, classes=base.classes, channels=base.channels, size=base.size)
    if card != expected:
        advice = stage.amended("set train.init to scratch")
        raise ValueError(f"train.init: target needs a target of {expected}, got {card}; {advice}")
    return net


if __name__ == "__main__":
    stage.main("train", train)
