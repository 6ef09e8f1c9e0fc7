"""The identity of a training run: only a state of the same run can be loaded."""

import inspect
import math
import platform
from collections.abc import Callable, Sequence
from hashlib import sha256 as hash_of
from types import CellType, CodeType
from typing import Any

import numpy as np
import torch
from pyro.infer import ELBO
from torch import Tensor, nn

from pyrovae.errors import InputError
from pyrovae.nn import ConfigurableModule
from pyrovae.programs import Pair
from pyrovae.training.settings import (
    TrainingSettings,
    constructor_names,
    describe,
    describe_settings,
    difference,
    sha256,
    short,
)
from pyrovae.training.settings import qualified_name as name_of

Identity = dict[str, Any]
"""A run's settings, programs, estimator, data and parameters as JSON."""

_BEFORE = {"precision": "full"}
"""Settings that states of earlier versions lack, and what they were."""
_FREE = ("engine", "device", "strict")
"""Settings that change the run's result only by rounding."""
_FIRST_FORMAT = ("epochs", "batch_size", "learning_rate", "schedule", "weight_decay", "clip_norm", "beta", "seed")
"""Settings in a state of the first format, if they are not functions."""
_SCHEDULES = ("learning_rate", "schedule", "beta")
_MOST_VALUES = 10_000
"""Largest number of a schedule's values: all steps of a short run, evenly spread ones of a long run."""
_BYTECODE = f"bytecode of Python {'.'.join(platform.python_version_tuple()[:2])}"
"""Key of a function's code, which is compared if both runs have the same version."""
_ROUNDING = {"transformed data": 1e-5}
"""Largest difference of an entry's floats on two machines, in addition to a billionth of their value."""


def identity(
    settings: TrainingSettings,
    pair: Pair,
    elbo: ELBO,
    x: Tensor,
    x_validation: Tensor | None,
    first_epoch: Tensor,
    parameters: Sequence[Sequence[Tensor]],
    total_steps: int,
) -> Identity:
    """The identity of a run.

    Args:
        settings: settings of the training.
        pair: model and guide of the first replica.
        elbo: the estimator.
        x: data (num, …).
        x_validation: the validation data.
        first_epoch: what the settings' transform makes of the data in the first epoch.
        parameters: parameters of each replica.
        total_steps: steps of the run.
    """
    schedules = {name: getattr(settings, name) for name in _SCHEDULES}
    return {
        **describe_settings(settings),
        **{f"{name} by step": _values(each, total_steps) for name, each in schedules.items() if callable(each)},
        "transformed data": None if settings.transform is None else _moments(first_epoch),
        "model": _program(pair[0]),
        "guide": _program(pair[1]),
        "data of shape": list(x.shape),
        "data of SHA-256": sha256(x),
        "validation of SHA-256": None if x_validation is None else sha256(x_validation),
        "estimator": describe(elbo),
        "parameters": [[list(p.shape) for p in of_replica] for of_replica in parameters],
    }


def check_same_run(saved: Identity, current: Identity, settings: TrainingSettings, elbo: ELBO) -> None:
    """Raise an InputError that names the first difference between the saved run and the current one."""
    if isinstance(saved.get("estimator"), str):
        current = _of_first_format(saved, current, settings, elbo)
    for name, value in current.items():
        theirs, rounding = describe(saved.get(name, _BEFORE.get(name))), _ROUNDING.get(name, 0.0)
        if name not in _FREE and (found := difference(name, theirs, value, rounding)) is not None:
            where, theirs, ours = found
            raise InputError(f"this state is of a run with {where} {short(theirs)}, not {short(ours)}")


