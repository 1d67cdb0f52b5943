"""What annotators and validators do in Label Studio, with a real mouse and keyboard, two accounts each.

The tests are one story in their order: ann and bob draw, edit, and judge what the other made; cat is called in where
they disagree.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from conftest import run
from open_round import pulled_now
from round_states import mark_opened

from data.records import UNREADABLE
from data.shards import decode_png
from flows.reports.invitation import invitation
from tasks.labelling import drawing, label_config, projects
from tasks.publish import publish_validation, reopen_spoiled, unfinished
from tasks.record.candidates import edit_bases
from tasks.validate import validate

from .conftest import Scene, Someone, images, judged, says

ASKED = int(os.environ.get("DADC_ASKED", "4"))  # questions whose time is taken
SIX = ((0.45, 0.2), (0.33, 0.5), (0.38, 0.76), (0.6, 0.8), (0.7, 0.66), (0.45, 0.6))  # the practice's
SEVEN = ((0.3, 0.2), (0.65, 0.2), (0.45, 0.8))


def test_who_runs_a_round_is_told_where_to_send_people(scene: Scene, tmp_path: Path) -> None:
    root = scene.play.round.workspace.root
    by = ("git", "-c", "user.name=test", "-c", "user.email=test@localhost")
    run(root, *by, "init", "--quiet")
    run(root, *by, "commit", "--quiet", "--allow-empty", "--message", "nothing yet")
    assert re.findall(r"http\S+", invitation(root)) == [scene.studio.invite()], "no round is open"
    mark_opened(scene.play.round)
    message = invitation(root)
    account, *pages = re.findall(r"^http\S+$", message, re.MULTILINE)
    assert scene.play.params.campaign in message.splitlines()[0], "the message can be sent as it is"
    stranger = Someone(scene.browser.new_page(viewport={"width": 1400, "height": 900}), scene.studio.url)
    stranger.page.goto(account)
    stranger.page.get_by_role("button", name="Create Account").wait_for()
    stranger.picture("label-studio-signup", tmp_path)
    stranger.page.close()
    assert pages == [f"{scene.studio.url}/projects/{scene.project(kind)}/data?labeling=1" for kind in ("draw", "edit")]


def test_pen_keys_and_answer_stay_where_they_are(
    scene: Scene, sit_down: Callable[[str], Someone], tmp_path: Path
) -> None:
    eve = sit_down("eve")
    page = eve.page
    eve.enter(scene.project("draw"))
    says, classes = page.locator(".says"), page.get_by_role("radio")
    looking, away = page.get_by_text(label_config.LOOKING), page.get_by_text(label_config.AWAY)
    canvas, slider = (page.locator(name).first.bounding_box() for name in ("canvas", ".lsf-tool__controls"))
    assert slider["x"] >= canvas["x"] + canvas["width"], "the brush's slider covers nothing of the canvas"
    for panel in (".lsf-sidepanels__wrapper", ".lsf-tabs-panel", ".lsf-model-actions"):
        assert not page.locator(panel).first.is_visible(), panel

    eve.stroke(*SIX)
    eve.type_question()
    looking.wait_for()
    page.wait_for_timeout(1500)
    assert looking.is_visible(), "as long as the answer is under way"
    assert not away.is_visible()
    page.keyboard.press("3")
    assert classes.nth(3).is_checked(), "the keys choose classes again, they do not type"
    answer, _ = eve.answer()
    assert answer.startswith("Model says")
    assert not looking.is_visible()
    page.keyboard.press("6")
    assert classes.nth(6).is_checked()
    page.keyboard.press("Control+z")
    page.wait_for_timeout(500)
    assert classes.nth(3).is_checked(), "the last step is taken back, and only that"
    assert says.inner_text().strip() == answer
    page.keyboard.press("Escape")
    eve.stroke((0.15, 0.15), (0.15, 0.85))
    page.wait_for_timeout(500)
    assert says.inner_text().strip() == answer, "Escape leaves the answer"
    page.keyboard.press("Control+z")
    page.wait_for_timeout(500)
    assert says.inner_text().strip() == answer, "and so does undoing a stroke"
    eve.stroke((0.15, 0.15), (0.15, 0.85))

    eve.type_question()
    looking.wait_for()
    assert float(says.evaluate("says => getComputedStyle(says).opacity")) < 0.5, "the old answer is none to this one"
    second, _ = eve.answer()
    assert second != answer
    page.get_by_role("button", name="Light").click()
    eve.picture("label-studio-dark", tmp_path)
    page.get_by_role("button", name="Dark").click()
    page.set_viewport_size({"width": 1024, "height": 768})
    page.wait_for_timeout(500)
    for seen in (classes.last, page.get_by_placeholder("type ? and press Enter"), says):
        box = seen.bounding_box()
        assert box["y"] + box["height"] < 768 - 60, "above the bar with Submit"
        assert box["x"] + box["width"] <= 1024
    eve.picture("label-studio-narrow", tmp_path)
    drawn = drawing.drawing(eve.submit("Control+Enter"), 28, 1)[0].numpy()
    ink = np.argwhere(drawn > 127) / 28
    assert ink[:, 1].min() < 0.15, "the stroke after Escape is in the drawing"
    assert ink[:, 1].max() > 0.65, "and so is what was drawn before"


def test_what_is_submitted_without_ink_does_not_spend_the_task(
    scene: Scene, sit_down: Callable[[str], Someone]
) -> None:
    play, eve = scene.play, sit_down("eve")
    eve.page.goto(f"{scene.studio.url}/projects/{scene.project('draw')}/data?labeling=1")
    eve.ready()
    eve.page.keyboard.press("Escape")
    warning = eve.page.get_by_text("Draw something first")
    warning.wait_for()
    eve.key("1")
    assert eve.page.get_by_role("radio", name="1").is_checked()
    sent: list[str] = []
    eve.page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    button = eve.page.get_by_test_id("bottombar-submit-button").bounding_box()
    eve.page.mouse.click(button["x"] + button["width"] / 2, button["y"] + button["height"] / 2)
    eve.page.wait_for_timeout(1000)
    assert not [address for address in sent if address.split("?")[0].endswith("/annotations")], "Submit waits for ink"
    assert warning.is_visible()

    eve.submit("Control+Enter")  # a key of Label Studio's, which no page can take away
    pulled_now(scene.studio, play.round)
    record = play.record
    assert [(c.wellformed, c.reason) for c in record.candidates] == [(False, "expected ink, and there is none")]
    left = unfinished(scene.studio, play.round)
    assert reopen_spoiled(scene.studio, record) == 1
    assert reopen_spoiled(scene.studio, record) == 0, "once"
    assert unfinished(scene.studio, play.round) == left + 1


def test_draw_and_ask(scene: Scene, sit_down: Callable[[str], Someone], tmp_path: Path) -> None:
    answers = {}
    for name, digit in (("ann", "7"), ("bob", "1")):
        person = sit_down(name)
        look = partial(person.picture, "label-studio-instructions", tmp_path) if name == "ann" else None
        assert "Draw something that every person reads at once" in person.enter(scene.project("draw"), look)
        person.page.get_by_text("Practice, does not count").wait_for()
        person.stroke(*SIX)
        person.key("6")
        if name == "ann":
            person.picture("label-studio-practice", tmp_path)
        person.submit()
        person.ready()
        person.page.get_by_text("Draw any class").wait_for()
        person.stroke(*(SEVEN if digit == "7" else ((0.5, 0.2), (0.5, 0.8))))
        if digit == "7":
            person.stroke((0.38, 0.5), (0.62, 0.5))
        answers[name], _ = person.ask()
        person.key(digit)
        assert person.page.get_by_role("radio", name=digit).is_checked()
        if name == "ann":
            person.picture("label-studio-draw", tmp_path)
        person.submit()
    made = judged(scene)
    assert sorted(made) == projects.drawing_keys(scene.play.round, scene.play.params), "the practice is none of them"
    by_person = {c.annotator.split(".")[0]: c for c in made.values()}
    assert {name: c.intended for name, c in by_person.items()} == {"ann": 7, "bob": 1}
    for name, candidate in by_person.items():
        assert candidate.wellformed
        assert candidate.seconds > 0
        assert says(candidate, scene.play.pool.classes) == answers[name], "the page and the record say the same"
    pixels = decode_png(by_person["ann"].image, 1)[0].numpy()
    ink = np.argwhere(pixels > 127) / 28
    assert np.allclose(ink.min(axis=0), (0.2, 0.3), atol=0.09), "the ink lies where the mouse was"
    assert np.allclose(ink.max(axis=0), (0.8, 0.65), atol=0.09)


def test_answers_come_within_six_seconds(scene: Scene, sit_down: Callable[[str], Someone]) -> None:
    """What the page waits for, in milliseconds: until it saves its draft, until that is stored, until the answer to it
    has come, until it is shown. The first is Label Studio's own."""
    dan = sit_down("dan")
    dan.enter(scene.project("draw"))
    ended: list[tuple[str, float, float]] = []  # address, and when it was sent and answered
    asked: list[Any] = []  # the fields of the requests for an answer
    saved_with: list[Any] = []  # and of the drafts

    def note(request: Any) -> None:
        if request.method in ("POST", "PATCH") and (
            "interactive-annotating" in request.url or "/drafts" in request.url
        ):
            sent = request.post_data_json
            fields = [item for item in (sent.get("context") or sent)["result"] if item["from_name"] == projects.ASK]
            (asked if "context" in sent else saved_with).extend((item["id"], item["value"]) for item in fields)
        timing = request.timing
        ended.append((request.url, timing["startTime"], timing["startTime"] + timing["responseEnd"]))

    dan.page.on("requestfinished", note)
    parts = []
    for number in range(ASKED):
        y = 0.15 + 0.07 * number
        dan.stroke((0.25, y), (0.75, y))
        dan.page.wait_for_timeout(5500)  # the ink's own draft is saved: the slowest case
        ended.clear()
        began = dan.type_question()
        said, shown = dan.answer()
        assert said.startswith("Model says ")
        dan.page.wait_for_timeout(100)
        (answered,) = [end for url, _, end in ended if "interactive-annotating" in url]
        saved = max((sent, end) for url, sent, end in ended if "/drafts" in url and end < answered)
        parts.append([saved[0] - began, saved[1] - saved[0], answered - saved[1], shown - answered, shown - began])
    assert len(asked) == ASKED, "each question comes with the region that it was typed in"
    assert all(field in saved_with for field in asked), "by which its draft is known"
    for name, spent in zip(
        ("draft sent", "stored", "answered", "shown", "in all"), zip(*parts, strict=True), strict=True
    ):
        print(f"{name:<10}  median {median(spent):5.0f} ms  most {max(spent):5.0f} ms")
    assert median(each[-1] for each in parts) <= 6000


