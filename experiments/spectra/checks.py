"""A trained pair on test spectra: log p(x), errors, residuals, bands, noise, in the original units."""

import copy
import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import pyrovae as pv
from pyrovae.datasets import Preprocessing, Standardize
from pyrovae.distributions import covariance_of
from pyrovae.errors import InputTypeError
from pyrovae.evaluation import LogMarginal, Step
from pyrovae.likelihoods import GaussianNoiseLikelihood
from pyrovae.randomness import seeded

NUM_BAND_DRAWS = 200
BAND = 0.9


@dataclass(frozen=True)
class Checked:
    """A pair on test spectra.

    Attributes:
        metrics: the numbers of a row.
        marginal: log p(x) of each spectrum, with its errors.
        reconstruction: x̂, the mean over draws of z, shape (num, n).
        low: lower end of the predictive band, shape (num, n).
        high: its upper end.
        covariance: of the noise, shape (n, n), float64; the mean over data where it depends on z.
    """

    metrics: dict[str, Any]
    marginal: LogMarginal
    reconstruction: Tensor
    low: Tensor
    high: Tensor
    covariance: Tensor


@torch.no_grad()
def check(
    model: pv.GenerativeModel, guide: pv.AmortizedGuide, step: Preprocessing, x: Tensor, samples: int, seed: int = 0
) -> Checked:
    """Metrics and bands of a pair that was trained on ``step.transform`` of spectra like x (num, n)."""
    model, guide = model.eval(), guide.eval()
    y = step.transform(x)
    with warnings.catch_warnings(action="ignore", category=pv.UnreliableEstimateWarning):  # a column of the table
        marginal = pv.log_marginal(model, guide, y, num_samples=samples, seed=seed)
    marginal = replace(marginal, per_datum=marginal.per_datum + step.log_abs_det_jacobian(x))
    elbo = pv.elbo_terms(model, guide, y).elbo.double() + step.log_abs_det_jacobian(x)
    with seeded(seed):
        q = guide.posterior(y)
        total, drawn = torch.zeros_like(y), []
        for _ in range(NUM_BAND_DRAWS):
            z = q.sample()
            p = model.conditional(z)
            total += p.mean / NUM_BAND_DRAWS
            drawn.append(step.inverse(p.sample()))
    # the order statistics between which one more draw falls with that probability
    tail = ((1 - BAND) / 2 * (NUM_BAND_DRAWS + 1) - 1) / (NUM_BAND_DRAWS - 1)
    low, high = torch.stack(drawn).quantile(x.new_tensor([tail, 1 - tail]), dim=0)
    reconstruction = step.inverse(total)
    factors, covariance = _noise(model, z, scale_of(step, y))
    residual = (x - reconstruction).double()
    innovations = torch.linalg.solve_triangular(factors, residual.unsqueeze(-1), upper=False).squeeze(-1)
    by_channel = residual.square().mean(0).sqrt()
    sigma = covariance.diagonal().sqrt()
    inside = ((x >= low) & (x <= high)).double()
    likelihood = model.likelihood
    on_floor = 0
    if isinstance(likelihood, GaussianNoiseLikelihood):
        on_floor = int(likelihood.on_floor(model.decoder(z)).sum())
    metrics = {
        "log_prob": marginal.mean,
        "log_prob_stderr": marginal.stderr_data,
        "log_prob_stderr_monte_carlo": marginal.stderr_monte_carlo,
        "log_prob_bias": marginal.bias_per_datum.mean().item(),
        "num_untrusted": int(marginal.unreliable.sum()),
        "num_annealed": marginal.steps.count(Step.ANNEALED),
        "elbo": elbo.mean().item(),
        "lost_by_encoder": (marginal.per_datum - elbo).mean().item(),
        "rmse": residual.square().mean().sqrt().item(),
        "rmse_worst_channel": by_channel.max().item(),
        "rmse_median_channel": by_channel.median().item(),
        "residual_autocorrelation": autocorrelation(residual),
        "innovation_autocorrelation": autocorrelation(innovations),
        "coverage": inside.mean().item(),
        "coverage_worst_channel": inside.mean(0).min().item(),
        "sigma": sigma.square().mean().sqrt().item(),
        "rho": (covariance.diagonal(1) / (sigma[1:] * sigma[:-1])).mean().item() if len(sigma) > 1 else 0.0,
        "channels_on_floor": on_floor,
    }
    return Checked(metrics, marginal, reconstruction, low, high, covariance)


def autocorrelation(residual: Tensor) -> float:
    """Correlation of neighbouring channels' residuals (num, n), each channel in units of its own root mean square."""
    scaled = residual / residual.square().mean(0).sqrt().clamp_min(torch.finfo(residual.dtype).tiny)
    return (scaled[:, 1:] * scaled[:, :-1]).mean().item()


def scale_of(step: Preprocessing, y: Tensor) -> Tensor:
    """∂x/∂y of each channel, shape (n,), float64.

    Raises:
        InputTypeError: a step that is not ``Standardize``.
    """
    if not isinstance(step, Standardize):
        raise InputTypeError(f"only Standardize gives the noise in the data's units, not {type(step).__name__}")
    return torch.ones(y.shape[-1], dtype=torch.float64) * torch.tensor(step.scale, dtype=torch.float64)


def _noise(model: pv.GenerativeModel, z: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Cholesky factors of the noise, (n, n) or (num, n, n), and its mean covariance (n, n), in units of x."""
    likelihood = model.likelihood
    depends = not isinstance(likelihood, GaussianNoiseLikelihood) or likelihood.depends_on_z
    # in float32 the covariance of strongly correlated channels may have no factor
    p = copy.deepcopy(model).double().conditional((z if depends else z[:1]).double())
    covariance = scale.unsqueeze(-1) * covariance_of(p) * scale
    factors = torch.linalg.cholesky(covariance)
    return (factors if depends else factors[0]), covariance.mean(0)


def correlation_of(covariance: Tensor) -> Tensor:
    """The correlation matrix of a covariance (n, n)."""
    sigma = covariance.diagonal().sqrt()
    return covariance / sigma / sigma.unsqueeze(-1)
