"""The model server, and the page's own, killed and started again while people draw: nothing they made is lost."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from open_round import ModelProcess, make_round, under_git, wait_for

from tasks.labelling import projects
from tasks.labelling.label_config import AWAY
from tasks.workspace.services import find_services

from .conftest import Scene, Someone, judged, open_scene

ONE = ((0.5, 0.2), (0.5, 0.8))
BAR = ((0.3, 0.5), (0.7, 0.5))
BROKEN = "document.body.innerText.match(/something went wrong|runtime error|server error|page not found/i)"


@pytest.fixture(scope="module")
def scene(stack: Path, checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """As for the other tests, but with a model server that can be killed."""
    play = make_round(tmp_path_factory.mktemp("away"), checkout, collect={"drawings": 2})
    under_git(play)
    root = play.round.workspace.root
    with ModelProcess(root, root / "model.log", find_services(stack)) as model, open_scene(stack, play, model) as made:
        yield made


def test_a_page_outlives_the_model_server(scene: Scene, sit_down: Callable[[str], Someone], tmp_path: Path) -> None:
    assert scene.model is not None
    ann = sit_down("ann")
    faults: list[str] = []
    ann.page.on("pageerror", lambda error: faults.append(str(error)))
    ann.enter(scene.project("draw"))
    ann.stroke(*ONE)
    ann.key("1")
    ann.submit()  # the practice
    ann.ready()
    ann.stroke(*ONE)
    assert ann.ask()[0].startswith("Model says"), "it answers at first"

    scene.model.kill()
    ann.stroke(*BAR)
    page, asked = ann.page, ann.page.locator(".ask")
    ann.type_question()
    page.get_by_text(AWAY).wait_for(timeout=15_000)
    assert "?" in asked.inner_text(), "no answer came, and the page says what to do"
    assert page.evaluate(BROKEN) is None
    ann.picture("label-studio-model-away", tmp_path)

    scene.model.start()
    ann.stroke((0.3, 0.8), (0.7, 0.8))
    asked.get_by_test_id("textarea-region").hover()
    asked.get_by_role("button").click()
    assert ann.ask()[0].startswith("Model says"), "and answers again, on the page as it is"

    scene.model.kill()
    ann.key("7")
    ann.submit()
    ann.ready()
    ann.stroke(*ONE)
    ann.key("1")
    ann.submit()
    assert page.evaluate(BROKEN) is None
    assert faults == []
    scene.model.start()

    made = judged(scene)
    first, second = (made[key] for key in projects.drawing_keys(scene.play.round, scene.play.params))
    assert [(c.wellformed, c.judged, c.annotator) for c in (first, second)] == [(True, True, scene.email("ann"))] * 2
    assert (first.intended, second.intended) == (7, 1)
    assert len(first.image) > len(second.image), "three strokes are kept, before, during and after it was away"


def test_the_players_page_says_that_its_server_is_away(scene: Scene) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    program = f"from pathlib import Path; from flows.play import play; play(Path('.'), {port})"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}

    def start() -> subprocess.Popen[bytes]:
        root = scene.play.round.workspace.root
        with (root / "play.log").open("ab") as log:
            made = subprocess.Popen(
                [sys.executable, "-c", program], cwd=root, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        wait_for(f"{url}/play/health", made, root / "play.log")
        return made

    context = scene.browser.new_context(viewport={"width": 1200, "height": 900})
    server = start()
    try:
        page = context.new_page()
        page.goto(url)
        page.locator("[data-is=classes] label").nth(9).wait_for(timeout=60_000)
        says, ink = page.locator("[data-is=says]"), page.locator("[data-is=ink]")

        def stroke(*points: tuple[float, float]) -> None:
            box = ink.bounding_box()
            page.mouse.move(box["x"] + points[0][0] * box["width"], box["y"] + points[0][1] * box["height"])
            page.mouse.down()
            for x, y in points[1:]:
                page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=8)
            page.mouse.up()

        stroke(*ONE)
        says.get_by_text("Model says").or_(says.filter(has_text="Model says")).first.wait_for(timeout=30_000)
        server.send_signal(signal.SIGKILL)
        server.wait(30)
        stroke(*BAR)
        says.filter(has_text="What you drew is still here").wait_for(timeout=30_000)
        drawn = page.evaluate("document.querySelector('[data-is=ink]').toDataURL().length")
        server = start()
        stroke((0.3, 0.8), (0.7, 0.8))
        says.filter(has_text="Model says").wait_for(timeout=30_000)
        now = page.evaluate("document.querySelector('[data-is=ink]').toDataURL().length")
        assert now > drawn > 0, "the drawing is still there and goes on"
    finally:
        context.close()
        server.kill()
        server.wait(30)
