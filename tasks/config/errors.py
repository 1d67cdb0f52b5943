"""What is wrong with params.yaml, in words: where, what was expected, what came, in one line for each fault."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

KIND = r"^[a-z][a-z0-9_]*$"
NETWORK = r"^([a-z][a-z0-9_]*|[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*)$"
CAMPAIGN = r"^[A-Za-z0-9][A-Za-z0-9_-]{2,28}$"  # a title in Label Studio has 50 characters, with the id and the round
BLOCK = r"^[a-z0-9-]+/[a-z0-9-]+$"
PATTERNS = {
    KIND: "a name of small letters, digits and _, beginning with a letter",
    NETWORK: "the name of a file of models/, or package.module:function",
    CAMPAIGN: "3 to 29 letters, digits, - and _, beginning with a letter or digit",
    BLOCK: "TYPE/NAME in small letters, digits and -, such as slack-webhook/team",
}
TYPES = {  # pydantic's name of the fault → what is said instead of its own words
    "bool_type": "true or false",
    "dict_type": "keys with their values",
    "float_type": "a number",
    "int_type": "a whole number",
    "model_type": "keys with their values",
    "string_type": "text",
    "tuple_type": "a list",
}
FRACTION = re.compile(r"\s*(\d+(?:\.\d*)?)\s*/\s*(\d+(?:\.\d*)?)\s*")


def of_yaml(error: Exception) -> str:
    """The line in which a file ceases to be YAML, and why; of an error of ruamel.yaml, or of decoding it."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return str(error).splitlines()[0]
    return f"line {mark.line + 1}: {getattr(error, 'problem', None) or error}"


def of_keys(error: ValidationError, name: str, where: str) -> str:
    """A line for each fault. name: of the file; where: the path of the key that was checked, empty for all of it."""
    lines = []
    for fault in error.errors(include_url=False):
        keys = [str(part) for part in fault["loc"] if part != "[key]"]
        path = ".".join([where, *keys] if where else keys)
        if fault["type"] == "extra_forbidden":
            lines.append(f"{name}: {path}: no such key")
        elif fault["type"] == "missing":
            lines.append(f"{name}: {path}: expected a value, got none")
        elif fault["type"] == "value_error":
            lines.append(f"{name}: {path}: expected {fault['msg'].removeprefix('Value error, ')}")
        else:
            lines.append(f"{name}: {path}: expected {_wanted(fault)}, got {fault['input']!r}{_decimal(fault)}")
    return "\n".join(lines)


def _wanted(fault: Mapping[str, Any]) -> str:
    said = str(fault["msg"]).removeprefix("Input should be ").removeprefix("String should have ")
    return PATTERNS.get(fault.get("ctx", {}).get("pattern", "")) or TYPES.get(fault["type"], said)


def _decimal(fault: Mapping[str, Any]) -> str:
    """The number that a fraction such as 8/255 is, which YAML reads as text."""
    found = FRACTION.fullmatch(fault["input"]) if isinstance(fault["input"], str) else None
    if found is None or fault["type"] != "float_type" or float(found[2]) == 0:
        return ""
    return f"; write {float(found[1]) / float(found[2]):.4g}"
