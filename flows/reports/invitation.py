"""What an annotator is sent: where to make an account, and the pages of the open round."""

from __future__ import annotations

from pathlib import Path

from data.layout import Workspace
from tasks.workspace.rounds import State, current, state


def invitation(root: Path) -> str:
    """Where people make an account, and the pages of the open round, a line each."""
    from tasks.config.params import read
    from tasks.labelling.client import connect
    from tasks.labelling.projects import KINDS, title
    from tasks.workspace.services import find_services

    studio = connect(find_services(root))
    lines = [f"{'account':<9} {studio.invite()}"]
    now = current(Workspace(root))
    if now is not None and state(now) is State.OPEN:
        campaign = read(now.params).campaign
        for kind in KINDS:
            project = studio.find(title(campaign, now, kind))
            if project is not None:
                lines.append(f"{kind:<9} {studio.url}/projects/{project}/data?labeling=1")
    return "\n".join(lines)
