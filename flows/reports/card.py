"""The page that goes with an exported model: what it is, what it takes, how it was made, and its figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from data.layout import Round

if TYPE_CHECKING:
    from tasks.config.params import Params

_FITS = {
    "crop": "the middle square of the picture, scaled",
    "pad": "the whole picture between black bars, scaled",
    "stretch": "the whole picture, its proportions changed to a square",
}
_FILES = {
    "model.onnx": "ONNX: `pixels` (uint8, N×{size}×{size}×{channels}) in, `probabilities` (N×{classes}) out",
    "model.pt2": "the same function for `torch.export.load`",
    "model.safetensors": "the weights, with a card under the metadata key `dadc`",
}


def card(round_: Round, params: Params, files: Sequence[str]) -> str:
    """README.md of an export, in Markdown."""
    lineage = json.loads(round_.lineage.read_text())
    metrics = json.loads(round_.challenger.metrics.read_text())
    splits = json.loads(round_.workspace.splits.read_text())
    classes, channels, size = splits["classes"], splits["channels"], splits["size"]
    about = {"size": size, "channels": channels, "classes": len(classes)}
    rows = [f"| `{name}` | {_FILES[name].format(**about)} |" for name in files]
    figures = [f"| {name} | {_share(figure)} | {figure['n']} |" for name, figure in _figures(metrics)]
    threat = params.threat
    return f"""# {params.campaign}, round {round_.name}

An image classifier, hardened in rounds of dynamic adversarial data collection by dadc.

| | |
|---|---|
| network | `{params.model.name}` |
| classes, in the order of the outputs | {", ".join(f"`{name}`" for name in classes)} |
| pixels | {size}×{size}, {"grey" if channels == 1 else "RGB"}, 8 bits, {_FITS[params.data.fit]} |
| threat model | {threat.norm}, ε {threat.epsilon} (pixels in [0, 1]) |
| code | commit `{lineage["code"]}` |

| file | what it is |
|---|---|
{chr(10).join(rows)}

## Figures

On the campaign's own test split; accuracy in per cent with a 95% interval. They say nothing about other data.

| | accuracy | images |
|---|---|---|
{chr(10).join(figures)}

## Use

```python
import json, numpy, onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession("model.onnx")
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
image = Image.open("photo.png").convert("{"L" if channels == 1 else "RGB"}").resize(({size}, {size}))
pixels = numpy.asarray(image, dtype="uint8").reshape(1, {size}, {size}, {channels})
probabilities = session.run(["probabilities"], {{"pixels": pixels}})[0][0]
print(classes[probabilities.argmax()], probabilities.max())
```
"""


def _figures(metrics: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    robust, ood = metrics["robust"], metrics["ood"]
    named = [("clean", metrics["clean"])]
    named += [(f"under {name}", robust[name]) for name in robust if name != "worst"]
    named += [("worst case of all attacks", robust["worst"])] if "worst" in robust else []
    named += [(f"shifted: {name}", ood[name]) for name in ood if name != "mean"]
    named += [("mean over the shifts", ood["mean"])] if "mean" in ood else []
    return named


def _share(figure: Mapping[str, Any]) -> str:
    return f"{figure['accuracy']:.1%} ({figure['low']:.1%} to {figure['high']:.1%})"
