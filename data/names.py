"""Names from a file system, made fit for records, pages and terminals: UTF-8, one Unicode form, one line."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

LONGEST = 60  # characters of a class name: what has room on a page's button
RESERVED = ("unreadable",)  # the word with which a validator says that an image shows no class
_NOT_SHOWN = ("Cc", "Cn", "Cs", "Zl", "Zp")  # Unicode's categories: control characters, none, halves of one, new lines


def printable(path: Path | str) -> str:
    r"""A path as text that every file and terminal takes: what is no UTF-8 and what is not shown stands as \xNN."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c.encode("unicode_escape").decode() if unicodedata.category(c) in _NOT_SHOWN else c for c in text)


def class_name(folder: str) -> str:
    """The class that a folder of this name holds: composed (NFC), as Linux writes it; macOS takes letters apart."""
    return unicodedata.normalize("NFC", folder)


def class_faults(classes: Sequence[str]) -> list[str]:
    """A line for every class name that Label Studio's page or a record would take for something else."""
    return [f"class '{printable(name)}' {why}; rename it" for name in classes if (why := _fault(name))]


def _fault(name: str) -> str:
    if name.casefold() in RESERVED:
        return "is the word with which validators say that an image shows no class"
    if any(unicodedata.category(c) == "Cs" for c in name):  # bytes that could not be decoded
        return "is not UTF-8"
    if any(unicodedata.category(c) in _NOT_SHOWN for c in name):
        return "has characters that are not shown"
    if not name or name != " ".join(name.split()):
        return "is empty, or has spaces at an end or several in a row, which pages do not show"
    if "$" in name:
        return "has a $, after which Label Studio's page puts a value of the task in the name's place"
    if len(name) > LONGEST:
        return f"has {len(name)} characters, of which {LONGEST} have room on a page"
    return ""
