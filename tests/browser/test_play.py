"""The page of the players in real browsers: ann with mouse and keyboard, bob on a phone, with a finger.

The tests are one story in their order. The target is trained for some seconds, so that it knows digits; in an earlier
round ann and eve fooled another, and this one has healed some of that.
"""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import uvicorn
from conftest import chromium
from open_round import Play, make_round, pulled_now, train, under_git

from data.records import PLAYED, Candidate, Verdict
from data.sets import digits
from data.shards import decode_png, encode_png, write_candidates
from flows.play import watch
from tasks.engine import inference
from tasks.judge import judge
from tasks.labelling import drawing, projects
from tasks.labelling.client import LabelStudio, connect
from tasks.publish import publish_drawing, publish_validation
from tasks.record.annotations import gather, read_lines
from tasks.serving.play_server import app
from tasks.workspace.rounds import write_index
from tasks.workspace.services import find_services

from .conftest import FLAGS, PASSWORD, PICTURES

SEVEN = ((0.3, 0.2), (0.65, 0.2), (0.45, 0.8))
ONE = ((0.35, 0.3), (0.52, 0.18), (0.52, 0.82))
EARLIER = 12
CONTRAST = """element => {  // of an element's text with what is behind it (WCAG 2.2)
    const light = colour => {
        const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3)
            .map(value => value / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    let behind = element;
    while (/, 0\\)$|transparent/.test(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
    const both = [light(getComputedStyle(element).color), light(getComputedStyle(behind).backgroundColor)];
    return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
}"""


@dataclass
class Table:
    play: Play
    studio: LabelStudio
    browser: Any
    url: str
    healed: int  # of ann's earlier fools

    def email(self, name: str) -> str:
        return f"{name}.{self.play.params.campaign}@{projects.PLAYER_DOMAIN}"

    def by(self, name: str) -> Candidate:
        pulled_now(self.studio, self.play.round)
        made = self.play.record.candidates
        judged = judge(made, self.play.round.workspace.round(0).challenger.model)
        (own,) = [c for c in judged if c.annotator == self.email(name)]
        return own


class Somebody:
    """A player at the page."""

    def __init__(self, table: Table, name: str, **context: Any) -> None:
        self.context = table.browser.new_context(**context)
        self.page = self.context.new_page()
        self.faults: list[str] = []
        self.elsewhere: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on(
            "request", lambda r: None if r.url.startswith((table.url, "data:", "blob:")) else self._note(r.url)
        )
        self.page.goto(table.url)
        self.at("classes").locator("label").nth(9).wait_for(timeout=60_000)
        self.at("name").fill(name)
        self.page.get_by_role("button", name="Play").click()
        self.at("mine").wait_for(timeout=60_000)

    def _note(self, url: str) -> None:
        self.elsewhere.append(url)

    def at(self, name: str) -> Any:
        return self.page.locator(f"[data-is={name}]")

    def places(self, points: tuple[tuple[float, float], ...]) -> list[tuple[float, float]]:
        self.at("ink").scroll_into_view_if_needed()
        box = self.at("ink").bounding_box()
        return [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]

    def mouse(self, *points: tuple[float, float]) -> None:
        places = self.places(points)
        self.page.mouse.move(*places[0])
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(*place, steps=8)
        self.page.mouse.up()

    def finger(self, *points: tuple[float, float]) -> None:
        places = self.places(points)
        session = self.context.new_cdp_session(self.page)

        def touch(kind: str, *at: tuple[float, float]) -> None:
            there = [{"x": x, "y": y} for x, y in at]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": there})

        touch("touchStart", places[0])
        for (x0, y0), (x1, y1) in itertools.pairwise(places):
            for share in np.linspace(0.1, 1, 10):
                touch("touchMove", (x0 + share * (x1 - x0), y0 + share * (y1 - y0)))
        touch("touchEnd")
        session.detach()

    def says(self) -> str:
        """The model's class, once it has answered the newest stroke."""
        self.page.wait_for_function("document.querySelector('[data-is=says]').textContent.startsWith('Model says')")
        text = ""
        while text != (now := str(self.at("says").inner_text())):  # an answer to half a stroke may still be on its way
            text = now
            self.page.wait_for_timeout(700)
        return text.split()[2]

    def meaning(self, answer: str, wanted: str, other: str) -> str:
        """A class that the model does not say."""
        return wanted if answer != wanted else other

    def taps_a_class_that_the_model_does_not_say(self, wanted: str, other: str) -> None:
        """As a person would: look again if the answer changed meanwhile, on a machine that is slow."""
        for _ in range(5):
            meant = self.meaning(self.says(), wanted, other)
            self.at("classes").locator("label").filter(has_text=meant).tap()
            self.page.wait_for_timeout(1000)
            if self.at("flag").is_enabled():
                return
        raise AssertionError(f"nothing to flag: {self.at('says').inner_text()}, meant {meant}")

    def picture(self, name: str, tmp_path: Path) -> None:
        folder = PICTURES if os.environ.get("DADC_SCREENSHOTS") else tmp_path
        self.page.screenshot(path=str(folder / f"{name}.png"), full_page=True)


