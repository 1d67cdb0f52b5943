"""Shards → challenger: the base split and the verified candidates of every round so far, under params.yaml's loss."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from typing import Any

import torch
from torch import nn

from data.files import write_json
from data.layout import Round
from data.records import Candidate
from data.shards import Images, candidate_images, read_candidates
from models._pretrained import start_from
from tasks import attacks, augments
from tasks.config.kinds import kind
from tasks.config.params import Loss, Params, TrainCandidates
from tasks.config.params import Train as Choices
from tasks.config.seeds import derive
from tasks.engine import checkpoint, inference, networks, stage, train_state
from tasks.engine.checkpoint import Card
from tasks.engine.devices import ONE_PROCESS, Compute
from tasks.losses import repeatable
from tasks.losses._awp import perturbed
from tasks.workspace import inputs

UNDEFENDED = ("plain",)  # losses that promise nothing under attack: what they have of it may fall
QUICK = 256  # validation images, at most, that PGD is tried on after each epoch
QUICK_STEPS = 10  # of that PGD
MOMENTUM = 0.9  # of SGD
RISE = 0.4  # share of a one-cycle schedule in which the rate rises
FALL = 0.15  # PGD accuracy on validation, below its best epoch, that ends the training: more is no chance


@dataclass(frozen=True)
class TrainingSet:
    """Images with a weight each in the loss; who is to be seen several times in an epoch is in `order` as often.

    base_NCHW: uint8, of the base split, which may be larger than memory; added_MCHW: uint8, of the candidates;
    labels: int64 N+M; weights: float32 N+M; order: indices into both together.
    """

    base_NCHW: torch.Tensor
    added_MCHW: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor
    order: torch.Tensor

    def pixels(self, index_B: torch.Tensor) -> torch.Tensor:
        """The images at these indices, uint8 B×C×H×W."""
        n = len(self.base_NCHW)
        if len(self.added_MCHW) == 0:
            return self.base_NCHW.index_select(0, index_B)
        found_BCHW = self.base_NCHW.new_empty(len(index_B), *self.base_NCHW.shape[1:])
        of_base_B = index_B < n
        found_BCHW[of_base_B] = self.base_NCHW[index_B[of_base_B]]
        found_BCHW[~of_base_B] = self.added_MCHW[index_B[~of_base_B] - n]
        return found_BCHW


def train(round_: Round, params: Params, where: Compute) -> None:
    """Write the round's train.safetensors and train.json."""
    lineage = inputs.lineage(round_)
    base = inputs.images(round_.workspace, "train")
    validation = inputs.images(round_.workspace, "validation")
    candidates = chain.from_iterable(map(read_candidates, lineage.shards))  # one shard in memory at a time
    training = training_set(base, candidates, params.train.candidates)
    net = start(params, base, lineage)
    card = Card(params.model.name, base.classes, base.channels, base.size, round_.number)
    if round_.number == 0 and params.first.weights is not None:
        if where.first:
            checkpoint.save(round_.trained, net, card)
            write_json(round_.history, {"kept": 0, "epochs": [], "images": 0, "given": params.first.weights})
        where.say(f"train {round_.name}: nothing to train, the network of {params.first.weights} is taken as it is")
        return
    loss = params.first.loss if round_.number == 0 else params.train.loss
    where.say(
        f"train {round_.name}: {len(base)} images and {len(training.labels) - len(base)} verified candidates, "
        f"{params.model.name} from {params.train.init if lineage.target else 'scratch'}, loss {loss.name}"
    )
    kept = train_state.store(round_, "train")
    best, history = fit(net, training, validation, params, loss, round_.name, where=where, store=kept)
    if where.first:
        checkpoint.save(round_.trained, best, card)
        write_json(round_.history, history)
        kept.remove()


