"""Malformed drawings, pictures and votes: each part of a sound one replaced by what may be sent in its place."""

from __future__ import annotations

import base64
import copy
import io
import json
import struct
import zlib
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from tasks.labelling import drawing
from tasks.labelling.projects import INTENDED, SEEN

PREFIX = "data:image/png;base64,"
EVIL = {
    "a script": "<script>alert(1)</script>",
    "an image tag": "<img src=x onerror=alert(1)>\"'",
    "control characters": "\0\x07\x1b[31m\r\n",
    "text turned around": "\u202e3\u2066",
    "a path": "../../../../etc/passwd\0.png",
    "an address": "http://127.0.0.1:1/secret<",
    "a long text": "A" * 2**17,
}
ODD: dict[str, Any] = {
    "null": None,
    "true": True,
    "a number": -1e308,
    "a large number": 10**400,
    "an empty text": "",
    "a list": [],
    "a list in lists": [[[]]],
    "an object": {"value": {"value": {}}},
    "a deep list": json.loads("[" * 200 + "]" * 200),
    "a deep object": json.loads('{"a":' * 200 + "1" + "}" * 200),
}
PATHS: dict[str, tuple[str | int, ...]] = {
    "the ink": (0,),
    "its tag": (0, "from_name"),
    "its type": (0, "type"),
    "its value": (0, "value"),
    "its picture": (0, "value", "imageDataURL"),
    "the class": (1,),
    "the class's tag": (1, "from_name"),
    "the class's value": (1, "value"),
    "the classes": (1, "value", "choices"),
    "the one class": (1, "value", "choices", 0),
}
STRINGS = {name: PATHS[name] for name in ("its tag", "its type", "its picture", "the class's tag", "the one class")}
STRINGS |= {
    f"{field} of the {part}": (n, field) for n, part in enumerate(("ink", "class")) for field in ("id", "to_name")
}
STRINGS |= {f"origin of the {part}": (n, "origin") for n, part in enumerate(("ink", "class"))}


@cache
def _sound() -> str:
    alpha = np.zeros((280, 280), np.uint8)
    alpha[60:220, 120:160] = 255
    return json.dumps([drawing.region(alpha, "ink"), drawing.chosen(INTENDED, "class", "3")])


def sound() -> list[Any]:
    """A good drawing of a class."""
    found: list[Any] = json.loads(_sound())
    return found


def voted(name: Any = "3") -> list[Any]:
    return [drawing.chosen(SEEN, "seen", name)]


def at(result: list[Any], path: tuple[str | int, ...], value: Any) -> list[Any]:
    """The result with something else at a place."""
    place: Any = result
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return result


def png(array: Any, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format=kind)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def header(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG that promises so many pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IEND", b"")


def pictures() -> Iterator[tuple[str, bytes]]:
    """What is sent for a PNG."""
    full = np.full((280, 280, 4), 255, np.uint8)
    good = png(full)
    body = chunk(b"IDAT", zlib.compress(b"\0" * 10**6))
    yield "nothing", b""
    for kind in ("JPEG", "GIF", "BMP", "WEBP", "TIFF"):
        yield f"a {kind}", png(full[..., :3], kind)
    yield "an SVG", b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'
    yield "a script", b"#!/bin/sh\nrm -rf /\n"
    yield "a pickle", b"\x80\x04\x95\x10\0\0\0\0\0\0\0\x8c\x05posix\x94."
    for side in (0, 281, 20_000, 60_000, 2**31 - 1):
        yield f"a bomb of {side} pixels", header(side, side, body)
    yield "20,000 pixels wide", png(np.full((1, 20_000, 4), 255, np.uint8))
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(b"\0" * 20_000_000))
    yield "a bomb of text", header(280, 280, text, body)
    yield "no pixels", header(280, 280)
    yield "pixels that are none", header(280, 280, chunk(b"IDAT", b"no zlib stream at all"))
    for width, height in ((1, 1), (28, 28), (279, 280), (280, 279), (560, 560), (10, 3000)):
        yield f"{width}×{height}", png(np.full((height, width, 4), 255, np.uint8))
    for mode in ("RGB", "L", "1", "P"):
        buffer = io.BytesIO()
        Image.fromarray(full[..., 0]).convert(mode).save(buffer, format="PNG")
        yield f"mode {mode}, without alpha", buffer.getvalue()
    for name, alpha in (("empty", 0), ("faint", 120)):
        yield f"{name} ink", png(np.dstack([full[..., :3], np.full((280, 280), alpha, np.uint8)]))
    rng = np.random.default_rng(0)
    for n in range(8):
        yield f"cut off, {n}", good[: int(rng.integers(9, len(good) - 60))]
    for n in range(8):
        broken = bytearray(good)
        broken[int(rng.integers(16, 33))] ^= int(rng.integers(1, 256))  # the header and its checksum
        yield f"a broken header, {n}", bytes(broken)


