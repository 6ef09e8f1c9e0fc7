"""Losses that are not finite, and the loss on held-out data."""

from collections.abc import Callable

import torch
from pyro.infer import ELBO
from torch import Tensor

from pyrovae.blocks import let_go
from pyrovae.errors import InputError, InputTypeError
from pyrovae.programs import Program, mode, trace_pair, undisturbed
from pyrovae.randomness import seeded

ADVICE = "lower the learning rate or check the data's scale"


class NonFiniteLossError(InputError, FloatingPointError):
    """The loss, or a parameter after an epoch, became NaN or infinite."""


class NonFiniteStepError(FloatingPointError):
    """The loss of a step, counted from 1, is not finite; names the site that caused it."""

    def __init__(self, value: float, site: str, step: int) -> None:
        super().__init__(f"the loss is {value} at step {step}; first non-finite value: {site}")
        self.value, self.site, self.step = value, site, step

    def in_epoch(self, epoch: int) -> NonFiniteLossError:
        """The error that ends the run."""
        where = f"the loss is {self.value} at step {self.step} (epoch {epoch})"
        return NonFiniteLossError(f"{where}: first non-finite value: {self.site}; {ADVICE}")


@torch.no_grad()
def find_nonfinite(model: Program, guide: Program, x: Tensor, parameters: list[Tensor]) -> str:
    """Name the first value that is not finite: a parameter, or a sample site's value or log-density."""
    if not all(parameter.isfinite().all() for parameter in parameters):
        return "a parameter, after a non-finite gradient in the previous step"
    model_trace, guide_trace = trace_pair(model, guide, x)
    for where, trace in (("guide", guide_trace), ("model", model_trace)):
        for name, site in trace.nodes.items():
            if site["type"] != "sample":
                continue
            if not site["is_observed"] and not torch.isfinite(site["value"]).all():
                return f"the {where}'s sample at site {name!r} ({type(site['fn']).__name__})"
            if not torch.isfinite(site["fn"].log_prob(site["value"])).all():
                return f"the {where}'s log-density at site {name!r} ({type(site['fn']).__name__})"
    return "no single site's value or log-density (so a divergence between sites)"


@torch.no_grad()
def evaluate_loss(
    model: Program,
    guide: Program,
    x: Tensor,
    elbo: ELBO,
    seed: int = 0,
    chunk_size: int = 4096,
    full_size: int | None = None,
) -> float:
    """Mean −ELBO estimate over the data, nats per datum, with noise fixed by the seed.

    ``full_size`` is the number of data that a loss represents if a subsampled plate scales it.
    """
    with seeded(seed, x), mode(model, guide, training=False):
        total = 0.0
        for chunk in x.split(chunk_size):
            num = len(chunk)
            total += elbo.differentiable_loss(model, guide, chunk).item() * (num / (full_size or num))
            let_go(x)
        return total / len(x)


def evaluate_measure(
    model: Program, guide: Program, x: Tensor, measure: Callable[[Program, Program, Tensor], float], seed: int = 0
) -> float:
    """The measure of model and guide on data x (num, …), with noise fixed by the seed.

    Raises:
        InputTypeError: it does not return a number.
    """
    with undisturbed(x, model, guide):
        torch.manual_seed(seed)
        value = measure(model, guide, x)
    try:
        return value.item() if isinstance(value, Tensor) else float(value)
    except (TypeError, ValueError, RuntimeError):
        what = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise InputTypeError(f"measure must return a number, the nats per datum, not {what}") from None
