"""A guide with its own parameters for each datum: the best that an encoder could do."""

import contextlib
import copy
import math
from collections.abc import Callable
from typing import Protocol, TypeVar

import pyro
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from pyrovae.distributions import mean_of
from pyrovae.elbo import StickingTheLandingELBO
from pyrovae.errors import InputError, InputTypeError, check_integer
from pyrovae.evaluation._adam import Adam
from pyrovae.frames import Data
from pyrovae.posteriors import Posterior
from pyrovae.programs import Program, check_data, evaluating, running_on
from pyrovae.vae import AmortizedGuide, GenerativeModel

_DEEPEST = 8
"""Plates of the programs that a model may run inside of its log p(x, z), below the plate of particles."""

Family = Callable[[int, int], Posterior]

NUM_DRAWS = 256
"""Draws that estimate the moments of a distribution, such as a flow, that does not know them."""

_BLOCK = 50
"""Steps between two looks at the loss."""

_RATES = (0.05, 0.015, 0.005)
"""Adam's learning rates, each until the loss no longer falls."""

_AVERAGED_STEPS, _AVERAGED_RATE = 1000, 0.002
"""Steps at the end whose parameters are averaged, which takes out their noise."""


class PerDatumGuide(nn.Module):
    """q_i(z) of one family for each datum i, its parameters free: a Pyro guide without an encoder.

    Args:
        family: ``Posterior`` class or another callable of (in_features, latent_dim).
        loc: where to start each mean, shape (num, latent_dim).

    Raises:
        InputError: the family's head has a parameter outside linear layers, which cannot be given to each datum.
    """

    def __init__(self, family: Family, loc: Tensor) -> None:
        super().__init__()
        num, latent_dim = loc.shape
        head = family(1, latent_dim).to(loc)
        for parameter in head.parameters():
            parameter.requires_grad_(False)
        self.head = _per_datum(head, num)
        layers = [module for module in self.head.modules() if isinstance(module, _LinearPerDatum)]
        free = {id(parameter) for layer in layers for parameter in layer.parameters()}
        for name, parameter in self.head.named_parameters():
            if id(parameter) not in free:
                raise InputError(f"{type(head).__name__} has the parameter {name} outside linear layers")
        loc_head = getattr(self.head, "loc_head", None)
        if isinstance(loc_head, _LinearPerDatum):
            with torch.no_grad():
                loc_head.bias.copy_(loc)
        self.register_buffer("_features", loc.new_zeros(num, 1))

    def __len__(self) -> int:
        return len(self.get_buffer("_features"))

    def posterior(self, x: Tensor | None = None) -> TorchDistribution:
        """q_i(z) of all data, batch shape (num,), whatever x is."""
        return self.head(self.get_buffer("_features"))

    def forward(self, x: Tensor) -> Tensor:
        """The Pyro program for the data x (num, n) whose posteriors these are."""
        if len(x) != len(self):
            raise InputError(f"this guide belongs to {len(self)} data, not to {len(x)}; use select")
        with pyro.plate("data", len(x)):
            z: Tensor = pyro.sample("z", self.posterior())
        return z

    @torch.no_grad()
    def start_at(self, q: MultivariateNormal) -> None:
        """Start at the family's members nearest to these Gaussians, of batch shape (num,), at least with their means.

        A family whose closest covariance has no closed form, or none that it can reach, keeps its own.
        """
        head, own = self.head, getattr(self.head, "covariance_head", None)
        loc_head = getattr(head, "loc_head", None)
        if isinstance(loc_head, _LinearPerDatum):
            loc_head.bias.copy_(q.mean)
        has_closed_form = isinstance(head, Posterior) and type(head).closest_values is not Posterior.closest_values
        if isinstance(head, Posterior) and has_closed_form and isinstance(own, _LinearPerDatum):
            with contextlib.suppress(InputError):
                values = torch.stack([head.closest_values(precision) for precision in q.precision_matrix])
                own.weight.zero_()
                own.bias.copy_(values)

    def select(self, rows: slice | Tensor) -> "PerDatumGuide":
        """The guide of some of the data."""
        part = copy.deepcopy(self)
        for module in part.modules():
            if isinstance(module, _LinearPerDatum):
                module.weight = nn.Parameter(module.weight[rows])
                module.bias = nn.Parameter(module.bias[rows])
        part.register_buffer("_features", part.get_buffer("_features")[rows])
        return part


class _LinearPerDatum(nn.Module):
    """A linear layer for each datum, all alike at the start: (*batch, num, in) -> (*batch, num, out)."""

    mask: Tensor | None

    def __init__(self, linear: nn.Linear, num: int) -> None:
        super().__init__()
        bias = linear.bias if linear.bias is not None else linear.weight.new_zeros(linear.out_features)
        self.weight = nn.Parameter(linear.weight.detach().expand(num, -1, -1).clone())
        self.bias = nn.Parameter(bias.detach().expand(num, -1).clone())
        mask: Tensor | None = getattr(linear, "mask", None)  # of a flow's autoregressive layer
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        weight = self.weight if self.mask is None else self.weight * self.mask
        return torch.einsum("noi,...ni->...no", weight, inputs) + self.bias