def training_set(base: Images, candidates: Iterable[Candidate], choices: TrainCandidates) -> TrainingSet:
    """The base split, and the candidates of its `train` part that are verified and fooling (or just verified)."""
    taken = [c for c in candidates if c.split == "train" and c.verified and (c.fooling or choices.non_fooling)]
    if choices.weight == 0:
        taken = []
    if not taken:
        n = len(base)
        none = base.pixels_NCHW[:0]
        return TrainingSet(base.pixels_NCHW, none, base.labels_N, torch.ones(n), torch.arange(n))
    added = candidate_images(taken, base.channels, base.classes)
    if added.pixels_NCHW.shape[1:] != base.pixels_NCHW.shape[1:]:
        wanted, got = tuple(base.pixels_NCHW.shape[1:]), tuple(added.pixels_NCHW.shape[1:])
        raise ValueError(f"candidates must be images of {wanted} (channels, height, width), got {got}")
    n, m = len(base), len(added)
    return TrainingSet(
        base.pixels_NCHW,
        added.pixels_NCHW,
        torch.cat([base.labels_N, added.labels_N]),
        torch.cat([torch.ones(n), torch.full((m,), choices.weight)]),
        torch.cat([torch.arange(n), torch.arange(n, n + m).repeat(choices.repeat)]),
    )


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
    wanted = replace(card, model=params.model.name, classes=base.classes, channels=base.channels, size=base.size)
    if card != wanted:
        cure = stage.amended("set train.init to scratch")
        raise ValueError(f"train.init target: wanted {wanted}, got {card}; {cure}")
    return net


