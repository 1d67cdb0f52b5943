"""An open round with a target and no people yet, and its model server: for all tests in which people take part."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import torch
import uvicorn
import yaml
from round_states import mark_opened
from torch import nn

from data.layout import SPLITS, Round, Workspace, pointer
from data.records import ImageSpec
from data.sets import digits
from data.shards import Images, write_candidates, write_images
from tasks.config.params import Params, read
from tasks.engine import checkpoint, inference
from tasks.labelling.client import LabelStudio
from tasks.pull import pull
from tasks.record.record import Record
from tasks.serving.model_server import app
from tasks.workspace.rounds import write_index
from tasks.workspace.services import Services


@dataclass(frozen=True)
class Play:
    """An open round 001 of a campaign that nobody else has."""

    round: Round
    params: Params
    spec: ImageSpec
    pool: Images

    @property
    def record(self) -> Record:
        """The record as it lies in the round's folder now."""
        return Record.read(self.round)


def make_round(folder: Path, checkout: Path, pool: Images | None = None, **changes: dict[str, object]) -> Play:
    """An open round 001 in a workspace of its own. pool: 60 digits unless given; keyword arguments change sections of
    params.yaml."""
    workspace = Workspace(folder)
    content = yaml.safe_load((checkout / "params.yaml").read_text())
    content["campaign"] = f"t-{uuid.uuid4().hex[:12]}"
    content["attack"]["count"] = 2
    content["collect"]["drawings"] = 4
    content["simulate"] |= {"annotators": 2, "validators": 3, "tries": 2}
    content["validate"]["probes"] = 0
    for section, values in changes.items():
        content[section] |= values
    round_ = workspace.round(1)
    round_.folder.mkdir(parents=True)
    round_.params.write_text(yaml.safe_dump(content))
    workspace.base.mkdir(parents=True)
    pool = pool or digits.load("train", root=folder, size=None, channels=None, seed=0).take(range(60))
    channels, size = int(pool.pixels_NCHW.shape[1]), int(pool.pixels_NCHW.shape[2])
    write_images(workspace.split("pool"), pool)
    splits = {
        "campaign": content["campaign"],
        "classes": list(pool.classes),
        "channels": channels,
        "size": size,
        "splits": {"pool": {"n": len(pool), "md5": ""}},
    }
    workspace.splits.write_text(json.dumps(splits))
    workspace.index.write_text('{"rounds": {}, "collected": {}}')
    card = checkpoint.Card("nsl_cnn", pool.classes, channels, size, 0)
    torch.manual_seed(0)
    workspace.round(0).folder.mkdir()
    checkpoint.save(workspace.round(0).challenger.model, card.build(), card)
    write_index(round_, "collected", {"target": "data/rounds/000/model.safetensors"})
    write_candidates(round_.attack, [])
    return Play(round_, read(round_.params), pool.spec, pool)


def pulled_now(studio: LabelStudio, round_: Round) -> int:
    """Read the record and pull; how many lines are new."""
    before = Record.read(round_)
    return len(pull(studio, before).lines) - len(before.lines)


def train(play: Play, images: Images, epochs: int = 2) -> nn.Module:
    """Train the target for some seconds, so that it knows what it sees."""
    path = play.round.workspace.round(0).challenger.model
    net, card = checkpoint.load(path)
    torch.manual_seed(0)
    images_NCHW, optimizer = inference.to_float(images.pixels_NCHW), torch.optim.Adam(net.parameters(), 2e-3)
    net.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(images_NCHW[chosen]), images.labels_N[chosen]).backward()
            optimizer.step()
    checkpoint.save(path, net.eval(), card)
    return net


def under_git(play: Play) -> None:
    """Put the round under Git, which says what is closed, and the splits, as after `dadc init`."""
    workspace = play.round.workspace
    root, pointers = workspace.root, [pointer(workspace.split(name)) for name in SPLITS]
    for path in pointers:
        path.touch()
    for command in (
        ["init", "--quiet"],
        ["add", "--", *map(str, (workspace.splits, *pointers))],
        ["-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "--quiet", "--message", "data"],
    ):
        subprocess.run(["git", *command], cwd=root, check=True)
    mark_opened(play.round)


@contextmanager
def model_server(root: Path) -> Iterator[Services]:
    """The model server of a workspace on a free port; the services that a client needs to find it."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app(root, "dadc", "secret"), log_level="warning"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.02)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        yield Services(model_url=url, model_user="dadc", model_password="secret", root=root)
    finally:
        server.should_exit = True
        thread.join(10)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until a server that was started answers there."""
    deadline = time.monotonic() + 120
    while not _answers(url):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, f"{url} does not answer"
        time.sleep(0.2)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=10).status_code == 200
    except httpx.TransportError:
        return False


class ModelProcess:
    """The model server of a workspace as `dadc up` starts it, to be killed and started again on its port."""

    def __init__(self, root: Path, log: Path, label_studio: Services) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url, self._log, self._root = f"http://127.0.0.1:{port}", log, root
        self.services = Services(model_url=self.url, model_user="dadc", model_password="secret", root=root)
        self._command = [sys.executable, "-m", "tasks.serving.model_server", "--port", str(port)]
        self._environment = {
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "LABEL_STUDIO_URL": label_studio.label_studio_url or "",
            "LABEL_STUDIO_API_KEY": label_studio.label_studio_token or "",
            "DADC_MODEL_USER": "dadc",
            "DADC_MODEL_PASSWORD": "secret",
        }

    def __enter__(self) -> ModelProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it and wait until it answers."""
        environment = {**os.environ, **self._environment}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._root, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        wait_for(f"{self.url}/health", self._process, self._log)

    def kill(self) -> None:
        """As when the machine takes its memory."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(30)
