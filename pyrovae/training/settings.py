"""The settings of a training run, and their values at each step."""

import copy
import functools
import hashlib
import inspect
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum, StrEnum
from pathlib import Path
from typing import Required, TypedDict, get_args, get_type_hints

import numpy as np
import torch
from numpy.typing import NDArray
from pyro.infer import ELBO
from torch import Tensor, nn

from pyrovae.blocks import blocks
from pyrovae.elbo import BetaELBO
from pyrovae.errors import InputError, InputTypeError, check_choice, check_integer, check_positive
from pyrovae.nn import ConfigurableModule
from pyrovae.programs import Program
from pyrovae.training._batches import Transform
from pyrovae.training.schedules import Schedule, as_schedule

Measure = Callable[[Program, Program, Tensor], float]
"""(model, guide, data) -> what the pair is worth on these data, in nats per datum: the higher, the better."""


class Engine(StrEnum):
    """What makes the steps of a training run."""

    AUTO = "auto"
    """Compiled where that pays and can be done, else eager."""
    EAGER = "eager"
    """The programs are run at each step."""
    COMPILED = "compiled"
    """The programs are run once, and XLA compiles what they compute."""
    GRAPH = "graph"
    """The programs are run once, and what they compute is run operation by operation."""


ENGINES = tuple(engine.value for engine in Engine)
"""The engines by name."""

PRECISIONS = ("full", "bf16")
"""What the networks compute with in training."""


