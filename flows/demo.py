"""`make demo`: a campaign of two simulated rounds on real services, in a clone of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 2
NAME = ".demo"


def main() -> int:
    """Clone, start, run, print the table, stop; KEEP=1 leaves the services up."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # in order with what is run, in a file too
    began = time.monotonic()
    checkout = Path(__file__).resolve().parent.parent
    keep = os.environ.get("KEEP", "") not in ("", "0")
    clone = make_clone(checkout)
    starting = subprocess.Popen([sys.executable, "-m", "flows.cli", "up"], cwd=clone, stdin=subprocess.DEVNULL)
    code = dadc(clone, "init")
    code = starting.wait() or code
    code = code or dadc(clone, "run", "--rounds", str(ROUNDS), "--simulate")
    print(where(clone, keep))
    # `up` again changes nothing and prints the log-in.
    code = dadc(clone, "up" if keep else "down") or code
    print(f"the demo took {time.monotonic() - began:.0f} s" + ("" if code == 0 else " and failed"))
    return code


def make_clone(checkout: Path) -> Path:
    """A clone of the checkout's HEAD at `.demo`; one of another commit is put aside, its services stopped."""
    clone = checkout / NAME
    head = _git(checkout, "rev-parse", "HEAD")
    changed = _git(checkout, "status", "--porcelain")
    if changed:
        print("note: the demo runs the last commit, without the changes that are not committed")
    if clone.exists():
        base = _git(clone, "rev-parse", "demo-base")
        if base == head:
            print(f"going on in {clone}")
            return clone
        dadc(clone, "down")
        aside = checkout / f"{NAME}.{base[:8]}.{int(time.time())}"
        clone.rename(aside)
        print(f"an older demo was put aside as {aside.name}")
    fresh = checkout / f"{NAME}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    _git(checkout, "clone", "--quiet", "--no-hardlinks", str(checkout), str(fresh))
    _git(fresh, "switch", "--quiet", "--force-create", "demo")
    _git(fresh, "tag", "demo-base")
    fresh.rename(clone)
    print(f"the campaign's workspace is {clone}")
    return clone


def dadc(clone: Path, *arguments: str) -> int:
    """Run `dadc` in the clone, with the clone's code."""
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments], cwd=clone, stdin=subprocess.DEVNULL, check=False
    ).returncode


def where(clone: Path, keep: bool) -> str:
    """Where to look at what the demo made."""
    lines = [
        f"the rounds      {clone}/data/rounds/",
        f"their figures   cd {NAME} && ../.venv/bin/dadc compare",
    ]
    if keep:
        lines.append(f"the services are up; cd {NAME} && ../.venv/bin/dadc down stops them")
    else:
        lines.append("MLflow, Label Studio, Prefect   KEEP=1 make demo leaves them up and prints the log-in")
    return "\n".join(lines)


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
