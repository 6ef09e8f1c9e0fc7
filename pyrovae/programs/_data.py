"""Input data as a tensor for the programs, with every value checked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

import pyro
import pyro.poutine as poutine
import torch
from pyro.distributions import Unit
from torch import Tensor, nn

from pyrovae.blocks import blocks, first_where, in_blocks
from pyrovae.distributions import PartiallyObserved
from pyrovae.errors import InputError, InputTypeError
from pyrovae.frames import Data, tensor_of
from pyrovae.programs._modules import modules_of, undisturbed
from pyrovae.programs._sites import Program

_VALUES_AT_ONCE = 2**22
"""Numbers that are checked at once, so that a mapped file is not held in memory."""


def check_data(x: Data, model: Program, guide: Program) -> Tensor:
    """The data as a tensor (num, …) of at least one datum; the model can score all of it."""
    x = as_data("x", x, model, guide)
    check_support("x", x, model)
    return x


def as_data(name: str, data: Data, model: Program, guide: Program, device: str | torch.device | None = None) -> Tensor:
    """The data as one tensor of the parameters' dtype and device, its values checked."""
    for who, program in (("model", model), ("guide", guide)):
        if isinstance(program, type):
            raise InputTypeError(f"the {who} is the class {program.__name__}; give an object, {program.__name__}(…)")
    x = tensor_of(name, data).detach()
    if x.dim() < 1 or len(x) == 0:
        raise InputError(f"{name} is empty: its shape is {tuple(x.shape)}, expected (num, …) with num ≥ 1")
    if x.is_complex() or x.layout is not torch.strided:
        raise InputError(f"{name} is {'complex' if x.is_complex() else 'sparse'}; give real numbers in a dense tensor")
    parameters = (p for module in modules_of((model, guide)) for p in module.parameters(recurse=False))
    like = next((p for p in parameters if p.is_floating_point()), None)
    if like is not None and like.element_size() < 4:
        raise InputError(
            f"the programs' parameters are in {like.dtype}, in which sums of log-densities are wrong by nats; use "
            "float32: model.float() and guide.float()"
        )
    is_kept = x.is_floating_point() and x.element_size() >= 4
    where = torch.device(device) if device is not None else x.device if like is None else like.device
    dtype = x.dtype if like is None and is_kept else torch.get_default_dtype() if like is None else like.dtype
    if where.type == "cpu" and x.dtype != dtype:
        x = in_blocks(lambda rows: rows.to(dtype), x)
    x = x.to(device=where, dtype=dtype).contiguous()
    check_values(name, x, model, guide)
    return x


def check_values(name: str, x: Tensor, model: Program, guide: Program) -> None:
    """Raise an InputError that names the first value of x (num, …) which is not finite.

    NaN is allowed if the model accepts missing values and the guide draws finite z for them.
    """
    masks = takes_missing(model)
    at_once = max(1, _VALUES_AT_ONCE * len(x) // max(1, x.numel()))
    found = first_where(lambda rows: ~(rows.isfinite() | (rows.isnan() & masks)), x)
    if found is not None:
        row, column, num = found
        advice = "remove them" if masks else "remove or impute them"
        if not masks and isinstance(model, nn.Module):
            advice += ", or make the model with missing=True, which treats NaN as unobserved"
        elif not masks:
            advice += ", or if the model masks NaN itself, set model.missing = True"
        raise InputError(
            f"{name} holds {num} NaN or infinite values, the first at row {row}, column {column} "
            f"(counted from 0); {advice}"
        )
    incomplete = torch.cat([piece.isnan().reshape(len(piece), -1).any(1) for piece in blocks(x, at_once)])
    if incomplete.any():
        _check_takes_missing(name, x, model, guide, int(incomplete.nonzero()[0]))


@contextmanager
def naming_the_value(model: Program, guide: Program, arguments: tuple[object, ...]) -> Iterator[None]:
    """Where programs fail, name the value of the first argument that they cannot take, if there is one.

    Raises:
        InputError: a value is not finite, or the model cannot score it.
    """
    try:
        yield
    except ValueError:
        x = arguments[0] if arguments else None
        if isinstance(x, Tensor) and x.dim() and x.is_floating_point():
            check_values("x", x, model, guide)
            check_support("x", x, model)
        raise


def check_support(name: str, x: Tensor, model: Program) -> None:
    """Raise an InputError that names the first value of x (num, …) that p(x|z) cannot score, if the model knows."""
    if hasattr(model, "check_support"):
        model.check_support(name, x)


def takes_missing(program: Program) -> bool:
    """Whether a program says that it accepts missing values; one with arguments bound is asked itself."""
    while isinstance(program, partial) and not hasattr(program, "missing"):
        program = program.func
    return bool(getattr(program, "missing", False))


def _check_takes_missing(name: str, x: Tensor, model: Program, guide: Program, row: int) -> None:
    # a guide with parameters for each datum is asked with those of this datum
    guide = guide.select(slice(row, row + 1)) if hasattr(guide, "select") else guide
    x = x[row : row + 1].clone()
    with torch.no_grad(), undisturbed(x, guide), pyro.validation_enabled(False):
        trace = poutine.trace(guide).get_trace(x)
        if not all(site["value"].isfinite().all() for site in trace.nodes.values() if site["type"] == "sample"):
            raise InputError(
                f"{name} has missing values at row {row} (counted from 0), for which the guide's z is not finite; put "
                "pv.nn.ImputeMissing around its encoder"
            )
        with suppress(Exception):  # programs that do not fit are refused later, with the reason
            trace = poutine.trace(poutine.replay(model, trace=trace)).get_trace(x)
    for site in trace.nodes.values():
        if site["type"] != "sample" or not site["is_observed"] or isinstance(site["fn"], PartiallyObserved | Unit):
            continue
        if isinstance(site["value"], Tensor) and site["value"].isnan().any():
            raise InputError(
                f"site {site['name']!r} of the model observes NaN, so gradients are NaN even where it is masked; "
                "observe x.nan_to_num(), and mask with .mask(~x.isnan())"
            )
