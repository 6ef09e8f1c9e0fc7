"""Linear decoders that are best for a family of posteriors, where no closed form gives them."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pyrovae.distributions import covariance_of
from pyrovae.errors import check_choice
from pyrovae.posteriors import POSTERIORS, Posterior
from pyrovae.posteriors.closest import minimise

Family = str | Callable[[int, int], Posterior]
"""A family of posteriors, by its name or as a callable of (in_features, latent_dim)."""


def make_head(family: Family, in_features: int, latent_dim: int) -> Posterior:
    """A head of the family in float64.

    Raises:
        InputError: an unknown name.
    """
    if isinstance(family, str):
        check_choice("family", family, POSTERIORS)
        family = POSTERIORS[family]
    return family(in_features, latent_dim).double()


@torch.random.fork_rng(devices=[])
def best_decoder(covariance: Tensor, loadings: Tensor, noise_scale: float, family: Family) -> tuple[Tensor, float]:
    """Loadings and noise scale of the largest expected ELBO, the best of several starts.

    With the best mean, 2 · −ELBO = n log 2πσ² + (tr S − tr(P⁻¹AᵀSA)/σ²)/σ² + tr PΣ_q − d − log det Σ_q.

    Args:
        covariance: the data's, S, shape (n, n).
        loadings: A of maximum likelihood, shape (n, d), from whose rotations to start.
        noise_scale: its σ.
        family: by name or as a callable of (in_features, latent_dim).
    """
    n, d = loadings.shape
    head = make_head(family, n, d).requires_grad_(False)
    bias, eye = head.covariance_head.bias, torch.eye(d, dtype=torch.float64)

    def neg_elbo(values: Tensor) -> Tensor:
        flat, log_scale, raw = values.split([n * d, 1, len(bias)])
        a, variance = flat.reshape(n, d), (2 * log_scale).exp()
        q = head.constant(raw)
        precision = eye + a.T @ a / variance
        explained = torch.linalg.solve(precision, a.T @ covariance @ a).trace() / variance
        fit = 2 * n * log_scale + (covariance.trace() - explained) / variance
        value: Tensor = 0.5 * (fit + (precision * covariance_of(q)).sum()) - q.entropy()
        return value.squeeze()

    torch.manual_seed(0)
    turns = [eye, *(torch.linalg.qr(torch.randn_like(eye)).Q for _ in range(3))]
    log_scale = torch.tensor([math.log(noise_scale)], dtype=torch.float64)
    starts = [torch.cat([(loadings @ turn).flatten(), log_scale, 0.1 * torch.randn_like(bias)]) for turn in turns]
    best = minimise(neg_elbo, starts, max_steps=5000)
    return best[: n * d].reshape(n, d), best[n * d].exp().item()
