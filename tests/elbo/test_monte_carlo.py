"""Everything sampled: the value at the exact posterior, and score-function gradients."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.elbo import ESTIMATORS
from tests.pairs import linear_gaussian


def test_monte_carlos_value_is_log_p_at_the_exact_posterior():
    model, guide, p_x = linear_gaussian()
    x = p_x.sample(torch.Size([5]))
    for name in ("monte-carlo", "sticking-the-landing"):
        assert -ESTIMATORS[name]().loss(model, guide, x) == pytest.approx(p_x.log_prob(x).sum().item(), rel=1e-9)


def test_a_guide_without_rsample_still_gets_score_gradients():
    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Bernoulli(torch.tensor(0.3)))
            pyro.sample("x", dist.Normal(k, 1.0), obs=x)

    def guide(x):
        logits = pyro.param("logits", torch.zeros(len(x)))
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Bernoulli(logits=logits))

    x = torch.tensor([2.0, -1.0])
    with pyro.poutine.trace(param_only=True) as capture:
        loss = pv.MonteCarloELBO(num_particles=50).differentiable_loss(model, guide, x)
    loss.backward()
    assert capture.trace.nodes["logits"]["value"].unconstrained().grad.abs().min() > 0
