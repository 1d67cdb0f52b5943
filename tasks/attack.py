"""Seed images → machine candidates: every attack of params.yaml on seed images of its own, against the target."""

from __future__ import annotations

import torch

from data.layout import CHALLENGER, Round
from data.records import Candidate
from data.shards import Images, decode_png, encode_png, write_candidates
from tasks import attacks
from tasks.config.kinds import kind
from tasks.config.params import Params, Threat
from tasks.config.seeds import derive
from tasks.engine import checkpoint, inference, stage
from tasks.engine.devices import ONE_PROCESS, Compute
from tasks.record.pool import seed_images
from tasks.workspace import inputs
from tasks.workspace.rounds import read_index


def attack(round_: Round, params: Params, compute: Compute) -> None:
    """Write the round's attack.parquet: what fooled the target and what did not."""
    entry = read_index(round_.workspace)["collected"].get(round_.name)
    if entry is None:
        raise ValueError(f"data/rounds/index.json must name the target of round {round_.name}; `dadc open` does")
    net, card = checkpoint.load(round_.workspace.root / entry["target"])
    pool = inputs.images(round_.workspace, "pool")
    card.check(pool, "the pool")
    net = net.to(compute.device)
    chosen = seed_images(round_.number, params, len(pool)).attacks
    made = [
        candidate
        for name, indices in chosen.items()
        if indices
        for candidate in candidates(net, pool.take(indices), name, round_, params, compute)
    ]
    if not compute.first:
        return
    write_candidates(round_.attack, made)
    fooling = sum(c.fooling for c in made)
    stage.say(f"attack {round_.name}: {len(made)} machine candidates, {fooling} fool the target")


def candidates(
    net: torch.nn.Module, seeds: Images, name: str, round_: Round, params: Params, compute: Compute = ONE_PROCESS
) -> list[Candidate]:
    """One attack on these seed images: judged candidates whose images, as stored, are within the threat model."""
    module, own = kind("attacks", name, params.attack.kinds[name], f"attack.kinds.{name}")
    seed = derive(params.seed, "attack", round_.name, name)
    start_NCHW = inference.to_float(seeds.pixels_NCHW)
    share = compute.shard(torch.arange(len(seeds)))
    towards_N = towards(seeds.labels_N, len(seeds.classes), derive(seed, "targets"))[share]
    found = attacks.attack(
        module,
        net,
        start_NCHW[share],
        seeds.labels_N[share],
        params.threat,
        own,
        seed,
        targets=towards_N if params.attack.targeted else None,
    )
    made_NCHW = compute.all_gather(found.images, len(seeds))
    threat = None if attacks.own_budget(module) else params.threat
    blobs = [encode_png(pixels) for pixels in rounded(made_NCHW, start_NCHW, threat)]
    stored_NCHW = torch.stack([decode_png(blob, seeds.channels) for blob in blobs])
    answers_N, probabilities_NK = inference.answer(net, stored_NCHW)
    return [
        Candidate(
            key=f"{round_.name}/{name}/{key}",
            round=round_.number,
            source=name,
            image=blob,
            intended=int(seeds.labels_N[i]),
            seed_image=key,
            answer=int(answers_N[i]),
            probability=float(probabilities_NK[i, answers_N[i]]),
        )
        for i, (key, blob) in enumerate(zip(seeds.keys, blobs, strict=True))
    ]


def towards(labels_N: torch.Tensor, classes: int, seed: int) -> torch.Tensor:
    """Another class for each label, any with the same chance; int64 N."""
    generator = torch.Generator().manual_seed(seed)
    return (labels_N + torch.randint(1, classes, labels_N.shape, generator=generator)) % classes


def rounded(images_NCHW: torch.Tensor, seeds_NCHW: torch.Tensor, threat: Threat | None) -> torch.Tensor:
    """Attacked images → uint8, rounded so that none leaves the ball around its seed image; both in [0, 1].

    threat: None for an attack with a budget of its own. A radius written with five digits, 0.03137 for 8/255, reaches
    its eight levels. Under L2 an image that rounding would push out has every pixel rounded towards its seed image.
    """
    levels_NCHW = (images_NCHW * 255).round()
    if threat is not None and threat.norm == "linf":
        low = ((seeds_NCHW - threat.epsilon) * 255 - 1e-3).ceil()
        high = ((seeds_NCHW + threat.epsilon) * 255 + 1e-3).floor()
        levels_NCHW = levels_NCHW.clamp(low, high)
    elif threat is not None:
        seeds_NCHW = (seeds_NCHW * 255).round()
        inward_NCHW = seeds_NCHW + (images_NCHW * 255 - seeds_NCHW).trunc()
        far = (levels_NCHW - seeds_NCHW).flatten(1).norm(dim=1) > threat.epsilon * 255 + 1e-3
        levels_NCHW = torch.where(far[:, None, None, None], inward_NCHW, levels_NCHW)
    return levels_NCHW.clamp(0, 255).to(torch.uint8)


if __name__ == "__main__":
    stage.main("attack", stage.of_round(attack), arms=(CHALLENGER,))