def test_edit_and_ask(scene: Scene, sit_down: Callable[[str], Someone]) -> None:
    answers = {}
    for name in ("ann", "bob"):
        person = sit_down(name)
        assert "every person still reads it" in person.enter(scene.project("edit"))
        person.page.get_by_text("Paint over the picture: people").wait_for()
        person.key("b")
        person.stroke((0.1, 0.5), (0.9, 0.5))
        person.key("w")
        person.stroke((0.1, 0.9), (0.9, 0.9))
        answers[name], _ = person.ask()
        person.key("4")
        assert person.page.get_by_role("radio", name="4").is_checked()
        person.submit()
    edited = {key: c for key, c in judged(scene).items() if "/edit/" in key}
    bases = edit_bases(scene.play.round, scene.play.params, scene.play.spec.channels)
    assert edited.keys() == bases.keys()
    for key, candidate in edited.items():
        assert (candidate.wellformed, candidate.intended) == (True, 4)
        assert candidate.seed_image in scene.play.pool.keys
        pixels, base = decode_png(candidate.image, 1)[0], bases[key][0]
        assert (pixels[13:15, 4:24] == 0).all(), "black covers"
        assert (pixels[25, 4:24] == 255).all(), "white adds"
        assert bool((pixels[:10] == base[:10]).all()), "the rest is the seed image"
        assert says(candidate, scene.play.pool.classes) == answers[candidate.annotator.split(".")[0]]
    assert unfinished(scene.studio, scene.play.round) == 0