def _of_first_format(saved: Identity, current: Identity, settings: TrainingSettings, elbo: ELBO) -> Identity:
    """The current run's identity in the first format of checkpoints."""
    numbers = {name: current[name] for name in _FIRST_FORMAT if not callable(getattr(settings, name))}
    transform, described = settings.transform, describe(elbo)
    arguments = described if isinstance(described, dict) else {}
    return {
        **numbers,
        "transform": transform and getattr(transform, "__qualname__", type(transform).__name__),
        **{name: current[name] for name in ("data of shape", "data of SHA-256", "validation of SHA-256")},
        "estimator": type(elbo).__name__,
        "measure": current["measure"],
        "precision": current["precision"],
        **({} if current["validate_every"] == 1 else {"validate_every": current["validate_every"]}),
        "estimator's settings": {
            name: arguments.get(name, getattr(elbo, name, None)) for name in saved.get("estimator's settings", ())
        },
        "parameters": current["parameters"],
    }


def _moments(x: Tensor) -> list[float]:
    """Numbers that identify a transform's result: mean, mean square, and sums under waves along the values."""
    values = x.double().nan_to_num().flatten()
    root = values.square().mean().sqrt().item() or 1.0
    places = torch.arange(len(values), dtype=torch.float64, device=values.device)
    waves = [(values * (math.sqrt(k) * places + k).cos()).sum().item() for k in (2, 3, 5, 7)]
    return [values.mean().item() / root, root, *(wave / (root * math.sqrt(len(values))) for wave in waves)]


def _values(schedule: Callable[[float], float], total_steps: int) -> list[float]:
    """A schedule's values at the run's steps."""
    steps = np.linspace(0, total_steps - 1, min(total_steps, _MOST_VALUES)).astype(int)
    return [float(schedule(step / total_steps)) for step in steps.tolist()]


def _program(program: object, within: tuple[object, ...] = ()) -> object:
    """A program as JSON: the classes and configurations of its modules, or its function with its closure."""
    if any(program is each for each in within):  # a function that closes over itself
        return "itself"
    within = (*within, program)
    if isinstance(program, nn.Module):
        return {name or "itself": _module(module) for name, module in program.named_modules()}
    if isinstance(program, Tensor) and program.requires_grad:  # it is trained
        return {"shape": list(program.shape)}
    if inspect.ismethod(program):
        return {**_code(program.__func__), "of": _program(program.__self__, within)}
    if inspect.isfunction(program):
        closure = zip(program.__code__.co_freevars, program.__closure__ or (), strict=True)
        return {**_code(program), "closure": {name: _program(_content(cell), within) for name, cell in closure}}
    return describe(program)


def _content(cell: CellType) -> object:
    """A function's closure; None for a variable without a value."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _module(module: nn.Module) -> dict[str, object]:
    """A module's class, its constructor's arguments and functions that it keeps; the modules in it apart."""
    kept, names = vars(module), constructor_names(type(module))
    if isinstance(module, ConfigurableModule):
        given = module.config()
    else:
        given = {name: kept[key] for name in names for key in (f"_{name}", name) if key in kept}
    functions = {name: value for name, value in kept.items() if inspect.isroutine(value) and not name.startswith("_")}
    arguments = {name: value for name, value in given.items() if not isinstance(value, nn.Module | Tensor)}
    own = type(module).__module__.partition(".")[0] not in ("torch", "pyro", "pyrovae")
    return {
        "class": name_of(type(module)),
        **{name: _program(value) for name, value in (arguments | functions).items()},
        **({"forward": _code(type(module).forward)} if own else {}),
    }


def _code(function: Callable[..., object]) -> dict[str, object]:
    """A function's name and a hash of what it computes."""
    code = getattr(function, "__code__", None)
    return {"function": name_of(function), **({} if code is None else {_BYTECODE: _hash(code)})}


def _hash(code: CodeType) -> str:
    constants = [_hash(each) if isinstance(each, CodeType) else _constant(each) for each in code.co_consts]
    return hash_of(repr((code.co_code.hex(), code.co_names, constants)).encode()).hexdigest()


def _constant(value: object) -> str:
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)
