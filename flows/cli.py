"""The command `dadc`. Its subcommands are in flows/commands/, one file for each panel of its help."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

from data.layout import Workspace
from flows.commands.shell import CALLER, QUIET, app, is_command
from tasks.workspace.environment import bypass_proxies

for panel in ("setup", "round", "champion", "campaign", "record"):  # in the order of use, which is that of the help
    importlib.import_module(f"flows.commands.{panel}")


def main() -> Any:
    """Start again at the workspace's root, so that the code that runs is the code that lies there.

    Help, the version and a mistyped command need no workspace.
    """
    os.environ.update({key: os.environ.get(key, value) for key, value in QUIET.items()})
    bypass_proxies()
    words = sys.argv[1:]
    name = next((word for word in words if not word.startswith("-")), "")
    if is_command(name) and not {"--help", "-h"} & set(words):
        from tasks.workspace.checkout import find_workspace
        from tasks.workspace.git import WorkspaceError

        code = Path(__file__).resolve().parent.parent
        try:
            at = find_workspace(CALLER).root.resolve()
        except WorkspaceError as error:
            print(f"dadc: {error}", file=sys.stderr)
            return 1
        if at != code:
            print(f"dadc: expected the code of {at}, imported that of {code}; run `dadc` in there", file=sys.stderr)
            return 1
        os.chdir(at)
        make_private(at)
    return app(prog_name="dadc")


def make_private(root: Path) -> None:
    """`.dadc` holds passwords, logs and what people drew: nobody but its owner reads it."""
    local = Workspace(root).local
    local.mkdir(mode=0o700, exist_ok=True)
    if local.stat().st_mode & 0o077 and local.stat().st_uid == os.geteuid():
        local.chmod(0o700)


if __name__ == "__main__":
    sys.exit(main())
