"""The environment of programs that we start, without a user's settings that change what they do or say here."""

from __future__ import annotations

import os
from pathlib import Path

from data.files import write_whole

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
PROXIES = ("http_proxy", "https_proxy", "all_proxy")
# They name another checkout, as in a hook, or change which paths and differences Git means.
GIT_VARIABLES = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR", "GIT_NAMESPACE"),
    *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_EXTERNAL_DIFF", "GIT_DIFF_OPTS"),
    *("GIT_LITERAL_PATHSPECS", "GIT_GLOB_PATHSPECS", "GIT_NOGLOB_PATHSPECS", "GIT_ICASE_PATHSPECS"),
)
GIT_SETTINGS = {  # output is parsed, and nobody is there to type a passphrase
    "column.ui": "never",
    "column.tag": "never",
    "commit.gpgSign": "false",
    "core.fsmonitor": "false",
    "diff.relative": "false",
    "i18n.logOutputEncoding": "UTF-8",
    "log.follow": "false",
    "log.showSignature": "false",
    "status.showUntrackedFiles": "normal",
    "tag.gpgSign": "false",
}
# A file that a round commits is committed, whatever somebody's own list of ignored files says.
NO_IGNORED_FILES = {"core.excludesFile": os.devnull}
# They have DVC work elsewhere, as a stage of another DVC, or send what it does to a server.
DVC_VARIABLES = (
    *("DVC_ROOT", "DVC_STAGE", "DVC_DAEMON", "DVC_PAGER", "DVC_EXP_AUTO_PUSH", "DVC_EXP_BASELINE_REV"),
    *("DVC_EXP_GIT_REMOTE", "DVC_EXP_NAME", "DVC_STUDIO_TOKEN", "DVC_STUDIO_URL", "DVC_STUDIO_REPO_URL"),
)


def git_environment(*, ignore_files: bool = True) -> dict[str, str]:
    """This process's environment for Git, and for what reads Git's settings, with GIT_SETTINGS over the user's.

    ignore_files: whether the user's own list of ignored files counts.
    """
    environment = {name: value for name, value in os.environ.items() if name not in GIT_VARIABLES}
    given = environment.get("GIT_CONFIG_COUNT", "0")
    first = int(given) if given.isdigit() else 0
    settings = GIT_SETTINGS if ignore_files else GIT_SETTINGS | NO_IGNORED_FILES
    for number, (key, value) in enumerate(settings.items(), first):
        environment |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return environment | {"GIT_CONFIG_COUNT": str(first + len(settings)), "LANGUAGE": "C"}


def dvc_environment(folder: Path) -> dict[str, str]:
    """This process's environment for DVC. It reads Git's settings from files alone, so one in `folder` is put over the
    user's: DVC refuses to make a file that somebody's own list ignores."""
    user = os.environ.get("GIT_CONFIG_GLOBAL") or Path.home() / ".gitconfig"
    settings = folder / "gitconfig"
    text = f'[include]\n\tpath = "{user}"\n[core]\n\texcludesFile = {os.devnull}\n'
    if not settings.exists() or settings.read_text(encoding="utf-8") != text:
        write_whole(settings, text)
    git = git_environment(ignore_files=False) | {"GIT_CONFIG_GLOBAL": str(settings), "DVC_NO_ANALYTICS": "1"}
    return {name: value for name, value in git.items() if name not in DVC_VARIABLES}


def bypass_proxies() -> None:
    """Have this process, and what it starts, ask servers on this machine directly where the environment names a proxy.

    Clients read the variable in small letters, in capitals, or the first that is there, so both name the same hosts.
    """
    if not any(os.environ.get(name) or os.environ.get(name.upper()) for name in PROXIES):
        return
    given = ",".join(os.environ.get(name, "") for name in ("no_proxy", "NO_PROXY"))
    hosts = dict.fromkeys(host for part in given.split(",") if (host := part.strip()))
    if "*" not in hosts:
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(dict.fromkeys([*hosts, *LOOPBACK_HOSTS]))
