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


def sent(item: ET.Element) -> str:
    """What the page sends where this is chosen."""
    return item.attrib.get("alias", item.attrib["value"])


def hotkeys(page: str, tag: str) -> dict[str, str | None]:
    return {sent(item): item.attrib.get("hotkey") for item in ET.fromstring(page).iter(tag)}


def test_a_digit_has_its_own_key_and_unreadable_has_u() -> None:
    wanted: dict[str, str | None] = {digit: digit for digit in DIGITS}
    assert hotkeys(label_config.draw_page(DIGITS), "Choice") == wanted
    assert hotkeys(label_config.edit_page(DIGITS, 1), "Choice") == wanted
    assert hotkeys(label_config.validate_page(DIGITS), "Choice") == wanted | {"unreadable": "u"}


def test_no_key_is_given_twice() -> None:
    letters = ["B", "b", "g", "cat"]
    page = label_config.edit_page(letters, 3)
    assert hotkeys(page, "Choice") == {"B": "1", "b": "2", "g": "g", "cat": "3"}
    assert hotkeys(page, "Label") == {"black": "b", "white": "w", "red": "r", "green": "n", "blue": "l"}
    assert hotkeys(label_config.validate_page([*letters, "u"]), "Choice")["unreadable"] == "4"


def test_a_class_does_not_get_the_key_that_puts_the_brush_away() -> None:
    letters = ["a", "e", "u", "v"]
    for page in (label_config.draw_page(letters), label_config.edit_page(letters, 1)):
        assert hotkeys(page, "Choice") == {"a": "a", "e": "1", "u": "2", "v": "3"}
    assert hotkeys(label_config.validate_page(letters), "Choice")["e"] == "e", "a page without a brush"
    many = [f"class {number}" for number in range(33)]
    for page in (label_config.draw_page(many), label_config.edit_page(many, 1)):
        keys = hotkeys(page, "Choice").values()
        assert len(set(keys)) == 33, "Label Studio would give what is left out a key of its choice"
        assert label_config.TOOL_KEYS.isdisjoint(str(key) for key in keys)


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
        names = [sent(item) for item in ET.fromstring(page).iter("Choice")]
        assert names[: len(classes)] == classes
        title = f"p-{uuid.uuid4().hex[:12]} {kind}"
        project = studio.ensure_project(title, page, instruction=label_config.DRAW_HELP)
        assert studio.publish(project, {"1": {"image": "data:,", "note": "x"}}) == 1


def test_the_style_sheet_holds_nothing_that_label_studio_escapes() -> None:
    for page in (label_config.draw_page(DIGITS), label_config.edit_page(DIGITS, 3), label_config.validate_page(DIGITS)):
        (style,) = ET.fromstring(page).iter("Style")
        assert style.text
        assert not set(style.text) & set("<>&\"'")


def test_no_class_may_be_called_as_the_way_out_is() -> None:
    for page in (label_config.draw_page, label_config.validate_page):
        with pytest.raises(ValueError, match="unreadable"):
            page(["cat", "unreadable"])


def test_instructions_number_their_steps() -> None:
    for text in (label_config.DRAW_HELP, label_config.EDIT_HELP):
        assert re.findall(r"<p>(\d)\.", text) == ["1", "2", "3", "4"]
    assert "a 6" in label_config.guide_note("6")
