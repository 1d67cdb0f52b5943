"""What `dadc` says of itself: help in the order of use, an example for each command, its version."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from flows.cli import app

ROOT = Path(__file__).parents[2]
COMMANDS: dict[str, object] = get_command(app).commands  # type: ignore[attr-defined]
IN_ORDER = ("init", "up", "open", "invite", "collect", "close", "status", "verify", "backup")


def answer(*words: str) -> str:
    """What the command prints, without colours."""
    return CliRunner().invoke(app, list(words), prog_name="dadc", env={"COLUMNS": "100", "NO_COLOR": "1"}).output


def test_commands_stand_in_the_order_of_use() -> None:
    listed = re.findall(r"^│ ([a-z]+) ", answer("--help"), re.MULTILINE)
    assert sorted(listed) == sorted(COMMANDS)
    places = [listed.index(name) for name in IN_ORDER]
    assert places == sorted(places)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_and_names_no_python_types(name: str) -> None:
    text = answer(name, "--help")
    assert f"Example: dadc {name}" in text
    assert not re.search(r"<\w+( range)?>", text), text


def test_the_version_is_that_of_pyproject() -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    assert answer("--version").startswith(f"dadc {version[1]} (commit ")


def test_every_and_cron_exclude_each_other() -> None:
    result = CliRunner().invoke(app, ["schedule", "--every", "60", "--cron", "* * * * *"])
    assert result.exit_code == 1
    assert result.output == "dadc: give --every or --cron, not both\n"
    result = CliRunner().invoke(app, ["schedule", "--timezone", "Europe/Berlin"])
    assert result.output.startswith("dadc: --timezone says how --cron is meant")
