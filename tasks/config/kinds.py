"""The kinds that params.yaml names by their file: attacks, losses, shifts, augmentations, networks and data sets."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
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
        raise ParamsError(f"params.yaml: {where}: expected a file of {folder}/ ({', '.join(found)}), got {name!r}")
    return importlib.import_module(f"{package}.{name}")


def names_in(package: str) -> list[str]:
    """The kinds of a family: its files' names, without those that begin with an underscore."""
    folder = Path(__file__).parents[2] / package.replace(".", "/")
    return sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith("_"))


def check_kinds(params: Params) -> None:
    """ParamsError, a line for each fault, for names that no file has, and for kinds' parameters that the kind does not
    take, or not under this threat model. Imports torch."""
    if faults := kind_faults(params):
        raise ParamsError("\n".join(faults))


def kind_faults(params: Params) -> list[str]:
    """A line for everything that `check_kinds` refuses."""
    checks: list[Callable[[], object]] = [partial(_check_set, params)]
    if ":" not in params.model.name:  # another is looked at when its weights are
        checks.append(partial(module_of, "models", params.model.name, "model.name"))
    for where, loss in (("train.loss", params.train.loss), ("first.loss", params.first.loss)):
        checks.append(partial(_under_threat, "losses", loss.name, loss.params, where, params.threat))
    checks.append(partial(_under_threat, "attacks", "pgd", params.rift.attack, "rift.attack", params.threat))
    for where, kinds in (
        ("attack.kinds", params.attack.kinds),
        ("evaluate.attacks", params.evaluate.attacks),
        ("evaluate.battery", params.evaluate.battery),
    ):
        for name, given in kinds.items():
            checks.append(partial(_under_threat, "attacks", name, given, f"{where}.{name}", params.threat))
    checks += [partial(_check_radius, params, epsilon) for epsilon in params.evaluate.epsilons]
    for where, family, kinds in (
        ("train.augment", "augments", params.train.augment),
        ("rift.augment", "augments", params.rift.augment or {}),
        ("evaluate.shifts", "shifts", params.evaluate.shifts),
    ):
        checks += [partial(kind, family, name, given, f"{where}.{name}") for name, given in kinds.items()]
    faults = [fault for check in checks if (fault := _fault(check))]
    return faults or [fault for fault in (_fault(partial(_check_gate, params)),) if fault]


def _fault(check: Callable[[], object]) -> str:
    try:
        check()
    except ParamsError as error:
        return str(error)
    return ""


def _check_set(params: Params) -> None:
    module = module_of("data.sets", params.data.set, "data.set")
    for key in ("fit", "test_share"):
        value, default = getattr(params.data, key), type(params.data).model_fields[key].default
        if value != default and key not in getattr(module, "OPTIONS", ()):
            raise ParamsError(f"params.yaml: data.{key}: {params.data.set} has no such choice; take the line out")


def _check_gate(params: Params) -> None:
    measured = {**params.evaluate.attacks, **params.evaluate.battery}
    if all(getattr(module_of("tasks.attacks", name, name), "OWN_BUDGET", False) for name in measured):
        raise ParamsError(
            "params.yaml: evaluate.attacks: expected an attack within the threat model, such as pgd, here or in "
            f"evaluate.battery, got {', '.join(measured) or 'none'}: what the gate compares as robust would be clean"
        )


def _check_radius(params: Params, epsilon: float) -> None:
    try:
        check_length("a radius", params.threat.norm, epsilon)
    except ValueError as error:
        raise ParamsError(f"params.yaml: evaluate.epsilons: expected {error}") from error


def _under_threat(family: str, name: str, given: KindParams, where: str, threat: Threat) -> None:
    _, own = kind(family, name, given, where)
    if hasattr(own, "check"):
        try:
            own.check(threat)
        except ValueError as error:
            raise ParamsError(f"params.yaml: {where}: {error}") from error
