"""Image files of any origin: the same pixels whoever reads them, and one line for whatever cannot be read."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from data.decoding import decode, fitted, to_pixels
from data.shards import decode_png

SIDEWAYS = 6  # the camera's word for: turn it by 90° clockwise


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def light_on_the_left() -> Image.Image:
    picture = Image.new("L", (28, 28), 0)
    picture.paste(255, (0, 0, 14, 28))
    return picture


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def tiff(grey: int, bits: int, white_is_zero: bool, sample_format: int = 1) -> bytes:
    """A TIFF file of one grey, 28×28 and uncompressed; grey as it is stored."""
    data = np.full((28, 28), grey, f"<u{bits // 8}").tobytes()
    tags = [(256, 28), (257, 28), (258, bits), (259, 1), (262, 0 if white_is_zero else 1), (273, 134), (277, 1)]
    tags += [(278, 28), (279, len(data)), (339, sample_format)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    blob = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0)
    assert len(blob) == 134
    return blob + data


def malformed_exif(second_tag: bytes) -> bytes:
    """A sideways JPEG whose EXIF data hold one tag beside the orientation."""
    plain = encoded(light_on_the_left(), "JPEG", quality=95)
    tags = struct.pack("<HHHIHH", 2, 0x0112, 3, 1, SIDEWAYS, 0) + second_tag + struct.pack("<I", 0)
    segment = b"Exif\0\0II*\0\x08\0\0\0" + tags
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + plain[2:]


def is_upright(picture: Image.Image) -> bool:
    pixels_HW = to_pixels(picture)[0]
    return int(pixels_HW[:10].min()) > 200 and int(pixels_HW[18:].max()) < 50


@pytest.mark.filterwarnings("ignore:Truncated File Read")
@pytest.mark.parametrize(
    "second_tag",
    [
        struct.pack("<HHIhh", 0x0213, 8, 1, -5, 0),  # a negative number where only positive ones may be written back
        struct.pack("<HHIHH", 0x011A, 5, 1, 9999, 0),  # a fraction that lies beyond the file's end
        struct.pack("<HHIHH", 0x8769, 4, 1, 8, 0),  # a sub-folder of tags that leads back to this one
    ],
)
def test_a_malformed_tag_beside_the_orientation_does_not_matter(second_tag: bytes) -> None:
    assert is_upright(decode(malformed_exif(second_tag), 1))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_picture_stands_as_its_camera_was_held(kind: str) -> None:
    for value in (SIDEWAYS, 8, 3):
        upright = np.rot90(np.array(light_on_the_left()), {SIDEWAYS: 3, 8: 1, 3: 2}[value])
        blob = encoded(light_on_the_left(), kind, exif=orientation(value))
        found = to_pixels(decode(blob, 1))[0].numpy().astype(int)
        assert np.abs(found - upright).mean() < 10, value


@pytest.mark.parametrize("value", [0, 9, 77])
def test_an_orientation_that_there_is_not_counts_as_none(value: int) -> None:
    blob = encoded(light_on_the_left(), "PNG", exif=orientation(value))
    assert (np.array(decode(blob, 1)) == np.array(light_on_the_left())).all()


@pytest.mark.parametrize("white_is_zero", [False, True])
def test_grey_is_the_same_at_eight_and_at_sixteen_bits(white_is_zero: bool) -> None:
    wanted = 255 - 200 if white_is_zero else 200
    for bits, grey in ((8, 200), (16, 200 * 257)):
        found = to_pixels(decode(tiff(grey, bits, white_is_zero), 1))
        assert found.unique().tolist() == [wanted], bits


def test_numbers_that_may_be_negative_have_no_known_white() -> None:
    with pytest.raises(ValueError, match="not unsigned numbers of at most 16 bits"):
        decode(tiff(20_000, 16, white_is_zero=False, sample_format=2), 1)


def test_what_is_transparent_shows_white_and_a_shape_in_alpha_is_seen() -> None:
    for mode in ("RGBA", "LA", "P"):
        shape = np.zeros((28, 28, 4), np.uint8)
        shape[8:20, 8:20, 3] = 255
        picture = Image.fromarray(shape)
        picture = picture.quantize(8) if mode == "P" else picture.convert(mode)
        found = to_pixels(decode(encoded(picture, "PNG"), 1))[0]
        assert (int(found[0, 0]), int(found[14, 14])) == (255, 0), mode


def test_decoders_errors_of_any_class_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    blob = encoded(light_on_the_left(), "PNG")
    for error in (struct.error("a\nb"), IndexError("out"), KeyError("k"), ZeroDivisionError(), TypeError("t")):

        def fails(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fails)
        with pytest.raises(ValueError, match="broken") as caught:
            decode(blob, 1)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.filterwarnings("ignore")
def test_every_way_of_cutting_or_spoiling_a_file_ends_in_a_value_error() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20, 3), np.uint8))
    draws = np.random.default_rng(1)
    for kind in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP"):
        sound = encoded(picture, kind)
        for _ in range(150):
            spoiled = bytearray(sound[: int(draws.integers(1, len(sound)))] if draws.random() < 0.5 else sound)
            for at in draws.integers(0, len(spoiled), 4):
                spoiled[at] = int(draws.integers(0, 256))
            said = ""
            try:
                decode(bytes(spoiled), 3, max_pixels=10_000)
            except ValueError as error:
                said = str(error)
            assert len(said.splitlines()) <= 1


def test_a_request_and_a_folder_see_the_same(tmp_path: Path) -> None:
    deep = encoded(Image.fromarray(np.full((28, 28), 100 * 257, np.uint16)), "PNG")
    assert decode_png(deep, 1).unique().tolist() == [100]
    sideways = encoded(light_on_the_left(), "JPEG", exif=orientation(SIDEWAYS), quality=95)
    (tmp_path / "phone.jpg").write_bytes(sideways)
    assert (decode_png(sideways, 3) == to_pixels(decode(tmp_path / "phone.jpg", 3))).all()


def test_too_many_pixels_are_refused_before_they_are_decoded() -> None:
    with pytest.raises(ValueError, match="it has 28×28 pixels, at most 100 are allowed"):
        decode(encoded(light_on_the_left(), "PNG"), 1, max_pixels=100)


def test_three_ways_to_a_square() -> None:
    wide = Image.new("L", (80, 40), 0)
    wide.paste(255, (0, 0, 20, 40))  # the quarter on the left, half of which is cut off with the middle square
    crop, pad, stretch = (to_pixels(fitted(wide, 40, fit))[0] for fit in ("crop", "pad", "stretch"))
    assert crop[:, 2:].max() == 0
    assert (pad[:9].max(), pad[31:].max()) == (0, 0), "black above and below"
    assert pad[12:28, :9].min() > 240
    assert pad[12:28, 12:].max() < 15
    assert stretch[:, :9].min() > 240
    assert stretch[:, 12:].max() < 15
