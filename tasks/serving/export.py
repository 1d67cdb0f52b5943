"""A checkpoint as files that run without this project: ONNX, safetensors with its card, and torch's own pt2.

Pixels go in as image libraries hold them, uint8 of shape N×H×W×C, and probabilities come out; scaling, normalization
and softmax are in the file, and so are the class names. Every file is checked on the test split before it counts.
"""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from data.files import write_whole
from data.shards import Images
from tasks.engine import inference
from tasks.engine.checkpoint import Card, load

TOLERANCE = 1e-4  # of a probability: what another engine's order of sums may change
_BATCH = 256  # images


@dataclass(frozen=True)
class Check:
    """How an exported file answers, beside torch, on the same images."""

    file: Path
    n: int  # images
    same_class: int  # of them
    largest_difference: float  # of a probability

    def __str__(self) -> str:
        classes = "the same class on all" if self.same_class == self.n else f"the same class on {self.same_class}"
        return (
            f"{self.file}: {classes} {self.n} test images, probabilities within {self.largest_difference:.1e} of torch"
        )


class PixelsToProbabilities(nn.Module):
    """uint8 pixels N×H×W×C → probabilities N×K."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixels_NHWC: torch.Tensor) -> torch.Tensor:
        images_NCHW = pixels_NHWC.permute(0, 3, 1, 2).to(torch.float32) / 255
        logits_NK: torch.Tensor = self.net(images_NCHW)
        return logits_NK.softmax(1)


def export(checkpoint: Path, folder: Path, test: Images, about: dict[str, Any], *, torch_file: bool) -> list[Check]:
    """Write model.onnx and model.safetensors, and model.pt2 if `torch_file`, into folder, and check each on test.

    about: what the ONNX file's metadata says besides the classes: campaign, round, fit, … ValueError if a file answers
    another class than torch, or a probability that is off by more than TOLERANCE; that file is not kept.
    """
    net, card = load(checkpoint)
    card.check(test, "the test split")
    folder.mkdir(parents=True, exist_ok=True)
    expected_NK = inference.answer(net, test.pixels_NCHW)[1].numpy()
    write_whole(folder / "model.safetensors", checkpoint.read_bytes())
    copy = PixelsToProbabilities(load(folder / "model.safetensors")[0]).eval()
    checks = [_check(folder / "model.safetensors", expected_NK, test, lambda pixels_NHWC: copy(pixels_NHWC).numpy())]
    program = _program(PixelsToProbabilities(net).eval(), card)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        draft = Path(scratch) / "model.onnx"
        _write_onnx(draft, program, card, about)
        checks.append(_check(folder / "model.onnx", expected_NK, test, _onnx_runtime(draft)))
        draft.replace(folder / "model.onnx")
        if torch_file:
            draft = Path(scratch) / "model.pt2"
            _write_pt2(draft, program, card, about)
            checks.append(_check(folder / "model.pt2", expected_NK, test, _pt2(draft)))
            draft.replace(folder / "model.pt2")
    return checks


def _program(module: nn.Module, card: Card) -> torch.export.ExportedProgram:
    pixels_NHWC = torch.zeros(2, card.size, card.size, card.channels, dtype=torch.uint8)
    with torch.no_grad():
        return torch.export.export(module, (pixels_NHWC,), dynamic_shapes=({0: torch.export.Dim("images")},))


def _write_onnx(path: Path, program: torch.export.ExportedProgram, card: Card, about: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own deprecated calls
        onnx = torch.onnx.export(program, input_names=["pixels"], output_names=["probabilities"], verbose=False)
    if onnx is None:
        raise RuntimeError("torch's ONNX exporter returned no program")
    metadata = {**about, "classes": card.classes, "channels": card.channels, "size": card.size, "network": card.model}
    for key, value in metadata.items():
        onnx.model.metadata_props[key] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    onnx.save(str(path))


def _write_pt2(path: Path, program: torch.export.ExportedProgram, card: Card, about: dict[str, Any]) -> None:
    metadata = {**about, "classes": card.classes, "size": card.size, "channels": card.channels}
    extra = {"dadc.json": json.dumps(metadata, ensure_ascii=False)}
    logging.getLogger("torch.export").setLevel(logging.ERROR)
    torch.export.save(program, path, extra_files=extra)


def _onnx_runtime(path: Path) -> Callable[[torch.Tensor], np.ndarray[Any, Any]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda pixels_NHWC: np.asarray(session.run(["probabilities"], {"pixels": pixels_NHWC.numpy()})[0])


def _pt2(path: Path) -> Callable[[torch.Tensor], np.ndarray[Any, Any]]:
    module = torch.export.load(path).module()
    return lambda pixels_NHWC: module(pixels_NHWC).detach().numpy()


def _check(
    path: Path,
    expected_NK: np.ndarray[Any, Any],
    test: Images,
    answer: Callable[[torch.Tensor], np.ndarray[Any, Any]],
) -> Check:
    """ValueError if the answers are not torch's."""
    with torch.no_grad():
        parts = [
            answer(test.pixels_NCHW[at : at + _BATCH].permute(0, 2, 3, 1).contiguous())
            for at in range(0, len(test), _BATCH)
        ]
    got_NK = np.concatenate(parts)
    same_class = int((got_NK.argmax(1) == expected_NK.argmax(1)).sum())
    check = Check(path, len(test), same_class, float(np.abs(got_NK - expected_NK).max()))
    if check.largest_difference > TOLERANCE or not np.isfinite(got_NK).all():
        raise ValueError(
            f"expected {path.name} to answer as torch does (probabilities within {TOLERANCE}), got {check}; "
            "the file was not kept"
        )
    return check
