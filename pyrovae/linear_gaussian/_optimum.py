"""Best members of Gaussian families for a linear-Gaussian model, where no closed form gives them."""

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.func import functional_call

from pyrovae.distributions import covariance_of
from pyrovae.errors import InputError
from pyrovae.posteriors import POSTERIORS, Posterior

Family = str | Callable[[int, int], Posterior]


def closest_head(precision: Tensor, family: Family, n: int, num_starts: int = 4) -> Posterior:
    """A head on x whose covariance, one for all x, minimises KL(q ‖ p(z|x)): the best of several starts.

    Args:
        precision: the posterior's, shape (d, d).
        family: by name or as a callable of (in_features, latent_dim).
        n: dimension of x.
        num_starts: of the minimisation.
    """
    head, bias = _constant_head(family, n, len(precision))
    nothing = torch.zeros(n, dtype=torch.float64)

    def kl(values: Tensor) -> Tensor:
        q = functional_call(head, {"covariance_head.bias": values}, nothing)
        return 0.5 * (precision * covariance_of(q)).sum() - q.entropy()

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        starts = [torch.zeros_like(bias), *(torch.randn_like(bias) for _ in range(num_starts - 1))]
    best = _minimise(kl, starts)
    with torch.no_grad():
        bias.copy_(best)
    return head


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
    head, bias = _constant_head(family, n, d)
    nothing, eye = torch.zeros(n, dtype=torch.float64), torch.eye(d, dtype=torch.float64)

    def neg_elbo(values: Tensor) -> Tensor:
        flat, log_scale, raw = values.split([n * d, 1, len(bias)])
        a, variance = flat.reshape(n, d), (2 * log_scale).exp()
        q = functional_call(head, {"covariance_head.bias": raw}, nothing)
        precision = eye + a.T @ a / variance
        explained = torch.linalg.solve(precision, a.T @ covariance @ a).trace() / variance
        fit = 2 * n * log_scale + (covariance.trace() - explained) / variance
        return (0.5 * (fit + (precision * covariance_of(q)).sum()) - q.entropy()).squeeze()

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        turns = [eye, *(torch.linalg.qr(torch.randn_like(eye)).Q for _ in range(3))]
        log_scale = torch.tensor([math.log(noise_scale)], dtype=torch.float64)
        starts = [torch.cat([(loadings @ turn).flatten(), log_scale, 0.1 * torch.randn_like(bias)]) for turn in turns]
    best = _minimise(neg_elbo, starts, max_steps=5000)
    return best[: n * d].reshape(n, d), best[n * d].exp().item()


def make_head(family: Family, in_features: int, latent_dim: int) -> Posterior:
    """A head of the family in float64.

    Raises:
        InputError: an unknown name.
    """
    if isinstance(family, str) and family not in POSTERIORS:
        raise InputError(f"unknown family {family!r}; choose one of {', '.join(POSTERIORS)}")
    return (POSTERIORS[family] if isinstance(family, str) else family)(in_features, latent_dim).double()


@torch.no_grad()
def set_head(linear: nn.Module, weight: Tensor, bias: Tensor) -> None:
    """Set a linear layer's parameters; a weight of one number fills it."""
    linear.get_parameter("weight").copy_(weight.expand_as(linear.get_parameter("weight")))
    linear.get_parameter("bias").copy_(bias)


def _constant_head(family: Family, n: int, d: int) -> tuple[Posterior, Tensor]:
    """A head whose covariance does not depend on x, and the bias that gives it."""
    head = make_head(family, n, d)
    try:
        bias = head.get_parameter("covariance_head.bias")
    except AttributeError:
        raise InputError(f"{type(head).__name__} has no covariance_head, so its best member is not known") from None
    set_head(head.get_submodule("covariance_head"), torch.zeros(1, dtype=torch.float64), bias)
    return head, bias


def _minimise(function: Callable[[Tensor], Tensor], starts: list[Tensor], max_steps: int = 1000) -> Tensor:
    """The best of several minimisations by L-BFGS."""

    def value_and_slope(values: np.ndarray) -> tuple[float, np.ndarray]:
        with torch.enable_grad():
            at = torch.from_numpy(values).requires_grad_()
            value = function(at)
            (slope,) = torch.autograd.grad(value, at)
        return value.item(), slope.numpy()

    options = {"maxiter": max_steps, "maxfun": 2 * max_steps, "ftol": 1e-15, "gtol": 1e-10}
    fits = [minimize(value_and_slope, s.detach().numpy(), jac=True, method="L-BFGS-B", options=options) for s in starts]
    return torch.from_numpy(min(fits, key=lambda fit: fit.fun).x)