def trained(play: Play) -> list[Candidate]:
    """Train the target for some seconds; fools of an earlier round, of which it has healed the first half."""
    found = digits.load("train", root=play.round.workspace.root, size=None, channels=None, seed=0)
    net = train(play, found)
    answers_N, _ = inference.answer(net, found.pixels_NCHW)
    right, wrong = (
        torch.nonzero(mask).flatten().tolist() for mask in (answers_N == found.labels_N, answers_N != found.labels_N)
    )
    assert min(len(right), len(wrong)) >= EARLIER // 2
    made = []
    for number, index in enumerate([*right[: EARLIER // 2], *wrong[: EARLIER // 2]]):
        label, now = int(found.labels_N[index]), int(answers_N[index])
        made.append(
            Candidate(
                key=f"000/draw/{number:04d}",
                round=0,
                source=PLAYED,
                image=encode_png(found.pixels_NCHW[index]),
                intended=label,
                annotator=f"{'ann' if number % 3 == 0 else 'eve'}.{play.params.campaign}@{projects.PLAYER_DOMAIN}",
                at=f"2026-01-01T00:00:{number:02d}Z",
                answer=now if now != label else (label + 3) % 10,
                verdict=Verdict.VERIFIED,
            )
        )
    return made


@pytest.fixture(scope="module")
def table(stack: Path, checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Table]:
    from playwright.sync_api import sync_playwright

    program = chromium()
    services = find_services(stack)
    studio = connect(services)
    asked, rules = (
        {"drawings": 3, "threshold": 3},
        {"consensus": 2, "max_votes": 3, "non_fooling_share": 0.0, "probes": 0},
    )
    play = make_round(tmp_path_factory.mktemp("play"), checkout, collect=asked, validate=rules)
    under_git(play)
    earlier = trained(play)
    workspace = play.round.workspace
    write_candidates(workspace.round(0).candidates, earlier)
    write_index(workspace.round(0), "collected", {"target": "data/rounds/000/model.safetensors"})
    publish_drawing(studio, play.round, play.params, play.spec)
    healed = sum(c.annotator.startswith("ann") for c in earlier[: EARLIER // 2])
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABEL_STUDIO_URL", studio.url)
        patch.setenv("LABEL_STUDIO_API_KEY", services.label_studio_token or "")
        page = app(workspace.root, watch(workspace.root))
        server = uvicorn.Server(uvicorn.Config(page, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program, headless=True, args=FLAGS)
            yield Table(play, studio, browser, url, healed)
            browser.close()
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def ann(table: Table) -> Somebody:
    return Somebody(table, "Ann", viewport={"width": 1200, "height": 900})


@pytest.fixture(scope="module")
def bob(table: Table) -> Somebody:
    return Somebody(table, "bob", viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)


def test_every_stroke_is_answered(ann: Somebody) -> None:
    spent = []
    for stroke in (ONE, ((0.3, 0.5), (0.7, 0.5)), ((0.3, 0.8), (0.7, 0.8))):
        ann.page.evaluate("delete document.querySelector('main.play').closest('[data-answered]')?.dataset.answered")
        ann.mouse(*stroke)
        ann.page.wait_for_selector("[data-answered]")
        spent.append(int(ann.page.locator("[data-answered]").get_attribute("data-answered")))
    assert sorted(spent)[1] <= 400, f"milliseconds from a stroke's end to the answer: {spent}"
    shares = ann.at("bars").locator("u").evaluate_all("all => all.map(u => parseFloat(u.style.width))")
    assert len(shares) == 10
    assert sum(shares) == pytest.approx(100, abs=0.5)
    ann.page.keyboard.press("z")
    ann.page.keyboard.press("Escape")
    assert ann.at("says").inner_text() == "The model waits for a stroke."
    assert ann.at("flag").is_disabled()


def test_it_works_by_keyboard_alone(ann: Somebody) -> None:
    ann.at("ink").focus()
    ann.page.keyboard.press("Space")
    for _ in range(12):
        ann.page.keyboard.press("ArrowDown")
    ann.page.keyboard.press("Space")
    said = ann.says()
    ann.page.keyboard.press(said)
    assert ann.at("classes").get_by_label(said, exact=True).is_checked()
    assert ann.at("flag").is_disabled(), "what the model reads rightly is not flagged"
    ann.page.keyboard.press("Escape")
    assert not ann.at("classes").get_by_label(said, exact=True).is_checked(), "a new drawing, a new choice"


def test_ann_flags_with_mouse_and_keys(table: Table, ann: Somebody) -> None:
    ann.mouse(*SEVEN)
    said = ann.says()
    top = ann.at("bars").locator(".top u")
    colour = "bar => getComputedStyle(bar).backgroundColor"
    assert top.evaluate(colour) == "rgb(100, 116, 139)", "no class is chosen yet: nothing is wrong"
    meant = ann.meaning(said, "7", "1")
    assert ann.page.evaluate("document.querySelector('[data-is=where]').width") == 1
    ann.page.keyboard.press("l")
    ann.page.wait_for_function("document.querySelector('[data-is=where]').width === 28")
    ann.page.keyboard.press(meant)
    assert "fooled!" in ann.at("says").inner_text()
    assert top.evaluate(colour) == "rgb(194, 65, 12)"
    ann.page.keyboard.press("Enter")
    ann.page.get_by_text(f"Sent: you mean {meant}, the model says {said}.").wait_for(timeout=60_000)
    made = table.by("ann")
    assert (made.source, made.wellformed, made.fooling) == (PLAYED, True, True)
    names = table.play.spec.classes
    assert (names[made.intended], names[made.answer]) == (meant, said), "the page and the record say the same"
    pixels = decode_png(made.image, 1)[0].numpy()
    drawn = np.argwhere(pixels > 127) / 28
    assert np.allclose(drawn.min(axis=0), (0.2, 0.3), atol=0.09), "the ink lies where the mouse was"
    assert np.allclose(drawn.max(axis=0), (0.8, 0.65), atol=0.09)


def test_bob_flags_with_a_finger_on_a_phone(table: Table, bob: Somebody, ann: Somebody) -> None:
    assert bob.page.evaluate("document.documentElement.scrollWidth") <= 390
    bob.finger(*ONE)
    bob.says()
    canvas, button = bob.at("ink").bounding_box(), bob.at("flag").bounding_box()
    assert button["y"] + button["height"] - canvas["y"] <= 664, "what a phone's browser leaves of the screen"
    classes = [label.bounding_box() for label in bob.at("classes").locator("label").all()]
    assert all(canvas["y"] < box["y"] < button["y"] for box in classes)
    bob.taps_a_class_that_the_model_does_not_say("1", "7")
    bob.page.get_by_role("button", name="Flag it").tap()
    bob.page.get_by_text("Sent:").wait_for(timeout=60_000)
    first, second = table.by("ann"), table.by("bob")
    assert first.key != second.key
    sent = [a.last.raw["result"] for a in gather(read_lines(table.play.round.annotations), "draw")]
    assert [[item["type"] for item in result] for result in sent] == [["bitmask", "choices"]] * 2


def test_a_taken_name_wants_its_code(table: Table, ann: Somebody) -> None:
    context = table.browser.new_context()
    page = context.new_page()
    page.goto(table.url)
    page.locator("[data-is=classes] label").nth(9).wait_for(timeout=60_000)
    page.locator("[data-is=name]").fill("ann")
    page.get_by_role("button", name="Play").click()
    page.get_by_text("This name is taken.").wait_for()
    page.locator("[data-is=code]").fill(ann.at("mycode").inner_text())
    page.get_by_role("button", name="Play").click()
    page.locator("[data-is=mine]").wait_for()
    context.close()


def test_what_is_verified_is_shown(table: Table, ann: Somebody, bob: Somebody, tmp_path: Path) -> None:
    play, studio = table.play, table.studio
    own = table.by("ann")
    publish_validation(studio, play.record, [own, table.by("bob")])
    project = studio.find(projects.title(play.params.campaign, play.round, "validate"))
    assert project is not None
    task = studio.tasks(project)[projects.vote_key(play.params, own)]
    seen = [drawing.chosen(projects.SEEN, "seen", play.spec.classes[own.intended])]
    for name in ("vera", "vito"):
        email = f"{name}.{play.params.campaign}@example.org"
        person = studio.person(email, PASSWORD)
        person.submit(task.id, seen, 1.0)
        person.close()
    time.sleep(1)
    for who in (ann, bob):
        who.page.reload()
        who.at("mine").wait_for(timeout=60_000)
        who.page.wait_for_function("document.querySelector('[data-is=wanted]').textContent === '2'", timeout=60_000)
    tags = ann.at("own").locator(".tag").all_inner_texts()
    assert tags[0] == "verified"
    assert tags.count("healed") == table.healed > 0
    shown = " ".join(ann.at("gallery").inner_text().split())
    assert "by ann, round 001" in shown
    assert "by bob, round 001" not in shown, "still to be voted on"
    assert bob.at("own").locator(".tag").all_inner_texts() == ["being read"]
    figures = dict(
        zip(
            ann.at("figures").locator("dt").all_inner_texts(),
            ann.at("figures").locator("dd").all_inner_texts(),
            strict=True,
        )
    )
    assert figures["verified"] == str(1 + EARLIER // 3)
    assert figures["healed since"] == str(table.healed)
    assert int(figures["tries"]) >= 3
    assert {"ann", "bob", "eve"} <= set(ann.at("places").locator("td:nth-child(2)").all_inner_texts())
    ann.mouse(*SEVEN)
    said = ann.says()
    ann.page.keyboard.press(ann.meaning(said, "7", "1"))
    ann.page.keyboard.press("l")
    ann.page.wait_for_function("document.querySelector('[data-is=where]').width === 28")
    bob.finger(*ONE)
    bob.says()
    ann.page.emulate_media(color_scheme="dark")
    ann.picture("play-dark", tmp_path)
    for part in ("h1", ".says", ".classes label", "footer", "td", ".quiet"):
        for found in ann.page.locator(f".play {part}").all()[:3]:
            if found.is_visible():
                assert found.evaluate(CONTRAST) >= 4.5, part
    ann.page.emulate_media(color_scheme="light")
    for who, name in ((ann, "play"), (bob, "play-phone")):
        who.page.mouse.move(0, 0)
        who.picture(name, tmp_path)
        assert who.faults == []
        assert who.elsewhere == [], "the page asks nobody but its own server"
