"""The estimators: β, traps of Pyro's own, hand-written programs."""

import copy
import math
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from torch import nn

import pyrovae as pv
from pyrovae.elbo import ESTIMATORS
from pyrovae.posteriors import POSTERIORS
from pyrovae.testing import dense_kl
from tests.pairs import make_pair

GAUSSIAN = {name: family for name, family in POSTERIORS.items() if name != "flow"}


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


def loss_at(elbo_class, beta, model, guide, x, particles=1):
    elbo = elbo_class(beta=beta, num_particles=particles, vectorize_particles=True)
    torch.manual_seed(3)
    with torch.no_grad():
        return elbo.differentiable_loss(model, guide, x).item()


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


@pytest.mark.parametrize("elbo_class", ESTIMATORS.values(), ids=ESTIMATORS)
def test_beta_of_a_handwritten_pair(elbo_class):
    x = torch.randn(5, 3, dtype=torch.float64).repeat(20_000, 1)  # one draw each: more would be another bound
    model, guide, kl = handwritten_pair(x)
    slope = loss_at(elbo_class, 1.0, model, guide, x) - loss_at(elbo_class, 0.0, model, guide, x)
    assert slope == pytest.approx(kl.sum().item(), rel=1e-9 if elbo_class is pv.AnalyticELBO else 0.02)


@pytest.mark.parametrize("family", GAUSSIAN.values(), ids=GAUSSIAN)
def test_kl_per_datum_does_not_depend_on_the_batch(family):
    model, guide = make_pair(family)
    x = torch.randn(1, 3, dtype=torch.float64)

    def kl_per_datum(batch):
        return (
            loss_at(pv.AnalyticELBO, 1.0, model, guide, batch) - loss_at(pv.AnalyticELBO, 0.0, model, guide, batch)
        ) / len(batch)

    assert kl_per_datum(x) == pytest.approx(kl_per_datum(x.expand(50, 3)), rel=1e-9)


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


def test_analytic_never_evaluates_log_q(monkeypatch):
    model, guide = make_pair(pv.FullCovariancePosterior)

    def refuse(self, value):
        raise AssertionError("log q was evaluated")

    monkeypatch.setattr(torch.distributions.MultivariateNormal, "log_prob", refuse)
    monkeypatch.setattr(pv.distributions.CholeskyNormal, "log_prob", refuse)
    loss = pv.AnalyticELBO().loss_and_grads(model, guide, torch.randn(4, 3, dtype=torch.float64))
    assert math.isfinite(loss)
    assert all(p.grad is not None for p in guide.parameters())


def test_trap_1_missing_closed_form_raises_and_names_everything():
    model, _ = make_pair()

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.StudentT(5.0, torch.zeros(len(x), 2).double(), 1.0).to_event(1))

    with pytest.raises(pv.NoClosedFormError, match=r"KL\(StudentT ‖ Normal\) at site 'z'"):
        pv.AnalyticELBO().differentiable_loss(model, guide, torch.randn(4, 3, dtype=torch.float64))


def test_trap_1_guide_alone_and_model_alone_raise():
    model, guide = make_pair()
    x = torch.randn(4, 3, dtype=torch.float64)

    def more(x):
        guide(x)
        pyro.sample("extra", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})

    with pytest.raises(pv.NoClosedFormError, match="'extra' is in the guide alone"):
        pv.AnalyticELBO().differentiable_loss(model, more, x)


@pytest.mark.parametrize("beta", [-1, math.inf, math.nan, True, "1"])
def test_trap_2_beta_is_checked(beta):
    with pytest.raises(ValueError, match="beta must be a finite number"):
        pv.AnalyticELBO(beta=beta)


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


def test_trap_3_copies_have_names_of_their_own():
    import copy

    model, _ = make_pair()
    with pyro.poutine.trace(param_only=True) as capture:
        model(num=1), copy.deepcopy(model)(num=1)
    assert len(capture.trace.nodes) == 2 * len(list(model.parameters()))


def test_trap_4_event_dim_is_one_where_the_scale_is_shared():
    q = pv.IsotropicPosterior(4, 3)(torch.zeros(5, 4))
    assert (q.batch_shape, q.event_shape, q.event_dim) == ((5,), (3,), 1)


def test_trap_5_the_model_draws_without_data():
    model, _ = make_pair()
    assert model(num=7).shape == (7, 3)
    assert model.sample(7).requires_grad is False
    drawn = pyro.infer.Predictive(model, num_samples=4)(num=7)
    assert drawn["x"].shape == (4, 7, 3)
    assert drawn["x"].std(0).min() > 0
    with pytest.raises(ValueError, match="one of the two"):
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


