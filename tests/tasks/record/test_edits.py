"""Painting over a seed image: what comes back, and what does not count as an edit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from open_round import pulled_now

from data.records import HUMAN, SIMULATED
from data.shards import decode_png
from tasks.labelling import drawing, label_config
from tasks.labelling.client import LabelStudio
from tasks.labelling.projects import INTENDED, editing_keys
from tasks.publish import publish_drawing, publish_editing
from tasks.record.annotations import Line, append
from tasks.record.candidates import edit_bases
from tasks.simulation import people
from tasks.workspace.services import Services

RNG = np.random.default_rng(0)


def square(low: int, high: int, canvas: int = 280, shade: int = 255) -> Any:
    alpha = np.zeros((canvas, canvas), np.uint8)
    alpha[low:high, low:high] = shade
    return alpha


@pytest.mark.parametrize("channels", [1, 3])
def test_ink_covers_and_adds_and_leaves_the_rest(channels: int) -> None:
    seed = torch.from_numpy(RNG.integers(0, 256, (channels, 28, 28), dtype=np.uint8))
    made = drawing.edited(
        [drawing.region(square(0, 100), "a", "black"), drawing.region(square(50, 150), "b", "white")],
        seed,
    )
    assert made.shape == seed.shape
    assert made.dtype == torch.uint8
    assert (made[:, :5, :5] == 0).all(), "black occludes"
    assert (made[:, 5:15, 5:15] == 255).all(), "the later region lies above"
    assert torch.equal(made[:, 15:], seed[:, 15:])
    assert torch.equal(made[:, :, 15:], seed[:, :, 15:])


def test_colours_of_a_photo() -> None:
    seed = torch.full((3, 32, 32), 90, dtype=torch.uint8)
    made = drawing.edited([drawing.region(square(0, 144, canvas=288), "a", "red")], seed)
    assert tuple(made[:, 0, 0].tolist()) == label_config.PENS["red"][0]
    assert tuple(made[:, 31, 31].tolist()) == (90, 90, 90)


def test_a_pixel_half_covered_is_half_mixed() -> None:
    alpha = np.zeros((280, 280), np.uint8)
    alpha[:, :5] = 255
    made = drawing.edited([drawing.region(alpha, "a", "white")], torch.full((1, 28, 28), 100, dtype=torch.uint8))
    assert int(made[0, 0, 0]) == round(100 * 0.5 + 255 * 0.5)
    assert int(made[0, 0, 1]) == 100


GREY = torch.full((1, 28, 28), 128, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("result", "seed", "reason"),
    [
        ([], GREY, "there is none"),
        ([drawing.region(square(0, 100), "a", "red")], GREY, "pens black, white"),
        ([drawing.region(square(0, 100), "a", "ink")], GREY, "pens black, white"),
        ([drawing.region(square(0, 100), "a") | {"value": {"imageDataURL": "x", "bitmasklabels": [{}]}}], GREY, "pens"),
        ([drawing.region(square(0, 100), "a", "black")], torch.zeros_like(GREY), "it shows none"),
        ([drawing.region(square(0, 100, shade=20), "a", "black")], GREY, "it shows none"),
        ([drawing.region(square(0, 3), "a", "black")], GREY, "it shows none"),
        ([drawing.region(square(0, 28, canvas=28), "a", "black")], GREY, "28×28"),
    ],
)
def test_what_is_no_edit_has_a_reason(result: Any, seed: torch.Tensor, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        drawing.edited(result, seed)


def edit(task: str, number: int, ink_of: list[dict[str, Any]], class_name: str = "3") -> Line:
    raw = {"result": [*ink_of, drawing.chosen(INTENDED, "class", class_name)], "lead_time": 2.0}
    return Line("edit", task, number, number, "a@example.org", "a@example.org", "2026-01-01T00:00:00Z", False, raw)


def test_an_edit_becomes_a_candidate_with_its_seed_image(open_round: Callable[..., Any]) -> None:
    play = open_round(collect={"edits": 3})
    keys = editing_keys(play.round, play.params)
    over = [drawing.region(square(0, 140), "a", "white")]
    append(
        play.round.annotations,
        [
            edit(keys[0], 1, over),
            edit(keys[0], 2, over),
            edit(keys[1], 3, []),
            edit("001/edit/9999", 4, over),
            edit("001/draw/0000", 5, over),
        ],
    )
    good, *bad = play.record.candidates
    base = edit_bases(play.round, play.params, play.spec.channels)[keys[0]]
    assert (good.key, good.source, good.intended, good.wellformed) == (keys[0], HUMAN, 3, True)
    assert good.seed_image in play.pool.keys
    assert torch.equal(base, play.pool.pixels_NCHW[play.pool.keys.index(good.seed_image)])
    made = decode_png(good.image, 1)
    assert (made[:, :14, :14] == 255).all()
    assert torch.equal(made[:, 14:], base[:, 14:])
    assert not any(c.wellformed for c in bad)
    reasons = [c.reason for c in bad]
    assert "drawing already" in reasons[0]
    assert "there is none" in reasons[1]
    assert "task of the round" in reasons[2]
    assert "task of the round" in reasons[3], "a drawing task's key means nothing on an editing page"


def test_simulated_annotators_edit_too(
    studio: LabelStudio, open_round: Callable[..., Any], model_server: Callable[[Path], Services]
) -> None:
    play = open_round(collect={"drawings": 1, "edits": 3}, simulate={"label_error": 0.0})
    given = (play.round, play.params, play.spec)
    services = model_server(play.round.workspace.root)
    publish_drawing(studio, *given)
    publish_editing(studio, *given)
    assert people.draw(studio, services, *given) == 4
    assert people.draw(studio, services, *given) == 0
    pulled_now(studio, play.round)
    edited = sorted((c for c in play.record.candidates if "/edit/" in c.key), key=lambda c: c.key)
    assert [c.key for c in edited] == editing_keys(play.round, play.params)
    bases = edit_bases(play.round, play.params, play.spec.channels)
    for made in edited:
        assert (made.source, made.wellformed) == (SIMULATED, True)
        seed = play.pool.keys.index(made.seed_image)
        assert made.intended == int(play.pool.labels_N[seed])
        changed = (decode_png(made.image, 1) != bases[made.key]).float().mean()
        assert 0 < changed < 0.3, "painted over in part"
