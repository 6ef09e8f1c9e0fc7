"""Noise of an estimator's gradient, for each part of the networks."""

from __future__ import annotations

import math
import statistics
import timeit
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import pyro
import pyro.poutine as poutine
import torch
from pyro.infer import ELBO
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrovae.errors import InputTypeError, check_integer
from pyrovae.evaluation._gradient_sums import GradientSums, Part, PartStatistics
from pyrovae.frames import Data
from pyrovae.programs import (
    Program,
    announced_parameters,
    check_data,
    check_not_tied,
    mode,
    own_parameter_store,
    running_on,
    trace_pair,
    trainable_parameters,
    unregistered,
    with_gradients,
)
from pyrovae.randomness import FunctionalNoise, kept_random_state
from pyrovae.vae import AmortizedGuide

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class GradientStatistics:
    """The result of :func:`gradient_statistics`.

    Attributes:
        parts: one entry per part.
        loss: mean of the loss, nats per datum.
        loss_stderr: its standard error.
        loss_variance: variance of one loss.
        loss_variance_stderr: its standard error.
        seconds: time of one loss and gradient, the median of several evaluated one by one.
        num_repeats: number of gradients.
        vectorized: whether the repeats ran in one pass under ``torch.vmap``.
        mean: E g by part (an enum equal to the part's name), each a flat tensor in float64 on the CPU.
    """

    parts: tuple[PartStatistics, ...]
    loss: float
    loss_stderr: float
    loss_variance: float
    loss_variance_stderr: float
    seconds: float
    num_repeats: int
    vectorized: bool
    mean: dict[Part, Tensor]

    def __getitem__(self, part: str) -> PartStatistics:
        """The entry of that name."""
        found: dict[str, PartStatistics] = {entry.part: entry for entry in self.parts}
        if part not in found:
            raise KeyError(f"no part {part!r}; there are {', '.join(found)}")
        return found[part]

    def __str__(self) -> str:
        head = (
            f"loss {self.loss:.6g} ± {self.loss_stderr:.2g} nats per datum, variance {self.loss_variance:.3g}; "
            f"{1e3 * self.seconds:.2f} ms a gradient, {self.num_repeats} of them"
        )
        return f"{head}\n{self.to_frame().to_string(index=False, float_format='{:.3g}'.format)}"

    def to_frame(self) -> pd.DataFrame:
        """One row per part."""
        import pandas as pd

        return pd.DataFrame([asdict(entry) | {"part": entry.part.value} for entry in self.parts])


def gradient_statistics(
    model: Program, guide: Program, elbo: ELBO, x: Data, num_repeats: int = 200, *, seed: int = 0
) -> GradientStatistics:
    """Mean, variance and signal-to-noise ratio of an estimator's gradient at the programs' current parameters.

    The gradient is that of the loss in nats per datum over the whole of ``x`` as one batch; only the draws of z
    vary. The parts are ``"encoder location head"``, ``"encoder covariance head"``, ``"encoder body"`` and
    ``"decoder"`` for an :class:`~pyrovae.AmortizedGuide` (a flow has no location head), ``"guide"`` and
    ``"decoder"`` otherwise, and ``"encoder"`` for the whole guide. Repeats run under ``torch.vmap`` if both programs
    are modules that allow it.

    Args:
        model: Pyro program of the joint density.
        guide: Pyro program of q(z|x).
        elbo: the estimator.
        x: a batch of data (num, …), of the programs' dtype and device.
        num_repeats: number of gradients, at least 2.
        seed: seed of the draws; the caller's random state does not change.

    Raises:
        InputError: too few repeats, nothing to train, or data that the programs cannot take.
        InputTypeError: not an estimator, or not a tensor.
    """
    check_integer("num_repeats", num_repeats, least=2)
    if not isinstance(elbo, ELBO) or not hasattr(elbo, "differentiable_loss"):
        raise InputTypeError(f"elbo must be an estimator such as AnalyticELBO(), not {elbo!r}")
    x = check_data(x, model, guide)
    check_not_tied(model, guide)
    with with_gradients(), own_parameter_store(), kept_random_state(x), mode(model, guide, training=False):
        with running_on(x), pyro.validation_enabled(True), poutine.trace(param_only=True) as announced:
            num_data = trace_pair(model, guide, x, check=True).full_size or len(x)
            elbo.differentiable_loss(model, guide, x)
        parameters = trainable_parameters(model, guide, announced.trace)
        with pyro.validation_enabled(False):
            parts = _parts(guide, parameters, x)
            pair = _Pair(model, guide, elbo, num_data)
            sums, seconds, vectorized = _measure(pair, x, parameters, parts, num_repeats, seed)
    losses = sums.losses
    return GradientStatistics(
        parts=tuple(sums.statistics(part, seconds) for part in parts),
        loss=losses.mean().item(),
        loss_stderr=(losses.std() / math.sqrt(num_repeats)).item(),
        loss_variance=losses.var().item(),
        loss_variance_stderr=((losses - losses.mean()).square().std() / math.sqrt(num_repeats)).item(),
        seconds=seconds,
        num_repeats=num_repeats,
        vectorized=vectorized,
        mean={part: sums.mean[entries] for part, entries in parts.items()},
    )