def drawings() -> dict[str, list[Any]]:
    """Every malformed drawing that is at least a list."""
    made: dict[str, list[Any]] = {
        "no region": [],
        "no ink": sound()[1:],
        "no class": sound()[:1],
        "two classes": [*sound(), drawing.chosen(INTENDED, "other", "4")],
        "the same class twice": [*sound(), sound()[1]],
        "two classes at once": at(sound(), PATHS["the classes"], ["3", "4"]),
        "a region of another tag's": [*sound(), {"from_name": "mask", "type": "brushlabels", "value": {"rle": [1]}}],
        "a rectangle": [*sound(), {"from_name": "box", "type": "rectanglelabels", "value": {"x": 1}}],
        "a vote": [*sound(), *voted()],
        "a broken region among sound ones": [*sound(), at(sound(), PATHS["its picture"], PREFIX + "AAAA")[0]],
        "too many regions": [sound()[1], *sound()[:1] * (drawing.MAX_REGIONS + 1)],
    }
    for name, odd in ODD.items():
        for place, path in PATHS.items():
            made[f"{name} as {place}"] = at(sound(), path, copy.deepcopy(odd))
    for name, text in EVIL.items():
        for place, path in STRINGS.items():
            made[f"{name} as {place}"] = at(sound(), path, text)
    for path in (
        *((0, f) for f in ("from_name", "type", "value")),
        (0, "value", "imageDataURL"),
        (1, "value", "choices"),
    ):
        holds: Any = (found := sound())
        for step in path[:-1]:
            holds = holds[step]
        del holds[path[-1]]
        made[f"without {path}"] = found
    for name in ("10", "-1", "NaN", " 3", "3 ", "3\u200b", "\uff13", "three", "unreadable", "3\0"):
        made[f"class {name!r}"] = at(sound(), PATHS["the one class"], name)
    for name, blob in pictures():
        made[f"picture: {name}"] = at(sound(), PATHS["its picture"], PREFIX + base64.b64encode(blob).decode())
    good = sound()[0]["value"]["imageDataURL"].removeprefix(PREFIX)
    for name, url in {
        "no base64": PREFIX + "***",
        "spaces in base64": PREFIX + good[:40] + " " + good[40:],
        "base64 of addresses": PREFIX + "_-_-" + good,
        "base64 without its end": PREFIX + good[:-5],
        "another kind of picture": "data:image/svg+xml;base64," + good,
        "a prefix in capitals": PREFIX.upper() + good,
        "a prefix twice": PREFIX * 2 + good,
        "a file": "file:///etc/passwd",
        "an address": "http://127.0.0.1:1/a.png",
        "a script": "javascript:alert(1)",
        "too long": PREFIX + "A" * (drawing.MAX_TEXT + 4),
    }.items():
        made[f"address: {name}"] = at(sound(), PATHS["its picture"], url)
    return made


def votes() -> dict[str, list[Any]]:
    """Every malformed vote that is at least a list."""
    made = {"nothing": [], "two": [*voted("3"), *voted("4")], "both": voted() + at(voted(), (0, "from_name"), "x")}
    made["a drawing"] = sound()
    for name in ("10", "", " 3", "Unreadable", "3\0", *EVIL.values()):
        made[f"class {name[:30]!r}"] = voted(name)
    for name, odd in ODD.items():
        for path in ((0, "value"), (0, "value", "choices"), (0, "value", "choices", 0), (0, "from_name"), (0, "type")):
            made[f"{name} at {path}"] = at(voted(), path, copy.deepcopy(odd))
    return made


GOOD = [f"good {n}" for n in range(4)]
SOUND = [*GOOD, "changed by its author", "changed by another", "deleted", "two drafts", "two drafts, then submitted"]

# What only the server's own interface takes, as the text of a body.
BODIES = {
    "not JSON": "{{",
    "a list": "[1]",
    "result is null": '{"result": null}',
    "result is an object": '{"result": {"a": 1}}',
    "result is a number": '{"result": 7}',
    "result is text": '{"result": "<script>"}',
    "no result": "{}",
    "regions that are null": '{"result": [null]}',
    "regions that are text": '{"result": ["x", 1, [[]]]}',
    "NaN": '{"result": [{"value": NaN}]}',
    "more than a number can be": '{"result": [{"value": 1e999}]}',
    "a number of 5,000 digits": '{"result": [{"value": ' + "9" * 5000 + "}]}",
    "800 lists deep": '{"result": [{"value": ' + "[" * 800 + "]" * 800 + "}]}",
    "2,000 lists deep": '{"result": [{"value": ' + "[" * 2000 + "]" * 2000 + "}]}",
    "half a character": '{"result": [{"value": {"text": "\\ud800"}}]}',
    "an endless time": '{"result": [], "lead_time": 1e999}',
    "skipped": '{"result": ' + _sound() + ', "was_cancelled": true}',
}
