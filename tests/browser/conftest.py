"""A round that real people's browsers work in: a real mouse and keyboard in headless Chromium."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import chromium
from open_round import ModelProcess, Play, make_round, model_server, pulled_now, train

from data.sets import digits
from tasks.judge import judge
from tasks.labelling import projects
from tasks.labelling.client import LabelStudio, connect
from tasks.publish import attach_model, publish_drawing, publish_editing
from tasks.workspace.services import find_services

PICTURES = Path(__file__).parents[2] / "docs" / "images"
PASSWORD = "correct-horse-7"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]


@dataclass(frozen=True)
class Scene:
    """An open round with tasks to draw and to edit, and the browser that people use."""

    play: Play
    studio: LabelStudio
    browser: Any
    model: ModelProcess | None = None  # where a test kills it

    def project(self, kind: projects.Kind) -> int:
        found = self.studio.find(projects.title(self.play.params.campaign, self.play.round, kind))
        assert found is not None
        return found

    def email(self, name: str) -> str:
        return f"{name}.{self.play.params.campaign}@example.org"


@dataclass
class Someone:
    """A person at a browser of their own."""

    page: Any
    studio_url: str
    received: list[tuple[str, str]] = field(default_factory=list)  # address and text of what the page was sent

    def enter(self, project: int, look: Callable[[], None] | None = None) -> str:
        """Start labelling, and close the instructions once they were read; what they say. look: before they close."""
        self.page.goto(f"{self.studio_url}/projects/{project}/data?labeling=1")
        self.page.get_by_text("Labeling Instructions").wait_for(timeout=60_000)
        self.ready()
        said = str(self.page.locator("body").inner_text())
        if look is not None:
            look()
        self.page.keyboard.press("Escape")
        self.page.get_by_text("Labeling Instructions").wait_for(state="hidden")
        return said

    def ready(self) -> None:
        """Wait until the task's picture is there and the page has come to rest."""
        self.page.locator("canvas").first.wait_for(timeout=60_000)
        before = None
        for _ in range(100):
            box = self.page.locator("canvas").first.bounding_box()
            if box is not None and box["width"] > 100 and box == before:
                return
            before = box
            self.page.wait_for_timeout(300)
        raise AssertionError("the page does not come to rest")

    def stroke(self, *points: tuple[float, float]) -> None:
        """Draw with the mouse held down through points, given as shares of the picture's width and height."""
        box = self.page.locator("canvas").first.bounding_box()
        places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
        self.page.mouse.move(*places[0])
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(*place, steps=8)
        self.page.mouse.up()

    def ask(self) -> tuple[str, float]:
        """Type ? and press Enter; what the model says, and the seconds until it stood on the page."""
        began = self.type_question()
        said, shown = self.answer()
        return said, (shown - began) / 1000

    def type_question(self) -> float:
        """Type ? and press Enter; when that was, in milliseconds since 1970."""
        self.page.get_by_placeholder("type ? and press Enter").click()
        self.page.keyboard.type("?")
        note = "addEventListener('keydown', () => { window.asked = Date.now() }, { once: true, capture: true })"
        self.page.evaluate(note)
        self.page.keyboard.press("Enter")
        return float(self.page.evaluate("window.asked"))

    def answer(self) -> tuple[str, float]:
        """What the model says, and when it stood on the page, in milliseconds since 1970."""
        self.page.locator(".ask").get_by_text("?", exact=True).wait_for()
        shown = self.page.wait_for_function(
            """() => {
                const asked = document.querySelector('.ask [data-testid=textarea-region]');
                return !asked && document.querySelector('.says')?.innerText.trim() ? Date.now() : 0;
            }""",
            timeout=15_000,
        )
        return self.page.locator(".says").inner_text().strip(), float(shown.json_value())

    def key(self, name: str) -> None:
        """Press a key outside of any field."""
        self.page.evaluate("document.activeElement && document.activeElement.blur()")
        self.page.keyboard.press("Escape")
        self.page.keyboard.press(name)

    def submit(self, key: str = "") -> list[dict[str, Any]]:
        """Press Submit, or the key, and wait until it is stored and the next task, or the end, is there; what was
        sent."""
        address = re.compile(r"/api/tasks/\d+/annotations")
        with (
            self.page.expect_response(lambda r: "next_task" in r.url, timeout=60_000),
            self.page.expect_response(
                lambda r: address.search(r.url) and r.request.method == "POST", timeout=60_000
            ) as stored,
        ):
            if key:
                self.page.keyboard.press(key)
            else:
                self.page.get_by_test_id("bottombar-submit-button").click()
        assert stored.value.status == 201
        sent: list[dict[str, Any]] = stored.value.request.post_data_json["result"]
        return sent

    def picture(self, name: str, tmp_path: Path) -> None:
        """A screenshot; into the docs if DADC_SCREENSHOTS is set."""
        folder = PICTURES if os.environ.get("DADC_SCREENSHOTS") else tmp_path
        self.page.mouse.move(0, 0)
        self.page.screenshot(path=str(folder / f"{name}.png"))


