"""What networks answered while a round was evaluated, predictions.parquet, and metrics.json as a pure function of it.

A row is one network's answers to one image: `net` is challenger or target, `images` is where the image is from:

- `test`: the challenger alone, with every attack, shift, battery turn and radius of params.yaml;
- `validation`: both, clean and under attack, in rounds whose gate is the earlier one of evaluation/earlier.py;
- `candidates`: both, clean: the campaign's verified fooling candidates up to this round;
- `pool`: the target, clean: the seed images of the round's machine candidates;
- `set:NAME`: the challenger, clean: the test images from elsewhere under that name.

`label` is the right class, `confidence` the probability of the clean answer, `label_probability` that of the label and
`squares` the sum of all squared ones; `clean`, `attack_…` and `shift_…` are
answers, `attack_worst` a wrong one if any attack within the threat model found one; `tried_…` and `broke_…` say what
a turn of the battery did, `…_transfer` what PGD images made on the target did to what still stood; `radius_…` whether
an image stands under PGD at that radius. `zero_…`, `differs`, `probabilities`, `asked_…` and `fell_…` are the signs of
gradient masking (tasks/attacks/_masking.py). A column is null where nothing was asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from data.external_sets import originals
from data.records import RATED, Candidate
from data.shards import read_table
from tasks.config.kinds import kind
from tasks.config.params import Params
from tasks.evaluation import calibration, earlier, masking, metrics, people_rates
from tasks.quality.agreement import agreement

SURE = "confidence"  # the column of the probability that a clean answer was given
LABEL, SQUARES = "label_probability", "squares"  # of the label's probability, and the sum of all squared ones
PROBABILITIES = (SURE, LABEL, SQUARES)
CHALLENGER, TARGET = "challenger", "target"
OTHER = "set:"  # begins the place of images from elsewhere
YES_OR_NO = ("tried_", "broke_", "radius_", "zero_", "asked_", "fell_", "differs", "probabilities")
_NAMES = ("net", "images", "key")


@dataclass(frozen=True)
class Answered:
    """One network's answers to n images; a class index or a yes-or-no for each of them in every column."""

    net: str
    images: str
    keys: tuple[str, ...]
    columns: Mapping[str, Sequence[int] | Sequence[bool] | Sequence[float]] = field(default_factory=dict)

    def right(self, column: str = "clean") -> list[bool]:
        """Image by image, whether the answer is the label."""
        return [a == b for a, b in zip(self.columns[column], self.columns["label"], strict=True)]

    def accuracy(self, column: str = "clean") -> metrics.Accuracy:
        """The share that is right."""
        return metrics.accuracy(sum(self.right(column)), len(self.keys))

    def beginning(self, prefix: str) -> dict[str, str]:
        """The columns of one kind: what follows the prefix → the column's name."""
        return {name.removeprefix(prefix): name for name in self.columns if name.startswith(prefix)}


def to_table(parts: Sequence[Answered]) -> pa.Table:
    """One table of all parts; columns in the order in which they first come."""
    names = list(dict.fromkeys(name for part in parts for name in part.columns))
    columns: dict[str, pa.Array] = {
        "net": pa.array([part.net for part in parts for _ in part.keys], pa.string()),
        "images": pa.array([part.images for part in parts for _ in part.keys], pa.string()),
        "key": pa.array([key for part in parts for key in part.keys], pa.string()),
    }
    for name in names:
        values = [v for part in parts for v in part.columns.get(name, [None] * len(part.keys))]
        yes_or_no = name.startswith(YES_OR_NO)
        number = pa.float32() if name in PROBABILITIES else pa.int32()
        columns[name] = pa.array(values, pa.bool_() if yes_or_no else number)
    return pa.table(columns)


def read(path: Path) -> list[Answered]:
    """What was written of `to_table`."""
    content = read_table(path).to_pydict()
    rows: dict[tuple[str, str], list[int]] = {}
    for i, part in enumerate(zip(content["net"], content["images"], strict=True)):
        rows.setdefault(part, []).append(i)
    found = []
    for (net, images), index in rows.items():
        own = {name: [column[i] for i in index] for name, column in content.items() if name not in _NAMES}
        asked = {name: values for name, values in own.items() if None not in values}
        found.append(Answered(net, images, tuple(content["key"][i] for i in index), asked))
    return found


