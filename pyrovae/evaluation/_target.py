"""Log p(x, z) of some data as a function of their z, with its gradient and expected curvature."""

import copy
import math
from abc import ABC, abstractmethod
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from pyrovae.distributions import covariance_of, mean_of
from pyrovae.errors import InputTypeError
from pyrovae.evaluation._density import Density
from pyrovae.evaluation._method import VALUES_AT_ONCE
from pyrovae.likelihoods import Likelihood
from pyrovae.vae import GenerativeModel

_JACOBIANS_AT_ONCE = 2**23
"""Numbers of the Jacobians that are formed at once, draws × data × their width × d."""

_NUM_SCREENED, _NUM_LIKELIEST = 2048, 32
"""Draws from the prior that are looked at for each datum, and those that are kept."""

_MOST_SCREENED_DIM = 20

_ROUNDING = 0.01
"""Error of a slope, in standard deviations of q, that is lost in the noise of a few draws."""


class Target(ABC):
    """Log p(x, z) of num data x, each with a z of d numbers; z and all results are in float64."""

    num: int
    latent_dim: int

    @abstractmethod
    def log_joint(self, z: Tensor) -> Tensor:
        """Log p(x, z) in nats, shape (draws, num), for z of shape (draws, num, d)."""

    def slope(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Log p(x, z) and its gradient in z, shapes (draws, num) and (draws, num, d)."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            value = self.log_joint(z)
            (slope,) = torch.autograd.grad(value.sum(), z)
        return value.detach(), slope

    def of(self, rows: Tensor) -> "Target":
        """That of some of the data, by their indices, where there is a curvature."""
        raise NotImplementedError

    def in_single(self, z: Tensor, unit: Tensor) -> "Target":
        """This target with its networks in float32, if its slopes at z agree in units L, (num, d, d); else itself."""
        return self

    @property
    def is_searched(self) -> bool:
        """Whether there are places from which to look for other modes, :meth:`starts`."""
        return False

    def starts(self, found: list[Tensor], num_starts: int) -> Tensor:
        """Starting points with large log p(x, z) that do not come from an encoder, shape (num_starts, num, d).

        Args:
            found: starts and modes so far, each of shape (num, d).
            num_starts: how many.
        """
        raise NotImplementedError

    @property
    def has_curvature(self) -> bool:
        """Whether :meth:`precision` is known."""
        return False

    @property
    def prior(self) -> tuple[Tensor, Tensor]:
        """Mean and Cholesky factor of a Gaussian prior, of each datum, where there is a curvature."""
        raise NotImplementedError

    def precision(self, z: Tensor) -> Tensor:
        """The prior's precision and the likelihood's expected curvature, shape (draws, num, d, d)."""
        raise NotImplementedError


class ModelTarget(Target):
    """That of a generative model, without gradients in its parameters.

    Args:
        model: in evaluation mode.
        x: data (num, n), of the model's dtype and device.
    """

    def __init__(self, model: GenerativeModel, x: Tensor) -> None:
        self.model, self.x = model, x
        self.num, self.latent_dim = len(x), model.latent_dim
        self.observed = ~x.isnan() if model.missing and x.isnan().any() else None

    def of(self, rows: Tensor) -> "ModelTarget":
        """That of some of the data."""
        part = ModelTarget(self.model, self.x[rows])
        vars(part)["prior_precision"] = self.prior_precision
        return part

    def in_single(self, z: Tensor, unit: Tensor) -> "ModelTarget":
        """In float32 where rounding moves no slope, in q's own units, by more than :data:`_ROUNDING`."""
        single = ModelTarget(copy.deepcopy(self.model).float(), self.x.float())
        moved = torch.einsum("nij,sni->snj", unit, single.slope(z)[1] - self.slope(z)[1])
        return single if moved.abs().max() <= _ROUNDING else self

    @property
    def is_searched(self) -> bool:
        """Not if z has many dimensions: then most of the prior's draws are far from every mode."""
        return self.has_curvature and self.latent_dim <= _MOST_SCREENED_DIM

    def starts(self, found: list[Tensor], num_starts: int) -> Tensor:
        """Of the draws from the prior that a datum is likeliest with, those farthest from what is found, one by one."""
        distance = torch.cdist(self.likeliest, torch.stack(found, dim=1)).amin(-1)
        starts = []
        for _ in range(num_starts):
            start = self.likeliest.take_along_dim(distance.argmax(-1).view(-1, 1, 1), dim=1)
            distance = torch.minimum(distance, torch.cdist(self.likeliest, start).squeeze(-1))
            starts.append(start.squeeze(1))
        return torch.stack(starts)

    @cached_property
    def likeliest(self) -> Tensor:
        """The draws from the prior that each datum is likeliest with, shape (num, draws, d)."""
        z = self.model.prior_distribution().sample(torch.Size([_NUM_SCREENED])).to(self.x)
        p = self.model.conditional(z)
        at_once = max(1, VALUES_AT_ONCE // (_NUM_SCREENED * self.x.shape[1]))
        rows = [p.log_prob(x.unsqueeze(1)).topk(_NUM_LIKELIEST).indices for x in self.x.split(at_once)]
        likeliest: Tensor = z[torch.cat(rows)]
        return likeliest.double()

    @property
    def prior(self) -> tuple[Tensor, Tensor]:
        """Those of p(z)."""
        prior = self.model.prior_distribution()
        loc, factor = mean_of(prior).double(), torch.linalg.cholesky(covariance_of(prior).double())
        return loc.expand(self.num, -1), factor.expand(self.num, -1, -1)

    def log_joint(self, z: Tensor) -> Tensor:
        """Log p(x, z): each draw of each datum is a row to the decoder, as modules such as BatchNorm1d expect."""
        rows = z.to(self.x).reshape(-1, self.latent_dim)
        x = self.x.expand(len(z), *self.x.shape).flatten(0, 1)
        log_joint = self.model.prior_distribution().log_prob(rows) + self.model.conditional(rows).log_prob(x)
        by_draw: Tensor = log_joint.double().unflatten(0, z.shape[:-1])
        return by_draw

    @cached_property
    def prior_precision(self) -> Tensor | None:
        """That of a Gaussian prior, shape (d, d); None of another."""
        return gaussian_precision(self.model.prior_distribution())

    @property
    def has_curvature(self) -> bool:
        """Whether the prior is Gaussian and the likelihood has ``fisher``."""
        has_fisher = type(self.model.likelihood).fisher is not Likelihood.fisher
        return has_fisher and self.prior_precision is not None

    def precision(self, z: Tensor) -> Tensor:
        """Λ₀ + JᵀIJ, J the decoder's Jacobian, some rows at a time."""
        assert self.prior_precision is not None
        rows = z.to(self.x).reshape(-1, self.latent_dim)
        observed = None if self.observed is None else self.observed.expand(len(z), *self.x.shape).flatten(0, 1)
        widths = [head.out_features for head in self.model.likelihood.modules() if isinstance(head, nn.Linear)]
        at_once = max(1, _JACOBIANS_AT_ONCE // (self.latent_dim * max([self.x.shape[1], *widths])))
        parts = []
        for start in range(0, len(rows), at_once):
            part = slice(start, start + at_once)
            features, jacobian = with_jacobian(self.model.decoder, rows[part])
            parts.append(self.model.likelihood.fisher(features, jacobian, None if observed is None else observed[part]))
        curvature: Tensor = torch.cat(parts).double().unflatten(0, z.shape[:-1])
        return curvature + self.prior_precision.to(z)


class DensityTarget(Target):
    """That of any pair of programs, in the coordinates of its guide, without curvature.

    Args:
        density: density of the pair and some data.
        like: the data, whose dtype and device the programs take.
    """

    def __init__(self, density: Density, like: Tensor) -> None:
        self.density, self.like = density, like
        self.num, self.latent_dim = density.num, density.dim

    def log_joint(self, z: Tensor) -> Tensor:
        """Log p(x, z), with the derivative of what constrains z."""
        return self.density.log_joint(z.to(self.like)).double()


def gaussian_precision(prior: Distribution) -> Tensor | None:
    """The precision of a Gaussian p(z), shape (d, d) in float64; None of any other.

    A distribution counts as Gaussian if its density is that of the Gaussian with its mean and covariance.
    """
    try:
        mean, covariance = mean_of(prior).double(), covariance_of(prior).double()
    except InputTypeError:
        return None
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if failed:
        return None
    noise = torch.randn(16, len(mean), generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(mean)
    z = mean + 2 * noise @ factor.mT
    constant = factor.diagonal().log().sum() + 0.5 * len(mean) * math.log(2 * math.pi)
    expected = -0.5 * (2 * noise).square().sum(-1) - constant
    found = prior.log_prob(z.to(prior.mean)).double()
    return torch.cholesky_inverse(factor) if torch.allclose(found, expected, rtol=1e-3, atol=1e-3) else None


def with_jacobian(function: nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The function of rows (num, d), shape (num, k), and its Jacobian, (num, k, d).

    The derivative of Jᵀu in u, which is linear in u: one backward pass for each of the d columns, through whatever
    autograd can differentiate twice.
    """
    with torch.enable_grad():
        rows = rows.detach().requires_grad_()
        value = function(rows)
        u = torch.zeros_like(value, requires_grad=True)
        (pulled,) = torch.autograd.grad(value, rows, u, create_graph=True)
        columns = [torch.autograd.grad(part.sum(), u, retain_graph=True)[0] for part in pulled.unbind(-1)]
    return value.detach(), torch.stack(columns, dim=-1)
