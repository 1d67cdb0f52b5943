"""The command `dadc`: the campaign, its rounds, the local services. Their bodies are in flows/commands/."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from flows.commands import campaign, record, round, services  # noqa: F401  the subcommands, in the order of help
from flows.commands.shell import QUIET, app, root


def main() -> Any:
    """Start again at the workspace's root, so that the code that runs is the code that lies there."""
    os.environ.update({key: os.environ.get(key, value) for key, value in QUIET.items()})
    here = Path(__file__).resolve().parent.parent
    if not {"--help", "-h"} & set(sys.argv[1:]) and len(sys.argv) > 1:
        from tasks.workspace.git import WorkspaceError

        try:
            at = root().resolve()
        except WorkspaceError as error:
            print(f"dadc: {error}", file=sys.stderr)
            return 1
        if at != here:
            print(f"dadc: the code of {at} was wanted, {here} was imported; run `dadc` from within", file=sys.stderr)
            return 1
        os.chdir(at)
    return app(prog_name="dadc")


if __name__ == "__main__":
    sys.exit(main())
