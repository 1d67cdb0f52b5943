"""Challenger, target, reference and earlier champions on images kept for this alone → the verdict, gate.json.

Nothing is chosen on the gate's images: epochs, RiFT's module and α are chosen on validation. The attacks and shifts are
those of `evaluate`, with the same random numbers for every network. The answers go into gate.parquet, and gate.json is
worked out from them: `dadc verify` does so again.
"""

from __future__ import annotations

from functools import partial
from itertools import chain
from pathlib import Path

from data.files import write_json
from data.layout import REFERENCE, Round
from data.shards import candidate_images, read_candidates, write_table
from tasks.attacks._answers import answer_all, answered, clean, in_parts
from tasks.config.params import Params
from tasks.engine import checkpoint, stage
from tasks.engine.devices import Compute
from tasks.evaluation import gate_answers
from tasks.evaluation.gate_answers import CHAMPION, FOOLS, GATE, Past
from tasks.evaluation.gate_words import line
from tasks.evaluation.predictions import CHALLENGER, TARGET, to_table
from tasks.workspace import inputs
from tasks.workspace.checkout import gate_split


def gate(round_: Round, params: Params, compute: Compute) -> None:
    """Write the round's gate.parquet and gate.json."""
    lineage = inputs.lineage(round_)
    images = inputs.images(round_.workspace, gate_split(round_.workspace))
    campaign = list(chain.from_iterable(read_candidates(path) for path in lineage.shards))
    fools = candidate_images(gate_answers.held_out(campaign), images.channels, images.classes)
    before = gate_answers.past(round_)
    parts = []
    for name, path in networks(round_, lineage, before, params).items():
        net = checkpoint.load(path)[0].to(compute.device)
        answers = in_parts(images, partial(answer_all, net, params=params, shifts=True), compute)
        parts.append(answered(name, GATE, images, answers))
        if len(fools) and not name.startswith(CHAMPION):
            parts.append(answered(name, FOOLS, fools, clean(net, fools)))
    if not compute.first:
        return
    verdict = gate_answers.judged(parts, campaign, round_.number, before, params)
    write_table(round_.gate_answers, to_table(parts))
    write_json(round_.gate, verdict)
    for against in ("target", "best", "reference"):
        for name, comparison in verdict.get(against, {}).items():
            compute.say(f"gate {round_.name}: against {against}: {line(name, comparison)}")
    if verdict["sound"]["fault"]:
        compute.say(f"gate {round_.name}: warning: {verdict['sound']['fault']}")
    outcome = "promoted" if verdict["promoted"] else "not promoted"
    compute.say(f"gate {round_.name}: {verdict['verdict']}, {outcome}: {'; '.join(verdict['reasons'])}")


def networks(round_: Round, lineage: inputs.Lineage, before: Past, params: Params) -> dict[str, Path]:
    """The networks that answer, by the name of `net` in gate.parquet."""
    found = {CHALLENGER: round_.challenger.model}
    if lineage.target is not None:
        found[TARGET] = lineage.target
        if params.promote.reference:
            found[gate_answers.REFERENCE] = round_.arm(REFERENCE).model
    for number in gate_answers.by_round(before.best):
        found[f"{CHAMPION}{number:03d}"] = inputs.with_digest(*lineage.champions[number])
    return found


if __name__ == "__main__":
    stage.main("gate", stage.of_round(gate), arms=(CHALLENGER,))
