"""The path derivative: no variance at the exact posterior, no bias elsewhere."""

import math

import pytest
import torch

import pyrovae as pv
from pyrovae.elbo import ESTIMATORS
from pyrovae.linear_gaussian.exact import LinearGaussianVAE
from tests.pairs import dependent_pair, gradients, linear_gaussian


def test_sticking_the_landing_sticks():
    model, guide, p_x = linear_gaussian()
    x = p_x.sample(torch.Size([5]))
    variance = {}
    for name in ("monte-carlo", "analytic", "sticking-the-landing"):
        of_guide, of_model = gradients(ESTIMATORS[name](), model, guide, x, 50)
        variance[name] = of_guide.var(0).sum().item(), of_model.var(0).sum().item()
    assert variance["sticking-the-landing"][0] < 1e-10 * variance["monte-carlo"][0]
    assert variance["sticking-the-landing"][1] == pytest.approx(variance["monte-carlo"][1], rel=1e-6)
    assert variance["analytic"][0] > 0.1 * variance["monte-carlo"][0]
    for k in (1, 5):
        of_guide, of_model = gradients(pv.DoublyReparameterizedELBO(k), model, guide, x, 50)
        assert of_guide.var(0).sum().item() < 1e-10 * variance["monte-carlo"][0]
        assert of_model.var(0).sum().item() > 0.01 * variance["monte-carlo"][1]


def test_the_order_of_the_gradient_variances():
    """THEORY.md, section 4: on a linear-Gaussian model with a full-rank q, at three of its values."""
    torch.manual_seed(1)
    truth = LinearGaussianVAE(torch.randn(6, 4), 0.5, torch.randn(6))
    model, x = truth.to_model(), truth.sample(32)
    at = {
        "prior": truth.gaussian_guide(torch.zeros(4, 6).double(), torch.eye(4).double()),
        "mean-field": truth.gaussian_guide(truth.gain, truth.best_covariance("diagonal")),
        "exact": truth.to_guide(),
    }
    names = ("monte-carlo", "analytic", "sticking-the-landing")
    variance = {
        where: [pv.gradient_statistics(model, guide, ESTIMATORS[name](), x, 400)["encoder"].variance for name in names]
        for where, guide in at.items()
    }
    sampled, analytic, path = variance["exact"]
    assert sampled > analytic > 1e10 * path
    sampled, analytic, path = variance["mean-field"]
    assert sampled > analytic > 2 * path
    sampled, analytic, path = variance["prior"]
    assert sampled > analytic
    assert path == pytest.approx(analytic, rel=1e-6)  # there they are the same, draw by draw


def test_sticking_the_landing_is_unbiased_with_dependent_sites():
    x = torch.tensor([0.7, -1.2], dtype=torch.float64)
    model, guide, w = dependent_pair((0.3, -0.2, 0.5, 0.5))
    means, stderrs = {}, {}
    for name in ("monte-carlo", "sticking-the-landing"):
        torch.manual_seed(1)
        elbo = ESTIMATORS[name](num_particles=100, vectorize_particles=True)
        rows = torch.stack(
            [torch.stack(torch.autograd.grad(elbo.differentiable_loss(model, guide, x), w)) for _ in range(300)]
        )
        means[name], stderrs[name] = rows.mean(0), rows.std(0) / math.sqrt(len(rows))
    difference = (means["monte-carlo"] - means["sticking-the-landing"]).abs()
    assert (difference <= 5 * (stderrs["monte-carlo"] + stderrs["sticking-the-landing"])).all()
    assert (means["monte-carlo"].abs() > 10 * stderrs["monte-carlo"]).all(), "the test could not see a bias"
