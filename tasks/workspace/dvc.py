"""DVC at a workspace's root: one at a time, whatever is killed; its remote; and what its files say."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from configobj import ConfigObj
from ruamel.yaml import YAML

from data.files import write_whole
from data.layout import Workspace
from tasks.workspace.environment import dvc_environment
from tasks.workspace.git import WorkspaceError, git

if TYPE_CHECKING:
    pass


# What DVC advises to do by hand is done here.
CHATTER = (
    *("To track the changes", "git add ", "To enable auto staging", "dvc config ", "Use `dvc push`"),
    *("Updating lock file", "Generating lock file"),
)


def dvc_remote(workspace: Workspace) -> tuple[str, str]:
    """The name and address of the remote that DVC pushes to; empty where there is none yet."""
    merged = ConfigObj(interpolation=False)
    for local in (False, True):
        merged.merge(_read_config(_config_file(workspace, local)))
    remote = str(merged.get("core", {}).get("remote", ""))
    return remote, str(merged.get(f'remote "{remote}"', {}).get("url", ""))


def write_remote(workspace: Workspace, name: str, url: str, *, local: bool = False, default: bool = False) -> None:
    """Give a remote of this name an address. `dvc remote add` fails on addresses that are not ASCII.

    local: only in this workspace, in a file that is not committed; default: DVC pushes to it and pulls from it.
    """
    path = _config_file(workspace, local)
    config = _read_config(path)
    config.setdefault(f'remote "{name}"', {})["url"] = url
    if default:
        config.setdefault("core", {})["remote"] = name
    write_whole(path, "\n".join(config.write()) + "\n")


def remove_remote(workspace: Workspace, name: str) -> None:
    """Forget a remote that only this workspace knows."""
    path = _config_file(workspace, local=True)
    config = _read_config(path)
    config.pop(f'remote "{name}"', None)
    write_whole(path, "\n".join(config.write()) + "\n")


def _config_file(workspace: Workspace, local: bool) -> Path:
    return workspace.root / ".dvc" / ("config.local" if local else "config")


def _read_config(path: Path) -> ConfigObj:
    """A file of DVC's settings, read as DVC reads it; empty if there is none."""
    return ConfigObj(path.read_text(encoding="utf-8").splitlines() if path.exists() else [], interpolation=False)


def check_remote(workspace: Workspace, say: Callable[[str], None] = print) -> None:
    """See that a folder which DVC pushes to is there. A workspace that was moved takes its own store along.

    WorkspaceError where there is none: DVC would make a new one, outside of where anybody looks.
    """
    name, url = dvc_remote(workspace)
    if not url or "://" in url or (workspace.root / ".dvc" / url).exists():
        return
    own = workspace.local / "remote"
    if Path(url).name != "remote" or not own.exists():
        raise WorkspaceError(f"expected the folder of the DVC remote {name} at {url}, and there is none; mount it")
    write_remote(workspace, name, str(own), local=True)
    say(f"the DVC remote {url} is not there any more: this workspace was moved, and its own {own} takes its place")


def dvc(workspace: Workspace, *arguments: str | Path, quiet: bool = False, say: Callable[[str], None] = print) -> None:
    """Run DVC at the workspace's root and pass its lines on; WorkspaceError with its last words if it fails.

    Paths in the workspace are given from its root: DVC takes braces in a path for a template.
    quiet: its lines are not passed on. DVC's own `--quiet` would keep its errors to itself too.
    It runs in a process group of its own, which ends with us. Where we are killed it goes on, and the next one waits
    for it: a stage never runs beside its retry.
    """
    with _alone_with_dvc(workspace, say) as held:
        words = [_from_root(workspace, argument) for argument in arguments]
        _dvc(workspace, words, held, (lambda _: None) if quiet else say)


def _from_root(workspace: Workspace, argument: str | Path) -> str:
    if isinstance(argument, Path) and argument.is_relative_to(workspace.root):
        argument = argument.relative_to(workspace.root)
    return str(argument)


@contextmanager
def _alone_with_dvc(workspace: Workspace, say: Callable[[str], None]) -> Iterator[int]:
    """The descriptor of a lock that is held as long as anybody has it open: us, or the DVC that outlives us."""
    path = workspace.local / "locks" / "dvc.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("the DVC of a command that was killed still works here; waiting for it to end")
            fcntl.flock(file, fcntl.LOCK_EX)
        _sweep(workspace)
        yield file.fileno()


