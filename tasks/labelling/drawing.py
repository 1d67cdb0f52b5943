"""Drawings: a canvas for the page, and what was drawn on it at the network's own size.

What comes back is untrusted: every fault is a ValueError that says what was expected and what came.
"""

from __future__ import annotations

import base64
import binascii
import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from data.shards import to_image
from tasks.labelling.label_config import PENS, pens
from tasks.labelling.projects import ASK, INK, INTENDED, SAYS

Alpha = npt.NDArray[np.uint8]  # canvas × canvas, 0 no ink, 255 full

CANVAS = 280  # pixels, about: a multiple of the network's size
MAX_REGIONS = 200  # strokes of one drawing; more are refused before they are decoded
MAX_TEXT = 4 * 2**20  # characters of one region's data URL
_PREFIX = "data:image/png;base64,"
Types = Mapping[str, tuple[str, ...]]  # name of a tag → the types of item that it makes
_TYPES: Types = {
    INK: ("bitmask", "bitmasklabels"),  # without a pen of its own on a blank canvas; with one over a picture
    INTENDED: ("choices",),
    ASK: ("textarea",),
    SAYS: ("textarea",),
}
CHANGE = 32  # grey levels by which an edit must change some pixel; less could not be seen


def canvas_size(size: int) -> int:
    """Height = width of the canvas for a network of that size: a whole multiple, so that reducing it is exact."""
    return size * max(1, round(CANVAS / size))


