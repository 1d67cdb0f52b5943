"""Pixels over a file: the same bytes as in memory, and a set that is larger than memory is frozen and trained on."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from data.layout import Workspace
from data.memmap import mapped, room
from data.shards import Images, read_images, read_mapped, write_images
from tasks.config.params import read
from tasks.prepare import freeze_data
from tasks.workspace import inputs

SIDE, MANY, ALLOWED = 256, 700, 64  # pixels, images, MiB: the images are 131 MiB

LIMITED = """
import resource, sys
from pathlib import Path
import torch
from torch import nn
from data.layout import Workspace
from data.shards import Images, read_images, write_images
from tasks.config.params import read
from tasks.prepare import freeze_data
from tasks.engine.training_set import training_set
from tasks.train import fitted
from tasks.workspace import inputs

torch.set_num_threads(1)
workspace = Workspace(Path.cwd())
params = read(workspace.params)
module = nn.Sequential(nn.AvgPool2d(64), nn.Flatten(), nn.Linear(48, 2))
# What starts threads and imports the rest of torch does so before the limit.
tiny = Images(torch.zeros(8, 3, 256, 256, dtype=torch.uint8), torch.arange(8) % 2, tuple("abcdefgh"), ("x", "y"))
fitted(module, training_set(tiny, [], params.train.candidates), tiny, params, params.first.loss, "000")
write_images(Path("tiny.parquet"), tiny)
read_images(Path("tiny.parquet"), 3)
status = Path("/proc/self/status").read_text()
held = int(status.split("VmData:")[1].split()[0]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (held + int(sys.argv[1]) * 2**20,) * 2)
freeze_data(workspace, params, print)
base, validation = inputs.images(workspace, "train"), inputs.images(workspace, "validation")
training = training_set(base, [], params.train.candidates)
_, history = fitted(module, training, validation, params, params.first.loss, "000")
print("trained on", len(base), "kept", history["kept"])
try:
    read_images(workspace.split("train"), base.channels)
except (MemoryError, RuntimeError) as error:
    print("in memory:", type(error).__name__)
"""


def images(n: int) -> Images:
    pixels = torch.randint(0, 256, (n, 3, 9, 9), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    return Images(pixels, torch.arange(n) % 2, tuple(f"k{i}" for i in range(n)), ("a", "b"))


def test_over_a_file_the_bytes_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, pixels = images(10), tmp_path / "pixels"
    write_images(tmp_path / "one.parquet", whole)
    monkeypatch.setattr("data.shards.GROUP", 3 * 9 * 9 * 4)  # groups of four images
    write_images(tmp_path / "many.parquet", whole)
    wanted, found = read_images(tmp_path / "one.parquet", 3), read_mapped(tmp_path / "many.parquet", 3, 9, pixels)
    assert torch.equal(found.pixels_NCHW, wanted.pixels_NCHW)
    assert torch.equal(found.labels_N, wanted.labels_N)
    assert (found.keys, found.classes) == (wanted.keys, wanted.classes)
    assert pixels.read_bytes() == whole.pixels_NCHW.numpy().tobytes()
    kept = pixels.stat().st_mtime_ns
    read_mapped(tmp_path / "many.parquet", 3, 9, pixels)
    assert pixels.stat().st_mtime_ns == kept, "it is made once"
    write_images(tmp_path / "some.parquet", whole, torch.tensor([7, 2]))
    assert read_images(tmp_path / "some.parquet", 3).keys == ("k7", "k2")


def test_pixels_that_do_not_fit_are_refused_and_leave_no_file(tmp_path: Path) -> None:
    write_images(tmp_path / "set.parquet", images(4))
    with pytest.raises(ValueError, match="must hold images of 3×8×8, got 3×9×9"):
        read_mapped(tmp_path / "set.parquet", 3, 8, tmp_path / "pixels")
    assert [path.name for path in tmp_path.iterdir()] == ["set.parquet"]
    (tmp_path / "pixels").write_bytes(b"short")
    with pytest.raises(ValueError, match="must hold 972 bytes, got 5; remove it"):
        mapped(tmp_path / "pixels", 4, 3, 9, 9)


def test_room_is_zero_and_leaves_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made = room(2, 1, 3, 3)
    assert made.sum() == 0
    made[1] = 7
    assert made[1].sum() == 63
    assert not list(tmp_path.iterdir())
    assert room(0, 1, 3, 3).shape == (0, 1, 3, 3)


def test_a_split_that_was_changed_is_read_anew(make_workspace: Callable[..., Path]) -> None:
    workspace = Workspace(make_workspace())
    freeze_data(workspace, read(workspace.params), print)
    found = inputs.images(workspace, "pool")
    assert torch.equal(found.pixels_NCHW, read_images(workspace.split("pool"), 1).pixels_NCHW)
    shutil.copyfile(workspace.split("validation"), workspace.split("pool"))
    with pytest.raises(ValueError, match="is not what was frozen"):
        inputs.images(workspace, "pool")


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no limit on a process's own memory")
def test_a_set_larger_than_memory_is_frozen_and_trained_on(make_workspace: Callable[..., Path], tmp_path: Path) -> None:
    picture = Image.new("RGB", (SIDE, SIDE))
    for label, colour in (("dark", (40, 40, 40)), ("light", (200, 200, 200))):
        picture.paste(colour, (0, 0, SIDE, SIDE))
        for part, n in (("train", MANY // 2), ("test", 2)):
            folder = tmp_path / "set" / part / label
            folder.mkdir(parents=True)
            picture.save(folder / "0.png")
            for i in range(1, n):
                (folder / f"{i}.png").hardlink_to(folder / "0.png")
    root = make_workspace(
        data={
            "set": "folder",
            "root": str(tmp_path / "set"),
            "size": SIDE,
            "limit": None,
            "pool": 4,
            "validation": 4,
            "gate": 0,
        },
        train={"epochs": 1, "batch": 8},
    )
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(ALLOWED)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"trained on {MANY - 8} kept 1" in done.stdout
    assert "in memory:" in done.stdout, "the limit did not bind"
    assert not list((root / ".dadc" / "scratch").iterdir())
