"""Shards: the same bytes for the same content, nothing lost on the way, hostile images refused."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from PIL import Image

from data.records import Candidate, Verdict, Vote
from data.shards import (
    Images,
    candidate_images,
    decode_png,
    encode_png,
    read_candidates,
    read_images,
    write_candidates,
    write_images,
)


def some(n: int, channels: int) -> Images:
    pixels = torch.randint(0, 256, (n, channels, 8, 8), generator=torch.Generator().manual_seed(n)).to(torch.uint8)
    return Images(pixels, torch.arange(n) % 3, tuple(f"k{i}" for i in range(n)), ("a", "b", "ü c"))


def candidate(key: str = "001/x/1", **changes: object) -> Candidate:
    blob = encode_png(some(1, 1).pixels_NCHW[0])
    fields: dict[str, object] = {"key": key, "round": 1, "source": "human", "image": blob, "intended": 1}
    return Candidate(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [1, 3])
def test_images_come_back_as_they_went(tmp_path: Path, channels: int) -> None:
    images = some(5, channels)
    write_images(tmp_path / "a.parquet", images)
    write_images(tmp_path / "b.parquet", images)
    back = read_images(tmp_path / "a.parquet", channels)
    assert torch.equal(back.pixels_NCHW, images.pixels_NCHW)
    assert torch.equal(back.labels_N, images.labels_N)
    assert (back.keys, back.classes) == (images.keys, images.classes)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert not list(tmp_path.glob("*.tmp"))


def test_candidates_come_back_with_votes_and_in_one_order(tmp_path: Path) -> None:
    votes = (Vote("v@x", 1, 7, "2026-01-01T00:00:00Z"), Vote("w@x", -1, 8, "", counted=False, reason="late"))
    first = candidate("001/b/2", answer=2, probability=0.75, votes=votes, verdict=Verdict.VERIFIED, split="train")
    second = candidate("001/a/1").rejected("no ink", wellformed=False)
    write_candidates(tmp_path / "a.parquet", [first, second])
    write_candidates(tmp_path / "b.parquet", [second, first])
    assert read_candidates(tmp_path / "a.parquet") == [second, first]
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_a_shard_refuses_the_same_key_twice(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="more than once"):
        write_candidates(tmp_path / "a.parquet", [candidate(), candidate()])
    assert not list(tmp_path.iterdir())


def test_an_empty_shard_is_a_shard(tmp_path: Path) -> None:
    write_candidates(tmp_path / "a.parquet", [])
    assert read_candidates(tmp_path / "a.parquet") == []


def test_malformed_candidates_are_no_images() -> None:
    images = candidate_images([candidate(), candidate("m", image=b"").rejected("x", wellformed=False)], 1, "abc")
    assert images.keys == ("001/x/1",)
    assert images.labels_N.tolist() == [1]


def test_fooling_needs_an_answer() -> None:
    assert not candidate().fooling
    assert not candidate(answer=1).fooling
    assert candidate(answer=2).fooling
    assert not candidate(answer=2, wellformed=False).fooling


@pytest.mark.parametrize("blob", [b"", b"not an image", b"\x89PNG\r\n\x1a\n", b"GIF89a" + b"\0" * 30])
def test_what_is_no_image_is_refused(blob: bytes) -> None:
    with pytest.raises(ValueError, match="PNG or JPEG"):
        decode_png(blob, 1)


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, format="PNG")
    with pytest.raises(ValueError, match="pixels"):
        decode_png(buffer.getvalue(), 1)


@pytest.mark.parametrize(
    ("pixels", "labels", "keys", "said"),
    [
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.long), ("a", "b"), "uint8"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(1, dtype=torch.long), ("a", "b"), "as many labels"),
        (torch.zeros(1, 1, 4, 4, dtype=torch.uint8), torch.tensor([3]), ("a",), r"0\.\.2"),
    ],
)
def test_images_that_do_not_fit_are_refused(
    pixels: torch.Tensor, labels: torch.Tensor, keys: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        Images(pixels, labels, keys, ("a", "b", "c"))


def test_a_missing_file_names_dvc_pull(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="dvc pull"):
        read_candidates(tmp_path / "none.parquet")
