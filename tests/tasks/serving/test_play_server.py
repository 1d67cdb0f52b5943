"""The page's server over HTTP, with a real Label Studio behind it where something is flagged."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from open_round import Play, make_round, pulled_now, under_git
from PIL import Image

from data.records import PLAYED
from flows.play import watch
from tasks.judge import judge
from tasks.labelling import drawing, projects
from tasks.labelling.client import LabelStudio
from tasks.publish import publish_drawing
from tasks.serving import players
from tasks.serving.play_server import ACCOUNTS_WAITING, MAX_BODY, app
from tasks.serving.target import Target

TOKEN = "0123456789abcdef" * 2


def picture(seed: int = 0, size: int = 280, mode: str = "RGBA", right: int = 0) -> bytes:
    """A bar of white ink somewhere on the canvas. right: pixels that it is moved by."""
    alpha = np.zeros((size, size), dtype=np.uint8)
    rng = np.random.default_rng(seed)
    x, y = (int(v) for v in rng.integers(0, size // 2, 2))
    alpha[y : y + size // 4, x + right : x + right + size // 8] = 255
    pixels = np.full((size, size, 4), 255, dtype=np.uint8)
    pixels[..., 3] = alpha
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> Iterator[tuple[Play, TestClient]]:
    """The page of an open round whose Label Studio does not answer."""
    play = make_round(tmp_path_factory.mktemp("alone"), checkout)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABEL_STUDIO_URL", "http://127.0.0.1:9")
        patch.setenv("LABEL_STUDIO_API_KEY", TOKEN)
        root = play.round.workspace.root
        with TestClient(app(root, watch(root))) as client:
            yield play, client


def test_the_answer_is_the_targets_own(alone: tuple[Play, TestClient]) -> None:
    play, client = alone
    told = client.post("/play/answer?where=1", content=picture(3)).json()
    pixels = drawing.drawing([drawing.region(np.array(Image.open(io.BytesIO(picture(3))))[..., 3], "x")], 28, 1)
    given = Target(play.round.workspace).answer(pixels)
    assert told["answer"] == given.answer
    assert told["probabilities"] == pytest.approx(given.probabilities, abs=1e-4)
    assert np.array(told["where"]).shape == (28, 28)
    assert np.array(told["where"]).max() <= 255
    assert "where" not in client.post("/play/answer", content=picture(3)).json()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "cannot be read"),
        (b"<svg onload=alert(1)>", "cannot be read"),
        (picture(size=560), "expected ink of 280×280 pixels, got 560×560"),
        (picture(mode="RGB"), "alpha channel"),
        (picture()[:200], "cannot be read"),
    ],
    ids=["nothing", "another kind", "another size", "no ink", "torn"],
)
def test_what_is_no_drawing_is_refused(alone: tuple[Play, TestClient], body: bytes, reason: str) -> None:
    answer = alone[1].post("/play/answer", content=body)
    assert answer.status_code == 422
    assert reason in answer.json()["detail"]


def test_an_empty_canvas_is_refused(alone: tuple[Play, TestClient]) -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (280, 280)).save(buffer, format="PNG")
    answer = alone[1].post("/play/answer", content=buffer.getvalue())
    assert (answer.status_code, "empty" in answer.json()["detail"]) == (422, True)


def test_a_bomb_and_a_large_body_are_refused(alone: tuple[Play, TestClient]) -> None:
    buffer = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(buffer, format="PNG")  # some kilobytes
    began = time.monotonic()
    assert alone[1].post("/play/answer", content=buffer.getvalue()).status_code == 422
    assert time.monotonic() - began < 2
    assert alone[1].post("/play/answer", content=b"x" * (MAX_BODY + 1)).status_code == 413
    assert alone[1].post("/play/answer", content=iter([b"x" * MAX_BODY, b"x"])).status_code == 413


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/file=/etc/passwd",
        "/gradio_api/proxy=http://localhost/",
        "/gradio_api/queue/data",
    ],
)
def test_gradios_other_doors_are_closed(alone: tuple[Play, TestClient], path: str) -> None:
    assert alone[1].get(path).status_code == 403


def test_nothing_can_be_uploaded_or_called(alone: tuple[Play, TestClient]) -> None:
    for path in ("/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/call/x", "/login", "/"):
        assert alone[1].post(path, content=b"x").status_code == 403, path
    page = alone[1].get("/")
    assert page.status_code == 200
    assert TOKEN not in page.text
    assert "set-cookie" not in page.headers


def test_without_label_studio_one_can_ask_and_is_told(alone: tuple[Play, TestClient]) -> None:
    _, client = alone
    for _ in range(100):
        told = client.get("/play/state?fresh=1").json()
        if told["fault"]:
            break
        time.sleep(0.1)
    assert told["fault"] == "Label Studio cannot be reached (ServiceDown); flags must wait."
    assert told["round"] == "001"
    answer = client.post("/play/join", json={"name": "ann"})
    assert (answer.status_code, TOKEN in answer.text) == (503, False)
    assert client.post("/play/answer", content=picture()).status_code == 200


def test_answers_never_wait_for_label_studio(open_round: Callable[..., Play], monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice as many names as may wait are said while it takes connections and answers none."""
    play = open_round()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("LABEL_STUDIO_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("LABEL_STUDIO_API_KEY", TOKEN)
        many = 2 * ACCOUNTS_WAITING
        with TestClient(app(play.round.workspace.root, list)) as client, ThreadPoolExecutor(many) as crowd:
            joins = [crowd.submit(client.post, "/play/join", json={"name": f"name{n}"}) for n in range(many)]
            try:
                deadline = time.monotonic() + 20
                while sum(join.done() for join in joins) < many - ACCOUNTS_WAITING and time.monotonic() < deadline:
                    time.sleep(0.05)
                refused = [join.result() for join in joins if join.done()]
                assert len(refused) == many - ACCOUNTS_WAITING, "the others wait"
                assert {(r.status_code, r.json()["detail"]) for r in refused} == {
                    (503, "Too many play at once; try again in a moment.")
                }
                for seed in range(3):
                    began = time.monotonic()
                    assert client.post("/play/answer", content=picture(seed)).status_code == 200
                    assert time.monotonic() - began < 2
            finally:
                silent.close()  # and the waiting are told that it is gone


def test_a_shared_link_says_what_the_page_is(alone: tuple[Play, TestClient]) -> None:
    play, client = alone
    page = client.get("/").text
    named = re.findall(r'<meta\s+property="(og:[a-z]+)"\s+content="([^"]*)"', page)
    assert dict(named)["og:title"] == f"Fool the model: {play.params.campaign}"
    assert "model gets wrong" in dict(named)["og:description"]
    assert len({name for name, _ in named}) == len(named), "Gradio's own would stand first"
    assert "gradio.app" not in page.split("</head>")[0].split("<script")[0]


@pytest.mark.parametrize("body", [b"", b"[]", b"nonsense", b"[" * 100_000, b'{"name": {"a": 1}}', b'{"name": "<b>"}'])
def test_a_join_that_is_none_is_refused(alone: tuple[Play, TestClient], body: bytes) -> None:
    assert alone[1].post("/play/join", content=body).status_code in (409, 422)


def test_who_has_not_said_a_name_cannot_flag(alone: tuple[Play, TestClient]) -> None:
    for header in ({}, {"X-Player": "ann"}, {"X-Player": "ann:AAAAAAAA"}, {"X-Player": "../../x:%00"}):
        assert alone[1].post("/play/flag?meant=1&seconds=1", content=picture(), headers=header).status_code == 401


class Crowd:
    """An open round with seven tasks, served by two processes' worth of servers, and its players."""

    def __init__(self, play: Play, studio: LabelStudio, clients: list[TestClient]) -> None:
        self.play, self.studio, self.clients = play, studio, clients

    def join(self, name: str) -> dict[str, str]:
        told = self.clients[0].post("/play/join", json={"name": name}).json()
        return {"X-Player": f"{told['name']}:{told['code']}"}

    def flag(self, header: dict[str, str], seed: int, client: int = 0, wrong: bool = True, right: int = 0) -> Any:
        body = picture(seed, right=right)
        answer = self.clients[client].post("/play/answer", content=body).json()["answer"]
        meant = (answer + 1) % 10 if wrong else answer
        return self.clients[client].post(f"/play/flag?meant={meant}&seconds=2.5", content=body, headers=header)


@pytest.fixture(scope="module")
def crowd(
    stack: Path, studio: LabelStudio, checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Crowd]:
    play = make_round(tmp_path_factory.mktemp("crowd"), checkout, collect={"drawings": 7})
    under_git(play)
    root = play.round.workspace.root
    publish_drawing(studio, play.round, play.params, play.spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABEL_STUDIO_URL", studio.url)
        patch.setenv("LABEL_STUDIO_API_KEY", studio._token)
        with TestClient(app(root, watch(root))) as one, TestClient(app(root, watch(root))) as two:
            yield Crowd(play, studio, [one, two])


def test_a_flag_is_an_annotation_like_any_other(crowd: Crowd) -> None:
    ann = crowd.join("Ann-1")
    told = crowd.flag(ann, 1)
    assert told.status_code == 200, told.text
    pulled_now(crowd.studio, crowd.play.round)
    made = judge(crowd.play.record.candidates, crowd.play.round.workspace.round(0).challenger.model)
    (only,) = [c for c in made if c.by_people]
    assert only.source == PLAYED
    assert only.annotator == f"ann-1.{crowd.play.params.campaign}@{projects.PLAYER_DOMAIN}"
    assert only.key == projects.drawing_keys(crowd.play.round, crowd.play.params)[-1], "the last free task"
    assert (only.wellformed, only.fooling, only.seconds, only.seed_image) == (True, True, 2.5, "")
    assert only.answer == told.json()["answer"]


def test_one_name_one_player(crowd: Crowd) -> None:
    header = crowd.join("bob")
    code = header["X-Player"].split(":")[1]
    for client in crowd.clients:
        for taken in ({"name": "BOB"}, {"name": "bob", "code": "AAAAAAAA"}):
            assert client.post("/play/join", json=taken).status_code == 409
        assert client.post("/play/join", json={"name": "bob", "code": code.lower()}).json()["code"] == code
    assert "password" not in crowd.clients[0].get("/play/state", headers=header).text


def test_what_does_not_fool_and_what_was_sent_is_not_sent(crowd: Crowd) -> None:
    header = crowd.join("cat")
    assert "nothing to flag" in crowd.flag(header, 2, wrong=False).json()["detail"]
    for meant in ("10", "-1", "1e3", "x", ""):
        answer = crowd.clients[0].post(f"/play/flag?meant={meant}&seconds=1", content=picture(2), headers=header)
        assert answer.status_code == 422, meant
    assert crowd.flag(header, 2).status_code == 200
    assert crowd.flag(header, 2, client=1).json()["detail"] == "You sent this drawing already."
    assert "almost the same" in crowd.flag(header, 2, client=1, right=3).json()["detail"]


def test_one_player_does_not_fill_a_round(crowd: Crowd) -> None:
    """A quarter of seven tasks, rounded up, is two."""
    header = {"X-Player": f"cat:{_code(crowd, 'cat')}"}
    assert crowd.flag(header, 4).status_code == 200
    for client in range(2):
        refused = crowd.flag(header, 11, client=client)
        assert (refused.status_code, "You have filled 2 of this round's tasks" in refused.text) == (409, True)


def test_players_at_once_never_share_a_task(crowd: Crowd) -> None:
    """Seven tasks, three of them taken by now: of six drawings four find one, through whichever server."""
    headers = [crowd.join(f"dora{number}") for number in range(3)]
    ready = threading.Barrier(6)

    def one(number: int) -> Any:
        ready.wait()
        return crowd.flag(headers[number % 3], (12, 11, 10, 15, 14, 6)[number], client=number % 2)

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(one, range(6)))
    assert sorted(a.status_code for a in answers) == [200] * 4 + [409] * 2
    assert all("Every drawing of this round is made" in a.text for a in answers if a.status_code == 409)
    project = crowd.studio.find(projects.title(crowd.play.params.campaign, crowd.play.round, "draw"))
    assert project is not None
    tasks = [task for task in crowd.studio.changed(project, None) if task["annotations"]]
    assert [len(task["annotations"]) for task in tasks] == [1] * 7
    assert list(crowd.studio.free(project)) == [projects.guide_key(crowd.play.round)], "the practice is no player's"


def test_the_page_tells_how_it_stands(crowd: Crowd, caplog: pytest.LogCaptureFixture) -> None:
    header = {"X-Player": f"cat:{_code(crowd, 'cat')}"}
    for _ in range(100):
        told = crowd.clients[1].get("/play/state?fresh=1", headers=header).json()
        if sum(row["fools"] for row in told.get("places", [])) == 7:
            break
        time.sleep(0.2)
    assert told["fault"] == ""
    assert told["me"]["fools"] == 2
    assert told["me"]["own"][0]["state"] == "being read"
    assert told["gallery"] == [], "what is not verified is not shown to those who may vote on it"
    assert told["wanted"] == crowd.play.params.collect.threshold
    assert sum(row["fools"] for row in told["places"]) == 7
    names = {row["name"] for row in told["places"]}
    assert {"ann-1", "cat"} < names <= {"ann-1", "cat", "dora0", "dora1", "dora2"}, "whichever of them found a task"
    assert "@" not in json.dumps(told)
    assert crowd.studio._token not in caplog.text


def test_names_that_cost_nothing_keep_nobody_out(crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    """`/play/join` wants no account: whoever has flagged, or has a code, is not counted among what anybody can make."""
    names = crowd.play.round.workspace.local / "play" / "names"

    def join(name: str, code: str = "") -> tuple[int, str]:
        answer = crowd.clients[0].post("/play/join", json={"name": name, "code": code})
        return answer.status_code, answer.json().get("detail", "")

    flagged = len(
        [e for e in crowd.studio.emails().values() if e.endswith(f".{crowd.play.params.campaign}@play.invalid")]
    )
    for number in range(20):
        (names / f"bot{number}").touch()
    monkeypatch.setattr(players, "MOST_PLAYERS", flagged + 1)
    assert join("zoe")[0] == 200, "who only said a name is none of the players"
    monkeypatch.setattr(players, "MOST_PLAYERS", flagged)
    assert join("yan") == (409, "There are as many players as this campaign takes.")
    assert join("cat", _code(crowd, "cat"))[0] == 200
    monkeypatch.undo()

    monkeypatch.setattr(players, "MOST_NAMES", 20)
    assert join("yan") == (409, "Too many have said a name just now. Come back in an hour.")
    for name in ("cat", "zoe"):
        assert join(name, _code(crowd, name))[0] == 200, "the code comes first"
    for path in names.iterdir():
        os.utime(path, (0, 0))
    assert join("zoe", _code(crowd, "zoe"))[0] == 200
    old, new = (names.parent / "tries" / name for name in ("bot1", "bot2"))
    for path in (old, new):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    os.utime(old, (0, 0))
    assert join("yan")[0] == 200
    left = {path.name for path in names.iterdir()}
    assert {"cat", "ann-1", "zoe", "yan"} <= left, "who flagged, and who was here just now"
    assert {name for name in left if name.startswith("bot")} == {"bot2"}, "who drew just now"
    assert (old.exists(), new.exists()) == (False, True)
    assert "taken" in join("cat")[1]
    assert "taken" in join("zoe")[1]


def _code(crowd: Crowd, name: str) -> str:
    from tasks.serving.players import Players
    from tasks.workspace.services import find_services

    root = crowd.play.round.workspace
    return Players(root, crowd.play.params.campaign, find_services(root.root)).code(name)


def test_the_overlay_leaves_answers_alone(alone: tuple[Play, TestClient]) -> None:
    """Answers with and without the overlay at once: hooks of one never meet the other's pass."""
    torch.set_num_threads(1)
    client = alone[1]
    expected = [client.post("/play/answer", content=picture(n)).json()["probabilities"] for n in range(4)]

    def one(number: int) -> list[float]:
        told = client.post(f"/play/answer?where={number % 2}", content=picture(number % 4)).json()
        return list(told["probabilities"])

    with ThreadPoolExecutor(8) as pool:
        for number, found in enumerate(pool.map(one, range(40))):
            assert found == expected[number % 4]


def test_every_answer_has_security_headers(alone: tuple[Play, TestClient]) -> None:
    _, client = alone
    for path in ("/", "/config", "/play/health", "/gradio_api/upload", "/nothing"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["referrer-policy"] == "no-referrer", path
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "object-src 'none'" in policy
        assert "frame-ancestors 'self' https://huggingface.co https://*.hf.space" in policy


def test_a_forwarded_host_is_reflected_only_where_it_is_the_spaces(
    alone: tuple[Play, TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, client = alone
    asked = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}
    for path in ("/", "/config"):
        assert "evil.example" not in client.get(path, headers=asked).text
    monkeypatch.setenv("SPACE_HOST", "us-dadc.hf.space")
    for path in ("/", "/config"):
        assert "evil.example" not in client.get(path, headers=asked).text
    assert "us-dadc.hf.space" in client.get("/config", headers=asked | {"X-Forwarded-Host": "us-dadc.hf.space"}).text