def picture(pixels_CHW: torch.Tensor) -> str:
    """uint8 C×H×W → data URI of the image at the canvas' size, every pixel a square block."""
    canvas = canvas_size(int(pixels_CHW.shape[1]))
    blocks = to_image(pixels_CHW).resize((canvas, canvas), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    blocks.save(buffer, format="PNG", compress_level=1, compress_type=zlib.Z_RLE)  # made for runs of one value
    return _PREFIX + base64.b64encode(buffer.getvalue()).decode()


def blank(size: int, channels: int) -> str:
    """Data URI of an empty canvas: black, the ground of the images that networks of this kind know."""
    return picture(torch.zeros(channels, size, size, dtype=torch.uint8))


def drawing(result: object, size: int, channels: int) -> torch.Tensor:
    """The ink in an annotation's result → uint8 C×size×size, white on black. ValueError if it is no sound drawing."""
    alpha = read(result, canvas_size(size))
    pixels = torch.from_numpy(reduce(alpha, size))
    return pixels.expand(channels, size, size).contiguous()


def edited(result: object, seed_CHW: torch.Tensor) -> torch.Tensor:
    """The ink in an annotation's result over the seed image it was painted on → uint8 C×H×W, at the seed's size.

    Regions lie over each other in their order, as they do on the page; a pixel that ink covers in part is mixed.
    ValueError if there is no sound ink, or if it changes nothing that one could see.
    """
    channels, size = int(seed_CHW.shape[0]), int(seed_CHW.shape[1])
    seed = seed_CHW.numpy().astype(np.float64)
    mixed = seed
    for value in _ink(result):
        colour_C11 = np.array(_colour(value, channels), dtype=np.float64).reshape(channels, 1, 1)
        share_HW = _blocks(_decode(value, canvas_size(size)), size) / 255
        mixed = mixed * (1 - share_HW) + colour_C11 * share_HW
    if np.abs(mixed - seed).max() < CHANGE:
        raise ValueError("expected a change of the picture, and it shows none")
    return torch.from_numpy(np.rint(mixed).astype(np.uint8))


def reduce(alpha: Alpha, size: int) -> Alpha:
    """The mean of each block of the canvas, which is the share of a pixel that ink covers. ValueError if none does."""
    pixels: Alpha = np.rint(_blocks(alpha, size)).astype(np.uint8)
    if int(pixels.max()) < 128:
        raise ValueError("expected ink, and the canvas is empty or nearly empty")
    return pixels


def read(result: object, canvas: int) -> Alpha:
    """The maximum over all ink regions of an annotation's result."""
    alpha = np.zeros((canvas, canvas), dtype=np.uint8)
    for value in _ink(result):
        np.maximum(alpha, _decode(value, canvas), out=alpha)
    return alpha


def items(result: object, types: Types) -> list[dict[str, Any]]:
    """The items of a result, each of a tag in `types` and with a value. ValueError for anything else."""
    if not isinstance(result, list):
        raise ValueError(f"expected a list of regions, got {type(result).__name__}")  # noqa: TRY004
    found = []
    for item in result:
        if not isinstance(item, dict) or not isinstance(item.get("value"), dict):
            raise ValueError("expected a region with a value, got something else")  # noqa: TRY004
        name, kind = item.get("from_name"), item.get("type")
        if not isinstance(name, str) or name not in types:
            raise ValueError(f"expected a region of {', '.join(types)}, got one of {str(name)[:40]!r}")
        if kind not in types[name]:
            raise ValueError(f"{name} makes {' or '.join(types[name])}, got {str(kind)[:40]!r}")
        for field, text in item.items():
            if isinstance(text, str) and not _plain(text):
                raise ValueError(f"expected a plain word as {field[:40]!r}, got {text[:40]!r}")
        found.append(item)
    return found


def _plain(text: str) -> bool:
    """Whether it may be one of the words that a page gives a region: an id, the name of a tag, where it came from."""
    return len(text) <= 100 and text.isprintable() and not set(text) & set("<>&")


def choice(result: object, tag: str, classes: Sequence[str], types: Types = _TYPES) -> int:
    """The index of the one class that was chosen with a tag. ValueError if there is none, several or another."""
    chosen: list[object] = []
    for item in items(result, types):
        if item["from_name"] == tag:
            values = item["value"].get("choices")
            chosen += values if isinstance(values, list) else [values]
    if len(chosen) != 1:
        raise ValueError(f"expected one class, got {len(chosen) or 'none'}")
    if not isinstance(chosen[0], str) or chosen[0] not in classes:
        raise ValueError(f"expected a class of the campaign, got {str(chosen[0])[:40]!r}")
    return list(classes).index(chosen[0])


def region(alpha: Alpha, name: str, pen: str | None = None) -> dict[str, Any]:
    """Ink → the item of a result as the page sends it. name: its id; pen: on an editing page, the one it is of."""
    height, width = alpha.shape
    pixels = np.zeros((height, width, 4), dtype=np.uint8)
    pixels[..., :3] = (225, 29, 72)
    pixels[..., 3] = alpha
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return {
        "id": name,
        "from_name": INK,
        "to_name": "image",
        "type": "bitmask" if pen is None else "bitmasklabels",
        "origin": "manual",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {
            "imageDataURL": _PREFIX + base64.b64encode(buffer.getvalue()).decode(),
            **({} if pen is None else {"bitmasklabels": [pen]}),
        },
    }


def chosen(tag: str, name: str, choice_name: str) -> dict[str, Any]:
    """A radio button → the item of a result as the page sends it. name: the item's id."""
    return {
        "id": name,
        "from_name": tag,
        "to_name": "image",
        "type": "choices",
        "origin": "manual",
        "value": {"choices": [choice_name]},
    }


def _ink(result: object) -> list[dict[str, Any]]:
    """The values of a result's ink regions. ValueError if there are none or too many."""
    values: list[dict[str, Any]] = [item["value"] for item in items(result, _TYPES) if item["from_name"] == INK]
    if not values:
        raise ValueError("expected ink, and there is none")
    if len(values) > MAX_REGIONS:
        raise ValueError(f"expected at most {MAX_REGIONS} regions of ink, got {len(values)}")
    return values


def _blocks(alpha: Alpha, size: int) -> npt.NDArray[np.float64]:
    """The mean of each block of the canvas → size × size, 0 to 255."""
    scale = alpha.shape[0] // size
    means: npt.NDArray[np.float64] = alpha.reshape(size, scale, size, scale).mean(axis=(1, 3))
    return means


def _colour(value: dict[str, Any], channels: int) -> tuple[int, ...]:
    names = value.get("bitmasklabels")
    name = names[0] if isinstance(names, list) and len(names) == 1 else None
    if not isinstance(name, str) or name not in pens(channels):
        raise ValueError(f"expected one of the pens {', '.join(pens(channels))}, got {str(names)[:40]!r}")
    return PENS[name][0][:channels]


def _decode(value: dict[str, Any], canvas: int) -> Alpha:
    text = value.get("imageDataURL")
    if not isinstance(text, str) or not text.startswith(_PREFIX):
        raise ValueError("expected ink as a PNG in a data URL, got something else")
    if len(text) > MAX_TEXT:
        raise ValueError(f"expected ink of at most {MAX_TEXT} characters, got {len(text)}")
    try:
        blob = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
        with Image.open(io.BytesIO(blob), formats=("PNG",)) as image:
            if image.size != (canvas, canvas):
                raise ValueError(f"expected ink of {canvas}×{canvas} pixels, got {image.width}×{image.height}")
            if "A" not in image.getbands() and "transparency" not in image.info:
                raise ValueError("expected ink in an alpha channel, the image has none")
            return np.array(image.convert("RGBA"))[..., 3]
    except (
        OSError,
        SyntaxError,
        EOFError,
        struct.error,
        zlib.error,
        binascii.Error,
        Image.DecompressionBombError,
    ) as error:
        raise ValueError(f"expected ink as a sound PNG, and it cannot be read ({type(error).__name__})") from error
