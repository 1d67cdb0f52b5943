"""Every benchmark runs quickly, prints its table and writes its figures in the promised form."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks._frame import Measured, interleaved, table

ROOT = Path(__file__).parent.parent
NAMES = sorted(path.stem for path in (ROOT / "benchmarks").glob("[a-z]*.py"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("services")  # those that need servers use the session's instead of their own
def test_a_benchmark_runs_and_writes_its_figures(name: str, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--json", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    figures = json.loads(file.read_text())
    assert figures, "a benchmark measures something"
    for figure in figures:
        assert set(figure) == {"name", "value", "unit", "target", "better", "met"}
        assert figure["better"] in ("higher", "lower")
        assert figure["value"] > 0 or figure["unit"] == "points" or (figure["value"] == 0 and figure["unit"] == "%")
        assert (figure["met"] is None) == (figure["target"] is None)
        assert figure["name"] in done.stdout
    assert done.returncode == int(any(figure["met"] is False for figure in figures))


def test_a_target_is_met_on_its_better_side() -> None:
    assert Measured("a", 2, "s", 2, "lower").met
    assert not Measured("a", 2.1, "s", 2, "lower").met
    assert Measured("a", 2, "1/s", 2, "higher").met
    assert not Measured("a", 1.9, "1/s", 2, "higher").met
    assert Measured("a", 1.9, "1/s", None, "higher").met is None
    shown = table([Measured("slow", 2.5, "s", 2, "lower"), Measured("beside", 1234.5, "1/s", None, "higher")])
    slow, beside = shown.splitlines()[1:]
    assert slow.split() == ["slow", "2.5", "s", "≤", "2", "s", "MISSED"]
    assert beside.split() == ["beside", "1,234", "1/s"]


def test_variants_take_turns_and_the_first_turn_does_not_count() -> None:
    turns: list[str] = []
    now = iter(range(1000))

    def clock() -> float:
        return float(next(now)) ** 2

    found = interleaved({"a": lambda: turns.append("a"), "b": lambda: turns.append("b")}, 3, clock)
    assert turns == ["a", "b"] * 4
    # a is timed from 4 to 5, 8 to 9 and 12 to 13 of a clock that runs ever faster: 9, 17 and 25, and b: 13, 21 and 29
    assert found == {"a": 17, "b": 21}
    with pytest.raises(ValueError, match="repeats must be >= 1, got 0"):
        interleaved({}, 0)
