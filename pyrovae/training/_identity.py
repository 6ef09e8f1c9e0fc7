"""What makes two training runs the same run, so that a state of one may be loaded into the other."""

from collections.abc import Sequence
from typing import Any

from pyro.infer import ELBO
from torch import Tensor

from pyrovae.errors import InputError
from pyrovae.training.settings import TrainingSettings, describe, describe_settings, sha256

Identity = dict[str, Any]
"""A run's settings, estimator, data and parameters as JSON."""

_FREE = ("engine", "device", "strict")
"""Settings that the run's result does not depend on, but for rounding."""
_FIRST_FORMAT = ("epochs", "batch_size", "learning_rate", "schedule", "weight_decay", "clip_norm", "beta", "seed")
"""Settings that a state of the first format holds, where they are not functions."""


def identity(
    settings: TrainingSettings,
    elbo: ELBO,
    x: Tensor,
    x_validation: Tensor | None,
    first_epoch: Tensor,
    parameters: Sequence[Sequence[Tensor]],
) -> Identity:
    """The identity of a run.

    Args:
        settings: of the training.
        elbo: the estimator.
        x: data (num, …).
        x_validation: the validation data.
        first_epoch: what the settings' transform makes of the data in the first epoch.
        parameters: of each replica.
    """
    return {
        **describe_settings(settings),
        "transformed data": None if settings.transform is None else _moments(first_epoch),
        "data of shape": list(x.shape),
        "data of SHA-256": sha256(x),
        "validation of SHA-256": None if x_validation is None else sha256(x_validation),
        "estimator": describe(elbo),
        "parameters": [[list(p.shape) for p in of_replica] for of_replica in parameters],
    }


def check_same_run(saved: Identity, current: Identity, settings: TrainingSettings, elbo: ELBO) -> None:
    """Raise an InputError that names the first difference between a saved run and the current one."""
    if isinstance(saved.get("estimator"), str):
        current = _of_first_format(saved, current, settings, elbo)
    for name, value in current.items():
        if name not in _FREE and (found := _difference(name, describe(saved.get(name)), value)) is not None:
            where, theirs, ours = found
            raise InputError(f"this state is of a run with {where} {_short(theirs)}, not {_short(ours)}")


def _of_first_format(saved: Identity, current: Identity, settings: TrainingSettings, elbo: ELBO) -> Identity:
    """The current run's identity as the first format of checkpoints had it."""
    numbers = {name: current[name] for name in _FIRST_FORMAT if not callable(getattr(settings, name))}
    transform = settings.transform
    return {
        **numbers,
        "transform": transform and getattr(transform, "__qualname__", type(transform).__name__),
        **{name: current[name] for name in ("data of shape", "data of SHA-256", "validation of SHA-256")},
        "estimator": type(elbo).__name__,
        "measure": current["measure"],
        "estimator's settings": {name: getattr(elbo, name, None) for name in saved.get("estimator's settings", ())},
        "parameters": current["parameters"],
    }


def _difference(where: str, theirs: object, ours: object) -> tuple[str, object, object] | None:
    """The first place where two values differ, and what is there; None where they are equal."""
    if theirs == ours:
        return None
    if isinstance(theirs, dict) and isinstance(ours, dict) and theirs.keys() == ours.keys():
        parts = [(f"{where}.{key}", theirs[key], ours[key]) for key in theirs]
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        parts = [(f"{where}[{i}]", *pair) for i, pair in enumerate(zip(theirs, ours, strict=True))]
    else:
        return where, theirs, ours
    return next(found for part in parts if (found := _difference(*part)) is not None)


def _short(value: object) -> object:
    """What to call a value in a message: a function or an object by its name."""
    if isinstance(value, dict):
        return value.get("function", value.get("class", value))
    return value


def _moments(x: Tensor) -> list[float]:
    """Mean and mean square, to four digits: a transform's result on any machine."""
    x = x.double()
    return [float(f"{moment.nanmean().item():.4g}") for moment in (x, x.square())]
