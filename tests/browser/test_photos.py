"""Painting over photos in Label Studio, with a real mouse, two accounts: what is painted changes, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from open_round import make_round, train, under_git
from PIL import Image
from sklearn.datasets import load_sample_images

from data.sets import folder
from data.shards import Images, decode_png
from tasks.labelling.label_config import PENS
from tasks.record.candidates import edit_bases

from .conftest import Scene, Someone, judged, open_scene, says

SIZE = 64
WIDTH = 0.11  # of a stroke at the slider's first place, share of the picture


def photos(root: Path) -> Images:
    """Pieces of scikit-learn's two photos, a folder each as a team would have them."""
    rng = np.random.default_rng(0)
    found = load_sample_images()
    for path, picture in zip(found.filenames, found.images, strict=True):
        kind = root / "train" / Path(path).stem
        kind.mkdir(parents=True)
        for number in range(40):
            side = int(rng.integers(200, 400))
            y, x = int(rng.integers(0, 427 - side)), int(rng.integers(0, 640 - side))
            Image.fromarray(picture[y : y + side, x : x + side]).save(kind / f"{number:02d}.jpg", quality=95)
    return folder.load("train", root=root, size=SIZE, channels=3, seed=0)


@pytest.fixture(scope="module")
def scene(stack: Path, checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    found = photos(tmp_path_factory.mktemp("photos"))
    play = make_round(
        tmp_path_factory.mktemp("editors"),
        checkout,
        found,
        data={"set": "folder", "size": SIZE, "channels": 3},
        collect={"drawings": 1, "edits": 2},
        validate={"probes": 0},
    )
    under_git(play)
    train(play, found, epochs=10)
    with open_scene(stack, play) as opened:
        yield opened


def test_two_people_paint_over_photos(scene: Scene, sit_down: Callable[[str], Someone], tmp_path: Path) -> None:
    classes = scene.play.pool.classes
    assert classes == ("china", "flower")
    painted = {
        "ann": {"red": ((0.2, 0.3), (0.8, 0.3)), "white": ((0.2, 0.7), (0.8, 0.7))},
        "bob": {"blue": ((0.3, 0.2), (0.3, 0.8)), "black": ((0.7, 0.2), (0.7, 0.8))},
    }
    answers = {}
    for name, strokes in painted.items():
        person = sit_down(name)
        assert "every person still reads it" in person.enter(scene.project("edit"))
        for pen, (start, end) in strokes.items():
            person.key("l" if pen == "blue" else pen[0])
            person.stroke(start, end)
        answers[name], _ = person.ask()
        person.key("2")
        assert person.page.get_by_role("radio", name="flower").is_checked()
        if name == "ann":
            person.picture("label-studio-edit", tmp_path)
        person.submit()

    made = judged(scene)
    bases = edit_bases(scene.play.round, scene.play.params, scene.play.spec.channels)
    assert made.keys() == bases.keys()
    for key, candidate in made.items():
        name = candidate.annotator.split(".")[0]
        assert (candidate.wellformed, classes[candidate.intended]) == (True, "flower")
        assert says(candidate, classes) == answers[name], "the page and the record say the same"
        pixels, base = decode_png(candidate.image, 3), bases[key]
        assert pixels.shape == base.shape == (3, SIZE, SIZE)
        near = torch.zeros(SIZE, SIZE, dtype=torch.bool)
        for pen, ((x0, y0), (x1, y1)) in painted[name].items():
            colour = torch.tensor(PENS[pen][0], dtype=torch.uint8)
            inside = box(x0, y0, x1, y1, -WIDTH / 2)
            assert bool((pixels[:, inside] == colour[:, None]).all()), f"{pen} covers"
            near |= box(x0, y0, x1, y1, 2 / SIZE)
        changed = (pixels != base).any(0)
        assert not bool((changed & ~near).any()), "nothing else changes"
        assert changed.float().mean() > 0.1


def box(x0: float, y0: float, x1: float, y1: float, more: float) -> torch.Tensor:
    """The pixels of a straight stroke, SIZE×SIZE: its rectangle, with `more` of the side added at every edge."""
    inside = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    half = WIDTH / 2 + more
    rows = slice(round((y0 - half) * SIZE), max(round((y1 + half) * SIZE), round((y0 - half) * SIZE) + 1))
    columns = slice(round((x0 - half) * SIZE), max(round((x1 + half) * SIZE), round((x0 - half) * SIZE) + 1))
    inside[rows, columns] = True
    return inside
