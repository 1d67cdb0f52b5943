"""A closed round can be made again, never redefined: its stages make what its tag holds, or they fail.

The same code in the same environment makes the same bytes. In another environment they may differ, and then only where
the tag itself is checked out: the figures must then agree with the recorded ones within their intervals.
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from data.files import Sealed
from data.files import sealed as guarded
from data.layout import Round, pointer
from tasks.config.params import Params
from tasks.workspace.dvc import lock_outputs, pointer_digest
from tasks.workspace.environment import git_environment
from tasks.workspace.git import WorkspaceError
from tasks.workspace.rounds import closing_commit

STAGES = ("attack", "train", "rift", "train_reference", "rift_reference", "evaluate", "gate")
PACKAGES = ("torch", "torchvision", "numpy", "pyarrow", "pillow")  # by which the bytes of a stage may differ


def environment(params: Params) -> dict[str, Any]:
    """What the bytes of a round hang on besides its inputs and its code; with several devices they hang on chance too.

    train.json says how many processes there were, on all machines.
    """
    import torch

    return {
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "threads": params.threads,
        "accelerator": params.accelerator,
        "devices": params.devices,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name() if params.accelerator == "cuda" and torch.cuda.is_available() else "cpu",
    }


def differences(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In what two environments differ, in words; empty if in nothing that was recorded. The precision that a round
    settled on is its own choice, and goes with it."""
    return ", ".join(
        f"{name} {old}, here {now.get(name)}"
        for name, old in recorded.items()
        if name != "precision" and now.get(name) != old
    )


@contextmanager
def guard_closed_round(stage: str, round_: Round, params: Params, say: Callable[[str], None]) -> Iterator[None]:
    """Within it a stage of a closed round can make nothing but what its tag holds; ValueError if it tries. Where the
    tag is checked out and the environment is another it may, and its figures are compared."""
    wanted = _outputs(stage, round_)
    if not wanted:
        yield
        return
    record = _at_closing(round_, round_.lineage)
    other = differences(json.loads(record)["environment"] if record else {}, environment(params))
    if other and _checked_out(round_):
        say(f"{stage} {round_.name}: made again in another environment ({other}); its bytes may differ")
        yield
        if stage == "evaluate":
            say(f"{stage} {round_.name}: {agreement(round_)}")
        return
    try:
        with guarded({round_.workspace.root / path: digest for path, digest in wanted.items()}):
            yield
    except Sealed as error:
        why = f"in another environment ({other})" if other else "by other code, or on another machine"
        raise ValueError(
            f"{error}: round {round_.name} is closed, and it was made {why}; it can be made again, never redefined; "
            f"`git checkout {round_.tag}` has its code, `dvc checkout` then brings its files"
        ) from error


def agreement(round_: Round) -> str:
    """That the figures of metrics.json lie within the intervals of the tag's, in words; ValueError if one does not."""
    before = json.loads(_at_closing(round_, round_.challenger.metrics) or "{}")
    now = json.loads(round_.challenger.metrics.read_text())
    told = _figures(before)
    outside = []
    for name, (found, _, _) in _figures(now).items():
        _, low, high = told.get(name, (found, found, found))
        if not low <= found <= high:
            outside.append(f"{name} is {found:.1%}, {low:.1%} to {high:.1%} was expected")
    if outside:
        raise ValueError(f"the figures are not those of {round_.tag}: {'; '.join(outside)}")
    return f"its {len(told)} figures lie within the intervals of {round_.tag}"


def _figures(content: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[float, float, float]]:
    """Every share with an interval, by its path: (share, low, high)."""
    found = {}
    for key, value in content.items():
        if not isinstance(value, Mapping):
            continue
        name = f"{prefix}.{key}".lstrip(".")
        share = value.get("accuracy", value.get("rate"))
        if share is not None and "low" in value:
            found[name] = (share, value["low"], value["high"])
        found |= _figures(value, name)
    return found


def digests(round_: Round) -> dict[Path, str]:
    """All that a closed round holds and DVC knows: path → MD5 by its tag. Empty if it is not closed."""
    found = {path: digest for stage in STAGES for path, digest in _outputs(stage, round_).items()}
    named = {round_.workspace.root / path: digest for path, digest in found.items()}
    for path in (round_.candidates, round_.annotations):
        frozen = _at_closing(round_, pointer(path))
        if frozen:
            named[path] = pointer_digest(frozen)
    return named


def _outputs(stage: str, round_: Round) -> dict[str, str]:
    """What the stage made when the round was closed: path → MD5. Empty if it is not, or nobody can tell."""
    lock = _at_closing(round_, round_.workspace.root / "dvc.lock")
    return lock_outputs(lock, f"{stage}@{round_.name}") if lock else {}


def _at_closing(round_: Round, path: Path) -> str:
    """The file as the commit that closed the round holds it; empty if there is none."""
    closed_by = _closing(round_)
    return _git(round_, "show", f"{closed_by}:{path.relative_to(round_.workspace.root)}") if closed_by else ""


def _closing(round_: Round) -> str:
    """The commit that closed the round; empty if none did, or nobody can tell."""
    try:
        return closing_commit(round_)
    except WorkspaceError:  # outside a checkout
        return ""


def _checked_out(round_: Round) -> bool:
    """Whether HEAD is the tag itself and no branch, so that nothing made here can become the campaign's."""
    if _git(round_, "symbolic-ref", "-q", "HEAD"):
        return False
    return _git(round_, "rev-parse", "HEAD") == _closing(round_)


def _git(round_: Round, *arguments: str) -> str:
    """What git says; nothing where it refuses, as without the tag or outside a checkout."""
    done = subprocess.run(
        ["git", *arguments],
        cwd=round_.workspace.root,
        env=git_environment(),
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )
    return done.stdout.strip() if done.returncode == 0 else ""
