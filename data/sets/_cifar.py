"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), 32×32 colour, from their binary version or from folders of PNGs.

The version for Python is a pickle, which can run code, and is never opened.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from data.sets._pictures import fit, read_pictures
from data.shards import Images

SIDE = 32  # pixels
PIXELS = 3 * SIDE * SIDE  # bytes of an image: its red plane, its green and its blue

Read = Callable[[str], bytes]  # a file of the binary version, by its name


@dataclass(frozen=True)
class Layout:
    """What the files of one of the two sets are called, and what a record of them holds."""

    name: str
    folder: str
    archive: str
    pickles: tuple[str, ...]
    parts: dict[str, tuple[str, ...]]
    names: str  # the file of the class names, one on each line
    labels: int  # bytes before the pixels; the last of them is the class


def load(layout: Layout, split: str, *, root: Path, size: int | None, channels: int | None) -> Images:
    """One split, in the order of the files. FileNotFoundError says what was looked for, ValueError what is broken."""
    if split not in layout.parts:
        raise ValueError(f"split must be train or test, got {split!r}")
    read = _binary(layout, root)
    if read is not None:
        pixels, labels, classes = _records(layout, split, read)
        keys = tuple(f"{layout.name}/{split}/{i:05d}" for i in range(len(labels)))
        return Images(fit(pixels, size, channels), labels, keys, classes)
    folder = _folders(layout, root)
    classes = _classes(folder)
    files = [(path, i) for i, name in enumerate(classes) for path in _pictures(folder / split / name)]
    pixels = fit(read_pictures([path for path, _ in files], SIDE, channels or 3), size, channels)
    keys = tuple(f"{layout.name}/{path.relative_to(folder).as_posix()}" for path, _ in files)
    return Images(pixels, torch.tensor([label for _, label in files], dtype=torch.long), keys, classes)


def _binary(layout: Layout, root: Path) -> Read | None:
    """A reader of the binary version: unpacked in `root` or `root`/its folder, or in its archive as it comes."""
    for folder in (root / layout.folder, root):
        if (folder / layout.names).is_file():
            return lambda name: _bytes(folder / name)
    archive = root / layout.archive
    return (lambda name: _packed(archive, f"{layout.folder}/{name}")) if archive.is_file() else None


def _records(layout: Layout, split: str, read: Read) -> tuple[torch.Tensor, torch.Tensor, tuple[str, ...]]:
    classes = tuple(line.strip() for line in read(layout.names).decode("utf-8").splitlines() if line.strip())
    length, pixels, labels = layout.labels + PIXELS, [], []
    for name in layout.parts[split]:
        content = read(name)
        if not content or len(content) % length:
            raise ValueError(
                f"{layout.name}: {name} must be records of {length} bytes, got {len(content)} bytes: it is cut short "
                "or another file; bring it again"
            )
        records = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(-1, length)
        label = records[:, layout.labels - 1].long()
        if int(label.max()) >= len(classes):
            raise ValueError(
                f"{layout.name}: {name} has a label {int(label.max())}, and {layout.names} names {len(classes)} "
                "classes: one of them is another file"
            )
        labels.append(label)
        pixels.append(records[:, layout.labels :].reshape(-1, 3, SIDE, SIDE))
    return torch.cat(pixels), torch.cat(labels), classes


def _folders(layout: Layout, root: Path) -> Path:
    """The folder that holds train/<class>/ and test/<class>/."""
    places = (root / layout.name, root)
    for place in places:
        if all((place / split).is_dir() for split in layout.parts):
            return place
    wanted = (
        f"{layout.archive}, the binary version, packed or unpacked to {layout.folder}/, or folders of PNGs, "
        "train/<class>/*.png and test/<class>/*.png"
    )
    found = next((name for name in layout.pickles if (root / name).exists()), None)
    if found:
        raise FileNotFoundError(
            f"{layout.name}: {root / found} is the version for Python, a pickle, which can run code and is never "
            f"opened; wanted beside it: {wanted}"
        )
    raise FileNotFoundError(f"{layout.name}: expected in {root} (data.root): {wanted}")


def _classes(folder: Path) -> tuple[str, ...]:
    found = {s: sorted(p.name for p in (folder / s).iterdir() if p.is_dir()) for s in ("train", "test")}
    if found["train"] != found["test"] or not found["train"]:
        odd = sorted(set(found["train"]) ^ set(found["test"]))
        raise ValueError(
            f"{folder}: train/ and test/ must hold the same folders, one for each class; "
            + (f"only one of them has {', '.join(odd[:5])}" if odd else "they are empty")
        )
    return tuple(found["train"])


def _pictures(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*.png"))
    if not found:
        raise ValueError(f"{folder} holds no PNG; every class needs images")
    return found


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"expected {path}, and there is none; unpack the whole archive")
    return path.read_bytes()


def _packed(archive: Path, name: str) -> bytes:
    try:
        with tarfile.open(archive) as packed:
            member = packed.extractfile(name) if name in packed.getnames() else None
            content = None if member is None else member.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(f"{archive} is cut short or no archive ({error}); bring it again") from error
    if content is None:
        raise ValueError(f"{archive} holds no file {name}: it is another archive")
    return content
