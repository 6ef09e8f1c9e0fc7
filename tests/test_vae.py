"""The generative model and the guide leave the caller's state alone, and refuse what does not fit."""

import copy
import random

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyrovae as pv
from tests.pairs import make_pair


@pytest.fixture
def pair():
    return make_pair()


@pytest.fixture
def x():
    return torch.randn(6, 3, dtype=torch.float64)


CALLS = {
    "posterior": lambda model, guide, x: guide.posterior(x),
    "conditional": lambda model, guide, x: model.conditional(torch.zeros(1, 2, dtype=torch.float64)),
    "log_marginal": lambda model, guide, x: pv.log_marginal(model, guide, x, num_samples=10, progress=False),
    "elbo_terms": lambda model, guide, x: pv.elbo_terms(model, guide, x, num_samples=2),
    "collapse_report": lambda model, guide, x: pv.collapse_report(model, guide, x),
    "audit": lambda model, guide, x: pv.audit(model, guide, pv.AnalyticELBO(), x),
    "audit of Pyro's": lambda model, guide, x: pv.audit(model, guide, pyro.infer.TraceMeanField_ELBO(), x),
}


@pytest.mark.filterwarnings("ignore::pyrovae.evaluation.UnreliableEstimateWarning")
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_an_evaluation_leaves_random_states_and_the_parameter_store_alone(call, pair, x):
    before = (torch.get_rng_state(), random.getstate(), np.random.get_state(legacy=False))  # noqa: NPY002
    call(*pair, x)
    after = (torch.get_rng_state(), random.getstate(), np.random.get_state(legacy=False))  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert str(before[1:]) == str(after[1:])
    assert not list(pyro.get_param_store())
    assert all(module.training for program in pair for module in program.modules())


@pytest.mark.parametrize("draw", ["sample", "simulate"])
def test_draws_use_torchs_generator_alone_and_announce_nothing(draw, pair):
    elsewhere = str((random.getstate(), np.random.get_state(legacy=False)))  # noqa: NPY002
    torch.manual_seed(1)
    first = getattr(pair[0], draw)(4)
    torch.manual_seed(1)
    again = getattr(pair[0], draw)(4)
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert str((random.getstate(), np.random.get_state(legacy=False))) == elsewhere  # noqa: NPY002
    assert not list(pyro.get_param_store())


def test_as_a_program_a_model_announces_its_parameters(pair, x):
    model, guide = pair
    model(x)
    guide(x)
    assert len(list(pyro.get_param_store())) == len([*model.parameters(), *guide.parameters()])


@pytest.mark.parametrize("latent_dim", [0, 2.0, True])
def test_latent_dim_is_checked(latent_dim):
    with pytest.raises(pv.InputError, match="latent_dim must be a positive integer, not"):
        pv.GenerativeModel(pv.nn.MLP(2, 8), pv.GaussianLikelihood(8, 3), latent_dim)


def test_trap_3_copies_have_names_of_their_own():
    model, _ = make_pair()
    with pyro.poutine.trace(param_only=True) as capture:
        model(num=1), copy.deepcopy(model)(num=1)
    assert len(capture.trace.nodes) == 2 * len(list(model.parameters()))


def test_trap_5_the_model_draws_without_data():
    model, _ = make_pair()
    assert model(num=7).shape == (7, 3)
    assert model.sample(7).requires_grad is False
    drawn = pyro.infer.Predictive(model, num_samples=4)(num=7)
    assert drawn["x"].shape == (4, 7, 3)
    assert drawn["x"].std(0).min() > 0
    with pytest.raises(ValueError, match="either the data x or the number"):
        model()


def test_an_ar1_prior_and_a_module_for_a_prior():
    prior = pv.AR1Normal(torch.zeros(3), torch.ones(1), torch.tensor([0.8]))
    model = pv.GenerativeModel(pv.nn.MLP(3, 8), pv.GaussianLikelihood(8, 4), 3, prior=prior)
    assert model.sample(5).shape == (5, 4)

    class Learned(nn.Module):
        def __init__(self):
            super().__init__()
            self.loc = nn.Parameter(torch.zeros(3))

        def forward(self):
            return dist.Normal(self.loc, 1.0).to_event(1)

    model = pv.GenerativeModel(pv.nn.MLP(3, 8), pv.GaussianLikelihood(8, 4), 3, prior=Learned())
    guide = pv.AmortizedGuide(pv.nn.MLP(4, 8), pv.FullCovariancePosterior(8, 3))
    pv.AnalyticELBO().differentiable_loss(model, guide, torch.randn(5, 4)).backward()
    assert model.prior.loc.grad.abs().min() > 0
    with pytest.raises(ValueError, match=r"event shape \(3,\)"):
        pv.GenerativeModel(pv.nn.MLP(3, 8), pv.GaussianLikelihood(8, 4), 3, prior=dist.Normal(torch.zeros(3), 1.0))


def test_data_of_the_wrong_width_are_refused():
    model, _ = make_pair()
    with pytest.raises(ValueError, match=r"x must have shape \(num, 3\) to fit the likelihood, not \(5, 2\)"):
        model(torch.zeros(5, 2))
