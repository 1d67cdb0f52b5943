"""The model server over real HTTP, and asked through a real Label Studio."""

from __future__ import annotations

import base64
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from bad_networks import Fault, misbehaving
from open_round import ModelProcess

from data.shards import encode_png
from tasks.engine import checkpoint, inference
from tasks.labelling import drawing, projects
from tasks.labelling.account import Account
from tasks.labelling.client import LabelStudio
from tasks.publish import attach_model, publish_drawing
from tasks.serving import model_server as serve
from tasks.serving.model_server import MAX_BODY
from tasks.serving.target import current
from tasks.workspace.rounds import write_index
from tasks.workspace.services import Services, find_services

LOG_IN = ("dadc", "secret")


def asks(region: str, *text: str) -> dict[str, Any]:
    """The field in which one asks, as the page sends it and saves it in the draft."""
    return {"id": region, "from_name": "ask", "to_name": "note", "type": "textarea", "value": {"text": [*text]}}


def bar(x: int) -> list[dict[str, Any]]:
    """An upright bar that begins at so many pixels of the canvas."""
    alpha = np.zeros((280, 280), np.uint8)
    alpha[60:220, x : x + 40] = 255
    return [drawing.region(alpha, "ink")]


@pytest.fixture
def served(open_round: Callable[..., Any], model_server: Callable[[Path], Services]) -> tuple[Any, str]:
    play = open_round()
    url = model_server(play.round.workspace.root).model_url
    assert url is not None
    return play, url


def test_the_answer_is_the_target_s(served: tuple[Any, str]) -> None:
    play, url = served
    net, _ = checkpoint.load(play.round.workspace.round(0).challenger.model)
    answers, probabilities = inference.answer(net, play.pool.pixels_NCHW[:5])
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
    checkpoint.save(play.round.challenger.model, card.build(), card)
    write_index(play.round, "rounds", {"start": "data/rounds/001/train.safetensors"})
    assert current(workspace) == workspace.round(0).challenger.model, "a challenger is not yet a target"
    second = workspace.round(2)
    write_index(second, "collected", {"target": "data/rounds/001/model.safetensors"})
    after = httpx.post(f"{url}/answer", content=picture, auth=LOG_IN).json()
    assert (before["round"], after["round"]) == (0, 1)
    assert before["probabilities"] != after["probabilities"]