AnyGuide = AmortizedGuide | PerDatumGuide
"""A guide that gives q(z|x) as a distribution."""

T = TypeVar("T")


def rows_of(guide: T, rows: slice | Tensor, x: Tensor) -> T | PerDatumGuide:
    """The guide for some of the data x: a guide with parameters for each datum selects theirs.

    Raises:
        InputError: such a guide belongs to another number of data.
    """
    if not isinstance(guide, PerDatumGuide):
        return guide
    if len(guide) != len(x):
        raise InputError(f"this guide belongs to {len(guide)} data, not to {len(x)}; use its select")
    return guide.select(rows)


def _per_datum(module: nn.Module, num: int) -> nn.Module:
    """The module with each of its linear layers replaced by a linear layer for each datum."""
    if isinstance(module, nn.Linear):
        return _LinearPerDatum(module, num)
    for name, child in module.named_children():
        setattr(module, name, _per_datum(child, num))
    return module


class HasPosterior(Protocol):
    """A guide that gives q(z|x) as a distribution."""

    def posterior(self, x: Tensor) -> TorchDistribution:
        """q(z|x), batch shape (num,)."""

    def __call__(self, x: Tensor) -> object:
        """The Pyro program."""


def refit(
    model: Program,
    guide: HasPosterior,
    x: Data,
    family: Family,
    *,
    num_particles: int = 8,
    max_steps: int = 4000,
    seed: int = 0,
    start: MultivariateNormal | None = None,
) -> tuple[PerDatumGuide, int]:
    """Maximise the ELBO over the family's members, datum by datum, at a fixed model.

    Each learning rate is kept until the mean over 50 steps no longer rises by more than twice its noise; the parameters
    of 1000 further steps are averaged.

    Args:
        model: the generative model; its parameters do not change.
        guide: its guide; q starts at its posterior means.
        x: data (num, n).
        family: ``Posterior`` class or another callable of (in_features, latent_dim).
        num_particles: draws of z per datum and step.
        max_steps: most steps, before the steps whose parameters are averaged.
        seed: seed of the draws; the caller's random state does not change.
        start: Gaussians of batch shape (num,) to start near, such as those of :func:`~pyrovae.refine`.

    Returns:
        The fitted guide of these data, and the number of steps.

    Raises:
        InputError: data that the programs cannot take, or ``num_particles`` or ``max_steps`` below 1.
        InputTypeError: ``family`` is not a family.
    """
    if isinstance(family, str) or not callable(family):
        raise InputTypeError(f"a family is a Posterior class, not {family!r}; see pyrovae.posteriors")
    check_integer("num_particles", num_particles)
    check_integer("max_steps", max_steps)
    x = check_data(x, model, guide)
    nesting = 1 if isinstance(model, GenerativeModel) else _DEEPEST
    estimator = StickingTheLandingELBO(num_particles, nesting, vectorize_particles=num_particles > 1)
    with evaluating(model, guide, x, seed):
        with torch.no_grad(), running_on(x):
            loc = mean_of(guide.posterior(x), num_draws=NUM_DRAWS)
        q = PerDatumGuide(family, loc)
        if start is not None:
            q.start_at(start)
        parameters = [p for p in q.parameters() if p.requires_grad]

        def step(adam: Adam, rate: float) -> Tensor:
            """One step; the loss before it, in nats per datum."""
            loss = estimator.differentiable_loss(model, q, x)
            # the model's parameters stay without gradients
            adam.step(torch.autograd.grad(loss, parameters, allow_unused=True), rate)
            return loss.detach() / len(x)

        steps = 0
        for rate in _RATES:
            adam, before = Adam(parameters), None
            while steps < max_steps:
                losses = torch.stack([step(adam, rate) for _ in range(_BLOCK)])
                steps += _BLOCK
                mean, noise = losses.mean(), losses.diff().std() / math.sqrt(2 * _BLOCK)
                if before is not None and mean > before - 2 * noise:
                    break
                before = mean
        averaged = [torch.zeros_like(p) for p in parameters]
        adam = Adam(parameters)
        for i in range(min(_AVERAGED_STEPS, max_steps)):
            step(adam, _AVERAGED_RATE)
            for mean, parameter in zip(averaged, parameters, strict=True):
                mean += (parameter.detach() - mean) / (i + 1)
            steps += 1
        with torch.no_grad():
            for mean, parameter in zip(averaged, parameters, strict=True):
                parameter.copy_(mean)
    return q, steps
