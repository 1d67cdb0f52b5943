"""Ink from outside: every fault has its reason, and what is sound comes back pixel by pixel."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.labelling import drawing
from tasks.labelling.projects import INTENDED

RNG = np.random.default_rng(0)


def png(pixels: Any) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def region(url: Any, **changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = drawing.region(np.full((280, 280), 255, np.uint8), "r")
    made["value"]["imageDataURL"] = url
    return made | changes


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb(side: int) -> str:
    """A PNG header that promises side × side pixels, and a few bytes."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0" * 100_000)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + head + body).decode()


def full(alpha: Any) -> str:
    return png(np.dstack([np.zeros((*alpha.shape, 3), np.uint8), alpha]))


SOUND = full(np.full((280, 280), 255, np.uint8))


@pytest.mark.parametrize(("size", "canvas"), [(28, 280), (32, 288), (64, 256), (224, 224), (512, 512), (8, 280)])
def test_the_canvas_is_a_multiple_of_the_network_s_size(size: int, canvas: int) -> None:
    assert drawing.canvas_size(size) == canvas
    assert canvas % size == 0


@pytest.mark.parametrize(("size", "channels"), [(28, 1), (28, 3), (32, 1)])
def test_what_is_drawn_in_blocks_comes_back_exactly(size: int, channels: int) -> None:
    pixels = RNG.integers(0, 256, (size, size), dtype=np.uint8)
    pixels[0, 0] = 255
    scale = drawing.canvas_size(size) // size
    drawn = drawing.drawing([drawing.region(np.kron(pixels, np.ones((scale, scale), np.uint8)), "r")], size, channels)
    assert drawn.shape == (channels, size, size)
    assert (drawn.numpy() == pixels).all()


def test_regions_are_laid_over_each_other() -> None:
    left, right = np.zeros((280, 280), np.uint8), np.zeros((280, 280), np.uint8)
    left[:, :150], right[:, 130:] = 200, 250
    drawn = drawing.drawing([drawing.region(left, "a"), drawing.region(right, "b")], 28, 1)[0]
    assert drawn[0, 0] == 200
    assert drawn[0, 14] == 250
    assert drawn[0, 27] == 250


def test_a_picture_is_enlarged_in_square_blocks() -> None:
    pixels = torch.from_numpy(RNG.integers(0, 256, (1, 28, 28), dtype=np.uint8))
    blob = base64.b64decode(drawing.picture(pixels).split(",")[1])
    large = np.array(Image.open(io.BytesIO(blob)))
    assert large.shape == (280, 280)
    assert (large.reshape(28, 10, 28, 10) == pixels[0].numpy()[:, None, :, None]).all()


BROKEN: dict[str, tuple[Any, str]] = {
    "nothing": ([], "there is none"),
    "no list": ({"a": 1}, "list of regions"),
    "null": (None, "list of regions"),
    "a number": (float("nan"), "list of regions"),
    "strings": (["ink"], "region with a value"),
    "no value": ([{"from_name": "ink", "type": "bitmasklabels"}], "region with a value"),
    "value is a list": ([region(SOUND, value=[1])], "region with a value"),
    "another tag": ([region(SOUND, from_name="mask")], "'mask'"),
    "tag is a list": ([region(SOUND, from_name=["ink"])], "expected"),
    "another type": ([region(SOUND, type="brushlabels")], "'brushlabels'"),
    "html in the tag": ([region(SOUND, from_name="<script>alert(1)</script>\0" * 9)], "<script>"),
    "a class only": ([drawing.chosen(INTENDED, "c", "3")], "there is none"),
    "empty canvas": ([region(full(np.zeros((280, 280), np.uint8)))], "empty"),
    "a speck": ([region(full(np.eye(280, dtype=np.uint8)))], "empty"),
    "no url": ([region(None)], "data URL"),
    "an address": ([region("http://127.0.0.1/secret.png")], "data URL"),
    "a file": ([region("file:///etc/passwd")], "data URL"),
    "a JPEG": ([region(SOUND.replace("image/png", "image/jpeg"))], "data URL"),
    "not base64": ([region("data:image/png;base64,***")], "cannot be read"),
    "not a PNG": ([region("data:image/png;base64," + base64.b64encode(b"GIF89a" * 9).decode())], "cannot be read"),
    "cut off": ([region(SOUND[: len(SOUND) // 2])], "cannot be read"),
    "no alpha": ([region(png(np.full((280, 280, 3), 255, np.uint8)))], "alpha"),
    "another size": ([region(full(np.full((28, 28), 255, np.uint8)))], "28×28"),
    "not square": ([region(full(np.full((280, 281), 255, np.uint8)))], "281×280"),
    "20,000 pixels": ([region(bomb(20_000))], "expected"),
    "60,000 pixels": ([region(bomb(60_000))], "expected"),
    "too few rows": ([region(bomb(280))], "cannot be read|empty"),
    "too long": ([region("data:image/png;base64," + "A" * (drawing.MAX_TEXT + 1))], "characters"),
    "too many regions": ([region(SOUND)] * (drawing.MAX_REGIONS + 1), "regions"),
    "one broken among sound ones": ([region(SOUND), region("data:image/png;base64,AAAA")], "cannot be read"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_ink_has_a_reason(name: str) -> None:
    result, reason = BROKEN[name]
    with pytest.raises(ValueError, match=reason) as raised:
        drawing.drawing(result, 28, 1)
    assert len(str(raised.value)) < 300
    assert "\0" not in str(raised.value)


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bytes_never_do_more_than_refuse(seed: int) -> None:
    rng = np.random.default_rng(seed)
    blob = bytearray(base64.b64decode(SOUND.split(",")[1]))
    for _ in range(int(rng.integers(1, 9))):
        blob[int(rng.integers(8, len(blob)))] = int(rng.integers(256))
    result = [region("data:image/png;base64," + base64.b64encode(bytes(blob)).decode())]
    try:
        drawn = drawing.drawing(result, 28, 1)
    except ValueError:
        return
    assert drawn.shape == (1, 28, 28)


CLASSES = ("0", "1", "2")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([], "got none"),
        ([["0", "1"]], "got 2"),
        ([["0"], ["1"]], "got 2"),
        ([["9"]], "'9'"),
        ([[0]], "'0'"),
        ([[None]], "'None'"),
        (["0"], None),
        ([[float("nan")]], "'nan'"),
        ([["<b>0</b>"]], "<b>"),
        ([["\ud800" * 99]], "ud800"),
    ],
)
def test_one_class_of_the_campaign_is_wanted(values: list[Any], reason: str | None) -> None:
    result = [drawing.chosen(INTENDED, "c", "x") | {"value": {"choices": value}} for value in values]
    if reason is None:
        assert drawing.choice(result, INTENDED, CLASSES) == 0
        return
    with pytest.raises(ValueError, match=reason) as raised:
        drawing.choice(result, INTENDED, CLASSES)
    str(raised.value).encode()
