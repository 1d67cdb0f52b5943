"""The charts of a campaign as one HTML page that loads nothing: what `dvc plots show` draws, for a reader offline."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from html import escape
from pathlib import Path
from typing import Any

from data.files import write_whole
from data.layout import Workspace
from tasks.workspace.dvc import plots_of
from tasks.workspace.git import WorkspaceError

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
body { color-scheme: light; background: #fff; color: #1a1a1a; }
svg { width: 100%; height: auto; }
"""


def write_page(root: Path, file: Path) -> int:
    """Write the page; how many charts it has. A chart of dvc.yaml is drawn if a line of it has two points."""
    workspace = Workspace(root)
    plots = plots_of((root / "dvc.yaml").read_text(encoding="utf-8"))
    drawn = [svg for plot in plots if (svg := draw(workspace, *plot)) is not None]
    if not drawn:
        raise WorkspaceError("there is nothing to draw yet: charts are made when a round is closed (`dadc close`)")
    title = escape(f"Campaign {workspace.root.name}")
    page = f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    write_whole(file, f"{page}</head><body><h1>{title}</h1>{''.join(drawn)}</body></html>\n")
    return len(drawn)


def draw(workspace: Workspace, title: str, plot: dict[str, Any]) -> str | None:
    """One chart of dvc.yaml as SVG; None if no line of it has two points."""
    from matplotlib.figure import Figure

    ((name, y),) = plot["y"].items()
    x = plot["x"]
    lines: dict[str, list[tuple[str, float]]] = defaultdict(list)
    path = workspace.root / name
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                lines[row["series"]].append((row[x], float(row[y])))
    if max(map(len, lines.values()), default=0) < 2:
        return None
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    numeric = x in ("alpha", "epsilon")
    for series, points in lines.items():
        at = [float(place) for place, _ in points] if numeric else [place for place, _ in points]
        axes.plot(at, [value for _, value in points], marker="o", label=series)
    axes.set(title=title, xlabel=plot.get("x_label", x), ylabel=plot["y_label"])
    axes.tick_params(axis="x", rotation=0 if numeric or x == "round" else 45)
    axes.grid(alpha=0.3)
    axes.legend()
    image = io.StringIO()
    figure.savefig(image, format="svg", metadata={"Date": None})
    text = image.getvalue()
    return text[text.index("<svg") :]
