"""The pages that people see: their keys, and that Label Studio takes them whatever the classes are called."""

from __future__ import annotations

import re
import uuid
from xml.etree import ElementTree as ET

import pytest

from tasks.labelling import label_config
from tasks.labelling.client import LabelStudio

DIGITS = [str(n) for n in range(10)]
ODD = ['a "quoted" one', "<b>bold</b> & co", "it's", "größer", "$image", "b", "w", "u", "x" * 200]


def hotkeys(page: str, tag: str) -> dict[str, str | None]:
    root = ET.fromstring(page)
    return {item.attrib["value"]: item.attrib.get("hotkey") for item in root.iter(tag)}


def test_a_digit_has_its_own_key_and_unreadable_has_u() -> None:
    wanted: dict[str, str | None] = {digit: digit for digit in DIGITS}
    assert hotkeys(label_config.draw_page(DIGITS), "Choice") == wanted
    assert hotkeys(label_config.edit_page(DIGITS, 1), "Choice") == wanted
    assert hotkeys(label_config.validate_page(DIGITS), "Choice") == wanted | {"unreadable": "u"}


def test_no_key_is_given_twice() -> None:
    letters = ["B", "b", "u", "g", "cat"]
    page = label_config.edit_page(letters, 3)
    assert hotkeys(page, "Choice") == {"B": "1", "b": "2", "u": "u", "g": "g", "cat": "3"}
    assert hotkeys(page, "Label") == {"black": "b", "white": "w", "red": "r", "green": "e", "blue": "l"}
    assert hotkeys(label_config.validate_page(letters), "Choice")["unreadable"] == "4"


def test_grey_images_have_grey_pens() -> None:
    assert list(hotkeys(label_config.edit_page(DIGITS, 1), "Label")) == ["black", "white"]
    assert list(hotkeys(label_config.edit_page(DIGITS, 3), "Label")) == list(label_config.PENS)


@pytest.mark.parametrize("classes", [DIGITS, ODD], ids=["digits", "odd names"])
def test_label_studio_takes_the_pages(studio: LabelStudio, classes: list[str]) -> None:
    made = {
        "draw": label_config.draw_page(classes),
        "edit": label_config.edit_page(classes, 3),
        "validate": label_config.validate_page(classes),
    }
    for kind, page in made.items():
        names = [item.attrib["value"] for item in ET.fromstring(page).iter("Choice")]
        assert names[: len(classes)] == classes
        title = f"p-{uuid.uuid4().hex[:12]} {kind}"
        project = studio.ensure_project(title, page, instruction=label_config.DRAW_HELP)
        assert studio.publish(project, {"1": {"image": "data:,", "note": "x"}}) == 1


def test_no_class_may_be_called_as_the_way_out_is() -> None:
    for page in (label_config.draw_page, label_config.validate_page):
        with pytest.raises(ValueError, match="unreadable"):
            page(["cat", "unreadable"])


def test_instructions_number_their_steps() -> None:
    for text in (label_config.DRAW_HELP, label_config.EDIT_HELP):
        assert re.findall(r"<p>(\d)\.", text) == ["1", "2", "3", "4"]
    assert "a 6" in label_config.guide_note("6")
