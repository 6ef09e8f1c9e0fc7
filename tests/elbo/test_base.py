"""What every estimator shares: β, immutability, the traps of Pyro's own."""

import copy
import math
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO

import pyrovae as pv
from pyrovae.elbo import ESTIMATORS
from pyrovae.posteriors import POSTERIORS
from pyrovae.testing import dense_kl
from tests.pairs import loss_at, make_pair

GAUSSIAN = {name: family for name, family in POSTERIORS.items() if name != "flow"}


@pytest.mark.parametrize("family", GAUSSIAN.values(), ids=GAUSSIAN)
def test_derivative_in_beta_is_the_kl(family):
    model, guide = make_pair(family)
    x = torch.randn(6, 3, dtype=torch.float64)
    kl = dense_kl(guide.posterior(x), model.prior_distribution()).sum().item()
    for low, high in ((0.0, 0.3), (0.3, 1.0), (1.0, 4.0)):
        slope = (loss_at(pv.AnalyticELBO, high, model, guide, x) - loss_at(pv.AnalyticELBO, low, model, guide, x)) / (
            high - low
        )
        assert slope == pytest.approx(kl, rel=1e-9)
    # a sampled slope is log q − log p at the same draws; its standard deviation is below 2√d a datum and particle
    for elbo_class in (pv.MonteCarloELBO, pv.ClosedFormEntropyELBO, pv.StickingTheLandingELBO):
        slope = loss_at(elbo_class, 1.0, model, guide, x, 20_000) - loss_at(elbo_class, 0.0, model, guide, x, 20_000)
        assert slope == pytest.approx(kl, abs=5 * 2 * math.sqrt(2 * 6 / 20_000))


def handwritten_pair(x):
    """Two latent sites and functions for programs."""
    loc = torch.zeros(len(x), 2, dtype=torch.float64)

    def model(x):
        with pyro.plate("rows", len(x)):
            a = pyro.sample("a", dist.Normal(loc, 1.0).to_event(1))
            b = pyro.sample("b", dist.Normal(loc, 2.0).to_event(1))
            pyro.sample("obs", dist.Normal(torch.cat([a, b[..., :1]], -1), 0.5).to_event(1), obs=x)

    def guide(x):
        scale = pyro.param("scale", torch.tensor(0.7, dtype=torch.float64), constraint=dist.constraints.positive)
        with pyro.plate("rows", len(x)):
            pyro.sample("a", pv.AR1Normal(x[:, :2], scale.reshape(1), 0.4))
            pyro.sample("b", dist.MultivariateNormal(loc + 0.3, scale_tril=scale * torch.eye(2).double()))

    with torch.no_grad():
        standard = dist.Normal(torch.zeros(2).double(), torch.ones(2).double()).to_event(1)
        wide = dist.Normal(torch.zeros(2).double(), 2 * torch.ones(2).double()).to_event(1)
        eye = torch.eye(2, dtype=torch.float64)
        kl = dense_kl(pv.AR1Normal(x[:, :2], torch.tensor([0.7], dtype=torch.float64), 0.4), standard)
        kl = kl + dense_kl(dist.MultivariateNormal(loc + 0.3, scale_tril=0.7 * eye), wide)
    return model, guide, kl


@pytest.mark.parametrize("elbo_class", ESTIMATORS.values(), ids=ESTIMATORS)
def test_beta_of_a_handwritten_pair(elbo_class):
    x = torch.randn(5, 3, dtype=torch.float64).repeat(20_000, 1)  # one draw each: more would be another bound
    model, guide, kl = handwritten_pair(x)
    slope = loss_at(elbo_class, 1.0, model, guide, x) - loss_at(elbo_class, 0.0, model, guide, x)
    assert slope == pytest.approx(kl.sum().item(), rel=1e-9 if elbo_class is pv.AnalyticELBO else 0.02)


@pytest.mark.parametrize("elbo_class", [pv.MonteCarloELBO, pv.StickingTheLandingELBO])
def test_derivative_in_beta_of_a_flow_is_its_kl_in_mean(elbo_class):
    model, guide = make_pair(pv.FlowPosterior)
    x = torch.randn(3, 3, dtype=torch.float64)
    with torch.no_grad():
        z = guide.posterior(x).sample(torch.Size([20_000]))
        log_ratio = (guide.posterior(x).log_prob(z) - model.prior_distribution().log_prob(z)).sum(-1)
    slope = loss_at(elbo_class, 1.0, model, guide, x, 20_000) - loss_at(elbo_class, 0.0, model, guide, x, 20_000)
    stderr = log_ratio.std().item() / math.sqrt(20_000)
    assert slope == pytest.approx(log_ratio.mean().item(), abs=5 * math.sqrt(2) * stderr)


@pytest.mark.parametrize("beta", [-1, math.inf, math.nan, True, "1"])
def test_trap_2_beta_is_checked(beta):
    with pytest.raises(ValueError, match="beta must be a finite number"):
        pv.AnalyticELBO(beta=beta)


@pytest.mark.parametrize("elbo_class", ESTIMATORS.values(), ids=ESTIMATORS)
def test_an_estimator_does_not_change_and_with_beta_gives_another(elbo_class):
    elbo = elbo_class(num_particles=3, beta=0.5)
    for name, value in (("beta", 2.0), ("num_particles", 7), ("of_my_own", None)):
        with pytest.raises(AttributeError, match=rf"cannot set {name} of {elbo_class.__name__}.*with_beta\(b\)\)$"):
            setattr(elbo, name, value)
    other = elbo.with_beta(2)
    assert type(other) is elbo_class
    assert (elbo.beta, other.beta) == (0.5, 2.0)
    assert vars(other) == {**vars(elbo), "beta": 2.0}
    assert copy.deepcopy(elbo).beta == pickle.loads(pickle.dumps(elbo)).beta == 0.5


