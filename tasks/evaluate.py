"""Clean, robust and OOD accuracy, the round's rates, what was healed, and the gate's verdict.

The only writer of metrics.json and the only one that sees the test split. All of it runs in fp32. Attacks and shifts
take the same random numbers in every round, so that rounds differ by their networks only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa
import torch
from torch import nn

from data.layout import Round
from data.records import Candidate
from data.shards import Images, candidate_images, read_candidates
from tasks import attacks, checkpoint, metrics, stage
from tasks.attacks._battery import Turn, battery, curve
from tasks.params import Params, kind
from tasks.seeds import derive


@dataclass(frozen=True)
class Answers:
    """A network's answers to the same n images, class indices: clean, under each attack, under each shift.

    worst_N: wrong if any attack within the threat model found a wrong one; turns: what the battery did.
    """

    labels_N: torch.Tensor
    clean_N: torch.Tensor
    attacked: dict[str, torch.Tensor]
    shifted: dict[str, torch.Tensor]
    worst_N: torch.Tensor
    turns: tuple[Turn, ...] = ()

    def accuracy(self, answers_N: torch.Tensor) -> metrics.Accuracy:
        """The share of these answers that is right."""
        return metrics.accuracy(int((answers_N == self.labels_N).sum()), len(self.labels_N))

    def robust(self) -> tuple[bool, ...]:
        """Image by image, whether the answer is right clean and under every attack within the threat model."""
        return tuple((self.worst_N == self.labels_N).tolist())


def evaluate(round_: Round, params: Params) -> None:
    """Write the round's metrics.json and predictions.parquet."""
    lineage = stage.lineage(round_)
    net, card = checkpoint.load(round_.model)
    target = checkpoint.load(lineage.target)[0] if lineage.target else None
    test, validation = (stage.images(round_.workspace, split) for split in ("test", "validation"))
    if card.classes != test.classes:
        raise ValueError(f"model and test split must have the same classes, got {card.classes} and {test.classes}")
    campaign = list(chain.from_iterable(read_candidates(path) for path in lineage.shards))

    answers = answer_all(net, test, params, shifts=True)
    stage.say(f"evaluate {round_.name}: {len(test)} test images answered")
    right, target_right = (_right(each, campaign, test.channels, test.classes) for each in (net, target))
    verdict = metrics.gate(
        None if target is None else scores(target, validation, campaign, target_right, params),
        scores(net, validation, campaign, right, params),
        params.promote,
    )
    own = [c for c in campaign if c.round == round_.number]
    seen = trained_on(params)
    robust = {name: answers.accuracy(found) for name, found in answers.attacked.items()}
    masking = metrics.masking(robust, params.evaluate.masking)
    stage.write_table(round_.predictions, predictions(test, answers))
    stage.write_json(
        round_.metrics,
        {
            "round": round_.number,
            **metrics.error_rates(metrics.by_people(own)),
            "by_source": metrics.by_source(own, _right_seeds(round_, target, own)),
            "agreement": metrics.agreement(own),
            "split_by": metrics.split_by(campaign),
            "clean": answers.accuracy(answers.clean_N),
            "robust": {**robust, "worst": answers.accuracy(answers.worst_N)},
            "battery": {turn.attack: {"tried": turn.tried, "broken": turn.broken} for turn in answers.turns},
            "curve": radii(net, test, answers, params),
            "ood": ood({name: answers.accuracy(found) for name, found in answers.shifted.items()}, seen),
            "ood_seen": seen,
            "masking": masking,
            "heal": metrics.heal(campaign, right, target_right, round_.number),
            "gate": verdict,
            "promoted": verdict["promoted"],
            "champion": round_.number if verdict["promoted"] else lineage.target_round,
        },
    )
    stage.say(
        f"evaluate {round_.name}: clean {answers.accuracy(answers.clean_N)['accuracy']:.1%}  "
        + "  ".join(f"{name} {found['accuracy']:.1%}" for name, found in robust.items())
        + f"  worst {answers.accuracy(answers.worst_N)['accuracy']:.1%}"
        + f"  {'promoted' if verdict['promoted'] else 'not promoted'}: {'; '.join(verdict['reasons'])}"
    )


