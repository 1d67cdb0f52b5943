"""The contract of every file of data/sets/, from tiny files of each set's usual layout, and what digits are."""

from __future__ import annotations

import hashlib
import importlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision.datasets import MNIST

from data.sets import digits, mnist
from data.shards import Images, encode_png
from tasks.config.kinds import names_in

NAMES = names_in("data.sets")
NATIVE: dict[str, Any] = {"size": None, "channels": None, "seed": 0}


def picture(seed: int, channels: int, side: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (channels, side, side), generator=generator).to(torch.uint8)


def write_folders(root: Path, side: int) -> None:
    for split, n in (("train", 3), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            (root / split / name).mkdir(parents=True)
            for i in range(n):
                pixels = picture(i + 10 * label, 3, side)
                (root / split / name / f"{split}{i}.png").write_bytes(encode_png(pixels))


def write_idx(root: Path, n: int = 20) -> None:
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix in ("train", "t10k"):
        pixels = torch.cat([picture(i, 1, 28) for i in range(n)])
        images = struct.pack(">4i", 2051, n, 28, 28) + pixels.numpy().tobytes()
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(images)
        labels = struct.pack(">2i", 2049, n) + bytes(i % 10 for i in range(n))
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(labels)


def write_tiny_imagenet(root: Path) -> None:
    folder = root / "tiny-imagenet-200"
    (folder / "val" / "images").mkdir(parents=True)
    (folder / "wnids.txt").write_text("n01\nn02\n")
    (folder / "words.txt").write_text("n01\tcat, feline\nn02\tdog\n")
    annotations = []
    for label, name in enumerate(("n01", "n02")):
        (folder / "train" / name / "images").mkdir(parents=True)
        for i in range(2):
            side = Image.fromarray(picture(i + 10 * label, 3, 64).permute(1, 2, 0).numpy())
            side.save(folder / "train" / name / "images" / f"{name}_{i}.JPEG")
            side.save(folder / "val" / "images" / f"val_{label}{i}.JPEG")
            annotations.append(f"val_{label}{i}.JPEG\t{name}\t0\t0\t9\t9")
    (folder / "val" / "val_annotations.txt").write_text("\n".join(annotations))


LAYOUTS: dict[str, Callable[[Path], None]] = {  # a new set gets a line here
    "digits": lambda root: None,
    "mnist": write_idx,
    "folder": lambda root: write_folders(root, 40),
    "cifar10": lambda root: write_folders(root, 32),
    "cifar100": lambda root: write_folders(root, 32),
    "tiny_imagenet": write_tiny_imagenet,
}


def load(name: str, split: str, root: Path, **given: Any) -> Images:
    images: Images = importlib.import_module(f"data.sets.{name}").load(split, root=root, **{**NATIVE, **given})
    return images


@pytest.mark.parametrize("channels", [None, 1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_a_set_keeps_the_contract(name: str, channels: int | None, tmp_path: Path) -> None:
    LAYOUTS[name](tmp_path)
    train, test = (load(name, split, tmp_path, channels=channels) for split in ("train", "test"))
    assert train.classes == test.classes
    for images in (train, test):
        assert images.pixels_NCHW.dtype == torch.uint8
        assert images.pixels_NCHW.is_contiguous()
        assert images.channels in ((1, 3) if channels is None else (channels,))
        assert images.pixels_NCHW.shape[2] == images.pixels_NCHW.shape[3]
        assert images.labels_N.dtype == torch.int64
        assert sorted(images.labels_N.unique().tolist()) == list(range(len(images.classes)))
    assert (train.channels, train.size) == (test.channels, test.size)
    assert len({*train.keys, *test.keys}) == len(train) + len(test), "a key is of one image, in both parts"
    again = load(name, "train", tmp_path, channels=channels, seed=5)
    assert again.keys == train.keys, "the parts of a set are the same in every campaign"
    assert torch.equal(again.pixels_NCHW, train.pixels_NCHW)
    assert load(name, "test", tmp_path, size=24, channels=channels).size == 24
    with pytest.raises(ValueError, match="split must be train or test, got 'pool'"):
        load(name, "pool", tmp_path)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "digits"])
def test_a_set_that_is_not_there_says_where_it_is_wanted(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])  # nobody answers
    with pytest.raises(FileNotFoundError, match=rf"(?s){tmp_path}.*data\.root|data\.root.*{tmp_path}"):
        load(name, "train", tmp_path)


def test_digits_are_the_same_on_every_machine(tmp_path: Path) -> None:
    train, test = (digits.load(split, root=tmp_path, **NATIVE) for split in ("train", "test"))
    assert (len(train), len(test), train.size, train.channels) == (1433, 364, 28, 1)
    found = [hashlib.md5(images.pixels_NCHW.numpy().tobytes()).hexdigest() for images in (train, test)]
    assert found == ["6a2f40683030a35253cf4ff0a1b9ecef", "b28355ea7fe3ab0a8c59890e160d14bb"]
    shares = torch.bincount(test.labels_N) / torch.bincount(train.labels_N)
    assert 0.24 < shares.min() <= shares.max() < 0.27


def test_digits_stand_as_those_of_mnist(tmp_path: Path) -> None:
    images = digits.load("test", root=tmp_path, **NATIVE)
    pixels = images.pixels_NCHW
    assert not pixels[:, :, :4].any(), "a margin of four pixels"
    assert not pixels[:, :, :, 24:].any()
    assert int(pixels.max()) == 255
    tiny = digits.load("test", root=tmp_path, size=12, channels=1, seed=0)
    assert tiny.pixels_NCHW.shape[2:] == (12, 12)
    with pytest.raises(ValueError, match=r"expected data\.size of at least 12 for digits, got 8"):
        digits.load("test", root=tmp_path, size=8, channels=1, seed=0)


def test_upscaling_by_hand() -> None:
    flat = torch.full((1, 8, 8), 8)
    assert (digits._upscaled(flat, 20) == 128).all()  # 8/16 of 255, the half rounded up
    step = torch.zeros(1, 8, 8, dtype=torch.long)
    step[..., 4:] = 16
    # pixel i of 16 lies at (i + ½)/2 − ½ of the originals: 3¼ and 3¾ for the 7th and 8th
    assert digits._upscaled(step, 16)[0, 0, 6:10].tolist() == [0, 64, 191, 255]


def test_mnist_is_read_as_it_is(tmp_path: Path) -> None:
    write_idx(tmp_path)
    images = mnist.load("test", root=tmp_path, **NATIVE)
    assert torch.equal(images.pixels_NCHW, torch.stack([picture(i, 1, 28) for i in range(20)]))
    assert images.labels_N.tolist() == [i % 10 for i in range(20)]
    assert images.keys[3] == "mnist/test/00003"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("train-images-idx3-ubyte", b""),
        ("train-images-idx3-ubyte", struct.pack(">4i", 2051, 20, 28, 28) + bytes(1000)),
        ("train-labels-idx1-ubyte", b"<html>not found</html>"),
    ],
)
def test_broken_mnist_is_not_called_missing(tmp_path: Path, file: str, content: bytes) -> None:
    write_idx(tmp_path)
    (tmp_path / "MNIST" / "raw" / file).write_bytes(content)
    with pytest.raises(ValueError, match=r"the train files of MNIST in .* are broken .*; delete them"):
        mnist.load("train", root=tmp_path, **NATIVE)


def test_mnist_that_cannot_be_had_says_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])
    write_idx(tmp_path)
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r"could not be downloaded \(.*refused.*\); missing: t10k-labels-idx1-ubyte; put the four unpacked files",
    ):
        mnist.load("train", root=tmp_path, **NATIVE)
