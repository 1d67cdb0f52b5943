"""CIFAR-10, CIFAR-100 and Tiny ImageNet from tiny files of their usual layouts, and from files that are wrong."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.sets import cifar10, cifar100, tiny_imagenet
from data.sets._pictures import fit
from data.shards import Images, encode_png

NAMES = ("airplane", "automobile", "bird")
NATIVE = {"size": None, "channels": None, "seed": 0}


def records(n: int, *, classes: int, before: tuple[int, ...] = ()) -> tuple[bytes, torch.Tensor]:
    """n records of CIFAR's binary version and their pixels; record i has the label i modulo `classes`."""
    pixels = torch.randint(0, 256, (n, 3, 32, 32), generator=torch.Generator().manual_seed(n)).to(torch.uint8)
    rows = [bytes((*before, i % classes)) + pixels[i].numpy().tobytes() for i in range(n)]
    return b"".join(rows), pixels


def write_cifar10(folder: Path) -> torch.Tensor:
    folder.mkdir(parents=True)
    (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    pixels = []
    for i in range(1, 6):
        content, part = records(i, classes=3)
        (folder / f"data_batch_{i}.bin").write_bytes(content)
        pixels.append(part)
    (folder / "test_batch.bin").write_bytes(records(4, classes=3)[0])
    return torch.cat(pixels)


def write_folders(root: Path, images: Images, split: str) -> None:
    for i in range(len(images)):
        folder = root / split / images.classes[int(images.labels_N[i])]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:03d}.png").write_bytes(encode_png(images.pixels_NCHW[i]))


