"""The closed-form KL: never log q, and refused where it is missing or is not the KL."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO

import pyrovae as pv
from pyrovae.posteriors import POSTERIORS
from pyrovae.testing import dense_kl
from tests.pairs import loss_at, make_pair

GAUSSIAN = {name: family for name, family in POSTERIORS.items() if name != "flow"}


@pytest.mark.parametrize("family", GAUSSIAN.values(), ids=GAUSSIAN)
def test_kl_per_datum_does_not_depend_on_the_batch(family):
    model, guide = make_pair(family)
    x = torch.randn(1, 3, dtype=torch.float64)

    def kl_per_datum(batch):
        return (
            loss_at(pv.AnalyticELBO, 1.0, model, guide, batch) - loss_at(pv.AnalyticELBO, 0.0, model, guide, batch)
        ) / len(batch)

    assert kl_per_datum(x) == pytest.approx(kl_per_datum(x.expand(50, 3)), rel=1e-9)


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
        pyro.sample("extra", dist.Normal(0.0, 1.0))

    with (
        pytest.warns(UserWarning, match="Found non-auxiliary vars in guide but not model"),
        pytest.raises(pv.NoClosedFormError, match="'extra' is in the guide alone and not marked"),
    ):
        pv.AnalyticELBO().differentiable_loss(model, more, x)


def test_a_flow_has_no_closed_form_and_says_so():
    model, guide = make_pair(pv.FlowPosterior)
    x = torch.randn(4, 3, dtype=torch.float64)
    with pytest.raises(pv.NoClosedFormError, match=r"KL\(FlowPosterior ‖ Normal\) at site"):
        pv.AnalyticELBO().differentiable_loss(model, guide, x)
    pv.MonteCarloELBO().loss_and_grads(model, guide, x)
    assert all(p.grad is not None for p in guide.parameters())


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
    if side != "both":  # no multiple of the KL: sampled, as Pyro counts it
        torch.manual_seed(0)
        with pytest.warns(UserWarning, match=f"site 'z' has another {what} in the guide than in the model"):
            loss = pv.AnalyticELBO().loss(*programs.values(), x)
        torch.manual_seed(0)
        assert loss == pytest.approx(Trace_ELBO().loss(*programs.values(), x), rel=1e-9)
        return
    with torch.no_grad():
        kl = dense_kl(guide.posterior(x), model.prior_distribution())
        weights = 3.0 * torch.ones(4) if what == "scale" else torch.tensor([1.0, 1.0, 0.0, 0.0])
    kl_part = loss_at(pv.AnalyticELBO, 1.0, *programs.values(), x) - loss_at(
        pv.AnalyticELBO, 0.0, *programs.values(), x
    )
    assert kl_part == pytest.approx((weights * kl).sum().item(), rel=1e-9)


def test_a_site_drawn_in_another_order_is_sampled():
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

    x = torch.randn(3)
    with pytest.warns(UserWarning, match="the guide draws site 'a' before 'b', the model after"):
        elbo = pv.AnalyticELBO(num_particles=20_000, vectorize_particles=True).loss(model, guide, x)
    # a's part varies by less than 2 nats a datum and draw: false alarms below 1e-6
    right = Trace_ELBO(num_particles=20_000, vectorize_particles=True, max_plate_nesting=1).loss(model, guide, x)
    assert elbo == pytest.approx(right, abs=5 * 2 * math.sqrt(2 * 3 / 20_000))
    with pytest.warns(UserWarning, match="order them alike"):
        audited = {row.site: row for row in pv.audit(model, guide, pv.AnalyticELBO(), x).sites}
    assert (audited["b"].how, audited["b"].fallback) == ("closed form", False)
    assert audited["a"].how == "sampled: guide and model draw in different orders"
    with pytest.raises(pv.NoClosedFormError, match="falls back at site 'a'"), pytest.warns(UserWarning, match="alike"):
        pv.audit(model, guide, pv.AnalyticELBO(), x, strict=True)
    assert math.isfinite(pv.StickingTheLandingELBO().loss(model, guide, x))
