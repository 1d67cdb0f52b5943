"""The page as Gradio alone would make it, to compare with: a Sketchpad, whose change is an event in Gradio's queue."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import torch

from data.layout import Workspace
from tasks.labelling import drawing
from tasks.serving.target import Target


def main(root: Path, port: int) -> None:
    """Serve on 127.0.0.1; the event is called `answer` and takes what a Sketchpad sends."""
    torch.set_num_threads(1)
    target = Target(Workspace(root))
    _, card = target.get()

    def answer(sketch: dict[str, Any]) -> dict[str, float]:
        alpha = np.asarray(sketch["composite"])[..., 3]
        given = target.answer(torch.from_numpy(drawing.reduce(alpha, card.size))[None])
        return dict(zip(card.classes, given.probabilities, strict=True))

    with gr.Blocks(analytics_enabled=False) as blocks:
        canvas, says = gr.Sketchpad(type="numpy", image_mode="RGBA"), gr.Label()
        canvas.change(answer, canvas, says, api_name="answer", concurrency_limit=2)
    blocks.launch(server_name="127.0.0.1", server_port=port, quiet=True, ssr_mode=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
