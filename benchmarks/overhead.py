"""What a round costs besides training and waiting for people: `open`, `collect` twice and `close`, on real services.

A campaign of its own is cloned from the last commit and played by simulated people. Every command is started anew, as a
person or a scheduler starts it. What its stages worked (attacking, training, fine-tuning, evaluating, as they say
themselves) is taken off; the rest is overhead: starting Python, Prefect, DVC, Git, MLflow, publishing and pulling.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks._frame import Measured, main
from benchmarks._workspaces import cloned
from flows.stack.lifecycle import down, up
from tasks.workspace.services import Services

WORKED = re.compile(r"^(?:attack|train|rift|evaluate) \d{3}: worked (\d+\.\d) s$", re.MULTILINE)
COMMANDS = ("open", "collect", "simulate", "collect", "close")
SMALL: dict[str, dict[str, object]] = {
    "data": {"limit": 300, "pool": 60, "validation": 60, "gate": 40},
    "attack": {"count": 2},
    "collect": {"drawings": 4},
    "train": {"epochs": 2},
    "simulate": {"annotators": 2, "validators": 2, "tries": 2},
}


def measure(quick: bool) -> list[Measured]:
    """Seconds of overhead for one round, by command, and by what Prefect saw within it."""
    with tempfile.TemporaryDirectory(prefix="dadc-overhead-") as folder:
        name = f"overhead-{uuid.uuid4().hex[:8]}"
        root = cloned(Path(folder) / "workspace", {"campaign": name, **(SMALL if quick else {})})
        try:
            services = up(root, {}, say=_say)
            dadc(root, "init")
            dadc(root, "run", "--rounds", "0")
            return [m for m in round_of(root, services) if m.value > 0]
        finally:
            down(root, say=_say)


def dadc(root: Path, *arguments: str) -> tuple[float, float]:
    """Run a command; the seconds it took, and those of them that its stages worked."""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "flows.cli", *arguments], cwd=root, capture_output=True, text=True)
    took = time.monotonic() - began
    if done.returncode != 0:
        raise RuntimeError(f"dadc {' '.join(arguments)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return took, sum(map(float, WORKED.findall(done.stdout)))


def round_of(root: Path, services: Services) -> list[Measured]:
    """One round after the first target, command by command."""
    spent: dict[str, float] = defaultdict(float)
    training = 0.0
    for command in COMMANDS:
        took, worked = dadc(root, command)
        if command != "simulate":  # people's time
            spent[command] += took - worked
            training += worked
    tasks = prefect_tasks(services)
    within = sum(tasks.values()) - training
    found = [Measured("a round's overhead", sum(spent.values()), "s", 60, "lower")]
    found += [Measured(f"  dadc {name}", seconds, "s", None, "lower") for name, seconds in spent.items()]
    found += [Measured("starting Python and Prefect", sum(spent.values()) - within, "s", None, "lower")]
    for name, seconds in sorted(tasks.items(), key=lambda item: -item[1]):
        found.append(Measured(f"task {name}", seconds, "s, its stages' work with it", None, "lower"))
    return [*found, Measured("for comparison: what the stages worked", training, "s", None, "lower")]


def prefect_tasks(services: Services) -> dict[str, float]:
    """Seconds by task, of the runs of round 001 that were not simulated people's."""
    runs = ask(services, "/flow_runs/filter", {"flow_runs": {"name": {"like_": " 001 "}}, "limit": 100})
    mine = [run["id"] for run in runs if not run["name"].endswith((" simulate", " campaign"))]
    parents = {run["id"]: run["parent_task_run_id"] for run in runs}
    own = [one for one in mine if parents[one] is None]
    body = {"flow_runs": {"id": {"any_": own}}, "limit": 200}
    spent: dict[str, float] = defaultdict(float)
    for task in ask(services, "/task_runs/filter", body):
        spent[re.sub(r"-\w+$", "", task["name"])] += float(task["total_run_time"])
    return dict(spent)


def ask(services: Services, path: str, body: dict[str, Any]) -> Any:
    """Prefect's own API."""
    auth = base64.b64encode((services.prefect_auth or "").encode()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {auth}"}
    request = urllib.request.Request(f"{services.prefect_url}{path}", data=json.dumps(body).encode(), headers=headers)
    return json.load(urllib.request.urlopen(request, timeout=30))


def _say(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main(measure, __doc__))
