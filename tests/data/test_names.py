"""Names of files and classes: fit for a terminal, a record and Label Studio's page, or refused with the reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from data.names import class_faults, class_name, printable


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("unreadable", "is the word with which validators say"),
        ("Unreadable", "is the word with which validators say"),
        ("$1", "has a $, after which Label Studio's page"),
        ("US$ 5", "has a $"),
        (" tabby", "has spaces at an end"),
        ("siamese ", "has spaces at an end"),
        ("golden  retriever", "several in a row"),
        ("golden\u00a0retriever ", "has spaces at an end"),
        ("new\nline", r"'new\nline' has characters that are not shown"),
        ("\x1f", "has characters that are not shown"),
        ("", "is empty"),
        ("x" * 61, "has 61 characters, of which 60 have room"),
        (os.fsdecode(b"caf\xe9"), r"'caf\xe9' is not UTF-8"),
    ],
)
def test_a_class_name_that_another_program_would_rewrite_is_refused(name: str, said: str) -> None:
    (fault,) = class_faults(["cat", name])
    assert said in fault
    assert len(fault.splitlines()) == 1


def test_names_in_any_language_are_taken() -> None:
    names = ["cat", "5", "1,000", "{x}", 'a&b <c> "d"', "it's", "A", "a", "#1", "%s", "[red]", "\\1", "a/b"]
    names += ["caf\u00e9 \U0001f431", "\u06af\u0631\u0628\u0647\u200c\u0647\u0627"]
    assert class_faults(names) == []


def test_a_class_is_named_in_its_composed_form() -> None:
    assert class_name("cafe\u0301") == "caf\u00e9"


def test_a_path_becomes_one_line_of_text() -> None:
    assert printable(Path(os.fsdecode(b"a/caf\xe9\n\x1b[31m.png"))) == r"a/caf\xe9\n\x1b[31m.png"
    assert printable("d\u00e9j\u00e0 vu \U0001f431") == "d\u00e9j\u00e0 vu \U0001f431"
