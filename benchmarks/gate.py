"""How often the gate promotes a network that is no better, finds one that is, and lets small losses add up.

    python -m benchmarks.gate [--root DIR] [--nets 7]

Networks that differ by their seed alone are trained, and each is put before the gate with each other one as its target:
no data did anything, so that every promotion is false. Fools are test images under an affine shift that the target has
wrong, of twelve annotators; a third network is the reference. What the rule of before promotes stands beside it.

The power and the ratchet are of drawn answers with a stated difference and discordance. In the ratchet every challenger
is a point less robust than the target, and three points better under shifts.
"""

from __future__ import annotations

import argparse
import sys
from itertools import permutations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from benchmarks import _nets
from benchmarks._frame import Measured, finish
from data.shards import Images
from tasks.attacks._answers import answer_all, answered, clean
from tasks.config.params import Params, Promote
from tasks.engine import inference
from tasks.evaluation import earlier
from tasks.evaluation.gate import Clusters, Rival, Sheet, gate
from tasks.shifts import affine

ANNOTATORS = 12
BEFORE = Promote(clean_drop=0.03, robust_drop=0.02)
ROUNDS, CAMPAIGNS = 10, 20
Answers = npt.NDArray[np.bool_]


def seeds(given: argparse.Namespace) -> tuple[list[nn.Module], Images, Images, Params]:
    """Networks of one recipe and many seeds, the gate's images, and the images that fools are made of."""
    train, test = _nets.images(given.root, "train"), _nets.images(given.root, "test")
    base = _nets.settings({"train": {"loss": {"name": "plain", "params": {}}, "epochs": 1 if given.quick else 10}})
    shuffled = _nets.some(train, len(train))
    size, least = base.data.gate, base.data.gate + base.data.validation
    judged, validation = shuffled.take(range(size)), shuffled.take(range(size, least))
    taught = shuffled.take(range(least, min(len(shuffled), least + (300 if given.quick else 4_000))))
    nets = []
    for seed in range(3 if given.quick else given.nets):
        print(f"network {seed + 1}", file=sys.stderr, flush=True)
        params = base.model_copy(update={"seed": seed})
        nets.append(_nets.fitted("gate", taught, validation, params))
    draws = torch.Generator().manual_seed(0)
    moved = affine.shift(
        inference.to_float(test.pixels_NCHW), affine.Params(degrees=20.0, translate=0.1, scale=0.15, shear=10.0), draws
    )
    fools = Images((moved * 255).round().to(torch.uint8), test.labels_N, test.keys, test.classes)
    return nets, judged, fools, base


def false_promotions(given: argparse.Namespace) -> tuple[int, dict[str, float]]:
    """How many pairs there were, and by the rule the per cent of them that were promoted."""
    nets, judged, shifted, params = seeds(given)
    tables = []
    for net in nets:
        answers = answered("net", "gate", judged, answer_all(net, judged, params, shifts=True))
        columns = answers.beginning("shift_").values()
        conditions = zip(*(answers.right(column) for column in columns), strict=True)
        sheet: dict[str, Clusters] = {
            "clean": [[right] for right in answers.right()],
            "robust": [[right] for right in answers.right("attack_worst")],
            "ood": [list(each) for each in conditions],
        }
        tables.append((sheet, answered("net", "fools", shifted, clean(net, shifted)).right()))
    counts = dict.fromkeys(("keep", "promote", "before"), 0)
    pairs = list(permutations(range(len(nets)), 2))
    for target, challenger in pairs:
        reference = next(i for i in range(len(nets)) if i not in (target, challenger))
        wrong = [i for i, right in enumerate(tables[target][1]) if not right]
        sheets = {
            i: {**tables[i][0], "fools": [[tables[i][1][k] for k in wrong[a::ANNOTATORS]] for a in range(ANNOTATORS)]}
            for i in (target, challenger, reference)
        }
        for undecided in ("keep", "promote"):
            promote = params.promote.model_copy(update={"undecided": undecided})
            verdict = gate(sheets[challenger], Rival(0, sheets[target]), [], sheets[reference], promote, 1)
            counts[undecided] += verdict["promoted"]
        scores = {i: flat(sheets[i]) for i in (target, challenger)}
        counts["before"] += earlier.gate_by_drops(scores[target], scores[challenger], BEFORE)["promoted"]
    return len(pairs), {rule: 100 * count / len(pairs) for rule, count in counts.items()}


