"""What is attached to a Label Studio project: the model server, and the webhook that tells it of annotations."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from data.files import write_whole
from data.layout import Workspace
from tasks.labelling.client import LabelStudio
from tasks.labelling.http import LabellingError, errors


def attach_model(studio: LabelStudio, project: int, url: str, user: str, password: str) -> None:
    """Let the model server at `url`, and no other, answer within the project; attached once, however often this is
    called. ServiceDown if Label Studio cannot reach it."""
    log_in = {"auth_method": "BASIC_AUTH", "basic_auth_user": user, "basic_auth_pass": password}
    with errors(studio.url, f"attach the model server at {url}", unless="Can't connect to ML backend"):
        servers = studio.sdk.ml.list(project=project)
        if not servers:
            studio.sdk.ml.create(project=project, url=url, title="target", is_interactive=True, **log_in)
        for extra in servers[1:]:
            studio.sdk.ml.delete(extra.id)
        if servers:
            studio.sdk.ml.update(servers[0].id, project=project, url=url, is_interactive=True, **log_in)


def attached(studio: LabelStudio, project: int) -> list[tuple[str, str, bool]]:
    """Every model server of the project: address, user, and whether it answers while somebody draws."""
    with errors(studio.url, f"list the model servers of project {project}"):
        servers = studio.sdk.ml.list(project=project)
    return [(server.url.rstrip("/"), server.basic_auth_user or "", bool(server.is_interactive)) for server in servers]


def own_addresses(workspace: Workspace) -> list[str]:
    """Every address at which a model server of this workspace was to be attached: ports change."""
    path = _path(workspace)
    known: list[str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return known


def remember_address(workspace: Workspace, url: str) -> None:
    """Write an address down before it is attached."""
    known = own_addresses(workspace)
    if url not in known:
        write_whole(_path(workspace), json.dumps([*known, url]) + "\n")


def _path(workspace: Workspace) -> Path:
    return workspace.local / "attached.json"


def restore_webhooks(studio: LabelStudio, project: int, url: str) -> list[str]:
    """Leave the project its one webhook, the model server's at `url`; the addresses of others, which are deleted."""
    own = f"{url}/webhook"
    with errors(studio.url, f"look at the webhooks of project {project}"):
        hooks: list[Any] = studio.sdk.webhooks.list(project=str(project))
        for hook in hooks:
            if hook.url != own or not hook.is_active:
                studio.sdk.webhooks.delete(hook.id)
    if not any(hook.url == own and hook.is_active for hook in hooks):
        # A hint only: where Label Studio may not send to local addresses, collecting goes on without.
        with suppress(LabellingError), errors(studio.url, f"add a webhook to project {project}"):
            studio.sdk.webhooks.create(url=own, project=project, send_payload=True, send_for_all_actions=True)
    return sorted({hook.url for hook in hooks if hook.url != own})
