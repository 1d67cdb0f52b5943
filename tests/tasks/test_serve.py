"""The model server over real HTTP, and asked through a real Label Studio."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from data.shards import encode_png
from tasks import checkpoint, ink, projects
from tasks.labelling import LabelStudio
from tasks.publish import attach_model, publish_drawing
from tasks.serve import MAX_BODY
from tasks.services import Services
from tasks.target import current
from tasks.workspace import write_index

LOG_IN = ("dadc", "secret")


@pytest.fixture
def served(open_round: Callable[..., Any], model_server: Callable[[Path], Services]) -> tuple[Any, str]:
    play = open_round()
    url = model_server(play.round.workspace.root).model_url
    assert url is not None
    return play, url


def test_the_answer_is_the_target_s(served: tuple[Any, str]) -> None:
    play, url = served
    net, _ = checkpoint.load(play.round.workspace.round(0).model)
    answers, probabilities = checkpoint.answer(net, play.pool.pixels_NCHW[:5])
    for n in range(5):
        said = httpx.post(f"{url}/answer", content=encode_png(play.pool.pixels_NCHW[n]), auth=LOG_IN).json()
        assert said["answer"] == int(answers[n])
        assert said["class"] == play.pool.classes[said["answer"]]
        assert said["probabilities"] == pytest.approx(probabilities[n].tolist())
        assert said["probability"] == max(said["probabilities"])
        assert said["round"] == 0


@pytest.mark.parametrize("path", ["answer", "predict", "setup"])
@pytest.mark.parametrize("log_in", [None, ("dadc", "wrong"), ("other", "secret"), ("ü", "ü")])
def test_everything_but_health_wants_the_password(served: tuple[Any, str], path: str, log_in: Any) -> None:
    _, url = served
    assert httpx.post(f"{url}/{path}", json={}, auth=log_in).status_code == 401
    assert httpx.get(f"{url}/health").json()["status"] == "UP"


def test_label_studios_webhook_leaves_a_hint_and_nothing_else(served: tuple[Any, str]) -> None:
    play, url = served
    hint = play.round.workspace.hint
    assert not hint.exists()
    assert httpx.post(f"{url}/webhook", json={"action": "ANNOTATION_CREATED", "path": "/etc/passwd"}).json() == {}
    assert hint.read_bytes() == b""


def test_bad_bodies_are_refused(served: tuple[Any, str]) -> None:
    _, url = served

    def post(content: Any, path: str = "answer") -> int:
        kind = {"Content-Type": "application/json" if path == "predict" else "image/png"}
        return httpx.post(f"{url}/{path}", content=content, auth=LOG_IN, headers=kind).status_code

    assert post(b"") == 422
    assert post(b"GIF89a") == 422
    assert post(encode_png(torch.zeros(1, 20, 28, dtype=torch.uint8))) == 422
    assert post(b"x" * (MAX_BODY + 1)) == 413
    assert post(b"[" * 100_000, "predict") in (400, 422)

    def endless() -> Any:
        for _ in range(40):
            yield b"x" * 2**16

    assert post(endless()) == 413
    for body in ("[]", "1", '{"tasks": {}}', '{"tasks": [1], "params": {"context": {"result": [1]}}}'):
        answer = httpx.post(f"{url}/predict", content=body, auth=LOG_IN, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()) == (200, {"results": []})


def test_another_target_is_seen_at_once(served: tuple[Any, str]) -> None:
    play, url = served
    workspace = play.round.workspace
    picture = encode_png(play.pool.pixels_NCHW[0])
    before = httpx.post(f"{url}/answer", content=picture, auth=LOG_IN).json()
    card = checkpoint.Card("nsl_cnn", play.pool.classes, 1, 28, 1)
    torch.manual_seed(1)
    checkpoint.save(play.round.model, card.build(), card)
    write_index(play.round, "rounds", {"start": "data/rounds/001/train.safetensors"})
    assert current(workspace) == workspace.round(0).model, "a challenger is not yet a target"
    second = workspace.round(2)
    write_index(second, "collected", {"target": "data/rounds/001/model.safetensors"})
    after = httpx.post(f"{url}/answer", content=picture, auth=LOG_IN).json()
    assert (before["round"], after["round"]) == (0, 1)
    assert before["probabilities"] != after["probabilities"]


def test_without_a_network_it_says_so(served: tuple[Any, str]) -> None:
    play, url = served
    play.round.workspace.round(0).model.unlink()
    answer = httpx.post(f"{url}/answer", content=encode_png(play.pool.pixels_NCHW[0]), auth=LOG_IN)
    assert answer.status_code == 503
    assert "dadc open" in answer.json()["detail"]
    assert httpx.post(f"{url}/setup", json={}, auth=LOG_IN).json() == {"model_version": "none"}


def test_health_answers_while_it_is_busy(served: tuple[Any, str]) -> None:
    play, url = served
    picture = encode_png(play.pool.pixels_NCHW[0])
    until = time.monotonic() + 2

    def ask() -> None:
        with httpx.Client(auth=LOG_IN) as client:
            while time.monotonic() < until:
                assert client.post(f"{url}/answer", content=picture).status_code == 200

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    waits = []
    while time.monotonic() < until:
        started = time.monotonic()
        assert httpx.get(f"{url}/health", timeout=10).status_code == 200
        waits.append(time.monotonic() - started)
    for asker in askers:
        asker.join()
    assert max(waits) < 3


def test_label_studio_asks_it_about_the_drawing(
    studio: LabelStudio,
    open_round: Callable[..., Any],
    model_server: Callable[[Path], Services],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    play = open_round()
    services = model_server(play.round.workspace.root)
    monkeypatch.setenv("LABEL_STUDIO_URL", studio.url)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", studio._token)
    publish_drawing(studio, play.round, play.params, play.splits)
    attach_model(studio, play.round, play.params, services)
    attach_model(studio, play.round, play.params, services)
    project = studio.find(projects.title(play.params.campaign, play.round, "draw"))
    assert project is not None
    (backend,) = studio._sdk.ml.list(project=project)
    task = studio.tasks(project)["001/draw/0000"].id
    ann = studio.person(f"ann.{play.params.campaign}@example.org", "correct-horse-7")
    alpha = np.zeros((280, 280), np.uint8)
    alpha[60:220, 120:160] = 255
    drawing = [ink.region(alpha, "ink")]
    field = {"from_name": "model_says", "to_name": "note", "type": "textarea", "value": {"text": ["?"]}}

    def ask(context: Any) -> Any:
        path = f"{studio.url}/api/ml/{backend.id}/interactive-annotating"
        body = {"task": task, "context": context}
        return httpx.post(path, json=body, headers={"Authorization": f"Token {studio._token}"}, timeout=60).json()

    saved = threading.Timer(1.5, ann.save_draft, (task, drawing))
    saved.start()
    said = ask({"result": [field]})["data"]
    saved.join()
    net, card = checkpoint.load(play.round.workspace.round(0).model)
    answers, probabilities = checkpoint.answer(net, ink.drawing(drawing, 28, 1)[None])
    (item,) = said["result"]
    assert item["from_name"] == "model_says"
    wanted = f"Model says {card.classes[int(answers[0])]} ({float(probabilities.max()):.0%})"
    assert item["value"]["text"] == [wanted]
    assert said["score"] == pytest.approx(float(probabilities.max()), abs=1e-4)
