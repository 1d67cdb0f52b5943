"""Image files of any origin decoded to pixels: upright, 8 bits a channel, grey or colour, nothing transparent.

Everything that comes from outside goes through `decode`, so that a photo in a folder, one that the model server is
asked about and one that somebody uploads are the same pixels.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")  # Pillow's names; no other reader of its is handed a file
MAX_PIXELS = 4096 * 4096  # of an image that a request or an annotation holds; more is refused before it is decoded
GROUND = (255, 255, 255, 255)  # what shows through transparent parts: white, as on most pages
Fit = Literal["crop", "pad", "stretch"]

_ORIENTATION = 0x0112  # EXIF's tag: how the camera was held
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF's tags
_WHITE_IS_ZERO, _UNSIGNED = 0, 1  # values of the last two


def decode(
    source: Path | bytes,
    channels: int,
    *,
    formats: tuple[str, ...] = FORMATS,
    max_pixels: int | None = None,
    least: int | None = None,
) -> Image.Image:
    """The first image of a file, or of a file's bytes, in Pillow's mode L (one channel) or RGB (three).

    It stands the way up that its camera noted. 16 bits a pixel become 8; transparent parts show white.
    least: pixels a side below which a JPEG need not be decoded, which is faster; None: the whole.
    ValueError, in one line, for whatever is no sound image, whichever error Pillow's decoder ends in.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats) as opened:
            if max_pixels is not None and opened.width * opened.height > max_pixels:
                raise ValueError(f"it has {opened.width}×{opened.height} pixels, at most {max_pixels} are allowed")
            mode = "L" if channels == 1 else "RGB"
            if least is not None:
                opened.draft(mode, (least, least))
            opened.load()
            return _opaque(_eight_bits(_upright(opened))).convert(mode)
    except UnidentifiedImageError as error:
        raise ValueError(f"it is none of {', '.join(formats)}, or cut short") from error
    except Exception as error:  # Pillow's decoders let out errors of any class: struct.error, IndexError, …
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(said if isinstance(error, (OSError, ValueError)) else f"broken: {said}") from error


def fitted(picture: Image.Image, size: int, fit: Fit) -> Image.Image:
    """The picture as a size×size square, bilinear and antialiased.

    crop: its middle, as large a square as it has; pad: all of it, black beside or above and below; stretch: all of it,
    its proportions changed.
    """
    if fit == "crop":
        return ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)
    if fit == "pad":
        return ImageOps.pad(picture, (size, size), Image.Resampling.BILINEAR)
    return picture.resize((size, size), Image.Resampling.BILINEAR)


def to_pixels(picture: Image.Image) -> torch.Tensor:
    """Pillow's image in mode L or RGB → uint8 C×H×W."""
    array = np.array(picture)
    return torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1).contiguous()


def _upright(picture: Image.Image) -> Image.Image:
    """Turned by the orientation tag alone: Pillow's own `exif_transpose` writes all tags anew, and ends in an error
    where one of the others is malformed."""
    method = _UPRIGHT.get(picture.getexif().get(_ORIENTATION, 1))
    return picture if method is None else picture.transpose(method)


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Grey of more than 8 bits a pixel, which Pillow would cut at 255, scaled to 8."""
    if picture.mode == "F":  # whose white may be 1, or 255, or anything
        raise ValueError("its pixels are floating-point numbers, and nothing says which of them is white")
    if not picture.mode.startswith("I"):
        return picture
    tags = getattr(picture, "tag_v2", {})  # of a TIFF file
    bits = tags.get(_BITS, (16,))[0]
    deep_HW = np.asarray(picture, dtype=np.int64)
    white = 2**bits - 1
    unsigned = tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0] == _UNSIGNED
    if not unsigned or bits > 16 or deep_HW.min() < 0 or deep_HW.max() > white:
        raise ValueError("its pixels are not unsigned numbers of at most 16 bits")
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow sees to this up to 8 bits only
        deep_HW = white - deep_HW
    return Image.fromarray((deep_HW * 255 // white).astype(np.uint8))


def _opaque(picture: Image.Image) -> Image.Image:
    if not picture.has_transparency_data:
        return picture
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, GROUND), picture)
