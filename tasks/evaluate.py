"""Clean, robust and OOD accuracy, the round's rates, and what was healed.

The only writer of metrics.json and the only one that sees the test split. All of it runs in fp32. Attacks and shifts
take the same random numbers in every round, so that rounds differ by their networks only. The networks' answers go into
predictions.parquet, and metrics.json is worked out from them and the shards alone: `dadc verify` does so again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain

import torch
from torch import nn

from data.files import write_json
from data.layout import Arm, Round
from data.records import Candidate
from data.shards import Images, candidate_images, read_candidates, write_table
from tasks import attacks
from tasks.attacks import _masking, pgd
from tasks.attacks._answers import Column, answer_all, answered, clean, in_parts
from tasks.attacks._battery import CURVE_STEPS, curve
from tasks.config.params import Params
from tasks.config.seeds import derive
from tasks.engine import checkpoint, inference, stage
from tasks.engine.devices import Compute
from tasks.evaluation import masking
from tasks.evaluation.predictions import CHALLENGER, OTHER, TARGET, measured, to_table
from tasks.workspace import inputs


def evaluate(arm: Arm, params: Params, here: Compute) -> None:
    """Write the arm's predictions.parquet and metrics.json."""
    round_ = arm.round
    lineage = inputs.lineage(round_)
    params = lineage.settled(params)
    net, card = checkpoint.load(arm.model)
    net = net.to(here.device)
    target = checkpoint.load(lineage.target)[0].to(here.device) if lineage.target else None
    test = inputs.images(round_.workspace, "test")
    card.check(test, "the test split")
    campaign = list(chain.from_iterable(read_candidates(path) for path in lineage.shards))
    candidates = candidate_images([c for c in campaign if c.fooling and c.verified], test.channels, test.classes)

    def tested(part: Images) -> dict[str, torch.Tensor]:
        answers = answer_all(net, part, params, shifts=True)
        answers |= radii(net, part, answers["clean"], params)
        return answers if target is None else answers | transferred(net, target, part, answers["attack_worst"], params)

    answers = in_parts(test, tested, here)
    if params.evaluate.gradients is not None:
        answers |= masking_signs(net, test, answers, params, here)
    parts = [answered(CHALLENGER, "test", test, answers)]
    here.say(f"evaluate {arm.label}: {len(test)} test images answered")
    for name, each in ((CHALLENGER, net), (TARGET, target)):
        if each is None:
            continue
        if params.promote.margins is None:  # else the gate has a stage of its own
            validation = inputs.images(round_.workspace, "validation")
            on_validation = in_parts(validation, partial(answer_all, each, params=params, shifts=False), here)
            parts.append(answered(name, "validation", validation, on_validation))
        if len(candidates):
            parts.append(answered(name, "candidates", candidates, clean(each, candidates)))
    for name in params.evaluate.sets:
        other = inputs.external_set(round_.workspace, name)
        parts.append(answered(CHALLENGER, f"{OTHER}{name}", other, in_parts(other, partial(clean, net), here)))
    seeds = seed_images(round_, campaign)
    if target is not None and seeds is not None:
        parts.append(answered(TARGET, "pool", seeds, clean(target, seeds)))

    if not here.first:
        return
    found = measured(parts, campaign, round_.number, lineage.target_round, params)
    write_table(arm.predictions, to_table(parts))
    write_json(arm.metrics, found)
    if warning := masking.warning(found):
        stage.say(f"evaluate {arm.label}: warning: {warning}")
    stage.say(
        f"evaluate {arm.label}: clean {found['clean']['accuracy']:.1%}  "
        + "  ".join(f"{name} {told['accuracy']:.1%}" for name, told in found["robust"].items())
        + (f"  {'; '.join(found['gate']['reasons'])}" if "gate" in found else "")
    )