def test_validate(scene: Scene, sit_down: Callable[[str], Someone], tmp_path: Path) -> None:
    made = judged(scene)
    publish_validation(scene.studio, scene.play.record, list(made.values()))
    project = scene.project("validate")
    for name, pressed, meant in (("ann", "8", "8"), ("bob", "u", "unreadable")):
        person = sit_down(name)
        person.received.clear()
        assert "Say which class you see" in person.enter(project)
        for number in range(len(made)):
            person.ready()
            person.key(pressed)
            person.page.wait_for_timeout(100)
            assert person.page.get_by_role("radio", name=meant).is_checked()
            if (name, number) == ("ann", 0):
                person.picture("label-studio-validate", tmp_path)
            person.submit()
        person.page.get_by_text("No More Tasks Left in Queue").wait_for(timeout=30_000)
        assert_blind(person, made.values())
    disputed = votes_counted(scene, made)
    assert {key: sorted(votes) for key, votes in disputed.items()} == {
        key: [UNREADABLE] if c.annotator.startswith("ann") else [8] for key, c in made.items()
    }, "nobody's vote on their own candidate counts"

    third = sit_down("cat")
    third.page.goto(f"{scene.studio.url}/projects/{project}/data?labeling=1")
    third.page.get_by_text("No More Tasks Left in Queue").wait_for(timeout=60_000)
    publish_validation(scene.studio, scene.play.record, settled(scene, made))
    third.enter(project)
    for _ in made:
        third.ready()
        third.key("8")
        third.page.wait_for_timeout(100)
        third.submit()
    third.page.get_by_text("No More Tasks Left in Queue").wait_for(timeout=30_000)
    assert {len(votes) for votes in votes_counted(scene, made).values()} == {2}


def votes_counted(scene: Scene, made: dict[str, Any]) -> dict[str, list[int]]:
    """What was voted on each candidate, as far as it counts."""
    return {c.key: [vote.choice for vote in c.votes if vote.counted] for c in settled(scene, made)}


def settled(scene: Scene, made: dict[str, Any]) -> list[Any]:
    pulled_now(scene.studio, scene.play.round)
    return validate(list(made.values()), scene.play.record.votes, scene.play.params.validate_)


def assert_blind(person: Someone, made: Any) -> None:
    """The page was sent nothing of the candidate but its image."""
    sent = images(person.received).replace("@simulated.invalid", "")  # accounts of other tests, in the list of members
    assert '"data":' in sent, "the tasks were looked at"
    for candidate in made:
        assert candidate.key not in sent
        assert candidate.seed_image not in sent or not candidate.seed_image
    for word in ("Model says", "intended", "fooling", "simulated", "/draw/", "/edit/"):
        assert word not in sent, word
    assert '"annotations_results": "[' not in sent
    assert '"annotations_results":"[' not in sent
