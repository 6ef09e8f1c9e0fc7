"""The path derivative: no variance at the exact posterior, no bias elsewhere."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.distributions import CholeskyNormal
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


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_its_gradient_and_noise_where_q_is_much_too_narrow(dtype):
    """A sharp likelihood, and a q whose factor has a diagonal far smaller than the entries below it.

    With precision P of the posterior and q around its mean, the gradient in the mean is (PL − L⁻ᵀ)ε, Monte Carlo's PLε.
    """
    d, num, sigma = 3, 4000, 0.02
    decoder = torch.tensor([[1.0, 0.4, 0.0], [0.0, 0.8, -0.3], [0.2, 0.0, 1.1], [0.5, -0.5, 0.5]], dtype=torch.float64)
    precision = torch.eye(d).double() + decoder.T @ decoder / sigma**2
    factor = torch.tensor([[0.02, 0, 0], [0.03, 1e-4, 0], [-0.02, 0.04, 1e-4]], dtype=torch.float64)

    def model(x):
        with pyro.plate("data", num):
            z = pyro.sample("z", dist.Normal(torch.zeros(d, dtype=dtype), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ decoder.T.to(dtype), sigma).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", num):
            pyro.sample("z", CholeskyNormal(loc, scale_tril=scale_tril))

    torch.manual_seed(0)
    noise = torch.randn(num, d, dtype=dtype).double()
    slope = noise @ (precision @ factor).T  # −∇ log p(x, z) at the draw
    landed = slope - torch.linalg.solve(factor.T, noise.T).T
    squares = {}
    for estimator, of_loc in ((pv.StickingTheLandingELBO, landed), (pv.MonteCarloELBO, slope)):
        loc = torch.zeros(num, d, dtype=dtype, requires_grad=True)  # the posterior's mean where all data are 0
        scale_tril = factor.to(dtype).expand(num, d, d).clone().requires_grad_()
        torch.manual_seed(0)
        estimator().differentiable_loss(model, guide, torch.zeros(num, 4, dtype=dtype)).backward()
        of_factor = of_loc.unsqueeze(-1) * noise.unsqueeze(-2)
        if estimator is pv.MonteCarloELBO:
            of_factor = of_factor - factor.diagonal().reciprocal().diag()
        tolerance = {"rtol": 1e-9, "atol": 1e-6} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1.0}
        torch.testing.assert_close(loc.grad.double(), of_loc, **tolerance)
        torch.testing.assert_close(scale_tril.grad.double().tril(), of_factor.tril(), **tolerance)
        squares[estimator] = loc.grad.double().square().sum(-1).mean()
    pull = precision @ factor
    ratio = (pull - torch.linalg.inv(factor).T).square().sum() / pull.square().sum()
    assert ratio > 1e6
    # the standard error of 4,000 draws is 2 %, so a false alarm is beyond six of them
    assert squares[pv.StickingTheLandingELBO] / squares[pv.MonteCarloELBO] == pytest.approx(ratio.item(), rel=0.2)