def fit(
    net: nn.Module,
    training: TrainingSet,
    validation: Images,
    params: Params,
    loss: Loss,
    name: str,
    *,
    where: Compute = ONE_PROCESS,
    store: train_state.Store | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """Train `net` and give back its best epoch, by the mean of clean and quick PGD accuracy on validation.

    Neither counts for less than one answer to every image would get: that answer is right under attack too, and of two
    classes it would be kept before any network that has learned something.
    store: where the state is kept after every epoch, and gone on from; None keeps nothing.
    Returns the network in eval mode, on the CPU, and the history: one entry for each epoch, and which was kept (from
    1). ValueError if the loss is no number, or if a batch is too small for the network's batch norm.
    """
    choices = params.train
    module, own = kind("losses", loss.name, loss.params, "train.loss.params")
    net = net.to(where.device).to(memory_format=torch.channels_last)
    optimizer, kinds = _optimizer(net, choices), augments.chosen(choices.augment)
    draws = {
        part: stage.generator(params, "train", name, part, device="cpu" if part == "order" else where.device)
        for part in ("order", "loss", "augment")
    }
    few = torch.randperm(len(validation), generator=stage.generator(params, "train", "quick"))[:QUICK]
    guess = validation.labels_N.bincount().max().item() / len(validation)  # of one answer to every image
    best, done = copy.deepcopy(net.state_dict()), FitState()
    parts = batches(len(training.order), choices.batch, where.world, net)
    if store is not None and (found := store.read()) is not None:
        done = _restore(found, net, best, optimizer, draws)
        where.say(f"train {name}: goes on after epoch {len(done.epochs)}")
    began, before = time.monotonic(), len(done.epochs)
    for epoch in range(before + 1, choices.epochs + 1):
        if done.stopped:
            break
        net.train()
        # What dropout draws from, on every device: begun anew, so that it need not be kept to go on to the same bytes.
        torch.manual_seed(derive(params.seed, "train", name, "dropout", epoch, where.rank))
        order = training.order[torch.randperm(len(training.order), generator=draws["order"])]
        if where.world > 1:  # every process draws for its own images
            for part in ("loss", "augment"):
                draws[part].manual_seed(derive(params.seed, "train", name, part, epoch, where.rank))
        total, spent = 0.0, time.monotonic()
        for step, index in enumerate(order.tensor_split(parts)):
            _set_rate(optimizer, choices, (epoch - 1 + step / parts) / choices.epochs)
            mine = where.shard(index)
            images_BCHW = augments.augmented(training.pixels(mine).to(where.device), kinds, draws["augment"])
            images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
            labels_B, weights_B = training.labels[mine].to(where.device), training.weights[mine].to(where.device)
            optimizer.zero_grad(set_to_none=True)
            value = _backward(net, (images_BCHW, labels_B, weights_B), module, own, params, draws["loss"])
            if where.world > 1:
                value = where.average_gradients(net, value, weights_B.sum().item())
            if not math.isfinite(value):
                raise _diverged(f"the loss is {value}", epoch, choices)
            optimizer.step()
            total += value * len(index)
        where.average_statistics(net)
        broken = [name for name, kept in net.state_dict().items() if not kept.isfinite().all()]
        if broken:
            raise _diverged(f"{', '.join(broken)} of the network are not finite", epoch, choices)
        speed = len(order) / (time.monotonic() - spent)
        clean, robust = quick(net, validation, few, params, where)
        done.epochs.append({"epoch": epoch, "loss": total / len(order), "clean": clean, "robust": robust})
        score = (max(clean, guess) + max(robust, guess), robust)
        if score > done.score:
            done.score, done.kept, best = score, epoch, copy.deepcopy(net.state_dict())
        left = (time.monotonic() - began) / (epoch - before) * (choices.epochs - epoch)
        where.say(
            f"train {name}: epoch {epoch}/{choices.epochs}  loss {total / len(order):.3f}  clean {clean:.1%}  "
            f"pgd {robust:.1%}  {speed:.0f} images/s  {left:.0f} s left"
        )
        done.stopped = _why_stop(done.epochs, choices.patience, guess, defended=loss.name not in UNDEFENDED)
        if done.stopped:
            where.say(f"train {name}: stopped after epoch {epoch}, epoch {done.kept} is kept: {done.stopped}")
        if store is not None and where.first:
            store.write(asdict(done), _state(net, best, optimizer, draws))
    net.load_state_dict(best)
    net = net.to("cpu").to(memory_format=torch.contiguous_format).eval()
    told = {"kept": done.kept, "epochs": done.epochs, "images": len(training.order), "loss": loss.name}
    told |= {"processes": where.world} if where.world > 1 else {}
    return net, told | ({"stopped": done.stopped} if done.stopped else {})


@dataclass
class FitState:
    """What a training has come to, epoch by epoch."""

    epochs: list[dict[str, Any]] = field(default_factory=list)
    kept: int = 0  # the best epoch, from 1
    score: tuple[float, float] = (-1.0, -1.0)  # by which it is
    stopped: str = ""  # why it ended early


def _state(
    net: nn.Module,
    best: dict[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    draws: dict[str, torch.Generator],
) -> dict[str, torch.Tensor]:
    """All that the next epoch hangs on."""
    return {
        **{f"net.{key}": value for key, value in net.state_dict().items()},
        **{f"best.{key}": value for key, value in best.items()},
        **train_state.optimizer_tensors(optimizer),
        **{f"draws.{part}": generator.get_state() for part, generator in draws.items()},
    }


def _restore(
    found: tuple[dict[str, Any], dict[str, torch.Tensor]],
    net: nn.Module,
    best: dict[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    draws: dict[str, torch.Generator],
) -> FitState:
    """Put back what `_state` took."""
    told, tensors = found
    net.load_state_dict({key: tensors[f"net.{key}"] for key in net.state_dict()})
    for key, value in best.items():
        value.copy_(tensors[f"best.{key}"])
    train_state.load_optimizer(optimizer, tensors)
    for part, generator in draws.items():
        generator.set_state(tensors[f"draws.{part}"])
    return FitState(told["epochs"], told["kept"], (told["score"][0], told["score"][1]), told["stopped"])


def batches(images: int, batch: int, world: int, net: nn.Module) -> int:
    """Into how many even parts an epoch falls: a last batch of one image would break batch norm.

    ValueError for batches of fewer images than there are processes, or than batch norm needs.
    """
    normed = any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in net.modules())
    least = world * (2 if normed else 1)
    if min(batch, images) < least:
        why = f" in {world} processes" if world > 1 else ""
        why += ": its batch norm needs two in each" if normed else ""
        got = f"got {min(batch, images)} images; {stage.amended('raise it')}"
        raise ValueError(f"train.batch must be at least {least} for this network{why}, {got}")
    return min(math.ceil(images / batch), images // least)


def rate(schedule: str, share: float) -> float:
    """The learning rate as a share of its highest, when so large a share (0 to 1) of the training is done.

    cosine: down to 0 along half a wave. one_cycle: up from 0 over the first two fifths, then down to 0, straight, as in
    arXiv:2001.03994. step: a tenth from half on, a hundredth from three quarters on.
    """
    if schedule == "cosine":
        return (1 + math.cos(math.pi * share)) / 2
    if schedule == "one_cycle":
        return share / RISE if share < RISE else (1 - share) / (1 - RISE)
    if schedule == "step":
        return 0.1 ** sum(share >= at for at in (0.5, 0.75))
    return 1.0


def _diverged(what: str, epoch: int, choices: Choices) -> ValueError:
    cure = stage.amended(f"lower train.learning_rate (now {choices.learning_rate:g})")
    return ValueError(f"{what} in epoch {epoch}: training has diverged; {cure}")


def _set_rate(optimizer: torch.optim.Optimizer, choices: Choices, share: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = choices.learning_rate * rate(choices.schedule, share)


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
        return torch.autocast(batch[0].device.type, torch.bfloat16, enabled=choices.precision == "bf16")

    if choices.awp is None:
        whole, found = batch[2].sum().clamp_min(torch.finfo(batch[2].dtype).tiny), 0.0
        for part in inference.microbatches(net, batch[0]):
            one = [values[part] for values in batch]
            with precision():
                value = module.loss(net, *one, own, params.threat, noise) * (one[2].sum() / whole)
            value.backward()
            found += value.item()
        return found
    with precision():
        again = repeatable(module, net, *batch, own, params.threat, noise)

    def anew() -> torch.Tensor:
        with precision():  # one for each: within it, weights once cast are kept, moved or not
            return again()

    with perturbed(net, anew, choices.awp):
        value = anew()
        value.backward()
    return value.item()


def _why_stop(epochs: list[dict[str, Any]], patience: int | None, guess: float, *, defended: bool) -> str:
    """Why training should end after these epochs; nothing if it should go on.

    What counts is PGD accuracy, or clean accuracy for a loss that promises nothing under attack; never for less than
    `guess`, what one answer to every image would get: a network that begins there falls when it begins to learn.
    """
    what, found = ("PGD", "robust") if defended else ("clean", "clean")
    reached = [max(each[found], guess) for each in epochs]
    best, last = max(reached), reached[-1]
    if defended and best - last > FALL:
        return (
            f"PGD accuracy on validation fell from {best:.1%} to {last:.1%}, more than {FALL:.0%}, as happens when a "
            "loss is learned by heart; give its attack more steps, or lower train.learning_rate"
        )
    since = len(reached) - 1 - reached.index(best)
    if patience is not None and since >= patience:
        return f"{what} accuracy on validation has not risen over {best:.1%} for {since} epochs (train.patience)"
    return ""


def quick(
    net: nn.Module, validation: Images, few: torch.Tensor, params: Params, where: Compute = ONE_PROCESS
) -> tuple[float, float]:
    """Clean accuracy on validation, and PGD accuracy on a `few` of its images; leaves the network in eval mode."""
    net.eval()
    own, some = where.shard(torch.arange(len(validation))), where.shard(few)
    answers_N, _ = inference.answer(net, validation.pixels_NCHW[own])
    right_N = where.all_gather(answers_N == validation.labels_N[own], len(validation))
    images_NCHW, labels_N = inference.to_float(validation.pixels_NCHW[some]), validation.labels_N[some]
    module, chosen = kind("attacks", "pgd", {"steps": QUICK_STEPS, "drop": True}, "train")
    seed = derive(params.seed, "train", "quick")
    found = attacks.attack(module, net, images_NCHW, labels_N, params.threat, chosen, seed)
    stands_N = where.all_gather(found.answers == labels_N, len(few))
    return right_N.float().mean().item(), stands_N.float().mean().item()


def _optimizer(net: nn.Module, choices: Choices) -> torch.optim.Optimizer:
    rate, decay = choices.learning_rate, choices.weight_decay
    if choices.optimizer == "adam":
        return torch.optim.Adam(net.parameters(), lr=rate, weight_decay=decay, fused=True)
    return torch.optim.SGD(net.parameters(), lr=rate, momentum=MOMENTUM, weight_decay=decay)


if __name__ == "__main__":
    stage.main("train", train)
