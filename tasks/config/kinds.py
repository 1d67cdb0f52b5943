"""The kinds that params.yaml names by their file: attacks, losses, shifts, augmentations, networks and data sets."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tasks.config import errors
from tasks.config.params import KindParams, Params, ParamsError, Threat, check_length


def kind(family: str, name: str, params: KindParams, where: str) -> tuple[Any, Any]:
    """The module of a kind, such as `tasks.attacks.pgd`, and its checked Params.

    family: `attacks`, `losses`, `shifts` or `augments`; where: the path of the key in params.yaml, for the error.
    """
    module = module_of(f"tasks.{family}", name, where)
    try:
        return module, module.Params.model_validate(params)
    except ValidationError as error:
        raise ParamsError(errors.of_keys(error, "params.yaml", where)) from error


def module_of(package: str, name: str, where: str) -> Any:
    """The module a key names, for one of `models`, `data.sets`, `tasks.attacks`, `tasks.losses`, …."""
    found = names_in(package)
    if name not in found:
        folder = package.replace(".", "/")
        raise ParamsError(f"params.yaml: {where}: wanted a file of {folder}/ ({', '.join(found)}), got {name!r}")
    return importlib.import_module(f"{package}.{name}")


def names_in(package: str) -> list[str]:
    """The kinds of a family: its files' names, without those that begin with an underscore."""
    folder = Path(__file__).parents[2] / package.replace(".", "/")
    return sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith("_"))


def check_kinds(params: Params) -> None:
    """Refuse a name that no file has, and a kind's parameter that the kind does not take, or not under this threat.

    Imports torch.
    """
    module_of("data.sets", params.data.set, "data.set")
    if ":" not in params.model.name:  # another is looked at when its weights are
        module_of("models", params.model.name, "model.name")
    for where, loss in (("train.loss", params.train.loss), ("first.loss", params.first.loss)):
        _under_threat("losses", loss.name, loss.params, where, params.threat)
    _under_threat("attacks", "pgd", params.rift.attack, "rift.attack", params.threat)
    for where, kinds in (
        ("attack.kinds", params.attack.kinds),
        ("evaluate.attacks", params.evaluate.attacks),
        ("evaluate.battery", params.evaluate.battery),
    ):
        for name, given in kinds.items():
            _under_threat("attacks", name, given, f"{where}.{name}", params.threat)
    measured = {**params.evaluate.attacks, **params.evaluate.battery}
    if all(getattr(module_of("tasks.attacks", name, name), "OWN_BUDGET", False) for name in measured):
        raise ParamsError(
            "params.yaml: evaluate.attacks: wanted an attack within the threat model, such as pgd, here or in "
            f"evaluate.battery, got {', '.join(measured) or 'none'}: what the gate compares as robust would be clean"
        )
    for epsilon in params.evaluate.epsilons:
        try:
            check_length("a radius", params.threat.norm, epsilon)
        except ValueError as error:
            raise ParamsError(f"params.yaml: evaluate.epsilons: wanted {error}") from error
    for name, given in params.train.augment.items():
        kind("augments", name, given, f"train.augment.{name}")
    for name, given in params.evaluate.shifts.items():
        kind("shifts", name, given, f"evaluate.shifts.{name}")


def _under_threat(family: str, name: str, given: KindParams, where: str, threat: Threat) -> None:
    module, own = kind(family, name, given, where)
    if hasattr(module, "check"):
        try:
            module.check(own, threat)
        except ValueError as error:
            raise ParamsError(f"params.yaml: {where}: {error}") from error
