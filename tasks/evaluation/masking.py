"""Whether gradients mislead the attacks that follow them: alarms with error rates. Pure functions of counts.

Every alarm is a one-sided exact test of what an honest network may show by chance. The error rate `alpha` of
`evaluate.gradients` is that of all alarms together: each is held to its share of it (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.config.params import Gradients
from tasks.evaluation.paired import binomial_tail, mcnemar, paired, tango

Columns = Mapping[str, Sequence[Any]]  # of the test images' rows in predictions.parquet

SIGNS = {  # column of images that show the sign → column of those that were looked at, if not all were
    "zero_clean": None,
    "zero_start": None,
    "zero_cross_entropy": None,
    "fell_square": "asked_square",
    "fell_random": "asked_random",
    "broke_transfer": "tried_transfer",
}


def masking(columns: Columns, choices: Gradients | None) -> dict[str, Any]:
    """{"found", "alarms", "signs", "alpha", "differs", "probabilities"}; found is None where nothing was looked for.

    columns: the challenger's answers to n test images. signs: by name, how many images showed one of how many that
    were looked at, the share that an honest network may show, and the probability of so many by chance; found where
    one is below its share of alpha, or where two forward passes differ. That outputs are probabilities is told, and no
    alarm: attacks on losses of logits are weaker on them.
    """
    if choices is None:
        return {"found": None, "alarms": [], "signs": {}, "alpha": None, "differs": None, "probabilities": None}
    signs = {}
    for name, of in SIGNS.items():
        if name in columns:
            asked = [True] * len(columns[name]) if of is None else columns[of]
            shown = sum(bool(a and b) for a, b in zip(asked, columns[name], strict=True))
            signs[name] = _sign(shown, sum(map(bool, asked)), choices.allowed)
    if "fell_large" in columns:
        asked = [i for i, looked in enumerate(columns["asked_large"]) if looked]
        stood = sum(not columns["fell_large"][i] for i in asked)
        signs["stands_at_large_radius"] = _sign(stood, len(asked), guess(columns["label"]))
    if {"attack_fgsm", "attack_pgd"} <= columns.keys():
        right = {name: [a == b for a, b in zip(columns[name], columns["label"], strict=True)] for name in ATTACKS}
        apart = paired(right["attack_fgsm"], right["attack_pgd"])  # gained: FGSM broke it, PGD did not
        signs["fgsm_beats_pgd"] = {
            "shown": apart.gained,
            "of": apart.gained + apart.lost,
            "allowed": 0.5,
            "p": mcnemar(apart),
        }
    each = choices.alpha / max(len(signs), 1)
    differs = sum(map(bool, columns["differs"]))
    alarms = [name for name, sign in signs.items() if sign["p"] < each] + (["forward_passes_differ"] if differs else [])
    return {
        "found": bool(alarms),
        "alarms": alarms,
        "signs": signs,
        "alpha": choices.alpha,
        "differs": differs / len(columns["differs"]),
        "probabilities": all(columns["probabilities"]),
    }


ATTACKS = ("attack_fgsm", "attack_pgd")


def one_step(columns: Columns, margin: float, *, defended: bool) -> dict[str, Any]:
    """One-step over-fitting: a training that learned FGSM by heart stands under it and falls to PGD.

    {"gap", "low", "found"}: FGSM's accuracy less PGD's with its one-sided 95% limit (Tango), and whether that exceeds
    the margin. A plain network falls further under PGD too, which says nothing: None without a defended loss, or
    without both attacks.
    """
    if not defended or not {*ATTACKS} <= columns.keys():
        return {"gap": None, "low": None, "found": None}
    pgd, fgsm = ([a == b for a, b in zip(columns[name], columns["label"], strict=True)] for name in reversed(ATTACKS))
    apart = paired(pgd, fgsm)
    low, _ = tango(apart)
    return {"gap": apart.difference, "low": low, "found": low > margin}


def guess(labels: Sequence[int]) -> float:
    """The accuracy of one answer to every image, the commonest class."""
    return max(labels.count(label) for label in set(labels)) / len(labels)


def warning(metrics: Mapping[str, Any]) -> str:
    """What a stage and status say of a round's metrics.json, empty where there is nothing to say."""
    report, said = metrics["masking"], []
    if report["found"]:
        signs = f" ({', '.join(report['alarms'])})" if "alarms" in report else ""
        said.append(f"gradients are masked{signs}: robust accuracy is an upper bound that says little")
    if report.get("probabilities"):
        said.append("the network gives probabilities where logits are asked for, which weakens attacks on it")
    if (step := metrics.get("one_step", {})).get("found"):
        said.append(f"one-step over-fitting: accuracy under FGSM is {step['gap']:.1%} above that under PGD")
    return "; ".join(said)


def _sign(shown: int, n: int, allowed: float) -> dict[str, Any]:
    return {"shown": shown, "of": n, "allowed": allowed, "p": binomial_tail(shown, n, allowed)}
