"""Every check of programs and of the data that they are given; each error is one line: what, where, remedy."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyro
import pyro.poutine as poutine
import torch
from pyro.distributions import Unit
from pyro.infer import ELBO
from pyro.poutine import Trace
from torch import Tensor, nn

from pyrovae.errors import InputError, InputTypeError, out_of_memory
from pyrovae.programs._modes import mode, undisturbed
from pyrovae.programs._parameters import first_floating_parameter, trainable_parameters
from pyrovae.programs._sites import Program, is_deterministic

if TYPE_CHECKING:
    import numpy as np


def cannot_run(x: Tensor, error: Exception) -> InputError:
    """The error to raise where programs fail on data."""
    reason = " ".join(str(error).split("Trace Shapes")[0].split())[:300]
    if "collide at dim" in reason:
        reason += " (or the programs' plates nest deeper than max_plate_nesting)"
    return InputError(f"the model and the guide cannot run on data of shape {tuple(x.shape)}: {reason}")


@contextmanager
def running_on(x: Tensor) -> Iterator[None]:
    """Turn what programs raise on data into an InputError of one line; an estimator's own refusal stays as it is."""
    try:
        yield
    except NotImplementedError:
        raise
    except (RuntimeError, ValueError) as error:
        if out_of_memory(error):
            raise
        raise cannot_run(x, error) from error


def check_guide(guide_trace: Trace) -> None:
    """Raise an InputError where the guide conditions on data, as a model in its place does."""
    for name, site in guide_trace.nodes.items():
        if site["type"] == "sample" and site["is_observed"]:
            if isinstance(site["fn"], Unit) or is_deterministic(site):
                continue  # pyro.factor and pyro.deterministic
            raise InputError(f"the guide observes site {name!r}: are the model and the guide swapped?")


def check_same_latents(model_trace: Trace, guide_trace: Trace) -> None:
    """Raise an InputError where a latent site is in the model or in the guide alone."""
    if set(model_trace.stochastic_nodes) != set(guide_trace.stochastic_nodes):
        raise InputError(
            f"the model's latent sites {sorted(model_trace.stochastic_nodes)} are not the guide's "
            f"{sorted(guide_trace.stochastic_nodes)}"
        )


def takes_missing(model: Program) -> bool:
    """Whether the model treats NaN as a value that was not observed."""
    return bool(getattr(model, "missing", False))


def check_data(x: object, model: Program, guide: Program) -> None:
    """Raise unless x is a tensor (num, …) of at least one datum, and the model can score all of it."""
    if not isinstance(x, Tensor):
        raise InputTypeError(f"x must be a tensor of the programs' dtype and device, not {type(x).__name__}")
    _check_not_empty("x", x)
    check_values("x", x, model, guide)
    check_support("x", x, model)


def as_data(
    name: str, data: "Tensor | np.ndarray", model: Program, guide: Program, device: str | torch.device | None
) -> Tensor:
    """The data as one tensor of the parameters' dtype and device, its values checked."""
    x = torch.as_tensor(data)
    _check_not_empty(name, x)
    if x.is_complex():
        raise InputError(f"{name} is complex; give real numbers")
    like = first_floating_parameter((model, guide))
    x = x.to(
        device=device if device is not None or like is None else like.device,
        dtype=like.dtype if like is not None else None if x.is_floating_point() else torch.get_default_dtype(),
    )
    x = x.contiguous()
    check_values(name, x, model, guide)
    return x


def check_values(name: str, x: Tensor, model: Program, guide: Program) -> None:
    """Raise an InputError that names the first value of x (num, …) which is not finite.

    NaN is allowed where the model takes missing values and the guide draws finite z for them.
    """
    valid = x.isfinite() | x.isnan() if takes_missing(model) else x.isfinite()
    if not valid.all():
        row, column = (~valid.reshape(len(x), -1)).nonzero()[0].tolist()
        advice = "remove them" if takes_missing(model) else "remove or impute them"
        if hasattr(model, "missing") and not takes_missing(model):
            advice += ", or make the model with missing=True, to which NaN is a value not observed"
        raise InputError(
            f"{name} holds {int((~valid).sum())} NaN or infinite values, the first at row {row}, column {column} "
            f"(counted from 0); {advice}"
        )
    incomplete = x.isnan().reshape(len(x), -1).any(1)
    if incomplete.any():
        _check_guide_takes_missing(name, x, guide, int(incomplete.nonzero()[0]))


def check_support(name: str, x: Tensor, model: Program) -> None:
    """Raise an InputError that names the first value of x (num, …) which p(x|z) cannot score, where the model knows."""
    if hasattr(model, "check_support"):
        model.check_support(name, x)


def check_programs(
    model: Program, guide: Program, x: Tensor, x_validation: Tensor | None, batch_size: int, elbo: ELBO
) -> list[Tensor]:
    """Run the programs with Pyro's validation before anything is trained; return the parameters to train."""

    def run(batch: Tensor) -> None:
        with torch.no_grad(), torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            elbo.differentiable_loss(model, guide, batch)

    with pyro.validation_enabled(True), mode(model, guide, training=False):
        with running_on(x[:batch_size]), poutine.trace(param_only=True) as announced:
            run(x[:batch_size])
        parameters = trainable_parameters(model, guide, announced.trace)
        if isinstance(model, nn.Module) and isinstance(guide, nn.Module):
            for data in (x, x_validation) if x_validation is not None else (x,):
                for batch in data.split(4096):  # every datum must lie in the likelihood's support
                    with running_on(batch):
                        run(batch)
    return parameters


def _check_not_empty(name: str, x: Tensor) -> None:
    if x.dim() < 1 or len(x) == 0:
        raise InputError(f"{name} is empty: its shape is {tuple(x.shape)}, expected (num, …) with num ≥ 1")


def _check_guide_takes_missing(name: str, x: Tensor, guide: Program, row: int) -> None:
    # a guide with parameters for each datum is asked with those of this datum
    guide = guide.select(slice(row, row + 1)) if hasattr(guide, "select") else guide
    with torch.no_grad(), undisturbed(x, guide), pyro.validation_enabled(False):
        trace = poutine.trace(guide).get_trace(x[row : row + 1])
    if not all(site["value"].isfinite().all() for site in trace.nodes.values() if site["type"] == "sample"):
        raise InputError(
            f"{name} has missing values at row {row} (counted from 0), for which the guide draws no finite z; put "
            "pv.nn.ImputeMissing around its encoder"
        )
