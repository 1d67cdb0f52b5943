"""What a round is judged by: pure functions of records and of counts. No torch, no files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

from data.records import PEOPLE, RATED, Candidate, Verdict

BY_ANNOTATOR = 5  # annotators in a campaign from which candidates are split by annotator
Z95 = 1.959963984540054  # two-sided 95% of the normal distribution


class Accuracy(TypedDict):
    """A share of right answers with its 95% interval."""

    accuracy: float
    n: int
    low: float
    high: float


class Rate(TypedDict):
    """A share that may have nothing to be a share of: all but n is then None."""

    rate: float | None
    n: int
    low: float | None
    high: float | None


def wilson(share: float, n: int) -> tuple[float, float]:
    """95% Wilson score interval of a share of n."""
    if n < 1 or not 0 <= share <= 1:
        raise ValueError(f"an interval needs a share in 0..1 of at least one, got {share} of {n}")
    z2 = Z95 * Z95 / n
    middle = (share + z2 / 2) / (1 + z2)
    half = math.sqrt(share * (1 - share) * z2 + z2 * z2 / 4) / (1 + z2)
    return (0.0 if share == 0 else middle - half), (1.0 if share == 1 else middle + half)


def accuracy(right: int, n: int) -> Accuracy:
    """`right` of n images answered rightly."""
    if n < 1:
        raise ValueError("an accuracy needs at least one image, got none")
    low, high = wilson(right / n, n)
    return {"accuracy": right / n, "n": n, "low": low, "high": high}


def mean_accuracy(parts: Sequence[Accuracy]) -> Accuracy:
    """The mean over several conditions of the same n images.

    The interval takes each image's mean over the conditions as one observation in [0, 1], whose variance is at most
    that of a yes or no with the same mean: it is Wilson's for n, and errs on the wide side.
    """
    counts = {part["n"] for part in parts}
    if len(counts) != 1:
        raise ValueError(f"a mean accuracy needs conditions over the same images, got n = {sorted(counts)}")
    return mean_over(sum(part["accuracy"] for part in parts) / len(parts), counts.pop())


def mean_over(mean: float, n: int) -> Accuracy:
    """The share of right answers to n images that are each seen under the same conditions."""
    low, high = wilson(mean, n)
    return {"accuracy": mean, "n": n, "low": low, "high": high}


def rate(count: int, n: int) -> Rate:
    """`count` of n, or None of nothing."""
    if n == 0:
        return {"rate": None, "n": 0, "low": None, "high": None}
    low, high = wilson(count / n, n)
    return {"rate": count / n, "n": n, "low": low, "high": high}


def counts(candidates: Iterable[Candidate]) -> dict[str, int]:
    """collected, fooling, verified_fooling and pending: fooling ones whose label is not settled."""
    collected = [c for c in candidates if c.wellformed]
    unjudged = [c.key for c in collected if not c.judged]
    if unjudged:
        raise ValueError(f"rates need judged candidates, {len(unjudged)} are not, such as {unjudged[0]}; judge them")
    fooling = [c for c in collected if c.fooling]
    return {
        "collected": len(collected),
        "fooling": len(fooling),
        "verified_fooling": sum(c.verified for c in fooling),
        "pending": sum(c.verdict is Verdict.PENDING for c in fooling),
    }


def error_rates(candidates: Iterable[Candidate]) -> dict[str, Any]:
    """The counts with MER and the bounds of vMER, None where nothing was collected.

    MER = fooling / collected; vMER = verified and fooling / collected, and at most (those + pending) / collected.
    """
    found = counts(candidates)
    n = found["collected"]
    if n == 0:
        return {**found, "mer": None, "vmer": {"low": None, "high": None}}
    verified, possible = found["verified_fooling"], found["verified_fooling"] + found["pending"]
    return {**found, "mer": found["fooling"] / n, "vmer": {"low": verified / n, "high": possible / n}}


def rated(candidates: Iterable[Candidate]) -> list[Candidate]:
    """The candidates that MER and vMER count."""
    return [c for c in candidates if c.rated]


def by_source(
    candidates: Sequence[Candidate], rightly_classified: Iterable[str], *, seeds_must_be_right: bool = True
) -> dict[str, dict[str, Any]]:
    """Each source apart: people with MER and vMER, players without; an attack with its success and verified rates.

    rightly_classified: keys of the seed images that the target answers rightly. attack_success_rate: share of
    those that the attack flips. verified_rate: share of its settled candidates whose label was found right. verified:
    the same of the fooling ones and of the others apart, since only a share of the others is voted on.

    An attack's fooling counts leave out images whose seed image was wrong before the attack, of which `wrong_before`
    says how many were collected. seeds_must_be_right: False in rounds opened before that, whose counts hold them.
    """
    right = set(rightly_classified)
    report: dict[str, dict[str, Any]] = {}
    for source in sorted({c.source for c in candidates}):
        own = [c for c in candidates if c.source == source]
        settled = [c for c in own if c.wellformed and c.verdict is not Verdict.PENDING]
        verified = {
            "fooling": _verified([c for c in settled if c.fooling]),
            "non_fooling": _verified([c for c in settled if not c.fooling]),
        }
        if source in PEOPLE:
            figures = error_rates(own) if source in RATED else counts(own)
            report[source] = {**figures, "verified": verified}
            continue
        tried = [c for c in own if c.wellformed and c.seed_image in right]
        figures = counts(own)
        if seeds_must_be_right:
            collected = figures["collected"]
            figures = counts(tried) | {"collected": collected, "wrong_before": collected - len(tried)}
        report[source] = {
            **figures,
            "attack_success_rate": rate(sum(c.fooling for c in tried), len(tried))["rate"],
            "verified_rate": _verified(settled)["rate"],
            "verified": verified,
        }
    return report


def _verified(settled: Sequence[Candidate]) -> Rate:
    """The share of candidates with a verdict whose label was found right."""
    return rate(sum(c.verified for c in settled), len(settled))


def split_by(campaign: Iterable[Candidate]) -> str:
    """What keeps the splits apart: `annotator` from five annotators in the campaign on, below that `task`."""
    return "annotator" if len({c.annotator for c in campaign if c.by_people}) >= BY_ANNOTATOR else "task"


def heal(
    candidates: Sequence[Candidate], right: Mapping[str, bool], target_right: Mapping[str, bool], number: int
) -> dict[str, Any]:
    """What became of the campaign's verified fooling candidates, of round `number` and before.

    right, target_right: by candidate key, whether the challenger, and the round's target, answer as intended.
    rate: share the challenger answers rightly, trained on or not; held_out: of those not in the train split.
    relapse: of the earlier rounds' candidates that the target had healed, the share the challenger has wrong.
    """
    verified = [c for c in candidates if c.fooling and c.verified]
    held_out = [c for c in verified if c.split != "train"]
    healed = [c for c in verified if c.round < number and target_right[c.key]]
    return {
        **rate(sum(right[c.key] for c in verified), len(verified)),
        "held_out": rate(sum(right[c.key] for c in held_out), len(held_out)),
        "relapse": rate(sum(not right[c.key] for c in healed), len(healed)),
    }
