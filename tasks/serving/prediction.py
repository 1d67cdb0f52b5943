"""What a checkpoint answers to image files: class, probability, and where it looks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from data.decoding import FORMATS, Fit, decode, fitted, to_pixels
from data.files import written_whole
from data.names import printable
from data.shards import to_image
from tasks.engine import inference
from tasks.engine.checkpoint import Card, load
from tasks.engine.explanations import activation_maps

_SUFFIXES = frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS)
_BATCH = 64  # files that are read before the network is asked
_MAP_SIDE = 224  # pixels of an explanation, at least


@dataclass(frozen=True)
class Prediction:
    """The answer to one file, or why there is none."""

    file: Path
    class_: str | None
    probability: float | None  # of class_, 0 to 1
    probabilities: dict[str, float]  # of every class; empty where the file has no answer
    error: str | None = None
    explanation: Path | None = None  # the PNG that shows where the network looks


def image_files(paths: Iterable[Path]) -> list[Path]:
    """The files named, and of a folder all images below it, in the order of their names.

    FileNotFoundError for a path that does not exist; ValueError for a folder without images.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            within = sorted(each for each in path.rglob("*") if each.suffix.lower() in _SUFFIXES and each.is_file())
            if not within:
                raise ValueError(f"expected images in {printable(path)} ({', '.join(sorted(_SUFFIXES))}), found none")
            files += within
        elif path.exists():
            files.append(path)
        else:
            raise FileNotFoundError(f"expected an image file or a folder at {printable(path)}, and there is none")
    return files


def predict(checkpoint: Path, files: Iterable[Path], fit: Fit, explain: Path | None = None) -> Iterator[Prediction]:
    """The network's answer to each file, in order; a file that is no image gets its error and stops nobody else.

    Every file is decoded, turned upright and fitted as the campaign's own images are. explain: a folder, made if it
    does not exist, for a PNG of each file beside its Grad-CAM map (arXiv:1610.02391); ValueError before the first
    answer if the network has no convolution to draw it from.
    """
    net, card = load(checkpoint)
    if explain is not None:
        blank = torch.zeros(1, card.channels, card.size, card.size)
        activation_maps(net, blank, torch.zeros(1, dtype=torch.int64))
        explain.mkdir(parents=True, exist_ok=True)
    remaining = list(files)
    names = _map_names(remaining)
    for start in range(0, len(remaining), _BATCH):
        yield from _answers(net, card, remaining[start : start + _BATCH], fit, explain, names)


def _answers(
    net: torch.nn.Module, card: Card, files: list[Path], fit: Fit, explain: Path | None, names: dict[Path, str]
) -> Iterator[Prediction]:
    pixels: dict[Path, torch.Tensor] = {}
    errors: dict[Path, str] = {}
    for file in files:
        try:
            pixels[file] = to_pixels(fitted(decode(file, card.channels, least=card.size), card.size, fit))
        except ValueError as error:
            errors[file] = str(error)
    row = {file: index for index, file in enumerate(pixels)}
    if pixels:
        pixels_NCHW = torch.stack(list(pixels.values()))
        answers_N, probabilities_NK = inference.answer(net, pixels_NCHW)
        maps_NHW = None if explain is None else activation_maps(net, inference.to_float(pixels_NCHW), answers_N)
    for file in files:
        if file in errors:
            yield Prediction(file, None, None, {}, errors[file])
            continue
        index = row[file]
        answer, probabilities_K = int(answers_N[index]), probabilities_NK[index].tolist()
        picture = None
        if explain is not None and maps_NHW is not None:
            picture = explain / names[file]
            _write_map(picture, pixels[file], maps_NHW[index])
        yield Prediction(
            file,
            card.classes[answer],
            probabilities_K[answer],
            dict(zip(card.classes, probabilities_K, strict=True)),
            explanation=picture,
        )


def _map_names(files: list[Path]) -> dict[Path, str]:
    """A PNG's name for each file; files of one name in two folders are told apart by a number."""
    taken: dict[str, int] = {}
    names = {}
    for file in files:
        taken[file.stem] = count = taken.get(file.stem, 0) + 1
        names[file] = f"{file.stem}.png" if count == 1 else f"{file.stem}-{count}.png"
    return names


def _write_map(path: Path, pixels_CHW: torch.Tensor, map_HW: torch.Tensor) -> None:
    """The image as the network sees it, and beside it in grey under red, where the class's logit comes from."""
    scale = max(1, _MAP_SIDE // pixels_CHW.shape[-1])
    picture = to_image(pixels_CHW).convert("RGB")
    grey_HW1 = np.asarray(picture.convert("L"), dtype=np.float32)[..., None] * 0.6
    share_HW1 = map_HW.numpy()[..., None] * 0.75
    overlay = grey_HW1 * (1 - share_HW1) + np.array([255, 40, 40], dtype=np.float32) * share_HW1
    side = Image.fromarray(overlay.round().astype(np.uint8))
    width, height = picture.width * scale, picture.height * scale
    sheet = Image.new("RGB", (2 * width, height))
    for column, part in enumerate((picture, side)):
        sheet.paste(part.resize((width, height), Image.Resampling.NEAREST), (column * width, 0))
    with written_whole(path) as file:
        sheet.save(file, "PNG")
