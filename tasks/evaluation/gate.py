"""The gate: whether the challenger becomes champion. A pure function of networks' answers to the same images.

Two questions are kept apart. Is the challenger fit to replace the champion: it is compared with the round's target and,
figure by figure, with the best champion so far. Did this round's data do it: it is compared with the reference, which
was trained by the same recipe with another seed and without this round's candidates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.config.params import Promote
from tasks.evaluation.gate_words import line
from tasks.evaluation.paired import binomial_tail, clustered, images_to_decide, mcnemar, paired, sign_flip, tango, total

BETTER, NO_WORSE, WORSE, UNDECIDED = "better", "no worse", "worse", "undecided"
Clusters = Sequence[Sequence[bool]]  # right or wrong; answers that hang together, as one annotator's do, in one cluster
Sheet = Mapping[str, Clusters]  # one network's answers, by figure: clean, robust, ood, earlier_fools, fools
NEW_FOOLS = "fools"  # this round's; they were chosen to fool the target, so that only the reference is compared on them
CHANCE = 0.01  # a network whose clean accuracy comes by chance as often as that is no better than chance


@dataclass(frozen=True)
class Rival:
    """A network that the challenger is compared with: its answers, and the round it is from."""

    round: int
    sheet: Sheet


def gate(
    challenger: Sheet,
    target: Rival | None,
    champions: Sequence[Rival],
    reference: Sheet | None,
    promote: Promote,
    number: int,
) -> dict[str, Any]:
    """What gate.json tells of the comparison in round `number`.

    champions: of each a sheet of those figures in which it is the best so far. "target", "best" and "reference" hold a
    comparison for each figure, with its verdict. The verdict over all of target and best is "worse" if one is, else
    "undecided" if one is, else "better" if one figure is, else "no worse". Promoted is what is better and, under
    `promote.undecided: promote`, what is undecided with one figure better.

    The error of "better" is `alpha` over the campaign: round r spends 6 alpha / (π² r²), and Holm's procedure holds it
    over the figures. No worse has no such correction: every figure must pass (intersection–union).
    """
    if target is None:
        return {"verdict": BETTER, "promoted": True, "reasons": ["first of its campaign"]}
    spent = alpha_of_round(promote.alpha, number)
    margins = _margins(promote)
    against_target = compared(target.sheet, challenger, margins, without=NEW_FOOLS)
    against_reference = compared(reference, challenger, margins) if reference is not None else {}
    best: dict[str, dict[str, Any]] = {}
    for champion in champions:
        for name, comparison in compared(champion.sheet, challenger, margins, without=NEW_FOOLS).items():
            best[name] = {"round": champion.round, **comparison}

    family = {name: each["p"] for name, each in against_target.items()}
    if NEW_FOOLS in against_reference:
        family[NEW_FOOLS] = against_reference[NEW_FOOLS]["p"]
    gained = holm(family, spent)
    _decide(against_target, gained)
    _decide(against_reference, holm({name: each["p"] for name, each in against_reference.items()}, spent))
    _decide(best, set())
    verdict = overall([each["verdict"] for each in (*against_target.values(), *best.values())], gained=bool(gained))
    promoted = verdict == BETTER or (verdict == UNDECIDED and bool(gained) and promote.undecided == "promote")
    return {
        "verdict": verdict,
        "promoted": promoted,
        "reasons": _reasons(against_target, best, gained, promoted=promoted),
        "alpha": spent,
        "gained": sorted(gained),
        "target": against_target,
        "best": best,
        "reference": against_reference,
        "data": _of_data(against_reference),
    }


def alpha_of_round(alpha: float, number: int) -> float:
    """What round `number`, from 1, may spend: over all rounds it adds up to alpha."""
    return alpha * 6 / (math.pi * number) ** 2


def compared(before: Sheet, after: Sheet, margins: Mapping[str, float], without: str = "") -> dict[str, dict[str, Any]]:
    """Every figure that both have, as a comparison without a verdict."""
    return {
        name: comparison(before[name], after[name], margins[name], by_image=name == "ood")
        for name in before
        if name in after and name != without and before[name]
    }


def comparison(before: Clusters, after: Clusters, margin: float, *, by_image: bool = False) -> dict[str, Any]:
    """Two networks' answers to the same images: accuracies, their difference with its 90% interval, the p of a gain.

    low is the one-sided 95% limit. by_image: the clusters are images, each under several conditions, and n counts
    them; else n counts answers.
    """
    clusters = [paired(b, a) for b, a in zip(before, after, strict=True)]
    whole = total(clusters)
    alone = len(clusters) == whole.n
    low, high = tango(whole) if alone else clustered(clusters)
    return {
        "n": len(clusters) if by_image else whole.n,
        "clusters": len(clusters),
        "before": (whole.both + whole.lost) / whole.n,
        "after": (whole.both + whole.gained) / whole.n,
        "difference": whole.difference,
        "low": low,
        "high": high,
        "margin": margin,
        "p": mcnemar(whole) if alone else sign_flip([each.net for each in clusters]),
    }


def holm(p: Mapping[str, float], alpha: float) -> set[str]:
    """The names whose p Holm's procedure refuses (Scandinavian Journal of Statistics 6:65, 1979)."""
    refused = set[str]()
    for i, (value, name) in enumerate(sorted((value, name) for name, value in p.items())):
        if value > alpha / (len(p) - i):
            break
        refused.add(name)
    return refused