@contextmanager
def open_scene(stack: Path, play: Play, model: ModelProcess | None = None) -> Iterator[Scene]:
    """The round's tasks in Label Studio, its model server, and a browser. model: the server, if a test will kill it."""
    from playwright.sync_api import sync_playwright

    program = chromium()
    services = find_services(stack)
    studio = connect(services)
    running = nullcontext(model.services) if model else model_server(play.round.workspace.root)
    with pytest.MonkeyPatch.context() as patch, running as served:
        patch.setenv("LABEL_STUDIO_URL", studio.url)
        patch.setenv("LABEL_STUDIO_API_KEY", services.label_studio_token or "")
        publish_drawing(studio, play.round, play.params, play.spec)
        publish_editing(studio, play.round, play.params, play.spec)
        attach_model(studio, play.round, play.params, served)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program, headless=True, args=FLAGS)
            yield Scene(play, studio, browser, model)
            browser.close()


@pytest.fixture(scope="module")
def scene(stack: Path, checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A round of digits, whose target knows digits."""
    play = make_round(
        tmp_path_factory.mktemp("people"),
        checkout,
        collect={"drawings": 2, "edits": 2},
        validate={"consensus": 2, "max_votes": 3, "non_fooling_share": 1.0, "probes": 0},
    )
    train(play, digits.load("train", root=play.round.workspace.root, size=None, channels=None, seed=0))
    with open_scene(stack, play) as found:
        yield found


@pytest.fixture
def sit_down(scene: Scene) -> Iterator[Callable[[str], Someone]]:
    """A person of this name at a browser, logged in; who has no account yet makes one at the invited address."""
    with _contexts(scene) as make:

        def someone(name: str) -> Someone:
            made = make()
            page = made.page
            known = scene.email(name) in scene.studio.emails().values()
            page.goto(f"{scene.studio.url}/user/login/" if known else scene.studio.invite())
            page.fill("[name=email]", scene.email(name))
            page.fill("[name=password]", PASSWORD)
            page.press("[name=password]", "Enter")
            page.wait_for_url(lambda url: "/user/" not in url, timeout=60_000)
            return made

        yield someone


@contextmanager
def _contexts(scene: Scene) -> Iterator[Callable[[], Someone]]:
    opened: list[Any] = []

    def make() -> Someone:
        context = scene.browser.new_context(viewport={"width": 1400, "height": 900})
        opened.append(context)
        made = Someone(context.new_page(), scene.studio.url)

        def keep(response: Any) -> None:
            if "/api/" in response.url and "json" in response.headers.get("content-type", ""):
                with suppress(Exception):  # the page was left before it had arrived
                    made.received.append((response.url, response.text()))

        made.page.on("requestfinished", lambda request: keep(request.response()))
        return made

    try:
        yield make
    finally:
        for context in opened:
            context.close()


def images(received: Sequence[tuple[str, str]]) -> str:
    """All that a page was sent, as one text."""
    return "\n".join(f"{address}\n{text}" for address, text in received)


def judged(scene: Scene) -> dict[str, Any]:
    """The round's well-formed candidates by now, judged on its target."""
    play = scene.play
    pulled_now(scene.studio, play.round)
    made = play.record.candidates
    return {c.key: c for c in judge(made, play.round.workspace.round(0).challenger.model) if c.wellformed}


def says(candidate: Any, classes: tuple[str, ...]) -> str:
    return f"Model says {classes[candidate.answer]} ({candidate.probability:.0%})"
