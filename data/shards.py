"""Images and candidates as Parquet: one immutable file, the same bytes for the same content."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from data.decoding import MAX_PIXELS, decode, to_pixels
from data.files import write_whole, written_whole
from data.memmap import mapped
from data.records import Candidate, ImageSpec, Verdict, Vote

_IMAGES = pa.schema([("key", pa.string()), ("label", pa.int32()), ("image", pa.binary())])
_VOTE = pa.struct(
    [
        ("validator", pa.string()),
        ("choice", pa.int32()),
        ("annotation", pa.int64()),
        ("at", pa.string()),
        ("counted", pa.bool_()),
        ("reason", pa.string()),
    ]
)
_CANDIDATES = pa.schema(
    [
        ("key", pa.string()),
        ("round", pa.int32()),
        ("source", pa.string()),
        ("image", pa.binary()),
        ("intended", pa.int32()),
        ("annotator", pa.string()),
        ("seed_image", pa.string()),
        ("annotation", pa.int64()),
        ("at", pa.string()),
        ("seconds", pa.float64()),
        ("answer", pa.int32()),
        ("probability", pa.float64()),
        ("votes", pa.list_(_VOTE)),
        ("verdict", pa.string()),
        ("reason", pa.string()),
        ("wellformed", pa.bool_()),
        ("split", pa.string()),
        ("fooling", pa.bool_()),
    ]
)
GROUP = 1 << 26  # pixel values that are encoded and decoded at once: a row group


@dataclass(frozen=True)
class Images:
    """Labelled images in one tensor, in memory or over a file (data/memmap.py).

    pixels_NCHW: uint8; labels_N: int64 class indices; keys: a name for each image, unique in its set;
    classes: the class names, in the order of the indices.
    """

    pixels_NCHW: torch.Tensor
    labels_N: torch.Tensor
    keys: tuple[str, ...]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        n = len(self.pixels_NCHW)
        if not (self.pixels_NCHW.ndim == 4 and self.pixels_NCHW.dtype == torch.uint8):
            got = f"{self.pixels_NCHW.dtype} {tuple(self.pixels_NCHW.shape)}"
            raise ValueError(f"images must be uint8 of shape N×C×H×W, got {got}")
        if len(self.labels_N) != n or len(self.keys) != n:
            raise ValueError(f"{n} images need as many labels and keys, got {len(self.labels_N)} and {len(self.keys)}")
        if n and not (0 <= int(self.labels_N.min()) and int(self.labels_N.max()) < len(self.classes)):
            low, high = int(self.labels_N.min()), int(self.labels_N.max())
            raise ValueError(f"labels must lie in 0..{len(self.classes) - 1}, got {low}..{high}")

    def __len__(self) -> int:
        return len(self.labels_N)

    @property
    def channels(self) -> int:
        return int(self.pixels_NCHW.shape[1])

    @property
    def size(self) -> int:
        return int(self.pixels_NCHW.shape[2])

    @property
    def spec(self) -> ImageSpec:
        """Classes, channels and size."""
        return ImageSpec(self.classes, self.channels, self.size)

    def take(self, which: torch.Tensor | Sequence[int]) -> Images:
        """The images at these indices, in their order."""
        index = torch.as_tensor(which, dtype=torch.long)
        keys = tuple(self.keys[i] for i in index.tolist())
        return Images(self.pixels_NCHW[index], self.labels_N[index], keys, self.classes)


def encode_png(pixels_CHW: torch.Tensor) -> bytes:
    """uint8 C×H×W, one or three channels → PNG."""
    buffer = io.BytesIO()
    to_image(pixels_CHW).save(buffer, format="PNG")
    return buffer.getvalue()


def to_image(pixels_CHW: torch.Tensor) -> Image.Image:
    """uint8 C×H×W, one or three channels → Pillow's image."""
    array = pixels_CHW.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def decode_png(blob: bytes, channels: int) -> torch.Tensor:
    """The bytes of a PNG or JPEG file → uint8 C×H×W with that many channels. ValueError if it is no sound image."""
    try:
        return to_pixels(decode(blob, channels, formats=("PNG", "JPEG"), max_pixels=MAX_PIXELS))
    except ValueError as error:
        raise ValueError(f"expected a PNG or JPEG image, got {len(blob)} bytes that are none: {error}") from error