@pytest.mark.parametrize("beta", [-1.0, math.nan, math.inf, "1", True, torch.ones(2)])
def test_with_beta_refuses_what_is_no_weight(beta):
    with pytest.raises(ValueError, match=r"^beta must be a"):
        pv.AnalyticELBO().with_beta(beta)


def test_a_subclass_may_set_attributes_in_its_constructor_alone():
    class Own(pv.AnalyticELBO):
        def __init__(self, weight):
            super().__init__(beta=0.1)
            self.weight = weight

    elbo = Own(weight=3.0)
    assert elbo.with_beta(1.0).weight == 3.0
    with pytest.raises(AttributeError, match="weight"):
        elbo.weight = 1.0


@pytest.mark.parametrize(("ours", "stock"), [(pv.MonteCarloELBO, Trace_ELBO), (pv.AnalyticELBO, TraceMeanField_ELBO)])
@pytest.mark.parametrize("particles", [1, 3])
def test_values_and_gradients_are_stock_pyros(ours, stock, particles):
    model, guide = make_pair()
    x = torch.randn(6, 3, dtype=torch.float64)
    results = []
    for elbo in (ours(num_particles=particles), stock(num_particles=particles)):
        for method in (elbo.loss_and_grads, lambda *a, e=elbo: e.differentiable_loss(*a).backward()):
            model.zero_grad(), guide.zero_grad()
            torch.manual_seed(5)
            value = method(model, guide, x)
            gradients = [p.grad.clone() for program in (model, guide) for p in program.parameters()]
            results.append((float(value) if value is not None else None, gradients))
    for value, gradients in results[1:]:
        assert value is None or value == pytest.approx(results[0][0], rel=1e-12)
        torch.testing.assert_close(gradients, results[0][1])


@pytest.mark.parametrize("elbo_class", ESTIMATORS.values(), ids=ESTIMATORS)
def test_trap_3_two_vaes_in_one_process_both_train(elbo_class):
    x = torch.randn(16, 3, dtype=torch.float64)
    for _ in range(2):
        model, guide = make_pair(pv.FullCovariancePosterior)
        before = [p.detach().clone() for program in (model, guide) for p in program.parameters()]
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), loss=elbo_class())
        for _ in range(3):
            svi.step(x)
        after = [p for program in (model, guide) for p in program.parameters()]
        assert all((a != b).any() for a, b in zip(after, before, strict=True))


def test_a_guide_without_rsample_is_refused_where_gradients_would_be_wrong():
    model, _ = make_pair()

    class Rejection(dist.Normal):
        has_rsample = False

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", Rejection(torch.zeros(len(x), 2).double(), 1.0).to_event(1))

    for elbo in (pv.AnalyticELBO(), pv.ClosedFormEntropyELBO(), pv.StickingTheLandingELBO()):
        with pytest.raises(pv.NoClosedFormError, match="not reparameterised"):
            elbo.differentiable_loss(model, guide, torch.randn(4, 3, dtype=torch.float64))


def test_a_latent_of_the_model_alone_raises():
    model, guide = make_pair()

    def more(x):
        pyro.sample("extra", dist.Normal(0.0, 1.0))
        return model(x)

    with (
        pytest.warns(UserWarning, match="Found vars in model but not guide"),
        pytest.raises(pv.InputError, match="'extra' of the model is missing in the guide"),
    ):
        pv.AnalyticELBO().differentiable_loss(more, guide, torch.randn(4, 3, dtype=torch.float64))


@pytest.mark.parametrize("elbo_class", ESTIMATORS.values(), ids=ESTIMATORS)
@pytest.mark.parametrize("likelihood", [pv.GaussianLikelihood, pv.BernoulliLikelihood])
@pytest.mark.parametrize("vectorize", [True, False])
def test_every_estimator_with_every_likelihood(elbo_class, likelihood, vectorize):
    model, guide = make_pair(pv.AR1Posterior, likelihood=likelihood, dtype=torch.float32)
    x = torch.rand(6, 3).round()
    elbo = elbo_class(num_particles=3, vectorize_particles=vectorize)
    assert math.isfinite(elbo.loss_and_grads(model, guide, x))
    assert all(p.grad.isfinite().all() for program in (model, guide) for p in program.parameters())


@pytest.mark.parametrize("elbo", ESTIMATORS.values(), ids=ESTIMATORS)
@pytest.mark.parametrize("in_one_pass", [False, True])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_named(elbo, in_one_pass, value):
    """SVI and bare estimators check no data; a program that fails on them names the first such value."""
    model, guide = make_pair(pv.FullCovariancePosterior)
    x = torch.randn(6, 3, dtype=torch.float64)
    x[2, 1] = value
    estimator = elbo(num_particles=3, vectorize_particles=in_one_pass)
    with pytest.raises(pv.InputError, match=r"x holds 1 NaN or infinite .* row 2, column 1 .* remove"):
        estimator.loss(model, guide, x)
    with pytest.raises(pv.InputError, match="row 2, column 1"):
        estimator.loss_and_grads(model, guide, x)


def test_a_value_that_the_likelihood_cannot_score_is_named():
    model, guide = make_pair(likelihood=pv.BernoulliLikelihood)
    x = torch.full((6, 3), 0.5, dtype=torch.float64)
    with pytest.raises(pv.InputError, match="BernoulliLikelihood cannot score"):
        pv.AnalyticELBO().loss(model, guide, x)
