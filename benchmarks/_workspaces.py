"""Workspaces of a benchmark's own."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parent.parent


def cloned(root: Path, changes: Mapping[str, Any]) -> Path:
    """A clone of the checkout's last commit at `root`, some of params.yaml changed, a section's keys one by one."""
    subprocess.run(["git", "clone", "--quiet", str(CHECKOUT), str(root)], check=True)
    params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    for name, given in changes.items():
        params[name] = {**params[name], **given} if isinstance(given, Mapping) else given
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    author = ["-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost"]
    subprocess.run(["git", *author, "commit", "--quiet", "--all", "--message", "params"], cwd=root, check=True)
    return root
