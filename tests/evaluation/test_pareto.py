"""Pareto k̂ of weights of known tails."""

import math

import pytest
import torch
from pyro.ops.stats import fit_generalized_pareto
from scipy import stats

from pyrovae.evaluation._pareto import _largest, pareto_k, reliable_below, tail_of, tail_size


@pytest.mark.parametrize("k", [0.2, 0.5, 0.9])
def test_pareto_k_of_weights_of_known_tail(k):
    """By inversion, and against scipy's maximum-likelihood fit of the same tail."""
    weights = (1 - torch.rand(20_000, 3, dtype=torch.float64)) ** -k
    found = pareto_k(weights.log())
    assert ((found - k).abs() < 0.2).all()
    tail = weights[:, 0].sort(descending=True).values[:425]
    fitted, *_ = stats.genpareto.fit((tail[:-1] - tail[-1]).numpy(), floc=0)
    assert found[0].item() == pytest.approx((fitted * 424 + 5) / 434, abs=0.05)


@pytest.mark.parametrize("num", [25, 200, 5000])
def test_fits_of_many_tails_are_those_of_pyro_one_by_one(num):
    spread = torch.tensor([2.0, 3.0, 5.0, 10.0, 40.0], dtype=torch.float64)
    log_weights = spread * torch.randn(num, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    largest = (log_weights - log_weights.amax(0)).exp().topk(tail_size(num) + 1, dim=0).values
    fits = [fit_generalized_pareto(tail) for tail in (largest[:-1] - largest[-1]).T]
    tails = tail_of(log_weights)
    torch.testing.assert_close(tails.k, torch.tensor([k for k, _ in fits], dtype=torch.float64), rtol=1e-9, atol=1e-9)
    shape, scale = (torch.tensor(values, dtype=torch.float64) for values in zip(*fits, strict=True))
    shape = shape.clamp(0, 0.9)
    excess = tail_size(num) * scale / (1 - shape)
    total = (log_weights - log_weights.amax(0)).exp().sum(0)
    error = excess / (total + excess) * (1 + shape) / (1 - shape) / math.sqrt(tail_size(num))
    torch.testing.assert_close(tails.error, torch.where(tails.k > 0.5, error, 0.0), rtol=1e-9, atol=1e-12)
    known = tail_of(log_weights, log_weights.logsumexp(0))
    torch.testing.assert_close(known.error, tails.error)


def test_weights_within_a_factor_of_two_have_no_heavy_tail():
    """Two piles of bounded weights, as a proposal of several parts has them, fit no generalised Pareto."""
    piles = [torch.linspace(0.18, 0.01, 140), torch.logspace(-3.5, -5.5, 50), torch.linspace(0, -0.8, 3810)]
    weights = 0.82 + torch.cat(piles).double()
    assert pareto_k(weights.log().unsqueeze(-1)) <= 0
    weights[:5] *= 30  # and now one of a few large weights
    assert pareto_k(weights.log().unsqueeze(-1)) > 0.7


def test_pareto_k_of_few_or_equal_weights():
    assert pareto_k(torch.zeros(24, 2)).isnan().all()
    assert (pareto_k(torch.full((100, 2), -math.inf)) == math.inf).all()
    huge = pareto_k(40 * torch.randn(1000, 20))
    assert (huge > 2).all()
    few = torch.full((1000, 1), -math.inf)
    few[:3] = 0.0
    assert pareto_k(few) == math.inf
    assert (pareto_k(torch.zeros(100, 2)) == -math.inf).all()
    # a quarter of the tail is not a normal number beside the largest weight: its inverse is infinite
    assert pareto_k(torch.linspace(0, -4732, 100).double().unsqueeze(-1)) == math.inf
    assert reliable_below(100) == pytest.approx(0.5)
    assert reliable_below(10**6) == 0.7


@pytest.mark.parametrize(("num", "size"), [(25, 5), (100, 20), (225, 45), (400, 60), (1000, 94), (10_000, 300)])
def test_the_tail_is_a_fifth_or_three_roots(num, size):
    """M = min(K/5, 3 √K), Vehtari et al. (2024), section 3.2."""
    assert tail_size(num) == size


def test_the_tail_that_is_fitted_has_that_size():
    """Weights beyond the tail count for nothing, all in it do."""
    weights = 1 / (1 - torch.rand(1000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))) ** 0.5
    ordered = weights.sort(0, descending=True).values.log()
    beyond, smallest = ordered.clone(), ordered.clone()
    beyond[95:] = -50.0  # the 95th is the threshold that the 94 largest exceed
    smallest[93] = ordered[92]
    assert pareto_k(beyond) == pareto_k(ordered)
    assert pareto_k(smallest) != pareto_k(ordered)


def test_the_largest_are_those_of_topk():
    values = torch.randn(100, 6, dtype=torch.float64)
    values[3, 0], values[:50, 1], values[4, 2], values[:, 3] = math.nan, -math.inf, math.inf, 1.0
    for each in (values, values.T.contiguous().T):
        assert torch.equal(_largest(each, 7).nan_to_num(9.0), each.topk(7, dim=0).values.nan_to_num(9.0))
