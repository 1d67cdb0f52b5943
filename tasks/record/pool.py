"""Which pool images a round's attacks, drawings, edits and probes start from."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.config.params import Params
from tasks.config.seeds import derive


@dataclass(frozen=True)
class SeedImages:
    """Indices into the pool; a seed image belongs to one task of its round: an attack, a drawing or an edit."""

    attacks: dict[str, tuple[int, ...]]  # by the attack's name
    drawings: tuple[int, ...]
    edits: tuple[int, ...]
    probes: tuple[int, ...]  # shown to validators as they are


def seed_images(number: int, params: Params, pool_size: int) -> SeedImages:
    """The seed images of round `number`, from 1 on: its slice of a permutation of the pool.

    Rounds with the same `attack` and `collect` share no seed image until the pool is used up; then it starts
    again. Probes are taken from the permutation's other end. ValueError if one round needs more than the pool holds.
    """
    if number < 1:
        raise ValueError(f"rounds with seed images are numbered from 1, got {number}; round 000 collects nothing")
    check_pool(params, pool_size)
    names, count, probes = sorted(params.attack.kinds), params.attack.count, params.validate_.probes
    machines = len(names) * count
    need = machines + params.collect.drawings + params.collect.edits
    order = sorted(range(pool_size), key=lambda index: (derive(params.seed, "pool", index), index))
    start = (number - 1) * need
    own = [order[(start + i) % pool_size] for i in range(need)]
    attacks = {name: tuple(own[i * count : (i + 1) * count]) for i, name in enumerate(names)}
    drawings = own[machines : machines + params.collect.drawings]
    edits = own[machines + params.collect.drawings :]
    taken = set(own)
    rest = [index for index in reversed(order) if index not in taken]
    first = (number - 1) * probes
    return SeedImages(
        attacks, tuple(drawings), tuple(edits), tuple(rest[(first + i) % len(rest)] for i in range(probes))
    )


def check_pool(params: Params, pool_size: int) -> None:
    """ValueError if one round needs more seed images than the pool holds."""
    attacks, count, probes = len(params.attack.kinds), params.attack.count, params.validate_.probes
    drawings, edits = params.collect.drawings, params.collect.edits
    need = attacks * count + drawings + edits + probes
    if need > pool_size:
        raise ValueError(
            f"a round needs {need} seed images ({attacks} attacks × {count}, {drawings} drawings, {edits} edits and "
            f"{probes} probes), the pool holds {pool_size}; lower attack.count, collect.drawings, collect.edits or "
            "validate.probes, or start with a larger data.pool"
        )
