"""Log p(x) by draws from the prior, which misses no mode."""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pyrovae.evaluation._method import VALUES_AT_ONCE, Problem
from pyrovae.evaluation.importance import log_mean_weight
from pyrovae.vae import GenerativeModel

AT_ONCE = 4096
"""Data of a file that are in memory, and data that a few draws from the prior are weighed for at once."""

MOST_DIM = 8
LOOK, PROMISING = 512, 2.0
DRAWS, WANTED = 2**14, 1000
_SHARING = 32
"""Data that share draws from the prior. If all did, their errors would not average out."""
_ROUNDING = 1e-3
"""Largest error of log p(x|z) in float32, in standard errors of log p(x)."""

Summaries = tuple[Tensor, ...]
"""Value, standard error, effective sample size, gain of doubling and k̂, each of shape (num,)."""


def from_prior(problem: Problem) -> Summaries:
    """Summaries of p(x|z) at draws from the prior, which 32 data share; NaN where a few draws show no use.

    The standard errors are those of values that share draws, so that they give the error of the data's mean, too. The
    decoder is in float32 where that moves the likeliest draws' log p(x|z) by no more than a thousandth of these errors.
    """
    num, model = len(problem.x), problem.model
    nothing = tuple(torch.full((num,), math.nan, dtype=torch.float64) for _ in range(5))
    if not isinstance(model, GenerativeModel) or model.latent_dim > MOST_DIM:
        return nothing
    double = _Conditional(model, problem.x.dtype, problem.rows_at_once)
    single = _Conditional(copy.deepcopy(model).float(), torch.float32, problem.rows_at_once)
    is_single = problem.is_dense

    def draw(num_draws: int) -> Tensor:
        z: Tensor = model.prior_distribution().sample(torch.Size([num_draws])).to(problem.x)
        return z

    looked = torch.cat([log_mean_weight(double(draw(LOOK), some))[2] for some in problem.x.split(AT_ONCE)])
    for num_draws, chosen in promising(looked, WANTED):
        for rows in chosen.split(_SHARING):
            z, x = draw(num_draws), problem.x[rows.to(problem.x.device)]
            log_w = (single if is_single else double)(z, x)
            found = log_mean_weight(log_w)
            if is_single and not _is_exact(log_w, found[1], double, z, x):
                is_single = False
                found = log_mean_weight(log_w := double(z, x))
            value, stderr, effective, *rest = found
            stderr *= sharing_factor(log_w, effective)
            for every, some in zip(nothing, (value, stderr, effective, *rest), strict=True):
                every[rows] = some
    return nothing


def promising(looked: Tensor, wanted: int) -> Iterator[tuple[int, Tensor]]:
    """Numbers of draws, each with the data that need so many; no data of which draws from the prior are little use.

    Args:
        looked: effective sample size of a few draws, shape (num,).
        wanted: that of the draws to make.
    """
    num_draws = (LOOK * wanted / looked).log2().ceil().exp2().clamp(LOOK, DRAWS)
    for num in num_draws[looked >= PROMISING].unique().int().tolist():
        yield num, ((looked >= PROMISING) & (num_draws == num)).nonzero()[:, 0]


@dataclass(frozen=True)
class _Conditional:
    """Log p(x|z) of each draw and each datum, shape (draws, num), in float64 on the CPU."""

    model: GenerativeModel
    dtype: torch.dtype
    rows_at_once: int

    def __call__(self, z: Tensor, x: Tensor) -> Tensor:
        z, x = z.to(self.dtype), x.to(self.dtype)
        p = [self.model.conditional(part) for part in z.split(self.rows_at_once)]
        some_at_once = x.unsqueeze(1).split(max(1, VALUES_AT_ONCE // (len(z) * x.shape[1])))
        parts = [torch.cat([conditional.log_prob(some) for conditional in p], dim=1) for some in some_at_once]
        return torch.cat(parts).T.double().cpu()


def _is_exact(log_w: Tensor, stderr: Tensor, double: _Conditional, z: Tensor, x: Tensor) -> bool:
    """Whether the weights of each datum's likeliest draw are those of float64, by their standard errors."""
    likeliest = torch.from_numpy(log_w.numpy().argmax(0))  # NumPy takes a fifth of PyTorch's time
    exact = double(z[likeliest.to(z.device)], x).diagonal()
    moved = (log_w[likeliest, torch.arange(len(x))] - exact).abs()
    return bool((moved <= _ROUNDING * stderr).all())


def sharing_factor(log_w: Tensor, effective: Tensor) -> float:
    """How much larger the error of the mean of some data's values is if they share draws (K, num), from 1 to √num.

    The first-order error of their mean is that of the mean over the draws of w̄ₖ = Σᵢ (wₖᵢ/ŵᵢ − 1)/num. The sum over k
    of one datum's squares is K²/effective − K.
    """
    num_draws, num = log_w.shape
    together = (num_draws * log_w.T.softmax(-1).sum(0) - num).square().sum()
    alone = (num_draws**2 / effective - num_draws).sum()
    return min(max(1.0, (together / alone).sqrt().item()), math.sqrt(num)) if alone > 0 else 1.0
