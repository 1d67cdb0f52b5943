"""The message that an annotator is sent: where to make an account, and the pages of the open round."""

from __future__ import annotations

from pathlib import Path

from data.layout import Workspace
from tasks.workspace.rounds import State, current, state


def invitation(root: Path) -> str:
    """A message ready to send: where people make an account, and the pages of the open round."""
    from tasks.config.params import read
    from tasks.labelling.client import connect
    from tasks.labelling.projects import KINDS, WORK, title
    from tasks.workspace.services import find_services

    studio = connect(find_services(root))
    account = f"Make an account, with an e-mail address and a password:\n{studio.invite()}"
    round_ = current(Workspace(root))
    if round_ is None or state(round_) is not State.OPEN:
        return f"{account}\n\nNo round is open now; its pages will follow."
    campaign = read(round_.params).campaign
    parts = [f"Help us find what the model of {campaign} gets wrong, in your browser.", account]
    for kind in KINDS:
        project = studio.find(title(campaign, round_, kind))
        if project is not None:
            work = WORK[kind][0].upper() + WORK[kind][1:]
            parts.append(f"{work}:\n{studio.url}/projects/{project}/data?labeling=1")
    return "\n\n".join([*parts, "Each page begins with short instructions."])
