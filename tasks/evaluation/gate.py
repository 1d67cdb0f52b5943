"""The gate: whether the challenger becomes champion. A pure function of both networks' answers to the same images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tasks.config.params import Promote
from tasks.evaluation.paired import paired


@dataclass(frozen=True)
class Scores:
    """A network on the validation split, image by image: True where it is right.

    clean; robust: under every attack; candidates: verified fooling ones that nobody trained on, may be empty.
    """

    clean: tuple[bool, ...]
    robust: tuple[bool, ...]
    candidates: tuple[bool, ...] = ()

    def shares(self) -> dict[str, float]:
        """Each figure that there is, as a share."""
        parts = {"clean": self.clean, "robust": self.robust, "candidates": self.candidates}
        return {name: sum(part) / len(part) for name, part in parts.items() if part}


def gate(champion: Scores | None, challenger: Scores, promote: Promote) -> dict[str, Any]:
    """Whether the challenger becomes champion: {"promoted", "gain", "champion", "challenger", "reasons"}.

    It must lose no more than `clean_drop` of the clean and `robust_drop` of the robust images, on balance, and the
    mean of its figures (clean, robust and, where there are any, candidates) must be higher than the champion's: what
    is lost within the tolerance is won back elsewhere. Without a champion the first challenger is promoted.
    """
    after = challenger.shares()
    if champion is None:
        return {
            "promoted": True,
            "gain": None,
            "champion": {},
            "challenger": after,
            "reasons": ["first of its campaign"],
        }
    before = champion.shares()
    if before.keys() != after.keys():
        raise ValueError(f"a gate needs the same figures of both, got {sorted(before)} and {sorted(after)}")
    reasons = []
    for name, allowed in (("clean", promote.clean_drop), ("robust", promote.robust_drop)):
        change = paired(getattr(champion, name), getattr(challenger, name))
        if not change.within(allowed):
            reasons.append(f"{name} accuracy fell by {-change.net} of {change.n} images, {allowed:.1%} may be lost")
    gain = sum(after[name] - before[name] for name in after) / len(after)
    if gain <= 1e-9:
        reasons.append(f"nothing was gained: the mean of {', '.join(after)} changed by {gain:+.2%}")
    return {
        "promoted": not reasons,
        "gain": gain,
        "champion": before,
        "challenger": after,
        "reasons": reasons or [f"the mean of {', '.join(after)} rose by {gain:.2%}"],
    }
