from __future__ import annotations

from pathlib import Path

import pytest

from tasks.config.params import Params, read
from tasks.config.seeds import derive
from tasks.record.pool import seed_images

ROOT = Path(__file__).parents[3]


@pytest.fixture
def params() -> Params:
    return read(ROOT / "params.yaml")


def everything(number: int, params: Params, pool: int) -> list[int]:
    found = seed_images(number, params, pool)
    return [*(index for own in found.attacks.values() for index in own), *found.drawings, *found.edits]


def test_derive_is_the_same_everywhere() -> None:
    assert derive(0, "a", 1) == 597688857
    assert derive(0, "a", 1) != derive(0, "a", 2) != derive(1, "a", 1)


def test_rounds_share_no_seed_image_until_the_pool_is_used_up(params: Params) -> None:
    need = params.attack.count * len(params.attack.kinds) + params.collect.drawings
    params = params.model_copy(update={"validate_": params.validate_.model_copy(update={"probes": 0})})
    drawn = [index for number in (1, 2, 3) for index in everything(number, params, 3 * need)]
    assert sorted(drawn) == list(range(3 * need))
    assert everything(4, params, 3 * need) == everything(1, params, 3 * need)
    assert len(set(everything(2, params, need + 1))) == need  # wrapped within a round: still none twice


def test_each_attack_has_its_own(params: Params) -> None:
    kinds = {"pgd": {}, "fgsm": {}}
    params = params.model_copy(update={"attack": params.attack.model_copy(update={"kinds": kinds, "count": 3})})
    found = seed_images(1, params, 100)
    assert {name: len(own) for name, own in found.attacks.items()} == {"fgsm": 3, "pgd": 3}
    assert len(found.drawings) == params.collect.drawings
    assert len(set(everything(1, params, 100))) == 6 + params.collect.drawings


def test_probes_are_no_seed_images_of_their_round(params: Params) -> None:
    probes = [seed_images(number, params, 100).probes for number in range(1, 9)]
    for number, own in enumerate(probes, 1):
        assert len(set(own)) == params.validate_.probes
        assert not set(own) & set(everything(number, params, 100))
    assert len({index for own in probes[:3] for index in own}) == 3 * params.validate_.probes, "rounds share none"
    fewer = params.model_copy(update={"validate_": params.validate_.model_copy(update={"probes": 0})})
    assert seed_images(2, fewer, 100).drawings == seed_images(2, params, 100).drawings


def test_a_pool_too_small_is_an_error(params: Params) -> None:
    with pytest.raises(ValueError, match=r"the pool holds 4; lower attack\.count"):
        seed_images(1, params, 4)
    with pytest.raises(ValueError, match="numbered from 1"):
        seed_images(0, params, 100)
