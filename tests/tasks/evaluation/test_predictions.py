"""What is made of the recorded answers: the mean under shifts, and sets of corrupted copies."""

from __future__ import annotations

from pathlib import Path

from tasks.config.params import read
from tasks.evaluation.metrics import accuracy
from tasks.evaluation.predictions import Answered, elsewhere, ood, trained_on


def test_a_shift_trained_on_is_seen_and_left_out_of_the_mean(checkout: Path) -> None:
    params = read(checkout / "params.yaml")
    shifts = {"gaussian_noise": {"sigma": 0.2}, "brightness": {"amount": 0.3}, "blur": {"sigma": 1.0}}
    augment = {"gaussian_noise": {}, "colour_jitter": {}, "flip": {}}
    changed = params.model_copy(
        update={
            "evaluate": params.evaluate.model_copy(update={"shifts": shifts}),
            "train": params.train.model_copy(update={"augment": augment}),
        }
    )
    seen = trained_on(changed)
    assert seen == ["brightness", "gaussian_noise"], "colour_jitter trains brightness too"
    told = ood({name: accuracy(10 * i, 100) for i, name in enumerate(shifts, start=5)}, seen)
    assert told["mean"] == told["blur"]
    assert trained_on(params) == []


def test_an_image_counts_once_however_many_corrupted_copies_there_are() -> None:
    labels = [0, 1, 1, 0] * 5
    keys = tuple(f"{kind}/{i:05d}" for kind in ("blur", "fog") for i in range(20))
    found = elsewhere(Answered("challenger", "set:c", keys, {"label": labels * 2, "clean": [0] * 40}))
    assert found == accuracy(2, 4)