@pytest.mark.parametrize("place", ["unpacked", "in root", "archive"])
def test_the_binary_version_is_read(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    pixels = write_cifar10(folder)
    root = tmp_path
    if place == "archive":
        root = tmp_path / "packed"
        root.mkdir()
        with tarfile.open(root / "cifar-10-binary.tar.gz", "w:gz") as archive:
            archive.add(folder, arcname=folder.name)
    elif place == "in root":
        root = folder
    train, test = cifar10.load("train", root=root, **NATIVE), cifar10.load("test", root=root, **NATIVE)
    assert torch.equal(train.pixels_NCHW, pixels)
    assert train.labels_N.tolist() == [0, 0, 1, 0, 1, 2, 0, 1, 2, 0, 0, 1, 2, 0, 1]
    assert train.classes == test.classes == NAMES
    assert len(test) == 4
    assert len({*train.keys, *test.keys}) == 19


def test_cifar100_takes_the_fine_class(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    (folder / "fine_label_names.txt").write_text("apple\nbear\n")
    content, pixels = records(5, classes=2, before=(17,))
    for name in ("train.bin", "test.bin"):
        (folder / name).write_bytes(content)
    found = cifar100.load("test", root=tmp_path, **NATIVE)
    assert found.labels_N.tolist() == [0, 1, 0, 1, 0]
    assert torch.equal(found.pixels_NCHW, pixels)


@pytest.mark.parametrize(("size", "channels"), [(None, None), (28, 1), (48, 3), (None, 1)])
def test_folders_of_pngs_give_the_same_pixels(tmp_path: Path, size: int | None, channels: int | None) -> None:
    write_cifar10(tmp_path / "cifar-10-batches-bin")
    native = {split: cifar10.load(split, root=tmp_path, **NATIVE) for split in ("train", "test")}
    for split, images in native.items():
        write_folders(tmp_path / "png" / "cifar10", images, split)
    given = {"size": size, "channels": channels, "seed": 0}
    binary = cifar10.load("train", root=tmp_path, **given)
    png = cifar10.load("train", root=tmp_path / "png", **given)
    order = sorted(range(len(binary)), key=lambda i: (int(binary.labels_N[i]), i))
    assert png.classes == NAMES
    assert torch.equal(png.pixels_NCHW, binary.take(order).pixels_NCHW)
    assert png.pixels_NCHW.shape[1:] == (channels or 3, size or 32, size or 32)


def test_a_pickle_is_named_and_never_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "opened",)

    (tmp_path / "cifar-10-batches-py").mkdir()
    for name in ("batches.meta", "data_batch_1", "test_batch"):
        (tmp_path / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(FileNotFoundError, match=r"a pickle, which .* never opened; wanted .*cifar-10-binary\.tar"):
        cifar10.load("train", root=tmp_path, **NATIVE)
    assert not (tmp_path / "opened").exists()


def test_what_is_missing_or_broken_has_a_word(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"cifar100: expected in .*data\.root.*cifar-100-binary\.tar\.gz"):
        cifar100.load("train", root=tmp_path, **NATIVE)
    folder = tmp_path / "cifar-10-batches-bin"
    write_cifar10(folder)
    batch = folder / "data_batch_2.bin"
    batch.write_bytes(batch.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"data_batch_2\.bin must be records of 3073 bytes, got 6145"):
        cifar10.load("train", root=tmp_path, **NATIVE)
    batch.write_bytes(bytes([9]) * 3073)
    with pytest.raises(ValueError, match="has a label 9, and batches.meta.txt names 3 classes"):
        cifar10.load("train", root=tmp_path, **NATIVE)
    batch.unlink()
    with pytest.raises(FileNotFoundError, match=r"expected .*data_batch_2\.bin, and there is none"):
        cifar10.load("train", root=tmp_path, **NATIVE)
    with pytest.raises(ValueError, match="split must be train or test, got 'pool'"):
        cifar10.load("pool", root=tmp_path, **NATIVE)
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "cifar-10-binary.tar.gz").write_bytes(b"\x1f\x8b\x08\x00 no archive")
    with pytest.raises(ValueError, match="is cut short or no archive"):
        cifar10.load("train", root=tmp_path / "cut", **NATIVE)


def test_broken_pictures_are_named_and_counted(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in NAMES:
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (32, 32)).save(tmp_path / split / name / "sound.png")
    (tmp_path / "train" / "bird" / "cut.png").write_bytes(b"\x89PNG\r\n")
    Image.new("RGB", (30, 32)).save(tmp_path / "train" / "bird" / "narrow.png")
    with pytest.raises(ValueError, match=r"2 of 5 pictures cannot be used(.|\n)*cut\.png(.|\n)*32×32 .* got 30×32"):
        cifar10.load("train", root=tmp_path, **NATIVE)
    (tmp_path / "test" / "frog").mkdir()
    with pytest.raises(ValueError, match="only one of them has frog"):
        cifar10.load("test", root=tmp_path, **NATIVE)


WNIDS = {"n01443537": "goldfish, Carassius auratus", "n02002724": "crane", "n03126707": "crane, hoist"}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Tiny ImageNet with three classes, two training images and one validation image each; one of them is grey."""
    folder = tmp_path / "tiny-imagenet-200"
    (folder / "val" / "images").mkdir(parents=True)
    (folder / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in WNIDS))
    (folder / "words.txt").write_text("".join(f"{wnid}\t{words}\n" for wnid, words in WNIDS.items()) + "n0\tother\n")
    lines = []
    for i, wnid in enumerate(WNIDS):
        images = folder / "train" / wnid / "images"
        images.mkdir(parents=True)
        for j in range(2):
            Image.new("L" if i == j == 0 else "RGB", (64, 64), 80 * i).save(images / f"{wnid}_{j}.JPEG")
        Image.new("RGB", (64, 64), (80 * i,) * 3).save(folder / "val" / "images" / f"val_{i}.JPEG")
        lines.append(f"val_{i}.JPEG\t{wnid}\t0\t0\t62\t57\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(reversed(lines)))
    return tmp_path


def test_tiny_imagenet_is_read(tiny: Path) -> None:
    train, test = tiny_imagenet.load("train", root=tiny, **NATIVE), tiny_imagenet.load("test", root=tiny, **NATIVE)
    assert train.classes == test.classes == ("goldfish", "crane (n02002724)", "crane (n03126707)")
    assert train.pixels_NCHW.shape == (6, 3, 64, 64)
    assert train.labels_N.tolist() == [0, 0, 1, 1, 2, 2]
    assert test.labels_N.tolist() == [2, 1, 0]
    assert test.pixels_NCHW[:, 0, 0, 0].tolist() == pytest.approx([160, 80, 0], abs=2)
    small = tiny_imagenet.load("test", root=tiny / "tiny-imagenet-200", size=32, channels=1, seed=0)
    assert small.pixels_NCHW.shape == (3, 1, 32, 32)


def test_a_broken_tiny_imagenet_has_a_word(tiny: Path) -> None:
    folder = tiny / "tiny-imagenet-200"
    with pytest.raises(FileNotFoundError, match=r"the folder tiny-imagenet-200/ with wnids\.txt"):
        tiny_imagenet.load("train", root=tiny / "elsewhere", **NATIVE)
    (folder / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn99\t0\n")
    with pytest.raises(ValueError, match=r"val_annotations\.txt:1: expected a file's name"):
        tiny_imagenet.load("test", root=tiny, **NATIVE)
    next((folder / "train" / "n02002724" / "images").glob("*_0.JPEG")).write_bytes(b"\xff\xd8")
    with pytest.raises(ValueError, match="1 of 6 pictures cannot be used"):
        tiny_imagenet.load("train", root=tiny, **NATIVE)
    (folder / "words.txt").write_text("n01443537\tgoldfish\n")
    (folder / "val" / "val_annotations.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected .*val_annotations\.txt"):
        tiny_imagenet.load("test", root=tiny, **NATIVE)


def test_pixels_are_greyed_as_pillow_does_and_coloured_by_repetition() -> None:
    colour = torch.randint(0, 256, (2, 3, 9, 9), generator=torch.Generator().manual_seed(3)).to(torch.uint8)
    grey = fit(colour, None, 1)
    for i in range(2):
        blob = io.BytesIO(encode_png(colour[i]))
        assert np.array_equal(grey[i, 0].numpy(), np.array(Image.open(blob).convert("L")))
    assert torch.equal(fit(grey, None, 3), grey.expand(-1, 3, -1, -1))
    assert torch.equal(fit(torch.full((1, 1, 8, 8), 77, dtype=torch.uint8), 20, None), torch.full((1, 1, 20, 20), 77))