def write_images(path: Path, images: Images, rows: torch.Tensor | None = None) -> None:
    """Images → Parquet, whole or not at all; of all of them, or of these rows, no more than a group in memory."""
    index = torch.arange(len(images)) if rows is None else rows
    group = max(1, GROUP // images.pixels_NCHW.shape[1:].numel())
    schema = _IMAGES.with_metadata({"classes": "\x1f".join(images.classes)})
    with written_whole(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for part in index.split(group):
            columns = {
                "key": [images.keys[i] for i in part.tolist()],
                "label": images.labels_N[part].tolist(),
                "image": [encode_png(images.pixels_NCHW[i]) for i in part.tolist()],
            }
            writer.write_table(pa.table(columns, schema=schema), row_group_size=group)


def read_images(path: Path, channels: int, rows: Sequence[int] | None = None) -> Images:
    """What `write_images` wrote: all of it, or these rows in this order, of which alone the pixels are decoded."""
    table = read_table(path)
    if rows is not None:
        table = table.take(list(rows))
    pixels = [decode_png(blob, channels) for blob in table["image"].to_pylist()]
    stacked = torch.stack(pixels) if pixels else torch.zeros(0, channels, 1, 1, dtype=torch.uint8)
    return _labelled(table, stacked)


def read_mapped(path: Path, channels: int, size: int, pixels: Path) -> Images:
    """What `write_images` wrote, the same in every byte, without holding the pixels in memory.

    pixels: a file that holds them raw, for this content of `path`; made here where it is not there.
    """
    if not pixels.exists():
        with written_whole(pixels) as raw, pq.ParquetFile(path, pre_buffer=False) as file:
            for group in range(file.num_row_groups):
                for blob in file.read_row_group(group, columns=["image"])["image"]:
                    pixels_CHW = decode_png(blob.as_py(), channels)
                    if pixels_CHW.shape != (channels, size, size):
                        got = "×".join(map(str, pixels_CHW.shape))
                        raise ValueError(f"{path} must hold images of {channels}×{size}×{size}, got {got}")
                    raw.write(pixels_CHW.numpy().tobytes())
    table = read_table(path, ("key", "label"))
    return _labelled(table, mapped(pixels, len(table), channels, size, size))


def _labelled(table: pa.Table, pixels_NCHW: torch.Tensor) -> Images:
    classes = tuple((table.schema.metadata or {})[b"classes"].decode().split("\x1f"))
    labels = torch.tensor(table["label"].to_pylist(), dtype=torch.long)
    return Images(pixels_NCHW, labels, tuple(table["key"].to_pylist()), classes)


def write_candidates(path: Path, candidates: Iterable[Candidate]) -> None:
    """Candidates → a shard, sorted by key, whole or not at all."""
    rows = sorted(candidates, key=lambda c: c.key)
    keys = [c.key for c in rows]
    if len(set(keys)) != len(keys):
        twice = next(k for k in keys if keys.count(k) > 1)
        raise ValueError(f"candidate keys must be unique in a shard, got {twice!r} more than once")
    records = [
        {
            **{name: getattr(c, name) for name in _CANDIDATES.names if name != "votes"},
            "verdict": str(c.verdict),
            "votes": [{name.name: getattr(v, name.name) for name in _VOTE} for v in c.votes],
        }
        for c in rows
    ]
    _write(path, pa.Table.from_pylist(records, schema=_CANDIDATES))


def read_candidates(path: Path) -> list[Candidate]:
    """What `write_candidates` wrote."""
    found = []
    for row in read_table(path).to_pylist():
        row.pop("fooling")  # derived; kept in the file for those who read it with other tools
        row["verdict"] = Verdict(row["verdict"])
        row["votes"] = tuple(Vote(**vote) for vote in row["votes"])
        found.append(Candidate(**row))
    return found


def read_columns(path: Path, *names: str) -> list[list[Any]]:
    """Some columns of a shard, in this order; the others, images above all, are not read."""
    table = read_table(path, names)
    return [table[name].to_pylist() for name in names]


def candidate_images(candidates: Sequence[Candidate], channels: int, classes: Sequence[str]) -> Images:
    """Well-formed candidates as labelled images; the label is the intended one."""
    keep = [c for c in candidates if c.wellformed]
    if not keep:
        empty = torch.zeros(0, channels, 1, 1, dtype=torch.uint8)
        return Images(empty, torch.zeros(0, dtype=torch.long), (), tuple(classes))
    pixels = torch.stack([decode_png(c.image, channels) for c in keep])
    labels = torch.tensor([c.intended for c in keep], dtype=torch.long)
    return Images(pixels, labels, tuple(c.key for c in keep), tuple(classes))


def _write(path: Path, table: pa.Table) -> None:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_whole(path, buffer.getvalue())


def read_table(path: Path, names: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file, all of it or the columns of these names. FileNotFoundError says how to get it."""
    if not path.exists():
        raise FileNotFoundError(f"expected {path}, and there is none; `dvc pull` brings what DVC keeps")
    with pq.ParquetFile(path) as file:  # pyarrow's own read_table imports pandas, which takes a second
        return file.read(columns=None if names is None else list(names))


def write_table(path: Path, table: pa.Table) -> None:
    """A table as Parquet, whole or not at all."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_whole(path, buffer.getvalue())