@dataclass(frozen=True)
class TrainingSettings:
    """How to train: the keywords of :func:`~pyrovae.fit`, checked when made."""

    epochs: int
    """Number of passes over the data."""
    batch_size: int = 32
    """Data per step; the last batch of an epoch may be smaller."""
    learning_rate: float | Schedule = 1e-3
    """Adam's learning rate, which the schedule multiplies; or a function of the progress in [0, 1)."""
    schedule: str | Schedule = "cosine"
    """Schedule of the learning rate: cosine (to zero), constant, or a function of the progress."""
    weight_decay: float = 0.0
    """AdamW's weight decay, a share of the learning rate."""
    clip_norm: float | None = None
    """Largest Euclidean norm of a gradient (of the loss summed over the batch); longer ones are clipped."""
    beta: float | Schedule | None = None
    """Weight of the KL part, a number or a function of the progress; None leaves the estimator's."""
    seed: int = 0
    """Seed of the batches and of the noise. The caller's random state does not change."""
    transform: Transform | None = None
    """A function of the data and of a random generator, called at the start of each epoch: its batches are taken from
    what it returns, of the same shape and dtype. It does not touch the validation data."""
    measure: Measure | None = None
    """What a pair is worth on the validation data: a function of the model, the guide and the data, in nats per datum,
    the higher, the better, such as an ELBO. The best epoch is chosen by it; None: by the estimator's loss."""
    validate_every: int = 1
    """Validate every this many epochs, and at the start and the last epoch."""
    engine: str = "auto"
    """How a step is computed: auto, eager, compiled (native code), or graph (traced, then run by PyTorch)."""
    device: str | torch.device | None = None
    """Device to train on; None: where the parameters are."""
    precision: str = "full"
    """Numbers of the networks in training: full, those of the parameters, or bf16: products in bfloat16, on the eager
    engine. Densities, validation and evaluation stay in full precision."""
    strict: bool = False
    """Refuse a KL that has no closed form instead of sampling it."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "validate_every"):
            check_integer(name, getattr(self, name))
        check_learning_rate(self.learning_rate)
        as_schedule(self.schedule)
        check_positive("weight_decay", self.weight_decay, or_zero=True)
        if self.clip_norm is not None and not 0 < self.clip_norm < math.inf:
            raise InputError(f"clip_norm must be a positive number or None, not {self.clip_norm!r}")
        if self.beta is not None and not callable(self.beta) and not 0 <= self.beta < math.inf:
            raise InputError(f"beta must be a finite number ≥ 0 or a schedule, not {self.beta!r}")
        if self.measure is not None and not callable(self.measure):
            raise InputTypeError(f"measure must be a function of the model, the guide and data, not {self.measure!r}")
        check_choice("engine", self.engine, ENGINES)
        check_choice("precision", self.precision, PRECISIONS)

    def rates(self, first: int, last: int, total: int) -> NDArray[np.float64]:
        """Learning rates of steps ``first`` to ``last`` − 1, counted from 0, of ``total``."""
        shape = as_schedule(self.schedule)
        rate = self.learning_rate
        done = [step / total for step in range(first, last)]
        return np.array([shape(p) * (rate(p) if callable(rate) else rate) for p in done])

    def betas(self, first: int, last: int, total: int) -> NDArray[np.float64] | None:
        """Values of β for these steps; None where it is the estimator's own.

        Raises:
            InputError: the schedule's value is negative, infinite or NaN.
        """
        beta = self.beta
        return None if beta is None else np.array([_beta_at(beta, step / total) for step in range(first, last)])

    def estimator(self, elbo: object) -> ELBO:
        """A copy of an estimator with the β that the training ends at: by this one, epochs compare.

        Raises:
            InputError: it cannot be trained with these settings.
        """
        if not isinstance(elbo, ELBO):
            what = f"the class {elbo.__name__}" if isinstance(elbo, type) else type(elbo).__name__
            raise InputTypeError(f"elbo must be an estimator such as AnalyticELBO(), not {what}")
        name = type(elbo).__name__
        if not hasattr(elbo, "differentiable_loss") or name.startswith("Jit") or "TailAdaptive" in name:
            raise InputTypeError(
                f"{name} has no differentiable_loss of programs as they are, which fit needs; use an estimator of "
                "pyrovae, Trace_ELBO, TraceMeanField_ELBO or TraceEnum_ELBO"
            )
        if self.beta is None:
            return copy.copy(elbo)  # Pyro's own store the depth of plates that they guess
        if not isinstance(elbo, BetaELBO):
            raise InputError(f"{type(elbo).__name__} has no beta; use an estimator of pyrovae")
        return elbo.with_beta(_beta_at(self.beta, 1.0))


class SharedTrainingKeywords(TypedDict, total=False):
    """The fields of :class:`TrainingSettings` that have a default, and that several runs may share."""

    batch_size: int
    learning_rate: float | Schedule
    schedule: str | Schedule
    weight_decay: float
    clip_norm: float | None
    beta: float | Schedule | None
    transform: Transform | None
    measure: Measure | None
    validate_every: int
    engine: str
    precision: str
    strict: bool


class OptionalTrainingKeywords(SharedTrainingKeywords, total=False):
    """The fields of :class:`TrainingSettings` that have a default."""

    seed: int
    device: str | torch.device | None


class TrainingKeywords(OptionalTrainingKeywords, total=False):
    """The fields of :class:`TrainingSettings`, as a type checker sees the keywords of a function."""

    epochs: Required[int]


def check_learning_rate(learning_rate: float | Schedule) -> None:
    """Raise an InputError unless it is a positive number or a schedule."""
    if not callable(learning_rate) and not 0 < learning_rate < math.inf:
        raise InputError(f"learning_rate must be a positive number or a schedule, not {learning_rate!r}")


def _beta_at(beta: float | Schedule, progress: float) -> float:
    value = float(beta(progress) if callable(beta) else beta)
    check_positive(f"beta at a progress of {progress:.4g}", value, or_zero=True)
    return value


def describe_settings(settings: object) -> dict[str, object]:
    """The fields of a dataclass as JSON: what to store of settings, so that others can be compared with them.

    Numbers, strings and sequences are themselves. A class or a function is its qualified name, with what its closure
    holds; a schedule also has its values at 0, 0.1, …, 1. An estimator, and any other object, is its class and the
    arguments that it was made with; a module of another package is its class alone; a tensor its shape and SHA-256.

    Example:
        >>> described = describe_settings(TrainingSettings(epochs=3, beta=lambda progress: min(1.0, 2 * progress)))
        >>> described["epochs"], described["beta"]["values"][:4]
        (3, [0.0, 0.2, 0.4, 0.6])
    """
    if not is_dataclass(settings) or isinstance(settings, type):
        raise InputTypeError(f"settings must be a dataclass, not {settings!r}")
    schedules = {name for name, hint in get_type_hints(type(settings)).items() if Schedule in (hint, *get_args(hint))}
    described = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        described[field.name] = describe(value)
        if field.name in schedules and callable(value):
            described[field.name] = {**_function(value), "values": [_value(value, i / 10) for i in range(11)]}
    return described


def describe(value: object) -> object:
    """A value as JSON; see :func:`describe_settings`."""
    if value is None or (isinstance(value, bool | int | float | str) and not isinstance(value, Enum)):
        return value
    if isinstance(value, Enum):
        return describe(value.value)
    if isinstance(value, Path | torch.device | torch.dtype):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [describe(item) for item in value]
    if isinstance(value, Tensor | np.ndarray):
        return {"shape": list(value.shape), "sha256": sha256(torch.as_tensor(value))}
    if isinstance(value, type):
        return qualified_name(value)
    if isinstance(value, nn.Module):
        arguments = value.config() if isinstance(value, ConfigurableModule) else {}
        return {"class": qualified_name(type(value)), **{name: describe(each) for name, each in arguments.items()}}
    if is_dataclass(value):
        return {"class": qualified_name(type(value)), **describe_settings(value)}
    return _function(value) if callable(value) else {"class": qualified_name(type(value)), **_arguments(value)}


def difference(where: str, theirs: object, ours: object, rounding: float = 0.0) -> tuple[str, object, object] | None:
    """The first place where two values differ, with both values; None if they are equal."""
    if theirs == ours:
        return None
    if isinstance(theirs, dict) and isinstance(ours, dict):
        keys = [key for key in [*ours, *theirs] if not key.startswith("bytecode") or (key in ours and key in theirs)]
        if any(key not in ours or key not in theirs for key in keys):
            return where, theirs, ours
        parts = [(f"{where}.{key}", theirs[key], ours[key]) for key in keys]
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        parts = [(f"{where}[{i}]", *pair) for i, pair in enumerate(zip(theirs, ours, strict=True))]
    elif isinstance(theirs, float) and isinstance(ours, float) and _is_close(theirs, ours, rounding):
        return None
    else:
        return where, theirs, ours
    return next((found for part in parts if (found := difference(*part, rounding)) is not None), None)


def _is_close(one: float, other: float, rounding: float = 0.0) -> bool:
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=rounding)


def short(value: object) -> object:
    """A value's name in a message: the name of a function or an object."""
    if isinstance(value, dict):
        return value.get("function", value.get("class", value))
    return value