def test_a_flow_has_no_closed_form_and_says_so():
    model, guide = make_pair(pv.FlowPosterior)
    x = torch.randn(4, 3, dtype=torch.float64)
    with pytest.raises(pv.NoClosedFormError, match=r"KL\(FlowPosterior ‖ Normal\) at site"):
        pv.AnalyticELBO().differentiable_loss(model, guide, x)
    pv.MonteCarloELBO().loss_and_grads(model, guide, x)
    assert all(p.grad is not None for p in guide.parameters())


def test_zuko_leaves_torchs_distributions_as_they_were():
    pv.FlowPosterior(4, 2)
    assert isinstance(vars(torch.distributions.Distribution)["arg_constraints"], property)
    with pytest.raises(ValueError, match="scale"):
        torch.distributions.Normal(0.0, -1.0)


@pytest.mark.parametrize("side", ["model", "guide", "both"])
@pytest.mark.parametrize("what", ["scale", "mask"])
def test_scale_and_mask_in_the_programs(side, what):
    x = torch.randn(4, 3, dtype=torch.float64)
    model, guide = make_pair()
    mask = torch.tensor([True, True, False, False])
    handler = pyro.poutine.scale(scale=3.0) if what == "scale" else pyro.poutine.mask(mask=mask)

    programs = {"model": model, "guide": guide}
    for name in (side,) if side != "both" else ("model", "guide"):
        programs[name] = handler(programs[name])
    if side != "both":
        with pytest.raises(ValueError, match=f"site 'z' has another {what} in the guide than in the model"):
            pv.AnalyticELBO().differentiable_loss(programs["model"], programs["guide"], x)
        return
    with torch.no_grad():
        kl = dense_kl(guide.posterior(x), model.prior_distribution())
        weights = 3.0 * torch.ones(4) if what == "scale" else torch.tensor([1.0, 1.0, 0.0, 0.0])
    kl_part = loss_at(pv.AnalyticELBO, 1.0, *programs.values(), x) - loss_at(
        pv.AnalyticELBO, 0.0, *programs.values(), x
    )
    assert kl_part == pytest.approx((weights * kl).sum().item(), rel=1e-9)


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
        pytest.raises(pv.NoClosedFormError, match="'extra' of the model is missing in the guide"),
    ):
        pv.AnalyticELBO().differentiable_loss(more, guide, torch.randn(4, 3, dtype=torch.float64))


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


@pytest.mark.parametrize("elbo_class", ESTIMATORS.values(), ids=ESTIMATORS)
@pytest.mark.parametrize("likelihood", [pv.GaussianLikelihood, pv.BernoulliLikelihood])
@pytest.mark.parametrize("vectorize", [True, False])
def test_every_estimator_with_every_likelihood(elbo_class, likelihood, vectorize):
    model = pv.GenerativeModel(pv.nn.MLP(2, 8), likelihood(8, 3), 2)
    guide = pv.AmortizedGuide(pv.nn.MLP(3, 8), pv.AR1Posterior(8, 2))
    x = torch.rand(6, 3).round()
    elbo = elbo_class(num_particles=3, vectorize_particles=vectorize)
    assert math.isfinite(elbo.loss_and_grads(model, guide, x))
    assert all(p.grad.isfinite().all() for program in (model, guide) for p in program.parameters())


def test_analytic_refuses_a_guide_that_draws_in_another_order():
    """Σ KL by site is not the KL where the model's b → a meets the guide's a → b."""

    def model(x):
        with pyro.plate("data", len(x)):
            b = pyro.sample("b", dist.Normal(torch.zeros(len(x)), 1.0))
            a = pyro.sample("a", dist.Normal(b, 1.0))
            pyro.sample("x", dist.Normal(a, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x, 0.5))
            pyro.sample("b", dist.Normal(0.5 * a, 0.5))

    with pytest.raises(pv.NoClosedFormError, match="in the order a, b, the model in the order b, a"):
        pv.AnalyticELBO().loss(model, guide, torch.randn(3))
    assert math.isfinite(pv.StickingTheLandingELBO().loss(model, guide, torch.randn(3)))


@pytest.mark.parametrize("elbo_class", ESTIMATORS.values(), ids=ESTIMATORS)
def test_an_estimator_does_not_change_and_with_beta_gives_another(elbo_class):
    elbo = elbo_class(num_particles=3, beta=0.5)
    for name, value in (("beta", 2.0), ("num_particles", 7), ("of_my_own", None)):
        with pytest.raises(AttributeError, match=rf"cannot set {name} of {elbo_class.__name__}.*with_beta\(b\)$"):
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
