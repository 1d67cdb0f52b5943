"""The campaign of tests/campaign_before_regrouping.tar.gz: rounds 000 and 001 closed, 002 open.

The archive holds its Git history as a bundle, the store of its DVC remote, and the record of its open round.
"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

from conftest import CHECKOUT, run

ARCHIVE = Path(__file__).parent / "campaign_before_regrouping.tar.gz"
CODE = ("flows", "tasks", "models", "data", "dvc.yaml", "pyproject.toml")


def unpacked(folder: Path) -> Path:
    """The campaign in another folder and on another machine than it was made on, with its own code."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    root = folder / "campaign"
    run(folder, "git", "clone", "--quiet", str(folder / "unpacked" / "campaign.bundle"), str(root))
    for key in ("name", "email"):
        run(root, "git", "config", f"user.{key}", "test@localhost")
    shutil.copytree(folder / "unpacked" / ".dadc", root / ".dadc")
    shutil.copytree(folder / "unpacked" / "data", root / "data", dirs_exist_ok=True)
    run(root, "dvc", "remote", "modify", "--local", "store", "url", str(root / ".dadc" / "remote"))
    run(root, "dvc", "pull", "--quiet")
    return root


def with_the_code_of_now(old: Path, folder: Path) -> Path:
    """A copy of it with the code of now, its params.yaml as it was."""
    root = Path(shutil.copytree(old, folder / "campaign", symlinks=True))
    run(root, "dvc", "remote", "modify", "--local", "store", "url", str(root / ".dadc" / "remote"))
    run(root, "git", "rm", "-r", "--quiet", "--", "flows", "tasks", "models", "data/*.py", "data/sets")
    for name in run(CHECKOUT, "git", "ls-files", "-z", "--", *CODE).stdout.split("\0"):
        if name and not name.startswith("data/rounds/index"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, root / name)
    run(root, "git", "add", "--all")
    run(root, "git", "commit", "--quiet", "--message", "Take the code of now")
    return root