def measured(
    parts: Sequence[Answered], campaign: Sequence[Candidate], number: int, target: int | None, params: Params
) -> dict[str, Any]:
    """metrics.json of round `number`, from the answers and the candidates of its campaign so far.

    target: the number of the round whose network was attacked; None in round 000.
    """
    found = {(part.net, part.images): part for part in parts}
    test = found[CHALLENGER, "test"]
    own = [c for c in campaign if c.round == number]
    right, target_right = (_right(found.get((net, "candidates"))) for net in (CHALLENGER, TARGET))
    seeds = _right(found.get((TARGET, "pool")))
    seen = trained_on(params)
    robust = {name: test.accuracy(column) for name, column in test.beginning("attack_").items()}
    shifts = {name: test.accuracy(column) for name, column in test.beginning("shift_").items()}
    tried, broke = test.beginning("tried_"), test.beginning("broke_")
    battery = {
        name: {
            "tried": sum(map(bool, test.columns[tried[name]])),
            "broken": sum(map(bool, test.columns[broke[name]])),
        }
        for name in tried
    }
    others = {part.images.removeprefix(OTHER): elsewhere(part) for part in parts if part.images.startswith(OTHER)}
    promotion: dict[str, Any] = {}
    if params.promote.margins is None:
        verdict = earlier.gate_by_drops(
            None if target is None else scores(found[TARGET, "validation"], campaign, target_right),
            scores(found[CHALLENGER, "validation"], campaign, right),
            params.promote,
        )
        champion = number if verdict["promoted"] else target
        promotion = {"gate": verdict, "promoted": verdict["promoted"], "champion": champion}
    return {
        "round": number,
        **rates(own, [key for key, is_right in seeds.items() if is_right], params.evaluate.resamples),
        "agreement": agreement(own, params.validate_, params.evaluate.resamples),
        "split_by": metrics.split_by(campaign),
        "clean": test.accuracy(),
        "calibration": calibrated(test, params.evaluate.resamples),
        "robust": robust,
        "battery": battery,
        "curve": {
            radius: metrics.accuracy(sum(map(bool, test.columns[column])), len(test.keys))
            for radius, column in test.beginning("radius_").items()
        },
        "ood": ood(shifts, seen) | others,
        "ood_home_made": sorted(shifts),
        "ood_seen": seen,
        **gradients(test, robust, battery, number, params),
        "heal": metrics.heal(campaign, right, target_right, number),
        **promotion,
    }


def gradients(
    test: Answered,
    robust: Mapping[str, metrics.Accuracy],
    battery: Mapping[str, Mapping[str, int]],
    number: int,
    params: Params,
) -> dict[str, Any]:
    """What metrics.json tells of gradient masking and of one-step over-fitting."""
    chosen = params.evaluate
    if chosen.masking is not None:
        return {"masking": earlier.masking_by_gap(robust, battery, chosen.masking, len(test.keys))}
    loss, weights = (params.first.loss, params.first.weights) if number == 0 else (params.train.loss, None)
    module, _ = kind("losses", loss.name, loss.params, "train.loss")
    defended = getattr(module, "DEFENDS", True) and weights is None
    return {
        "masking": masking.masking(test.columns, chosen.gradients),
        "one_step": masking.one_step(test.columns, chosen.one_step, defended=defended),
    }


def rates(own: Sequence[Candidate], right_seeds: Sequence[str], resamples: int | None) -> dict[str, Any]:
    """What metrics.json says of the round's own candidates. resamples: None in rounds opened before it."""
    if resamples is None:
        sources = metrics.by_source(own, right_seeds, seeds_must_be_right=False)
        return {**metrics.error_rates(metrics.rated(own)), "by_source": sources}
    counted, sources = people_rates.one_kind(own), metrics.by_source(own, right_seeds)
    for source in sources.keys() & {*RATED}:
        part = people_rates.intervals([c for c in own if c.source == source], resamples)
        sources[source] |= {"intervals": part, "pending_bounds": sources[source]["vmer"]}
    return {
        **metrics.error_rates(counted),
        "rates_of": counted[0].source if counted else None,
        "intervals": people_rates.intervals(counted, resamples),
        "by_source": sources,
    }


def calibrated(test: Answered, resamples: int | None) -> dict[str, Any]:
    """What metrics.json says of the probabilities on the test split. resamples: None in rounds opened before it."""
    if resamples is None:
        return earlier.calibration_by_bootstrap(test.columns[SURE], test.right())
    scores = calibration.proper_scores(test.columns[LABEL], test.columns[SQUARES])
    return calibration.calibration(test.columns[SURE], test.right(), resamples) | scores


def scores(validation: Answered, campaign: Sequence[Candidate], right: Mapping[str, bool]) -> earlier.Scores:
    """What the earlier gate compares: the validation images, and the verified fooling candidates of that split."""
    held_out = [c for c in campaign if c.split == "validation" and c.verified and c.fooling]
    return earlier.Scores(
        clean=tuple(validation.right()),
        robust=tuple(validation.right("attack_worst")),
        candidates=tuple(right[c.key] for c in held_out),
    )


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


def elsewhere(part: Answered) -> metrics.Accuracy:
    """The accuracy on a set of `evaluate.sets`; n counts an image once, however many corrupted copies there are."""
    return metrics.mean_over(part.accuracy()["accuracy"], originals(part.keys, part.columns["label"]))


def _right(part: Answered | None) -> dict[str, bool]:
    return dict(zip(part.keys, part.right(), strict=True)) if part else {}
