"""What `dvc plots` and `dvc metrics diff` show: small tables in Git, made anew from the rounds whenever one is closed.

`accuracy.csv` has every closed round; the others are of the last one, so that `dvc plots diff round-001 round-002` lays
two rounds over each other: `mrc.csv` (how robust-critical each module is), `drop.csv` (robust accuracy lost where its
loss is highest), `path.csv` (RiFT's interpolation) and `radius.csv` (accuracy by radius). `last.json` has the last
round's shares at one path, so that `dvc metrics diff round-001` tells what has changed since.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data.files import write_whole
from data.layout import Round


def write(rounds: Sequence[Round]) -> list[Path]:
    """Write the tables of these closed rounds, in order; where they lie."""
    folder, last = rounds[-1].workspace.rounds / "plots", rounds[-1]
    found = json.loads(last.challenger.metrics.read_text())
    tuned = json.loads(last.challenger.rift.read_text())
    modules = tuned.get("modules", [])
    curve = {0.0: found["clean"], **{float(radius): told for radius, told in found["curve"].items()}}
    tables = {
        "accuracy": (("round", "accuracy", "series"), [row for each in rounds for row in accuracies(each)]),
        "mrc": (("module", "mrc", "series"), [(m["module"], m["mrc"], last.name) for m in modules]),
        "drop": (("module", "drop", "series"), [(m["module"], m["drop"], last.name) for m in modules if "drop" in m]),
        "path": (("alpha", "accuracy", "series"), interpolated(tuned)),
        "radius": (("epsilon", "accuracy", "series"), [(e, curve[e]["accuracy"], last.name) for e in sorted(curve)]),
    }
    told = {name: accuracy for _, accuracy, name in accuracies(last)}
    told |= {"MER": found["mer"], "vMER": found["vmer"]["low"], "healed": found["heal"]["rate"]}
    shares = {name: value for name, value in told.items() if value is not None}
    write_whole(folder / "last.json", json.dumps({"round": last.number, **shares}, indent=2) + "\n")
    made = [_table(folder / f"{name}.csv", header, lines_of(rows)) for name, (header, rows) in tables.items()]
    return [*made, folder / "last.json"]


def lines_of(rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The rows whose series, their last cell, has two points or more: one point is no line."""
    points = Counter(series for *_, series in rows)
    return [row for row in rows if points[row[-1]] > 1]


def interpolated(tuned: Mapping[str, Any]) -> list[tuple[float, float, str]]:
    """Clean and robust accuracy along RiFT's path; of rounds that `rift.report` had report several, along each."""
    chosen = {"chosen": {"module": tuned["module"], "path": tuned["path"]}} if "path" in tuned else {}
    told = {"least": "least critical", "most": "most critical", "all": "all parameters", "chosen": "chosen"}
    return [
        (point["alpha"], point[figure], f"{figure}, {told[which]}" + (f" ({way['module']})" if way["module"] else ""))
        for which, way in tuned.get("paths", chosen).items()
        for figure in ("clean", "robust")
        for point in way["path"]
    ]


def accuracies(round_: Round) -> list[tuple[str, float, str]]:
    """The round's accuracies: clean, under each attack, and the mean under shifts."""
    found = json.loads(round_.challenger.metrics.read_text())
    told = {"clean": found["clean"], **found["robust"]}
    if "mean" in found["ood"]:
        told["OOD"] = found["ood"]["mean"]
    return [(round_.name, value["accuracy"], name) for name, value in told.items()]


def _table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_whole(path, text.getvalue())
    return path