def _sweep(workspace: Workspace) -> None:
    """Remove what a killed DVC leaves: half copies, and a folder of its run cache with nothing in it, at which every
    later one would fail."""
    for left in workspace.rounds.glob("*/.*.tmp"):
        left.unlink()
    for left in (workspace.root / ".dvc" / "cache" / "runs").glob("*/*"):
        if left.is_dir() and not any(left.iterdir()):
            left.rmdir()
    held = workspace.root / ".dvc" / "tmp" / "rwlock"
    if held.exists() and not any(map(_is_dvc, _holders(held))):
        held.unlink()


def _holders(held: Path) -> list[int]:
    """The processes that DVC's list of files in use names; none where a kill tore it."""
    try:
        content = json.loads(held.read_text(encoding="utf-8"))
    except ValueError:
        return []
    writers, readers = content.get("write", {}).values(), content.get("read", {}).values()
    return [int(holder["pid"]) for holder in (*writers, *(each for several in readers for each in several)) if holder]


def _is_dvc(pid: int) -> bool:
    """Whether a DVC runs under that number: DVC also waits for one that was killed and not yet buried, and for any
    other program that was given its number, as after a container's restart."""
    import psutil

    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and any("dvc" in word for word in process.cmdline())
    except psutil.Error:
        return False


def _dvc(workspace: Workspace, arguments: Sequence[str], held: int, say: Callable[[str], None]) -> None:
    environment = {
        **dvc_environment(workspace.local),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PYTHONUNBUFFERED": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=workspace.root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        pass_fds=(held,),
    )
    said: list[str] = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if (text := line.rstrip()) and not text.lstrip().startswith(CHATTER):
                said = [*said[-19:], text]
                say(text)
        code = process.wait()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if code != 0:
        told = [line for line in said if line.startswith(("ERROR", "error"))] or said[-1:]
        raise WorkspaceError(f"dvc {' '.join(arguments)} failed: {told[0] if told else code}")


def lock_outputs(text: str, stage: str) -> dict[str, str]:
    """What a stage made, by a dvc.lock, which is YAML too: path → MD5 digest. Empty if it names no such stage."""
    stages = (YAML(typ="safe").load(text) or {}).get("stages", {})
    return {out["path"]: out["md5"] for out in stages.get(stage, {}).get("outs", ())}


def plots_of(text: str) -> list[tuple[str, dict[str, Any]]]:
    """The plots that a dvc.yaml defines, by title, in its order."""
    return [plot for each in YAML(typ="safe").load(text)["plots"] for plot in each.items()]


def pointer_digest(text: str) -> str:
    """The MD5 digest in a .dvc file."""
    return str(YAML(typ="safe").load(text)["outs"][0]["md5"])


REMOTE = "store"


def check_remote_address(remote: str | None) -> None:
    """Refuse a relative path: it would mean another folder in every clone."""
    if remote is not None and "://" not in remote and not Path(remote).expanduser().is_absolute():
        raise WorkspaceError(f"--remote wants an absolute path or an address, got {remote!r}")


@contextmanager
def remote_set(workspace: Workspace, remote: str | None) -> Iterator[None]:
    """Set the DVC remote; the one of before comes back if that, or what is done within, fails."""
    config = workspace.root / ".dvc" / "config"
    before = config.read_text()
    try:
        set_remote(workspace, remote)
        yield
    except BaseException:
        write_whole(config, before)
        raise


def set_remote(workspace: Workspace, remote: str | None) -> None:
    """Name the DVC remote by an absolute path or address, so that a clone elsewhere can pull.

    WorkspaceError where nothing can be written to it.
    """
    if remote is None:
        if f'remote "{REMOTE}"' in (workspace.root / ".dvc" / "config").read_text():
            return
        remote = str(workspace.local / "remote")
    try:
        if "://" not in remote:
            remote = str(_writable(Path(remote).expanduser()))
        write_remote(workspace, REMOTE, remote, default=True)
        if "://" in remote:
            _try_remote(workspace)
    except (WorkspaceError, OSError) as error:
        said = error.strerror or error if isinstance(error, OSError) else error
        raise WorkspaceError(
            f"--remote wants a folder or an address that can be written to, got {remote!r} ({said}); "
            "see to it, or name another"
        ) from error


def _writable(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise WorkspaceError("it may not be written to")
    return folder


def _try_remote(workspace: Workspace) -> None:
    """Push a file of one word from a repository beside the workspace: a wrong address is told before all the work."""
    with TemporaryDirectory() as name:
        beside = Workspace(Path(name))
        git(beside, "init", "--quiet")
        (beside.root / ".dvc").mkdir()
        for config in ("config", "config.local"):
            if (workspace.root / ".dvc" / config).exists():
                shutil.copy(workspace.root / ".dvc" / config, beside.root / ".dvc")
        (beside.root / "word").write_text("dadc\n")
        dvc(beside, "add", "word", quiet=True)
        dvc(beside, "push", quiet=True)
