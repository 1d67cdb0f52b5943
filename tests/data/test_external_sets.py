"""Test images from elsewhere: folders of classes, and the official corrupted files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.external_sets import corrupted, load_other, originals


def official(folder: Path, n: int = 4) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    folder.mkdir()
    draws = np.random.default_rng(0)
    kinds = {kind: draws.integers(0, 256, (n, 6, 6, 3), dtype=np.uint8) for kind in ("fog", "blur")}
    for kind, pixels in kinds.items():
        np.save(folder / f"{kind}.npy", pixels)
    np.save(folder / "labels.npy", np.arange(n) % 2)
    return kinds


@pytest.mark.parametrize("below", ["", "test"])
def test_folders_take_the_classes_of_the_campaign(tmp_path: Path, below: str) -> None:
    folder = tmp_path / below / "b"
    folder.mkdir(parents=True)
    Image.new("RGB", (20, 10), (200, 0, 0)).save(folder / "one.png")
    found = load_other(tmp_path, ("a", "b"), size=8, channels=1)
    assert found.pixels_NCHW.shape == (1, 1, 8, 8)
    assert (found.labels_N.tolist(), found.classes) == ([1], ("a", "b"))
    (folder.parent / "c").mkdir()
    with pytest.raises(ValueError, match="has classes that train does not have: c"):
        load_other(tmp_path, ("a", "b"), size=8, channels=1)


def test_official_files_keep_their_pixels(tmp_path: Path) -> None:
    kinds = official(tmp_path / "c")
    found = load_other(tmp_path / "c", ("a", "b"), size=6, channels=3)
    wanted = np.concatenate([kinds["blur"], kinds["fog"]]).transpose(0, 3, 1, 2)
    assert torch.equal(found.pixels_NCHW, torch.from_numpy(wanted))
    assert found.labels_N.tolist() == [0, 1, 0, 1] * 2
    assert (found.keys[0], found.keys[-1]) == ("blur/00000", "fog/00003")
    assert load_other(tmp_path / "c", ("a", "b"), size=8, channels=1).pixels_NCHW.shape == (8, 1, 8, 8)


def test_corrupted_copies_are_of_one_image(tmp_path: Path) -> None:
    official(tmp_path / "c", 20)
    found = load_other(tmp_path / "c", ("a", "b"), size=6, channels=3)
    assert originals(found.keys, found.labels_N.tolist()) == 4, "0 1 0 1 stands there five times"
    np.save(tmp_path / "c" / "labels.npy", np.arange(20) // 10)
    found = load_other(tmp_path / "c", ("a", "b"), size=6, channels=3)
    assert originals(found.keys, found.labels_N.tolist()) == 20, "of one severity"
    assert originals(("a/00001.png", "b/00001.png"), (0, 1)) == 2, "files are images of their own"


def test_what_is_wrong_with_official_files_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    official(folder)
    np.save(folder / "fog.npy", np.zeros((3, 6, 6, 3), np.uint8))
    with pytest.raises(ValueError, match=r"fog\.npy must hold 4 uint8 images, as many as labels\.npy, got uint8 \(3,"):
        corrupted(folder)
    np.save(folder / "fog.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"fog\.npy is no sound \.npy file \(.*Python objects"):
        corrupted(folder)
    with pytest.raises(FileNotFoundError, match=r"labels\.npy and a file for each kind"):
        corrupted(tmp_path)


def test_labels_that_are_no_classes_of_the_campaign_are_said(tmp_path: Path) -> None:
    official(tmp_path / "c")
    np.save(tmp_path / "c" / "labels.npy", np.array([0, 1, 99, 0]))
    with pytest.raises(ValueError, match=r"c/labels\.npy must hold the campaign's classes, 0 to 1, got 0 to 99"):
        load_other(tmp_path / "c", ("a", "b"), size=6, channels=3)
