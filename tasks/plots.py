"""What `dvc plots` and `dvc metrics diff` show: small tables in Git, made anew from the rounds whenever one is closed.

`accuracy.csv` has every closed round; `mrc.csv` (how robust-critical each module is) and `radius.csv` (accuracy by
radius) are of the last one, so that `dvc plots diff round-001 round-002` lays two rounds over each other. `last.json`
has the last round's shares at one path, so that `dvc metrics diff round-001` tells what has changed since.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from data.files import write_whole
from data.layout import Round


def write(rounds: Sequence[Round]) -> list[Path]:
    """Write the tables of these closed rounds, in order; where they lie."""
    folder, last = rounds[-1].workspace.rounds / "plots", rounds[-1]
    found = json.loads(last.metrics.read_text())
    modules = json.loads(last.rift.read_text()).get("modules", [])
    curve = {0.0: found["clean"], **{float(radius): told for radius, told in found["curve"].items()}}
    tables = {
        "accuracy": (("round", "accuracy", "series"), [row for each in rounds for row in accuracies(each)]),
        "mrc": (("module", "mrc", "series"), [(m["module"], m["mrc"], last.name) for m in modules]),
        "radius": (("epsilon", "accuracy", "series"), [(e, curve[e]["accuracy"], last.name) for e in sorted(curve)]),
    }
    told = {name: accuracy for _, accuracy, name in accuracies(last)}
    told |= {"MER": found["mer"], "vMER": found["vmer"]["low"], "healed": found["heal"]["rate"]}
    shares = {name: value for name, value in told.items() if value is not None}
    write_whole(folder / "last.json", json.dumps({"round": last.number, **shares}, indent=2) + "\n")
    made = [_table(folder / f"{name}.csv", header, rows) for name, (header, rows) in tables.items()]
    return [*made, folder / "last.json"]


def accuracies(round_: Round) -> list[tuple[str, float, str]]:
    """The round's accuracies: clean, under each attack, and the mean under shifts."""
    found = json.loads(round_.metrics.read_text())
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