def _measure(
    pair: _Pair, x: Tensor, parameters: list[Tensor], parts: dict[Part, Tensor], num_repeats: int, seed: int
) -> tuple[GradientSums, float, bool]:
    """Sums over repeats, seconds of one gradient, and whether the repeats ran in one pass."""
    seconds = _seconds(lambda: pair.one_gradient(x, parameters), min(num_repeats, 20))
    torch.manual_seed(seed)
    if pair.can_be_given(parameters):
        try:
            return GradientSums(parts, _in_one_pass(pair, x, parameters, num_repeats), num_repeats), seconds, True
        except RuntimeError:  # such as control flow that depends on values
            torch.manual_seed(seed)
    one_by_one = (pair.one_gradient(x, parameters) for _ in range(num_repeats))
    return GradientSums(parts, one_by_one, num_repeats), seconds, False


def _parts(guide: Program, parameters: list[Tensor], x: Tensor) -> dict[Part, Tensor]:
    """Positions of each part's entries in the parameters laid end to end."""
    owner: dict[int, Part] = {}
    if isinstance(guide, nn.Module):
        for name, parameter in guide.named_parameters():
            owner[id(parameter)] = _part_of_encoder(name) if isinstance(guide, AmortizedGuide) else Part.GUIDE
    with poutine.trace(param_only=True) as capture, torch.no_grad():
        guide(x)
    for announced in announced_parameters(capture.trace):
        owner.setdefault(id(announced), Part.GUIDE)
    positions: dict[Part, list[Tensor]] = {}
    sizes = [tensor.numel() for tensor in parameters]
    for tensor, entries in zip(parameters, torch.arange(sum(sizes)).split(sizes), strict=True):
        part = owner.get(id(tensor), Part.DECODER)
        positions.setdefault(part, []).append(entries)
        if part in (Part.LOCATION_HEAD, Part.COVARIANCE_HEAD, Part.BODY):
            positions.setdefault(Part.ENCODER, []).append(entries)
    return {part: torch.cat(positions[part]) for part in Part if part in positions}


def _part_of_encoder(parameter: str) -> Part:
    """The part that a parameter of an ``AmortizedGuide`` belongs to, by its name."""
    if parameter.startswith("posterior_head.loc_head."):
        return Part.LOCATION_HEAD
    return Part.COVARIANCE_HEAD if parameter.startswith("posterior_head.") else Part.BODY


def _seconds(function: Callable[[], object], repeats: int) -> float:
    def to_its_end() -> None:
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    to_its_end()
    return statistics.median(timeit.repeat(to_its_end, number=1, repeat=repeats))


class _Pair(nn.Module):
    """Two programs and an estimator as one module, so that ``functional_call`` can replace their parameters."""

    def __init__(self, model: Program, guide: Program, elbo: ELBO, num_data: int) -> None:
        super().__init__()
        self.num_data = num_data
        self.model: Program = model
        self.guide: Program = guide
        self.elbo = elbo

    def forward(self, x: Tensor) -> Tensor:
        loss: Tensor = self.elbo.differentiable_loss(self.model, self.guide, x)
        return loss / self.num_data

    def one_gradient(self, x: Tensor, parameters: list[Tensor]) -> Tensor:
        """A loss and its gradient, shape (1, 1 + parameters)."""
        loss = self.forward(x)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        return torch.cat([loss.detach().reshape(1), *(g.flatten() for g in gradients)]).unsqueeze(0)

    def can_be_given(self, parameters: list[Tensor]) -> bool:
        """Whether all the parameters are the modules', each in one place, and none goes through Pyro's store."""
        if not isinstance(self.model, nn.Module) or not isinstance(self.guide, nn.Module):
            return False
        places = [id(parameter) for _, parameter in self.named_parameters(remove_duplicate=False)]
        by_pyro = any(isinstance(module, PyroModule) and module._pyro_params for module in self.modules())
        in_one_place = len(set(places)) == len(places)
        return not by_pyro and in_one_place and all(id(parameter) in places for parameter in parameters)


def _in_one_pass(pair: _Pair, x: Tensor, parameters: list[Tensor], num_repeats: int) -> Iterator[Tensor]:
    """Losses and gradients of many draws at once, in chunks (num, 1 + parameters)."""
    names = {id(tensor): name for name, tensor in pair.named_parameters()}
    values = {names[id(tensor)]: tensor.detach() for tensor in parameters}
    gradient_and_loss = torch.func.grad_and_value(lambda v: torch.func.functional_call(pair, v, (x,)))
    rows = len(x) * pair.elbo.num_particles
    size = max(1, min(64, 2**14 // rows, 2**24 // sum(p.numel() for p in parameters)))
    for chunk in torch.empty(num_repeats).split(size):
        with unregistered(), FunctionalNoise():
            vectorized = torch.vmap(lambda _: gradient_and_loss(values), randomness="different")
            gradients, losses = vectorized(torch.zeros(len(chunk), device=x.device))
        flat = [gradients[name].reshape(len(chunk), -1) for name in values]
        yield torch.cat([losses.reshape(-1, 1), *flat], dim=1)