def flat(sheet: Sheet) -> earlier.Scores:
    """What the rule of before compares."""
    clean_, robust, fools = (
        tuple(right for cluster in sheet[name] for right in cluster) for name in ("clean", "robust", "fools")
    )
    return earlier.Scores(clean_, robust, fools)


def changed(answers: Answers, difference: float, discordance: float, draws: np.random.Generator) -> Answers:
    """Answers of a network that differs on that share of the images, and is that much better; both over all images."""
    accuracy = answers.mean()
    gained = (discordance + difference) / 2 / max(1 - accuracy, 1e-9)
    lost = (discordance - difference) / 2 / max(accuracy, 1e-9)
    chance = draws.random(len(answers))
    return np.where(answers, chance >= lost, chance < gained)


def sheet_of(**figures: Answers) -> dict[str, Clusters]:
    return {name: [[bool(right)] for right in answers] for name, answers in figures.items()}


def started(n: int, draws: np.random.Generator) -> dict[str, Answers]:
    return {name: draws.random(n) < accuracy for name, accuracy in (("clean", 0.95), ("robust", 0.6), ("ood", 0.8))}


def power(n: int, gain: float, promote: Promote, repeats: int) -> float:
    """Per cent of challengers promoted that are so much more robust, and truly the same in clean and OOD accuracy."""
    draws, promoted = np.random.default_rng(0), 0
    for _ in range(repeats):
        before = started(n, draws)
        after = {
            name: changed(answers, gain if name == "robust" else 0.0, 0.1 if name == "robust" else 0.02, draws)
            for name, answers in before.items()
        }
        promoted += gate(sheet_of(**after), Rival(0, sheet_of(**before)), [], None, promote, 1)["promoted"]
    return 100 * promoted / repeats


def ratchet(n: int, promote: Promote, campaigns: int, *, remember: bool) -> float:
    """Points of robust accuracy that the champion has lost after ten rounds, the mean over campaigns.

    remember: whether challengers are compared with the best champion so far, as the gate does, beside the target.
    """
    draws, lost = np.random.default_rng(0), []
    for _ in range(campaigns):
        champion = started(n, draws)
        first = best = champion["robust"]
        for number in range(1, ROUNDS + 1):
            challenger = {
                "clean": champion["clean"],
                "robust": changed(champion["robust"], -0.01, 0.03, draws),
                "ood": changed(champion["ood"], 0.03, 0.05, draws),
            }
            champions = [Rival(0, sheet_of(robust=best))] if remember else []
            verdict = gate(sheet_of(**challenger), Rival(1, sheet_of(**champion)), champions, None, promote, number)
            if verdict["promoted"]:
                champion = challenger
                best = max(best, champion["robust"], key=lambda answers: answers.mean())
        lost.append(first.mean() - champion["robust"].mean())
    return 100 * float(np.mean(lost))


def measure(given: argparse.Namespace) -> list[Measured]:
    """One thread."""
    torch.set_num_threads(1)
    pairs, promoted = false_promotions(given)
    params = _nets.settings({})
    keep, small = (params.promote.model_copy(update={"undecided": rule}) for rule in ("keep", "promote"))
    goal = None if given.quick else 1
    rows = [
        Measured(f"another seed promoted, of {pairs} pairs", promoted["keep"], "%", goal and 5, "lower"),
        Measured("… with promote.undecided: promote", promoted["promote"], "%", goal and 5, "lower"),
        Measured("… by clean_drop and robust_drop, the rule of before", promoted["before"], "%", None, "lower"),
    ]
    repeats, campaigns = (4, 1) if given.quick else (200, CAMPAIGNS)
    for n, gain, promote in ((240, 0.05, small), (240, 0.1, small), (2000, 0.02, keep), (2000, 0.05, keep)):
        name = f"{100 * gain:.0f} points more robust, n {n:,}, {promote.undecided}: promoted"
        rows.append(Measured(name, power(n, gain, promote, repeats), "%", None, "higher"))
    for name, remember, target in (
        ("ratchet: robust points lost in ten rounds", True, goal and 2),
        ("… without the best champion so far", False, None),
    ):
        lost = ratchet(2000, keep, campaigns, remember=remember)
        rows.append(Measured(name, lost, "points", target, "lower"))
    return rows


if __name__ == "__main__":
    parser = _nets.arguments(__doc__)
    parser.add_argument("--nets", type=int, default=7, help="networks that differ by their seed; each pair twice")
    options = parser.parse_args()
    sys.exit(finish(measure(options), options))
