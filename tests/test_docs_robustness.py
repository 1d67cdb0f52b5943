"""docs/robustness.md names every loss, attack and shift with its own parameters."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from tasks.config.kinds import names_in

PAGE = (Path(__file__).parent.parent / "docs" / "robustness.md").read_text()
SHARED = {"steps", "step_size", "epsilon"}  # told once, below the table of losses
KINDS = [(family, name) for family in ("losses", "attacks", "shifts") for name in names_in(f"tasks.{family}")]


@pytest.mark.parametrize(("family", "name"), KINDS)
def test_every_kind_has_a_row_with_its_parameters(family: str, name: str) -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |")]
    assert len(rows) == 1, name
    for key, field in importlib.import_module(f"tasks.{family}.{name}").Params.model_fields.items():
        if family == "losses" and name != "nsl" and key in SHARED:
            continue
        assert f"`{key}" in rows[0], f"{name}.{key} is not told"
        if not field.is_required():
            wanted = {"None": "null", "False": "false"}.get(str(field.default), str(field.default))
            told = {f"`{key}: {value}`" for value in (wanted, wanted.removesuffix(".0"))}
            assert any(each in rows[0] for each in told), f"{name}.{key}"
