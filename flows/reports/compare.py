"""Two closed rounds side by side: their figures, what changed between them, and the parameters in which they differ."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from data.layout import Round, Workspace
from flows.reports.status import terminal
from tasks.config.params import read
from tasks.workspace.git import WorkspaceError
from tasks.workspace.rounds import closed, target


def compare(root: Path, numbers: list[int]) -> dict[str, Any]:
    """Both rounds' shares, the changes, and the differing parameters, as JSON. numbers: as for `pair`."""
    before, after = pair(Workspace(root), numbers)
    old, new = (figures(json.loads(r.challenger.metrics.read_text(encoding="utf-8"))) for r in (before, after))
    rows = []
    for name in dict.fromkeys([*new, *old]):
        left, right = old.get(name), new.get(name)
        change = None if left is None or right is None else right["share"] - left["share"]
        rows.append({"figure": name, "before": left, "after": right, "change": change})
    return {"before": before.name, "after": after.name, "figures": rows, "parameters": differences(before, after)}


def pair(workspace: Workspace, numbers: list[int]) -> tuple[Round, Round]:
    """The two rounds to compare: those named; else the one named, or the last closed one, and its target."""
    done = closed(workspace)
    names = ", ".join(r.name for r in done) or "none"
    if len(numbers) > 2:
        raise ValueError(f"expected at most two rounds to compare, got {len(numbers)}")
    for number in numbers:
        if workspace.round(number) not in done:
            raise WorkspaceError(f"round {number:03d} is not closed, and only closed rounds have figures ({names})")
    if len(numbers) == 2:
        return workspace.round(numbers[0]), workspace.round(numbers[1])
    after = workspace.round(numbers[0]) if numbers else next(reversed(done), None)
    before = target(after) if after else None
    if after is None or before is None:
        raise WorkspaceError(f"there is no second round to compare with; closed rounds: {names}. Close another first")
    return before, after


def figures(metrics: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What a round measured, by name: a share from 0 to 1 and its 95% interval, where it has one."""
    none = {"low": None, "high": None}
    values: dict[str, dict[str, Any] | None] = {"clean": metrics["clean"], **metrics["robust"]}
    values |= {f"OOD {name}": value for name, value in metrics["ood"].items()}
    values["healed"] = metrics["heal"] | {"accuracy": metrics["heal"]["rate"]}
    values["relapsed"] = metrics["heal"]["relapse"] | {"accuracy": metrics["heal"]["relapse"]["rate"]}
    if "calibration" in metrics:  # not in rounds of before
        values["calibration error"] = none | metrics["calibration"] | {"accuracy": metrics["calibration"]["ece"]}
    intervals = metrics.get("intervals", {})  # not in rounds of before, whose vMER has the bounds of what is pending
    values["MER"] = {"accuracy": metrics["mer"], **(intervals.get("mer") or none)}
    values["vMER"] = {"accuracy": metrics["vmer"]["low"], **(intervals.get("vmer") or metrics["vmer"])}
    return {
        name: {"share": value["accuracy"], "low": value["low"], "high": value["high"]}
        for name, value in values.items()
        if value is not None and value["accuracy"] is not None
    }


def differences(before: Round, after: Round) -> list[dict[str, Any]]:
    """The keys of params.yaml in which the rounds differ, as they were frozen, defaults filled in."""
    old, new = (dict(_flat(read(r.params).model_dump(mode="json", by_alias=True))) for r in (before, after))
    return [
        {"key": key, "before": old.get(key), "after": new.get(key)}
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key)
    ]


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def show(root: Path, numbers: list[int], as_json: bool = False) -> None:
    """Print the two rounds as a table that fits 80 columns, or as JSON."""
    facts = compare(root, numbers)
    if as_json:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    title = "in per cent, 95% intervals; of the test split where it is an accuracy"
    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("figure", f"round {facts['before']}", f"round {facts['after']}", "change, points"):
        shown.add_column(name, justify="left" if name == "figure" else "right")
    for row in facts["figures"]:
        change = "–" if row["change"] is None else f"{100 * row['change']:+.1f}"
        shown.add_row(escape(row["figure"]), _cell(row["before"]), _cell(row["after"]), change)
    console = terminal()
    console.print(shown)
    for row in facts["parameters"]:
        console.print(escape(f"{row['key']}: {_plain(row['before'])} → {_plain(row['after'])}"), highlight=False)
    if not facts["parameters"]:
        print(f"rounds {facts['before']} and {facts['after']} have the same parameters")


def _cell(value: dict[str, Any] | None) -> str:
    if value is None:
        return "–"
    share = f"{100 * value['share']:.1f}"
    if value["low"] is None or value["high"] is None or value["low"] == value["high"]:
        return share
    return f"{share} ({100 * value['low']:.1f}–{100 * value['high']:.1f})"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