def sha256(tensor: Tensor) -> str:
    """SHA-256 of a tensor's values."""
    digest = hashlib.sha256()
    for rows in blocks(tensor.detach().reshape(1) if tensor.dim() == 0 else tensor.detach()):
        digest.update(rows.cpu().contiguous().reshape(-1).numpy().data)
    return digest.hexdigest()


def _function(value: Callable[..., object]) -> dict[str, object]:
    """A callable's name, and what it was made with."""
    if isinstance(value, functools.partial):
        return {"function": describe(value.func), "arguments": describe([*value.args, value.keywords])}
    if inspect.ismethod(value):
        return {"function": qualified_name(value), "of": describe(value.__self__)}
    if not hasattr(value, "__qualname__"):
        return {"class": qualified_name(type(value)), **_arguments(value)}
    closure = [describe(cell.cell_contents) for cell in getattr(value, "__closure__", None) or ()]
    return {"function": qualified_name(value), **({"closure": closure} if closure else {})}


def qualified_name(value: Callable[..., object]) -> str:
    """Module and name of a class or a function; ``pyrovae`` stands for the module of the library's own."""
    module = getattr(value, "__module__", None) or ""
    if module.startswith("pyrovae."):  # its modules may move
        module = "pyrovae"
    return f"{module}.{value.__qualname__}".lstrip(".")


def _arguments(value: object) -> dict[str, object]:
    """The constructor's arguments, as far as the object keeps them under their names."""
    kept_as = {"base_distribution": "base_dist"}  # by torch's distributions
    names = {name: (f"_{name}", name, kept_as.get(name, name)) for name in constructor_names(type(value))}
    found = {name: getattr(value, key) for name, keys in names.items() for key in keys if hasattr(value, key)}
    if found.get("max_plate_nesting") == math.inf:  # of an estimator that finds it; one plate is what it was before
        found["max_plate_nesting"] = 1 + int(found["vectorize_particles"] and found["num_particles"] > 1)
    return {name: describe(argument) for name, argument in found.items()}


def constructor_names(cls: type) -> list[str]:
    """Names of the constructor's arguments, of all of an object's classes."""
    names: list[str] = []
    for each in cls.__mro__[:-1]:
        with suppress(ValueError):  # of another language than Python
            names += list(inspect.signature(vars(each)["__init__"]).parameters)[1:] if "__init__" in vars(each) else []
    return names


def _value(schedule: Schedule, progress: float) -> float | None:
    """The schedule's value; None where it has none."""
    try:
        return float(f"{float(schedule(progress)):.12g}")  # the last bits are the machine's
    except (ArithmeticError, ValueError):
        return None
