"""docs/networks-and-data.md names every network, data set and augmentation, with the strengths that hold."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from tasks.config.kinds import names_in

PAGE = (Path(__file__).parent.parent / "docs" / "networks-and-data.md").read_text()
ROWS = {name: line for line in PAGE.splitlines() if line.startswith("| `") for name in re.findall(r"`(\w+)`", line)}


@pytest.mark.parametrize("name", [n for family in ("models", "data.sets", "tasks.augments") for n in names_in(family)])
def test_every_kind_has_a_row(name: str) -> None:
    assert f"`{name}`" in PAGE.split("fill` is what")[0]
    assert name in ROWS


@pytest.mark.parametrize("name", names_in("tasks.augments"))
def test_every_strength_is_told_with_its_default(name: str) -> None:
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))
    for key, field in importlib.import_module(f"tasks.augments.{name}").Params.model_fields.items():
        if key == "share":
            continue
        assert f"`{key}" in row, f"{name}.{key} is not told"
        told = re.search(rf"`{key}: ([^`]+)`", row) or re.search(r": ([0-9.]+),", row)
        assert told, f"{name}.{key}: no default is told"
        assert told[1] == f"{field.default}".removesuffix(".0").lower()
