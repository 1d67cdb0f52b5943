"""A network's answers to images: clean, under the attacks and under the shifts of `evaluate`.

Columns of predictions.parquet. Every verdict is in fp32; attacks and shifts take the same random numbers for every
network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import nn

from data.shards import Images
from tasks import attacks
from tasks.attacks._battery import battery
from tasks.config.kinds import kind
from tasks.config.params import Params
from tasks.config.seeds import derive
from tasks.engine import inference, stage
from tasks.engine.devices import Compute
from tasks.evaluation.predictions import LABEL, SQUARES, SURE, Answered

Column = Mapping[str, torch.Tensor]
AT_ONCE = 1 << 26  # pixel values evaluated at a time, in fp32 and several copies of it


def in_parts(
    images: Images, answering: Callable[[Images], dict[str, torch.Tensor]], here: Compute
) -> dict[str, torch.Tensor]:
    """Answers to all images, of which each process takes its share, and no more at once than fit: the draws of attacks
    and shifts begin anew with every part."""
    at_once = max(1, AT_ONCE // max(1, images.pixels_NCHW.shape[1:].numel()))
    found = [answering(images.take(part)) for part in here.shard(torch.arange(len(images))).split(at_once)]
    own = {name: torch.cat([answers[name] for answers in found]) for name in found[0]}
    return {name: here.all_gather(column_N, len(images)) for name, column_N in own.items()}


def answer_all(net: nn.Module, images: Images, params: Params, *, shifts: bool) -> dict[str, torch.Tensor]:
    """The network's answers to N images, by column of predictions.parquet: clean, under params.evaluate's attacks and,
    if asked, its shifts.

    Each of `attacks` is run on every image, the battery then on what they left standing. Of a gradient-free one it is
    told, as of a turn of the battery, what it broke of all that stood under the others.
    """
    chosen, labels_N = params.evaluate, images.labels_N
    columns = clean(net, images)
    start_NCHW, worst_N, blind = inference.to_float(images.pixels_NCHW), columns["clean"], []
    for name, given in chosen.attacks.items():
        module, own = kind("attacks", name, given, f"evaluate.attacks.{name}")
        seed = derive(params.seed, "evaluate", "attack", name)
        precision = chosen.of_steps
        found = attacks.attack(module, net, start_NCHW, labels_N, params.threat, own, seed, precision=precision)
        columns[f"attack_{name}"] = found.answers
        if attacks.gradient_free(module):
            blind.append(name)
        elif not attacks.own_budget(module):
            worst_N = torch.where(worst_N == labels_N, found.answers, worst_N)
    kinds = {name: kind("attacks", name, given, f"evaluate.battery.{name}") for name, given in chosen.battery.items()}
    seed = derive(params.seed, "evaluate", "battery")
    rest = battery(kinds, net, start_NCHW, labels_N, worst_N, params.threat, seed, precision=chosen.of_steps)
    columns |= {f"attack_{name}": answers_N for name, answers_N in rest.apart.items()}
    for turn in rest.turns:
        columns |= {f"tried_{turn.attack}": turn.tried_N, f"broke_{turn.attack}": turn.broke_N}
    worst_N = rest.answers_N
    for name in blind:
        stands_N, answers_N = worst_N == labels_N, columns[f"attack_{name}"]
        columns |= {f"tried_{name}": stands_N, f"broke_{name}": stands_N & (answers_N != labels_N)}
        worst_N = torch.where(stands_N, answers_N, worst_N)
    columns["attack_worst"] = worst_N
    for name, moved_NCHW in shifted(start_NCHW, params) if shifts else ():
        columns[f"shift_{name}"], _ = inference.answer(net, moved_NCHW)
    return columns


def shifted(images_NCHW: torch.Tensor, params: Params) -> Iterator[tuple[str, torch.Tensor]]:
    """Images under each of params.evaluate.shifts, one shift at a time: its name, and uint8 N×C×H×W.

    images_NCHW: fp32 in [0, 1]. Rounded to 8 bits, as a file would hold it.
    """
    for name, given in params.evaluate.shifts.items():
        module, own = kind("shifts", name, given, f"evaluate.shifts.{name}")
        moved_NCHW = module.shift(images_NCHW, own, stage.generator(params, "evaluate", "shift", name))
        yield name, (moved_NCHW.clamp(0, 1) * 255).round().to(torch.uint8)


def clean(net: nn.Module, images: Images) -> dict[str, torch.Tensor]:
    """The network's answers to the images as they are, and how sure it is of each."""
    answers_N, probabilities_NK = inference.answer(net, images.pixels_NCHW)
    return {
        "clean": answers_N,
        SURE: probabilities_NK.amax(1),
        LABEL: probabilities_NK.gather(1, images.labels_N[:, None].long())[:, 0],
        SQUARES: probabilities_NK.square().sum(1),
    }


def answered(net: str, where: str, images: Images, columns: Column) -> Answered:
    """Answers as predictions.parquet holds them."""
    told = {"label": images.labels_N, **columns}
    return Answered(net, where, images.keys, {name: column_N.tolist() for name, column_N in told.items()})
