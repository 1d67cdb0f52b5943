"""gate.parquet → gate.json: what several networks answered to the gate's images, and the verdict that follows from it.

A row is one network's answer to one image. `net` is challenger, target, reference or `round:NNN`, an earlier champion;
`images` is `gate`, clean, under the attacks and under the shifts, or `fools`: people's verified fooling candidates of
the validation split, which nobody trained on. Machine candidates are not among them: they were made on the target.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data.layout import Round
from data.records import Candidate
from tasks.config.params import Params
from tasks.evaluation import gate
from tasks.evaluation.predictions import CHALLENGER, TARGET, Answered, trained_on

REFERENCE, CHAMPION = "reference", "round:"
GATE, FOOLS = "gate", "fools"  # where a row's image is from
RANKED = ("clean", "robust", "ood")  # figures for which the best champion so far is remembered


@dataclass(frozen=True)
class Past:
    """What the rounds before say of one round's comparison."""

    target: int | None  # whose network is attacked
    targets: Mapping[int, int | None]  # round → the round whose network its candidates were collected on
    best: Mapping[str, int]  # figure → the champion before that is best in it, where that is not the target


def past(round_: Round) -> Past:
    """From the lineage.json of the round and of those before."""
    lineage = json.loads(round_.lineage.read_text(encoding="utf-8"))
    target = _target(lineage)
    numbers = [int(shard["round"]) for shard in lineage["shards"]]
    targets = {number: _target(_lineage(round_.workspace.round(number))) for number in numbers}
    figures = {int(champion["round"]): champion["accuracy"] for champion in lineage.get("champions", ())}
    best = {}
    for figure in RANKED:
        ranked = [(shares[figure], number == target, number) for number, shares in figures.items() if figure in shares]
        if ranked and max(ranked)[2] != target:
            best[figure] = max(ranked)[2]
    return Past(target, targets, best)


def judged(
    parts: Sequence[Answered], campaign: Sequence[Candidate], number: int, before: Past, params: Params
) -> dict[str, Any]:
    """gate.json of round `number`, from the answers and the candidates of its campaign so far."""
    tables = {(part.net, part.images): part for part in parts}
    seen = trained_on(params)

    def sheet(net: str) -> dict[str, gate.Clusters]:
        return figures(tables[net, GATE], tables.get((net, FOOLS)), campaign, number, before, seen)

    challenger = sheet(CHALLENGER)
    target = None if before.target is None else gate.Rival(before.target, sheet(TARGET))
    champions = [
        gate.Rival(round_, {name: sheet(f"{CHAMPION}{round_:03d}")[name] for name in names})
        for round_, names in by_round(before.best).items()
    ]
    reference = sheet(REFERENCE) if (REFERENCE, GATE) in tables else None
    own = tables[CHALLENGER, GATE]
    verdict = gate.gate(challenger, target, champions, reference, params.promote, number)
    return {
        "round": number,
        **verdict,
        "champion": number if verdict["promoted"] else before.target,
        "undecided": params.promote.undecided,
        "accuracy": {name: share(clusters) for name, clusters in challenger.items() if clusters},
        "sound": gate.soundness([int(a) for a in own.columns["clean"]], [int(a) for a in own.columns["label"]]),
    }


def figures(
    images: Answered,
    fools: Answered | None,
    campaign: Sequence[Candidate],
    number: int,
    before: Past,
    seen: Sequence[str],
) -> dict[str, gate.Clusters]:
    """One network's answers by figure. seen: shifts that were trained on, which are left out."""
    shifts = [images.right(column) for name, column in images.beginning("shift_").items() if name not in seen]
    sheet: dict[str, gate.Clusters] = {
        "clean": [[right] for right in images.right()],
        "robust": [[right] for right in images.right("attack_worst")],
        "ood": [list(conditions) for conditions in zip(*shifts, strict=True)],
    }
    right = dict(zip(fools.keys, fools.right(), strict=True)) if fools else {}
    old: dict[str, list[bool]] = {}
    new: dict[str, list[bool]] = {}
    for c in held_out(campaign):
        if c.round == number:
            new.setdefault(c.annotator, []).append(right[c.key])
        elif before.targets.get(c.round) != before.target:  # else they were chosen to fool this target too
            old.setdefault(c.annotator, []).append(right[c.key])
    return sheet | {"earlier_fools": list(old.values()), gate.NEW_FOOLS: list(new.values())}


def held_out(campaign: Sequence[Candidate]) -> list[Candidate]:
    """People's verified fooling candidates that no round trains on."""
    return [c for c in campaign if c.by_people and c.fooling and c.verified and c.split == "validation"]


def by_round(best: Mapping[str, int]) -> dict[int, list[str]]:
    """Champion → the figures in which it is the best so far."""
    return {number: [name for name, each in best.items() if each == number] for number in sorted(set(best.values()))}


def share(clusters: gate.Clusters) -> float:
    """The share of right answers."""
    return sum(map(sum, clusters)) / sum(map(len, clusters))


def _lineage(round_: Round) -> Mapping[str, Any]:
    content: Mapping[str, Any] = json.loads(round_.lineage.read_text(encoding="utf-8"))
    return content


def _target(lineage: Mapping[str, Any]) -> int | None:
    return int(lineage["target"]["round"]) if lineage["target"] else None
