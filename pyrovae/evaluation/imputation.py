"""Missing values from the observed values of the same datum, with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar, overload

import torch
from torch import Tensor

from pyrovae.distributions import covariance_of
from pyrovae.errors import InputTypeError, check_level
from pyrovae.evaluation.posterior_draws import posterior_draws
from pyrovae.frames import Data, frame_like, is_frame, tensor_of
from pyrovae.likelihoods import GaussianNoiseLikelihood
from pyrovae.linear_gaussian import LinearModel
from pyrovae.randomness import seeded
from pyrovae.vae import AmortizedGuide, GenerativeModel

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

_COVARIANCES_AT_ONCE = 2**24
"""Numbers of the covariances that are formed at once."""


Values = TypeVar("Values", Tensor, "pd.DataFrame")


@dataclass(frozen=True)
class Imputed(Generic[Values]):
    """Data with their missing values filled in, as tensors or as DataFrames with the index and columns of the data.

    Attributes:
        mean: the data, with E[x_M | x_O] where they were missing, shape (num, n).
        lower: lower ends of intervals, equal to the data where these were observed, shape (num, n).
        upper: upper ends.
        reliable: whether a datum's intervals are reliable, booleans of shape (num,): always for an exact model, and for
            a VAE if k̂ is small enough.
    """

    mean: Values
    lower: Values
    upper: Values
    reliable: Tensor


@overload
def impute(
    model: GenerativeModel,
    guide: AmortizedGuide,
    x: Tensor | np.ndarray,
    *,
    level: float = ...,
    num_samples: int = ...,
    seed: int = ...,
    progress: bool = ...,
) -> Imputed[Tensor]: ...


@overload
def impute(
    model: GenerativeModel,
    guide: AmortizedGuide,
    x: pd.DataFrame,
    *,
    level: float = ...,
    num_samples: int = ...,
    seed: int = ...,
    progress: bool = ...,
) -> Imputed[pd.DataFrame]: ...


@torch.no_grad()
def impute(
    model: GenerativeModel,
    guide: AmortizedGuide,
    x: Data | None = None,
    *,
    level: float = 0.9,
    num_samples: int = 1000,
    seed: int = 0,
    progress: bool = False,
) -> Imputed[Tensor] | Imputed[pd.DataFrame]:
    """Fill in the missing values of data, NaN in x, by E[x_M | x_O], with intervals of p(x_M | x_O).

    p(x_M | x_O) = ∫ p(x_M | z, x_O) p(z | x_O) dz, with weighted draws of z
    (:func:`~pyrovae.evaluation.posterior_draws`). With correlated noise, p(x_M | z, x_O) is the conditional
    distribution of the noise. A linear model has the exact method ``complete`` instead, and ``intervals``.

    Args:
        model: made with ``missing=True``.
        guide: its guide.
        x: data (num, n); for a DataFrame the result has its index and columns.
        level: probability of an interval, with half of the rest on either side.
        num_samples: draws for each datum.
        seed: seed of the draws; the caller's random state does not change.
        progress: whether to show a progress bar (on a terminal).

    Raises:
        InputTypeError: a linear model.
        InputError: data that the model cannot take, or a level outside of (0, 1).

    Example:
        >>> import pyrovae as pv
        >>> model = pv.GenerativeModel(pv.nn.MLP(2, 8), pv.GaussianLikelihood(8, 3), latent_dim=2, missing=True)
        >>> guide = pv.AmortizedGuide(pv.nn.ImputeMissing(pv.nn.MLP(3, 8)), pv.DiagonalPosterior(8, 2))
        >>> x = model.sample(10)
        >>> x[0, 1] = torch.nan
        >>> found = impute(model, guide, x, num_samples=100)
        >>> bool(found.lower[0, 1] < found.mean[0, 1] < found.upper[0, 1])
        True
    """
    check_level(level)
    if isinstance(model, LinearModel):
        raise InputTypeError(
            f"impute needs a generative model and its guide; a {type(model).__name__} has the exact method complete(x)"
        )
    if is_frame(x):
        how = {"num_samples": num_samples, "seed": seed}
        found = impute(model, guide, tensor_of("x", x), level=level, progress=progress, **how)
        mean_table, lower_table, upper_table = (frame_like(x, part) for part in (found.mean, found.lower, found.upper))
        return Imputed(mean_table, lower_table, upper_table, found.reliable)
    x = tensor_of("x", x)
    mean, lower, upper = (x.double().clone() for _ in range(3))
    reliable = torch.ones(len(x), dtype=torch.bool)
    (incomplete,) = x.isnan().any(1).nonzero(as_tuple=True)
    if not len(incomplete):
        return Imputed(mean, lower, upper, reliable)
    draws = posterior_draws(model, guide, x[incomplete], num_samples=num_samples, seed=seed, progress=progress)
    reliable[incomplete] = draws.reliable
    dtype = next(model.parameters()).dtype
    tails = torch.tensor([0.5 * (1 - level), 0.5 * (1 + level)], dtype=torch.float64)
    with seeded(seed):
        for row, z, weights in zip(incomplete, draws.z, draws.weights, strict=True):
            missing = x[row].isnan()
            centre, spread = _given_latents(model, z.to(dtype), x[row])
            mean[row, missing] = weights @ centre[:, missing]
            ends = _quantiles((centre + spread)[:, missing], weights, tails)
            lower[row, missing], upper[row, missing] = ends
    return Imputed(mean, lower, upper, reliable)


def _given_latents(model: GenerativeModel, z: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of each channel given z (draws, d) and observed values of x (n,), and a draw minus the mean: (draws, n)."""
    likelihood = model.likelihood
    if not (isinstance(likelihood, GaussianNoiseLikelihood) and likelihood.is_correlated):
        p = model.conditional(z)
        return p.mean.double(), (p.sample() - p.mean).double()
    seen = ~x.isnan()
    at_once = max(1, _COVARIANCES_AT_ONCE // len(x) ** 2)
    means, spreads = [], []
    for some in z.split(at_once if likelihood.depends_on_z else len(z)):
        p = model.conditional(some)
        covariance = covariance_of(p).double() if likelihood.depends_on_z else likelihood.noise_covariance().double()
        between = covariance[..., seen, :]  # Σ_O·
        factor = torch.linalg.cholesky(between[..., seen])
        white = torch.linalg.solve_triangular(factor, between, upper=False)  # L⁻¹Σ_O·
        residual = (x - p.mean)[:, seen].double().unsqueeze(-1)
        along = torch.linalg.solve_triangular(factor.expand(len(some), *factor.shape[-2:]), residual, upper=False)
        means.append(p.mean.double() + (white.mT @ along).squeeze(-1))
        variance = covariance.diagonal(dim1=-2, dim2=-1) - white.square().sum(-2)
        spreads.append(variance.clamp_min(0).sqrt() * torch.randn_like(means[-1]))
    return torch.cat(means), torch.cat(spreads)


def _quantiles(values: Tensor, weights: Tensor, levels: Tensor) -> Tensor:
    """Quantiles of weighted values (draws, m), shape (levels, m), each draw counted with half of its own weight."""
    ordered, index = values.sort(dim=0)
    sums = weights[index].cumsum(0) - 0.5 * weights[index]
    at = torch.searchsorted(sums.T.contiguous(), levels.expand(values.shape[1], -1).contiguous())
    return ordered.gather(0, at.T.clamp_max(len(values) - 1))