def radii(net: nn.Module, images: Images, clean_N: torch.Tensor, params: Params) -> dict[str, torch.Tensor]:
    """Which images stand under PGD at each radius of params.evaluate.epsilons; rising radii, falling accuracy."""
    start_NCHW, seed = inference.to_float(images.pixels_NCHW), derive(params.seed, "evaluate", "curve")
    chosen, labels_N = params.evaluate, images.labels_N
    found = curve(chosen.epsilons, net, start_NCHW, labels_N, clean_N, params.threat, seed, precision=chosen.of_steps)
    return {f"radius_{epsilon:g}": stands_N for epsilon, stands_N in found.items()}


def transferred(
    net: nn.Module, other: nn.Module, images: Images, worst_N: torch.Tensor, params: Params
) -> dict[str, torch.Tensor]:
    """Which images that still stand are broken by PGD images made on another network; bool N.

    What is made blind to the network's gradients must not break what follows them (arXiv:1802.00420).
    """
    index = (worst_N == images.labels_N).nonzero()[:, 0]
    tried_N, broke_N = torch.zeros(2, len(images), dtype=torch.bool)
    start_NCHW, labels_N = inference.to_float(images.pixels_NCHW[index]), images.labels_N[index]
    own = pgd.Params(steps=CURVE_STEPS)
    seed = derive(params.seed, "evaluate", "transfer")
    found = attacks.attack(
        pgd, other, start_NCHW, labels_N, params.threat, own, seed, precision=params.evaluate.of_steps
    )
    tried_N[index] = True
    for part in torch.arange(len(index)).split(
        inference.MICROBATCH
    ):  # on a GPU logits_of takes what it is given at once
        broke_N[index[part]] = inference.logits_of(net, found.images[part]).argmax(1).cpu() != labels_N[part]
    return {"tried_transfer": tried_N, "broke_transfer": broke_N}


def masking_signs(
    net: nn.Module, images: Images, answers: Column, params: Params, here: Compute
) -> dict[str, torch.Tensor]:
    """Signs of gradient masking, by column of predictions.parquet; bool N each.

    What gradients and outputs look like is asked of all images; Square and random points are tried on some of those
    that stand under all that follow gradients, the large radius on some that are answered rightly. Where the battery
    has Square, its own turn is the sign.
    """
    choices, threat, seed = params.evaluate.gradients, params.threat, derive(params.seed, "evaluate", "masking")
    assert choices is not None
    labels_N = images.labels_N

    def pixels(part: Images) -> torch.Tensor:
        return inference.to_float(part.pixels_NCHW)

    def looked_at(part: Images) -> dict[str, torch.Tensor]:
        return _masking.gradient_signs(net, pixels(part), part.labels_N, threat, seed)

    def blind(part: Images) -> dict[str, torch.Tensor]:
        return _masking.black_box_signs(net, pixels(part), part.labels_N, threat, choices, seed)

    def wide(part: Images) -> dict[str, torch.Tensor]:
        return _masking.large_radius_sign(net, pixels(part), part.labels_N, threat, seed)

    found = in_parts(images, looked_at, here)
    # What Square broke in its own turn stood under all attacks with gradients.
    stood_N = answers["tried_square"] if "tried_square" in answers else answers["attack_worst"] == labels_N
    for index, asking in (
        (_masking.spread(stood_N, choices.images), blind),
        (_masking.spread(answers["clean"] == labels_N, choices.images), wide),
    ):
        asked_N = torch.zeros(len(images), dtype=torch.bool)
        asked_N[index] = True
        for name, fell_N in in_parts(images.take(index), asking, here).items() if len(index) else ():
            found[name] = torch.zeros(len(images), dtype=torch.bool)
            found[name][index] = fell_N
            found[name.replace("fell_", "asked_")] = asked_N
    if "tried_square" in answers:
        found |= {"asked_square": answers["tried_square"], "fell_square": answers["broke_square"]}
    return found


def seed_images(round_: Round, campaign: Sequence[Candidate]) -> Images | None:
    """The pool images that the round's machine candidates started from; None if there are none."""
    wanted = {c.seed_image for c in campaign if c.round == round_.number and not c.by_people}
    if not wanted:
        return None
    pool = inputs.images(round_.workspace, "pool")
    return pool.take([i for i, key in enumerate(pool.keys) if key in wanted])


if __name__ == "__main__":
    stage.main("evaluate", evaluate)