def overall(verdicts: Sequence[str], *, gained: bool) -> str:
    """One verdict of several, the worst first."""
    for verdict in (WORSE, UNDECIDED):
        if verdict in verdicts:
            return verdict
    return BETTER if gained else NO_WORSE


def soundness(answers: Sequence[int], labels: Sequence[int]) -> dict[str, Any]:
    """Whether a network tells the classes apart at all: {"classes", "accuracy", "chance", "p", "fault"}.

    classes: how many it answers; chance: the commonest class's share; p: of such an accuracy by chance. fault is in
    words, empty where there is none.
    """
    n, classes = len(labels), len(set(answers))
    right = sum(a == b for a, b in zip(answers, labels, strict=True))
    chance = max(labels.count(label) for label in set(labels)) / n
    p = binomial_tail(right, n, chance)
    fault = ""
    if classes == 1:
        fault = f"the network answers one class to all of {n} images"
    elif p > CHANCE:
        fault = f"the network is no better than chance: {right / n:.1%} of {n} images, one class alone has {chance:.1%}"
    return {"classes": classes, "accuracy": right / n, "chance": chance, "p": p, "fault": fault}


def _decide(comparisons: Mapping[str, dict[str, Any]], gained: set[str]) -> None:
    """Give each comparison its verdict and, where that is undecided, how many more images would decide."""
    for name, each in comparisons.items():
        each["verdict"] = UNDECIDED
        if name in gained:
            each["verdict"] = BETTER
        elif each["low"] > -each["margin"]:
            each["verdict"] = NO_WORSE
        elif each["high"] < 0:
            each["verdict"] = WORSE
        needed = images_to_decide(each["n"], each["difference"], each["low"], each["high"], each["margin"])
        each["more"] = needed - each["n"] if each["verdict"] == UNDECIDED and each["clusters"] > 1 else None


def _margins(promote: Promote) -> dict[str, float]:
    assert promote.margins is not None
    margins = promote.margins
    return {
        "clean": margins.clean,
        "robust": margins.robust,
        "ood": margins.ood,
        "earlier_fools": margins.fools,
        NEW_FOOLS: margins.fools,
    }


def _of_data(against_reference: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Whether this round's data did it; None where no reference was trained."""
    if not against_reference:
        return None
    verdicts = [each["verdict"] for each in against_reference.values()]
    return overall(verdicts, gained=BETTER in verdicts)


def _reasons(
    target: Mapping[str, Mapping[str, Any]],
    best: Mapping[str, Mapping[str, Any]],
    gained: set[str],
    *,
    promoted: bool,
) -> list[str]:
    against = [
        *((f"against the target: {line(name, each)}", each["verdict"]) for name, each in target.items()),
        *((f"against round {each['round']:03d}: {line(name, each)}", each["verdict"]) for name, each in best.items()),
    ]
    if promoted:
        shown = [text for text, verdict in against if verdict in (BETTER, UNDECIDED)]
        if NEW_FOOLS in gained:
            shown.append("more of this round's held-out fools right than the reference")
        return shown
    stopped = [text for text, verdict in against if verdict in (WORSE, UNDECIDED)]
    return stopped + ([] if gained else ["no figure is better"])
