"""The shrinkage of a covariance against densities worked out one share at a time."""

import pytest
import torch

from pyrovae.linear_gaussian._shrinkage import SHARES, best_shrinkage, shrunk


@pytest.mark.parametrize("num", [20, 300])
def test_best_shrinkage_is_the_largest_density_of_held_out_data(num):
    x = torch.randn(num + 100, 2).double() @ torch.randn(2, 8).double() + 0.3 * torch.randn(num + 100, 8).double()
    own, held_out = torch.cov(x[:num].T, correction=0), x[num:] - x[:num].mean(0)
    target = own.diagonal().diag() + 0.9 * (own - own.diagonal().diag())
    share, score = best_shrinkage(own, target, held_out)
    scores = [
        torch.distributions.MultivariateNormal(torch.zeros(8).double(), shrunk(own, target, a))
        .log_prob(held_out)
        .mean()
        for a in SHARES.tolist()
    ]
    assert score == pytest.approx(max(scores).item(), abs=1e-9)
    assert share == SHARES[int(torch.stack(scores).argmax())]
    # at the other end, the target alone
    white, eye = torch.randn(200, 8, dtype=torch.float64), torch.eye(8, dtype=torch.float64)
    share, score = best_shrinkage(own, eye, white)
    assert share > 0.5
    dense = torch.distributions.MultivariateNormal(torch.zeros(8).double(), shrunk(own, eye, share))
    assert score == pytest.approx(dense.log_prob(white).mean().item(), abs=1e-9)