def answer_all(net: nn.Module, images: Images, params: Params, *, shifts: bool) -> Answers:
    """The network's answers to the images: clean, under params.evaluate's attacks and, if asked, its shifts.

    Each of `attacks` is run on every image, the battery then on what they left standing.
    """
    chosen, labels_N = params.evaluate, images.labels_N
    clean_N, _ = checkpoint.answer(net, images.pixels_NCHW)
    start_NCHW, worst_N = checkpoint.to_float(images.pixels_NCHW), clean_N
    attacked, shifted = {}, {}
    for name, given in chosen.attacks.items():
        module, own = kind("attacks", name, given, f"evaluate.attacks.{name}")
        seed = derive(params.seed, "evaluate", "attack", name)
        precision = chosen.precision
        found = attacks.attack(module, net, start_NCHW, labels_N, params.threat, own, seed, precision=precision)
        attacked[name] = found.answers
        if not attacks.own_budget(module):
            worst_N = torch.where(worst_N == labels_N, found.answers, worst_N)
    kinds = {name: kind("attacks", name, given, f"evaluate.battery.{name}") for name, given in chosen.battery.items()}
    seed = derive(params.seed, "evaluate", "battery")
    rest = battery(kinds, net, start_NCHW, labels_N, worst_N, params.threat, seed, precision=chosen.precision)
    for name, given in chosen.shifts.items() if shifts else ():
        module, own = kind("shifts", name, given, f"evaluate.shifts.{name}")
        moved_NCHW = module.shift(start_NCHW, own, stage.generator(params, "evaluate", "shift", name))
        # Rounded to 8 bits, as a file would hold it.
        shifted[name], _ = checkpoint.answer(net, (moved_NCHW.clamp(0, 1) * 255).round().to(torch.uint8))
    return Answers(labels_N, clean_N, attacked | rest.apart, shifted, rest.answers_N, rest.turns)


def radii(net: nn.Module, images: Images, answers: Answers, params: Params) -> dict[str, metrics.Accuracy]:
    """Accuracy under PGD by radius, for params.evaluate.epsilons; rising radii, falling accuracy."""
    start_NCHW, seed = checkpoint.to_float(images.pixels_NCHW), derive(params.seed, "evaluate", "curve")
    chosen, labels_N = params.evaluate, answers.labels_N
    found = curve(
        chosen.epsilons, net, start_NCHW, labels_N, answers.clean_N, params.threat, seed, precision=chosen.precision
    )
    return {f"{epsilon:g}": metrics.accuracy(int(stands.sum()), len(labels_N)) for epsilon, stands in found.items()}


def trained_on(params: Params) -> list[str]:
    """The shifts whose kind is among the augmentations: by the same name, or by one that the shift names itself."""
    augments = params.train.augment.keys()
    return sorted(
        name
        for name, given in params.evaluate.shifts.items()
        if {name, *getattr(kind("shifts", name, given, f"evaluate.shifts.{name}")[0], "SEEN_WITH", ())} & augments
    )


def ood(shifts: Mapping[str, metrics.Accuracy], seen: Sequence[str]) -> dict[str, metrics.Accuracy]:
    """The accuracy under each shift, and the mean of those that were not trained on, where there are any."""
    unseen = [found for name, found in shifts.items() if name not in seen]
    return {**shifts, "mean": metrics.mean_accuracy(unseen)} if unseen else dict(shifts)


def scores(
    net: nn.Module, validation: Images, campaign: Sequence[Candidate], right: Mapping[str, bool], params: Params
) -> metrics.Scores:
    """What the gate compares: the validation images, and the verified fooling candidates of that split."""
    answers = answer_all(net, validation, params, shifts=False)
    held_out = [c for c in campaign if c.split == "validation" and c.verified and c.fooling]
    return metrics.Scores(
        clean=tuple((answers.clean_N == answers.labels_N).tolist()),
        robust=answers.robust(),
        candidates=tuple(right[c.key] for c in held_out),
    )


def predictions(test: Images, answers: Answers) -> pa.Table:
    """One row per test image: key, label, and the answers clean, under each attack, at worst and under each shift."""
    columns = {"label": answers.labels_N, "clean": answers.clean_N}
    columns |= {f"attack_{name}": found for name, found in answers.attacked.items()}
    columns["attack_worst"] = answers.worst_N
    columns |= {f"shift_{name}": found for name, found in answers.shifted.items()}
    small = {name: pa.array(column.tolist(), pa.int32()) for name, column in columns.items()}
    return pa.table({"key": pa.array(test.keys, pa.string()), **small})


def _right(
    net: nn.Module | None, campaign: Sequence[Candidate], channels: int, classes: Sequence[str]
) -> dict[str, bool]:
    """By candidate key, whether the network answers as intended; empty without a network."""
    images = candidate_images(campaign, channels, classes)
    if net is None or not len(images):
        return {}
    answers_N, _ = checkpoint.answer(net, images.pixels_NCHW)
    return dict(zip(images.keys, (answers_N == images.labels_N).tolist(), strict=True))


def _right_seeds(round_: Round, target: nn.Module | None, own: Sequence[Candidate]) -> list[str]:
    """Keys of the seed images of machine candidates that the target answers rightly."""
    wanted = {c.seed_image for c in own if not c.by_people}
    if target is None or not wanted:
        return []
    pool = stage.images(round_.workspace, "pool")
    seeds = pool.take([i for i, key in enumerate(pool.keys) if key in wanted])
    answers_N, _ = checkpoint.answer(target, seeds.pixels_NCHW)
    return [key for key, right in zip(seeds.keys, (answers_N == seeds.labels_N).tolist(), strict=True) if right]


if __name__ == "__main__":
    stage.main("evaluate", evaluate)
