"""The page of the players: from a drawing sent to the answer received, eight players at once, over HTTP on loopback.

The server is the one that `dadc play` starts, in a process of its own. A player sends a drawing that has grown by a
stroke, waits for the answer, and draws for 0.2 to 0.5 s; every other player has asked to see where the model looks. The
page's own part, the PNG made and the bars drawn, is some milliseconds and measured in tests/browser.

For comparison: the same without any pause, and the same drawings through a Gradio Sketchpad and its event queue.
"""

from __future__ import annotations

import io
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import torch
from PIL import Image

from benchmarks._frame import Measured, main
from data.layout import Workspace
from tasks.engine import checkpoint
from tasks.labelling import drawing
from tasks.simulation import strokes

PLAYERS = 8
ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 90.0  # seconds until a server must answer
Ask = Callable[[httpx.Client, bytes, bool], None]


def workspace(folder: Path) -> Workspace:
    """A campaign whose round 001 is open, with an untrained target of 28×28 pixels."""
    made = Workspace(folder)
    made.round(0).folder.mkdir(parents=True)
    made.round(1).folder.mkdir()
    made.round(1).params.write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    card = checkpoint.Card("nsl_cnn", tuple(str(digit) for digit in range(10)), 1, 28, 0)
    torch.manual_seed(0)
    checkpoint.save(made.round(0).challenger.model, card.build(), card)
    index = {"rounds": {}, "collected": {"001": {"target": "data/rounds/000/model.safetensors"}}}
    made.index.write_text(json.dumps(index), encoding="utf-8")
    return made


def drawings(count: int) -> list[bytes]:
    """PNGs as the canvas makes them: white ink in an alpha channel, one stroke more each time, up to four."""
    rng, found = np.random.default_rng(0), []
    for number in range(count):
        if number % 4 == 0:
            lines: list[strokes.Points] = []
        lines.append(np.cumsum(rng.normal(0, 0.04, (40, 2)), axis=0) % 0.9 + 0.05)
        alpha = strokes.redraw(lines, drawing.canvas_size(28), 0.0, np.random.default_rng(1))
        pixels = np.full((*alpha.shape, 4), 255, dtype=np.uint8)
        pixels[..., 3] = alpha
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG")
        found.append(buffer.getvalue())
    return found


@contextmanager
def server(command: list[str], port: int, ready: str) -> Iterator[httpx.Client]:
    """A server in a process of its own, once it answers at `ready`."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "LABEL_STUDIO_URL": "http://127.0.0.1:9",  # nobody listens: nothing is flagged here
        "LABEL_STUDIO_API_KEY": "none",
        "GRADIO_ANALYTICS_ENABLED": "False",
    }
    process = subprocess.Popen([sys.executable, *command], env=environment, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
            began = time.monotonic()
            while True:
                try:
                    if client.get(ready).status_code == 200:
                        break
                except httpx.HTTPError:
                    pass
                if process.poll() is not None or time.monotonic() - began > PATIENCE:
                    raise RuntimeError(f"{' '.join(command)[:60]} … was to answer at {url}{ready} and does not")
                time.sleep(0.1)
            yield client
    finally:
        process.terminate()
        process.wait(20)


def play(url: str, ask: Ask, pictures: list[bytes], strokes_each: int, pause: tuple[float, float]) -> list[float]:
    """Milliseconds of every answer, sorted; the first of each player, who connects with it, is left out."""
    spent: list[float] = []
    faults: list[BaseException] = []
    start = threading.Barrier(PLAYERS)

    def one(number: int) -> None:
        rng = random.Random(number)
        try:
            with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
                ask(client, pictures[0], number % 2 == 1)
                start.wait(60)
                for turn in range(strokes_each):
                    time.sleep(rng.uniform(*pause))
                    began = time.perf_counter()
                    ask(client, pictures[(number + turn) % len(pictures)], number % 2 == 1)
                    spent.append(1000 * (time.perf_counter() - began))
        except BaseException as error:
            faults.append(error)
            start.abort()

    players = [threading.Thread(target=one, args=(number,)) for number in range(PLAYERS)]
    for player in players:
        player.start()
    for player in players:
        player.join()
    if faults:
        raise faults[0]
    return sorted(spent)


def ask_page(client: httpx.Client, picture: bytes, where: bool) -> None:
    """One stroke's answer from the page's own endpoint."""
    answer = client.post(f"/play/answer?drawing=d&where={int(where)}", content=picture)
    answer.raise_for_status()
    assert len(answer.json()["probabilities"]) == 10
    assert ("where" in answer.json()) == where


def ask_sketchpad(client: httpx.Client, picture: bytes, where: bool) -> None:
    """One stroke's answer as Gradio's own page gets it: the images uploaded, an event joined, its stream read."""
    files = [("files", (name, picture, "image/png")) for name in ("layer.png", "composite.png")]
    paths = client.post("/gradio_api/upload", files=files).raise_for_status().json()
    layer, composite = ({"path": path, "meta": {"_type": "gradio.FileData"}} for path in paths)
    sketch = {"background": None, "layers": [layer], "composite": composite}
    event = client.post("/gradio_api/call/answer", json={"data": [sketch]}).raise_for_status().json()["event_id"]
    with client.stream("GET", f"/gradio_api/call/answer/{event}") as stream:
        said = stream.read().decode()
    assert "event: complete" in said, said[:300]


def share(sorted_ms: list[float], part: float) -> float:
    """The value under which that part of them lies."""
    return sorted_ms[min(len(sorted_ms) - 1, int(part * len(sorted_ms)))]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def measure(quick: bool) -> list[Measured]:
    """p50 and p99 of the answers, in milliseconds."""
    torch.set_num_threads(1)
    turns, pictures = (8 if quick else 60), drawings(16)
    found: list[Measured] = []
    with tempfile.TemporaryDirectory() as name:
        root = str(workspace(Path(name)).root)
        port = free_port()
        starts = "import sys; from pathlib import Path; from flows.play import play; "
        starts += "play(Path(sys.argv[1]), int(sys.argv[2]))"
        with server(["-c", starts, root, str(port)], port, "/play/health") as client:
            at = str(client.base_url)
            calm = play(at, ask_page, pictures, turns, (0.2, 0.5))
            hasty = play(at, ask_page, pictures, turns, (0.0, 0.0))
        queue: list[float] = []
        if not quick:
            port = free_port()
            with server(["-m", "benchmarks._sketchpad", root, str(port)], port, "/config") as client:
                queue = play(str(client.base_url), ask_sketchpad, pictures, turns // 2, (0.2, 0.5))
    for name, spent, targets in (
        ("answer to a stroke", calm, (150, 400)),
        ("without a pause", hasty, (None, None)),
        ("Gradio's Sketchpad", queue, (None, None)),
    ):
        for part, target in zip((0.5, 0.99), targets, strict=True):
            if spent:
                found.append(Measured(f"{name}, p{100 * part:.0f}", share(spent, part), "ms", target, "lower"))
    return found


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
