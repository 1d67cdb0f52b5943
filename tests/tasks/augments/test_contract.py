"""The contract of every file of tasks/augments/: seeded, in [0, 1], each image changed by draws of its own."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from tasks.augments import augmented, chosen
from tasks.config.kinds import names_in
from tasks.config.params import ParamsError
from tasks.engine.inference import to_float

NAMES = names_in("tasks.augments")


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def images_of(n: int = 64, channels: int = 3, size: int = 32) -> Tensor:
    """n times the same image of no symmetry."""
    one = torch.rand(1, channels, size, size, generator=seeded(5))
    return one.expand(n, -1, -1, -1).clone()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (3, 8)])
def test_a_kind_keeps_the_contract(name: str, channels: int, size: int) -> None:
    images, kinds, state = images_of(64, channels, size), chosen({name: {}}), torch.get_rng_state()
    before = images.clone()
    found = augmented(images, kinds, seeded())
    assert found.shape == images.shape
    assert found.dtype == torch.float32
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert torch.equal(images, before), "the input was changed"
    assert torch.equal(torch.get_rng_state(), state), "drew from torch's own generator"
    assert torch.equal(augmented(images, kinds, seeded()), found)
    assert torch.equal(augmented(images.contiguous(memory_format=torch.channels_last), kinds, seeded()), found)
    assert not torch.equal(augmented(images, kinds, seeded(1)), found)
    assert any(not torch.equal(found[0], other) for other in found[1:]), "every image was changed alike"
    assert augmented(images[:1], kinds, seeded()).shape == images[:1].shape


@pytest.mark.parametrize("name", NAMES)
def test_a_kind_is_deterministic_where_torch_is_strict(name: str) -> None:
    torch.use_deterministic_algorithms(True)
    try:
        augmented(images_of(), chosen({name: {"share": 0.5}}), seeded())
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", NAMES)
def test_a_share_of_the_images_is_changed(name: str) -> None:
    images = images_of(512, size=16)
    found = augmented(images, chosen({name: {"share": 0.25}}), seeded())
    changed = (found != images).flatten(1).any(1).float().mean().item()
    assert 0.08 < changed < 0.32  # a quarter; half of it for flips
    assert torch.equal(augmented(images, chosen({name: {"share": 0.0}}), seeded()), images)


def test_nothing_chosen_changes_and_draws_nothing() -> None:
    images, generator = images_of(), seeded()
    state = generator.get_state()
    assert augmented(images, chosen({}), generator) is images
    assert torch.equal(generator.get_state(), state)


def test_kinds_are_applied_in_order() -> None:
    both: dict[str, dict[str, Any]] = {"affine": {"degrees": 45.0}, "salt_and_pepper": {"amount": 0.5}}
    first = augmented(images_of(), chosen(both), seeded())
    generator = seeded()
    second = augmented(images_of(), chosen({"affine": both["affine"]}), generator)
    second = augmented(second, chosen({"salt_and_pepper": both["salt_and_pepper"]}), generator)
    assert torch.equal(first, second)
    assert not torch.equal(first, augmented(images_of(), chosen(dict(reversed(both.items()))), seeded()))


def test_half_of_the_images_are_mirrored() -> None:
    images = images_of(1000, 1, 8)
    found = augmented(images, chosen({"flip": {}}), seeded())
    mirrored = (found == images.flip(3)).flatten(1).all(1)
    assert ((found == images).flatten(1).all(1) ^ mirrored).all()
    assert mirrored.float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_every_window_of_a_crop_comes() -> None:
    images = images_of(2000, 1, 8)
    found = augmented(images, chosen({"crop": {"padding": 1}}), seeded())
    assert len(found.flatten(1).unique(dim=0)) == 9


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"flop": {}}, "train.augment.flop: expected a file of tasks/augments/"),
        ({"crop": {"padding": 0}}, "train.augment.crop.padding: expected greater than or equal to 1, got 0"),
        ({"flip": {"share": 1.5}}, "train.augment.flip.share: expected less than or equal to 1, got 1.5"),
        ({"elastic": {"alpha": 3}}, "train.augment.elastic.alpha: no such key"),
        (
            {"affine": {"fill": "white"}},
            "augment.affine.fill: expected 'black', 'edge' or 'reflect', got 'white'",
        ),
    ],
)
def test_a_wrong_choice_is_one_line(given: dict[str, dict[str, Any]], said: str) -> None:
    with pytest.raises(ParamsError) as caught:
        chosen(given)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "given",
    [
        *({name: {}} for name in NAMES),
        {"flip": {"share": 0.5, "vertical": True}, "crop": {}, "gaussian_noise": {}},
        {"crop": {"fill": "edge"}},
        {"crop": {"share": 0.5, "fill": "reflect"}, "flip": {}},
        {},
    ],
)
def test_bytes_come_to_what_their_floats_come_to(given: dict[str, dict[str, Any]]) -> None:
    pixels = torch.randint(0, 256, (64, 3, 16, 16), dtype=torch.uint8, generator=seeded(3))
    before, kinds = pixels.clone(), chosen(given)
    found = augmented(pixels, kinds, seeded())
    assert torch.equal(found, augmented(to_float(pixels), kinds, seeded()))
    assert torch.equal(pixels, before), "the input was changed"


def test_other_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected uint8 or fp32 images .*, got torch\.int64"):
        augmented(torch.zeros(2, 3, 8, 8, dtype=torch.int64), chosen({"flip": {}}), seeded())


@pytest.mark.parametrize("name", sorted(set(NAMES) & set(names_in("tasks.shifts"))))
def test_a_shift_of_the_same_name_takes_the_same_strengths(name: str) -> None:
    ours = importlib.import_module(f"tasks.augments.{name}").Params.model_fields
    theirs = importlib.import_module(f"tasks.shifts.{name}").Params.model_fields
    assert set(theirs) <= set(ours)