def test_it_is_attached_before_its_network_is_loaded(served: tuple[Any, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Label Studio waits three seconds for the answer, and a photo network may take longer."""
    play, url = served
    begun, go_on, load = threading.Event(), threading.Event(), checkpoint.load

    def slow(path: Path) -> Any:
        begun.set()
        assert go_on.wait(30)
        return load(path)

    monkeypatch.setattr(checkpoint, "load", slow)
    try:
        answer = httpx.post(f"{url}/setup", json={}, auth=LOG_IN, timeout=3)
        assert answer.json() == {"model_version": "round 000"}
        assert begun.wait(30), "it is loaded then, for whoever asks first"
    finally:
        go_on.set()
    picture = encode_png(play.pool.pixels_NCHW[0])
    assert httpx.post(f"{url}/answer", content=picture, auth=LOG_IN).json()["round"] == 0


def test_without_a_network_it_says_so(served: tuple[Any, str]) -> None:
    play, url = served
    play.round.workspace.round(0).challenger.model.unlink()
    answer = httpx.post(f"{url}/answer", content=encode_png(play.pool.pixels_NCHW[0]), auth=LOG_IN)
    assert answer.status_code == 503
    assert "dadc open" in answer.json()["detail"]
    assert httpx.post(f"{url}/setup", json={}, auth=LOG_IN).json() == {"model_version": "none"}


def test_it_is_well_under_slow_large_hostile_and_many_requests(
    open_round: Callable[..., Any], model_server: Callable[[Path], Services], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "READING", 2.0)
    play = open_round()
    url = model_server(play.round.workspace.root).model_url or ""
    picture, port = encode_png(play.pool.pixels_NCHW[0]), int(url.rsplit(":", 1)[1])
    head = encode_png(torch.zeros(1, 28, 28, dtype=torch.uint8))
    bomb = head[:16] + struct.pack(">II", 60_000, 60_000) + head[24:]
    until = time.monotonic() + 4

    def slow(_: int) -> int:
        """A byte now and then of a body that was promised."""
        with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
            log_in = base64.b64encode(":".join(LOG_IN).encode()).decode()
            line.sendall(f"POST /answer HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {log_in}\r\n".encode())
            line.sendall(b"Content-Length: 1000\r\n\r\n")
            line.settimeout(0.3)
            while True:
                try:
                    return int(line.recv(100).split()[1])
                except TimeoutError:
                    line.sendall(b"x")

    def post(what: tuple[str, bytes, Any]) -> Counter[int]:
        path, content, log_in = what
        kind = {"Content-Type": "application/json"} if path == "predict" else {}
        found: Counter[int] = Counter()
        while time.monotonic() < until:
            answer = httpx.post(f"{url}/{path}", content=content, auth=log_in, timeout=30, headers=kind)
            found[answer.status_code] += 1
        return found

    works = [("answer", picture, LOG_IN), ("answer", b"x" * MAX_BODY, LOG_IN), ("answer", bomb, LOG_IN)]
    works += [("answer", b"x" * MAX_BODY, ("dadc", "wrong")), ("predict", b"[" * MAX_BODY, LOG_IN)]
    with ThreadPoolExecutor(20) as crowd:
        slows = [crowd.submit(slow, n) for n in range(8)]
        posts = [crowd.submit(post, work) for work in works]
        waits = []
        while time.monotonic() < until:
            began = time.monotonic()
            assert httpx.get(f"{url}/health", timeout=10).status_code == 200
            waits.append(time.monotonic() - began)
        assert [each.result() for each in slows] == [408] * 8
        answered = [each.result() for each in posts]
    assert max(waits) < 3
    for statuses, wanted in zip(answered, ({200}, {422}, {422}, {401}, {400, 422}), strict=True):
        assert statuses.keys() <= wanted
    assert httpx.post(f"{url}/answer", content=picture, auth=LOG_IN).status_code == 200


def test_an_ask_ends_in_time_and_only_so_many_wait(
    stack: Path,
    open_round: Callable[..., Any],
    model_server: Callable[[Path], Services],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serve, "HURRY", 2.0)
    monkeypatch.setattr(serve, "ASKING", 2)
    play, known = open_round(), find_services(stack)
    url = model_server(play.round.workspace.root).model_url
    fault = Fault(lambda method, path: path.endswith("/drafts"), times=99, status=0)
    asked = {"tasks": [{"id": 1, "data": {}}], "params": {"context": {"result": [asks("a", "?")]}}}
    with misbehaving(known.label_studio_url or "", fault, patience=20) as stuck, ThreadPoolExecutor(6) as crowd:
        monkeypatch.setenv("LABEL_STUDIO_URL", stuck)
        monkeypatch.setenv("LABEL_STUDIO_API_KEY", known.label_studio_token or "")
        began = time.monotonic()
        given = crowd.map(lambda _: httpx.post(f"{url}/predict", json=asked, auth=LOG_IN, timeout=60), range(6))
        said = Counter(each.json()["results"][0]["result"][0]["value"]["text"][0] for each in given)
        assert time.monotonic() - began < 15, "Label Studio would not have answered by now"
    assert said.keys() == {
        "The model could not see the drawing: ServiceDown",
        "Too many ask at once: ask again in a moment",
    }


def test_it_asks_no_address_and_logs_no_secret_and_outlives_a_kill(
    stack: Path, open_round: Callable[..., Any], tmp_path: Path
) -> None:
    play, log = open_round(), tmp_path / "model.log"
    picture = encode_png(play.pool.pixels_NCHW[0])
    visits: list[str] = []
    canary = Fault(lambda method, path: bool(visits.append(path)), times=0, status=0)
    with (
        misbehaving(find_services(stack).label_studio_url or "", canary) as trap,
        ModelProcess(play.round.workspace.root, log, find_services(stack)) as model,
    ):
        baits = [f"{trap}/SECRET-1", f"file://{tmp_path}/SECRET-2", "../../SECRET-3", "SECRET-4\0\n"]
        data = {"image": baits[0], "key": baits[2], "note": baits[3], "audio": baits[1]}
        context = {"result": [asks(baits[0], *baits)]}
        params = {"context": context, "login": "SECRET-5", "password": "SECRET-6"}
        for body in (
            {"tasks": [{"id": 10**9, "data": data, "file_upload": baits[1]}], "params": params},
            {"tasks": [{"id": baits[0], "data": data}], "params": params},
            {"hostname": trap, "access_token": "SECRET-7", "project": baits[2], "schema": baits[3]},
        ):
            for path in ("predict", "setup", "webhook", "answer", f"SECRET-8?token=SECRET-9&image={trap}"):
                answer = httpx.post(f"{model.url}/{path}", json=body, auth=LOG_IN, timeout=90)
                assert answer.status_code < 500, (path, answer.text)
                assert "SECRET" not in answer.text
        httpx.post(f"{model.url}/setup", auth=("SECRET-10", "SECRET-11"), json={"access_token": "SECRET-12"})
        with socket.create_connection(("127.0.0.1", int(model.url.rsplit(":", 1)[1]))) as line:
            line.sendall(b"GET /SECRET-13 \0 SECRET-14\r\n\r\n")
            line.recv(1000)

        over, said = threading.Event(), []

        def ask() -> None:
            while not over.is_set():
                try:
                    code = httpx.post(f"{model.url}/answer", content=picture, auth=LOG_IN, timeout=30).status_code
                except httpx.TransportError:
                    code = 0
                    time.sleep(0.05)
                said.append(code)

        def wait(code: int) -> None:
            seen, deadline = len(said), time.monotonic() + 30
            while code not in said[seen:]:
                assert time.monotonic() < deadline
                time.sleep(0.05)

        askers = [threading.Thread(target=ask) for _ in range(4)]
        for asker in askers:
            asker.start()
        try:
            wait(200)
            model.kill()
            wait(0)
            model.start()
            wait(200)
        finally:
            over.set()
            for asker in askers:
                asker.join()
        assert set(said) == {0, 200}
    assert visits == []
    assert "SECRET" not in log.read_text()


class Desk:
    """A drawing task in a real Label Studio, with its model server."""

    def __init__(self, studio: LabelStudio, play: Any, services: Services) -> None:
        publish_drawing(studio, play.round, play.params, play.spec)
        attach_model(studio, play.round, play.params, services)
        attach_model(studio, play.round, play.params, services)
        project = studio.find(projects.title(play.params.campaign, play.round, "draw"))
        assert project is not None
        (self.backend,) = studio._sdk.ml.list(project=project)
        self.task = studio.tasks(project)[projects.guide_key(play.round)].id
        self.studio, self.play = studio, play

    def person(self, name: str) -> Account:
        return self.studio.person(f"{name}.{self.play.params.campaign}@example.org", "correct-horse-7")

    def ask(self, field: dict[str, Any]) -> Any:
        path = f"{self.studio.url}/api/ml/{self.backend.id}/interactive-annotating"
        body = {"task": self.task, "context": {"result": [field]}}
        log_in = {"Authorization": f"Token {self.studio._token}"}
        return httpx.post(path, json=body, headers=log_in, timeout=60).json()["data"]

    def says(self, field: dict[str, Any]) -> str:
        return str(self.ask(field)["result"][0]["value"]["text"][0])

    def of(self, result: list[dict[str, Any]]) -> str:
        """What is said about it."""
        net, card = checkpoint.load(self.play.round.workspace.round(0).challenger.model)
        answers, probabilities = inference.answer(net, drawing.drawing(result, 28, 1)[None])
        return f"Model says {card.classes[int(answers[0])]} ({float(probabilities.max()):.0%})"


@pytest.fixture
def desk(
    studio: LabelStudio,
    open_round: Callable[..., Any],
    model_server: Callable[[Path], Services],
    monkeypatch: pytest.MonkeyPatch,
) -> Desk:
    play = open_round()
    # Bars at different places are one class to a network that has not learned anything; so that they can be told apart:
    path = play.round.workspace.round(0).challenger.model
    net, card = checkpoint.load(path)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(3)
    checkpoint.save(path, net, card)
    services = model_server(play.round.workspace.root)
    monkeypatch.setenv("LABEL_STUDIO_URL", studio.url)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", studio._token)
    return Desk(studio, play, services)


def test_label_studio_asks_it_about_the_drawing(desk: Desk) -> None:
    ann, field = desk.person("ann"), asks("a", "?")
    saved = threading.Timer(1.5, ann.save_draft, (desk.task, [*bar(120), field]))
    saved.start()
    said = desk.ask(field)
    saved.join()
    item, taken_back = said["result"]
    assert item["from_name"] == "model_says"
    assert (taken_back["from_name"], taken_back["value"]) == ("ask", {"text": []}), "the next question can be asked"
    assert item["value"]["text"] == [desk.of(bar(120))]
    assert said["score"] == pytest.approx(float(item["value"]["text"][0].split("(")[1].rstrip("%)")) / 100, abs=6e-3)


def test_the_answer_is_about_the_asker_s_own_drawing_of_now(desk: Desk) -> None:
    """On the practice everybody has a draft; each page saves its own some seconds after it was asked."""
    ann, bob = desk.person("ann"), desk.person("bob")
    drawings = [bar(20), bar(200)]
    assert desk.of(drawings[0]) != desk.of(drawings[1])
    bob.save_draft(desk.task, [*drawings[1], asks("b", "?")])
    number = ann.save_draft(desk.task, [*drawings[0], asks("a", "?")])
    bob.save_draft(desk.task, [*drawings[1], asks("b", "?", "?")])
    assert desk.says(asks("a", "?")) == desk.of(drawings[0]), "bob's is newer"
    assert desk.says(asks("c", "?")) == "The model saw nothing: draw first, then ask", "whoever else has drawn"

    for answer in (2, 3):  # twice the same question, the drawing another
        drawings.reverse()
        change = threading.Timer(1.0, ann.change_draft, (number, [*drawings[0], asks("a", "?")]))
        change.start()
        said = f"{desk.of(drawings[0])} · answer {answer}"
        assert desk.says(asks("a", "?")) == said, "not what was saved before"
        change.join()


def test_a_page_published_before_the_field_for_questions_is_answered_in_its_only_field(desk: Desk) -> None:
    ann = desk.person("ann")
    old = asks("a", "Model says 1 (100%)", "?") | {"from_name": "model_says"}
    ann.save_draft(desk.task, [*bar(20), old])
    (item,) = desk.ask(old)["result"]
    assert (item["from_name"], item["value"]["text"]) == ("model_says", [desk.of(bar(20))])
