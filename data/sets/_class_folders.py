"""Where the images of a folder set lie: its training and test part, a folder for each class, the files of a class.

root/train/<class>/*  with  root/test/<class>/*, or val/ or validation/ in place of test/
root/train/<class>/*  alone, or  root/<class>/*: a share of each class is held out for testing
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.names import class_name, printable

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
TEST_PARTS = ("test", "val", "validation")  # folders taken as the test part, the first that is there


@dataclass(frozen=True)
class Parts:
    """test: None where there is none, and `share` of each class of `train` is held out instead; where that is None too,
    there is nothing to test with. note: what a person may not expect."""

    train: Path
    test: Path | None
    share: float | None = None
    note: str = ""


def find_parts(root: Path, test_share: float | None, *, tested: bool = True) -> Parts:
    """The parts of the set in `root`. FileNotFoundError or ValueError says what is missing or in the way.

    tested: whether something to test with must be there.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"expected a folder of images at {root} (data.root), and there is none")
    train, tests = root / "train", [name for name in TEST_PARTS if (root / name).is_dir()]
    there = train.is_dir()
    if (tests and not there) or (not tests and test_share is None and (tested or not there)):
        found = ", ".join(f"{name}/" for name in ("train", *tests) if (root / name).is_dir()) or "neither"
        raise FileNotFoundError(
            f"{root} (data.root) must hold train/<class>/* and test/<class>/* (or val/, or validation/), found {found}"
            "; of images without a test part, below train/ or below the folder itself, data.test_share: 0.2 holds a "
            "fifth of each class out for testing"
        )
    if not tests:
        return Parts(train if there else root, None, test_share)
    if test_share is not None:
        raise ValueError(
            f"data.test_share is for images without a test part, and {root} holds {tests[0]}/; set data.test_share: "
            f"null, or move {tests[0]}/ away"
        )
    note = f"  {tests[0]}/ is taken as the test part" if tests[0] != "test" else ""
    if len(tests) > 1:
        rest = " and ".join(f"{name}/" for name in tests[1:])
        note = f"  {tests[0]}/ is the test part; {rest} is not read: validation images are taken out of train/"
    return Parts(train, root / tests[0], note=note)


def class_folders(folder: Path) -> dict[str, Path]:
    """Class → its folder, in the order of the classes' names, each in its composed Unicode form.

    FileNotFoundError if there is no such folder, ValueError if two of its folders hold one class.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"expected a folder of images at {folder}, and there is none")
    found: dict[str, Path] = {}
    for path in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        name = class_name(path.name)
        if name in found:
            raise ValueError(
                f"{folder} has two folders that both read {name}, in different Unicode forms; move the images of one "
                "into the other"
            )
        found[name] = path
    return dict(sorted(found.items()))


def files_below(folder: Path) -> list[Path]:
    """All files below a folder, nothing hidden: notebooks keep copies of pictures in .ipynb_checkpoints.

    Links to folders are followed. A link that leads nowhere is among the files, as a picture that cannot be read.
    """
    return sorted(_walk(folder, ()))


def is_picture(path: Path) -> bool:
    """Whether a file's suffix is one of `SUFFIXES`."""
    return path.suffix.lower() in SUFFIXES


def key(path: Path, root: Path) -> str:
    """The name by which records know an image: its path below `root`."""
    return printable(path.relative_to(root).as_posix())


def held_out(paths: Sequence[Path], root: Path, share: float, seed: int) -> set[Path]:
    """`share` of these files, at least one, drawn by the seed and their names; copies of one file stay together."""
    lengths = {path: path.stat().st_size if path.exists() else -1 for path in paths}
    often = Counter(lengths.values())
    copies: dict[str, list[Path]] = {}
    for path in paths:  # only files of one length can be copies of each other, so few are read for it
        twin = lengths[path] >= 0 and often[lengths[path]] > 1
        name = hashlib.sha256(path.read_bytes()).hexdigest() if twin else key(path, root)
        copies.setdefault(name, []).append(path)
    drawn = sorted(copies.values(), key=lambda one: hashlib.sha256(f"{seed}\x1f{key(one[0], root)}".encode()).digest())
    wanted = max(1, round(share * len(paths)))
    found: set[Path] = set()
    for several in drawn:
        if len(found) >= wanted:
            break
        found.update(several)
    return found


def _walk(folder: Path, above: tuple[str, ...]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in above:  # a link that leads back to a folder it lies in
        return
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _walk(path, (*above, real))
        elif path.is_file() or path.is_symlink():
            yield path
