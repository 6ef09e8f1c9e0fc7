"""The audit tells what was computed: sums up to the loss, names what was sampled and why."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import RenyiELBO, Trace_ELBO, TraceMeanField_ELBO, trace_mean_field_elbo

import pyrovae as pv
from pyrovae.elbo import ESTIMATORS, Computation, Reason
from pyrovae.posteriors import POSTERIORS
from pyrovae.testing import dense_kl
from tests.pairs import make_pair

GAUSSIAN = {name: family for name, family in POSTERIORS.items() if name != "flow"}


@pytest.fixture
def x():
    return torch.randn(5, 3, dtype=torch.float64)


def row(audited, site):
    return next(entry for entry in audited.sites if entry.site == site)


@pytest.mark.parametrize("family", GAUSSIAN.values(), ids=GAUSSIAN)
@pytest.mark.parametrize("elbo_class", [pv.AnalyticELBO, TraceMeanField_ELBO])
def test_nothing_is_sampled_for_the_gaussian_families(family, elbo_class, x):
    model, guide = make_pair(family)
    audited = pv.audit(model, guide, elbo_class(), x, strict=True)
    z = row(audited, "z")
    assert z.how == "closed form"
    with torch.no_grad():
        kl = dense_kl(guide.posterior(x), model.prior_distribution()).mean().item()
    assert z.nats_per_datum == pytest.approx(-kl, rel=1e-9)
    assert (z.reparameterized, z.event_dim, z.batch_shape) == (True, 1, (5,))


@pytest.mark.parametrize("elbo_class", [pv.MonteCarloELBO, pv.StickingTheLandingELBO, Trace_ELBO, TraceMeanField_ELBO])
def test_the_flow_is_sampled_and_the_audit_says_why(elbo_class, x):
    model, guide = make_pair(pv.FlowPosterior)
    audited = pv.audit(model, guide, elbo_class(), x)
    assert row(audited, "z").how.startswith("sampled")
    assert row(audited, "z").how.endswith(": no closed form for FlowPosterior ‖ Normal")
    if elbo_class in (pv.MonteCarloELBO, Trace_ELBO, TraceMeanField_ELBO):
        assert "sampled: no closed form for FlowPosterior ‖ Normal" in str(audited)
        assert "sampled: no closed form for FlowPosterior ‖ Normal" in audited.line


def test_strict_turns_a_fallback_into_an_error(x):
    model, guide = make_pair(pv.FlowPosterior)
    with pytest.raises(pv.NoClosedFormError, match="TraceMeanField_ELBO falls back at site 'z': sampled: no closed"):
        pv.audit(model, guide, TraceMeanField_ELBO(), x, strict=True)
    with pytest.raises(pv.NoClosedFormError, match=r"no closed form for KL\(FlowPosterior ‖ Normal\)"):
        pv.audit(model, guide, pv.AnalyticELBO(), x)
    pv.audit(model, guide, pv.MonteCarloELBO(), x, strict=True)  # samples by choice
    with pytest.raises(pv.NoClosedFormError, match="falls back at site 'z'"):
        pv.fit(model, guide, x, TraceMeanField_ELBO(), epochs=1, strict=True, progress=False)
    assert pyro.infer.trace_mean_field_elbo.kl_divergence is torch.distributions.kl_divergence


def test_score_function_gradients_are_a_fallback():
    x = torch.tensor([2.0, -1.0])

    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Bernoulli(torch.tensor(0.3)))
            pyro.sample("x", dist.Normal(k, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Bernoulli(logits=pyro.param("logits", torch.zeros(len(x)))))

    for vectorize in (False, True):
        audited = pv.audit(model, guide, pv.MonteCarloELBO(num_particles=4, vectorize_particles=vectorize), x)
        assert -audited.loss == pytest.approx(sum(e.nats_per_datum for e in audited.sites), rel=1e-6)
    for elbo in (pv.MonteCarloELBO(), Trace_ELBO()):
        entry = row(pv.audit(model, guide, elbo, x), "k")
        assert entry.how.startswith("sampled, score-function gradient")
        assert entry.reparameterized is False
        with pytest.raises(pv.NoClosedFormError, match="falls back at site 'k': sampled, score-function"):
            pv.audit(model, guide, elbo, x, strict=True)


@pytest.mark.parametrize("vectorize", [True, False])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_contributions_add_up_to_the_bound(name, vectorize, x):
    model, guide = make_pair(pv.FullCovariancePosterior)
    elbo = ESTIMATORS[name](num_particles=3, vectorize_particles=vectorize, beta=0.5)
    torch.manual_seed(4)
    audited = pv.audit(model, guide, elbo, x)
    torch.manual_seed(4)
    assert audited.loss == pytest.approx(elbo.loss(model, guide, x) / 5, rel=1e-9)
    total = sum(entry.nats_per_datum for entry in audited.sites)
    if isinstance(elbo, pv.ImportanceWeightedELBO):
        torch.manual_seed(4)
        with torch.no_grad():
            w = elbo.log_weights(model, guide, x).softmax(0)
        spread = -(w * (3 * w).log()).sum(0).mean().item()  # how unequal the weights are: never positive
        assert spread < 0
        total += spread
    assert -audited.loss == pytest.approx(total, rel=1e-9)
    z = row(audited, "z")
    assert (z.guide_scale, z.model_scale) == (0.5, 0.5)
    assert row(audited, "x").model_scale == 1
    assert z.batch_shape == ((3, 5) if vectorize else (5,))


@pytest.mark.parametrize("ours_and_stock", [(pv.MonteCarloELBO, Trace_ELBO), (pv.AnalyticELBO, TraceMeanField_ELBO)])
def test_a_stock_estimators_audit_is_ours(ours_and_stock, x):
    model, guide = make_pair(pv.AR1Posterior)
    frames = []
    for elbo_class in ours_and_stock:
        torch.manual_seed(5)
        frames.append(pv.audit(model, guide, elbo_class(), x).to_frame())
    assert frames[0].drop(columns="nats_per_datum").equals(frames[1].drop(columns="nats_per_datum"))
    assert frames[0]["nats_per_datum"].tolist() == pytest.approx(frames[1]["nats_per_datum"].tolist())


def test_several_sites_and_scales(x):
    def model(x):
        with pyro.plate("rows", len(x)), pyro.poutine.scale(scale=2.0):
            a = pyro.sample("a", dist.Normal(torch.zeros(5).double(), 1.0))
            b = pyro.sample("b", dist.Normal(a, 1.0))
            pyro.sample("obs", dist.Normal(a + b, 0.5), obs=x[:, 0])

    def guide(x):
        with pyro.plate("rows", len(x)), pyro.poutine.scale(scale=2.0):
            pyro.sample("a", dist.Normal(0.1 * x[:, 0], 1.0))
            pyro.sample("b", dist.StudentT(5.0, 0.1 * x[:, 1], 1.0))

    audited = pv.audit(model, guide, TraceMeanField_ELBO(), x)
    assert [(e.site, e.how.split(":")[0]) for e in audited.sites] == [
        ("obs", "sampled"), ("a", "closed form"), ("b", "sampled")
    ]  # fmt: skip
    assert row(audited, "b").how == "sampled: no closed form for StudentT ‖ Normal"
    assert {e.guide_scale for e in audited.sites} == {None, 2.0}
    assert -audited.loss == pytest.approx(sum(e.nats_per_datum for e in audited.sites), rel=1e-6)


def test_fit_prints_one_line_before_training(capsys, x):
    model, guide = make_pair(pv.FlowPosterior)
    pv.fit(model, guide, x, pv.MonteCarloELBO(), epochs=1, beta=0.3)
    lines = [line for line in capsys.readouterr().err.splitlines() if "ELBO" in line]
    assert len(lines) == 1
    assert "sampled: no closed form for FlowPosterior ‖ Normal" in lines[0]
    assert lines[0].endswith("nats per datum before training")
    pv.fit(model, guide, x, pv.MonteCarloELBO(), epochs=1, progress=False)
    assert capsys.readouterr().err == ""


def test_the_audit_changes_nothing(x):
    model, guide = make_pair()
    state, training = torch.get_rng_state(), model.training
    elbo = pv.MonteCarloELBO()
    pv.audit(model, guide, elbo, x)
    assert (torch.get_rng_state() == state).all()
    assert model.training == training
    assert elbo._notes is None
    assert not list(pyro.get_param_store().keys())


def test_another_estimator_is_refused(x):
    with pytest.raises(TypeError, match="audit reads estimators of pyrovae"):
        pv.audit(*make_pair(), RenyiELBO(), x)


@pytest.mark.filterwarnings("ignore:Found")
def test_swapped_programs_are_noticed(x):
    model, guide = make_pair()
    for elbo in (pv.AnalyticELBO(), pv.MonteCarloELBO(), pv.DoublyReparameterizedELBO(2)):
        with pytest.raises(ValueError, match="the guide observes site 'x'; are the model and the guide swapped"):
            pv.audit(guide, model, elbo, x)
    with pytest.raises(ValueError, match="swapped"):
        pv.fit(guide, model, x, pv.AnalyticELBO(), epochs=1, progress=False)
    with pytest.raises(ValueError, match="swapped"):
        pv.gradient_statistics(guide, model, pv.AnalyticELBO(), x, 4)
    with pytest.raises(ValueError, match="swapped"):
        pv.log_marginal(guide, model, x)


@pytest.mark.filterwarnings("ignore:Found")
def test_a_latent_that_the_guide_lacks_is_refused_and_of_a_stock_estimator_a_fallback():
    x = torch.randn(4)

    def model(x):
        with pyro.plate("data", 4):
            a = pyro.sample("a", dist.Normal(torch.zeros(4), 1.0))
            k = pyro.sample("k", dist.Normal(torch.zeros(4), 1.0))
            pyro.sample("x", dist.Normal(a + k, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", 4):
            pyro.sample("a", dist.Normal(0.5 * x, 0.5))

    audited = pv.audit(model, guide, Trace_ELBO(), x)
    assert row(audited, "k").how == "sampled: from the model; the guide has no such site"
    assert -audited.loss == pytest.approx(sum(e.nats_per_datum for e in audited.sites), rel=1e-5)
    with pytest.raises(pv.NoClosedFormError, match="falls back at site 'k'"):
        pv.audit(model, guide, Trace_ELBO(), x, strict=True)
    for elbo in (pv.MonteCarloELBO(), TraceMeanField_ELBO()):
        with pytest.raises(pv.InputError, match="latent site 'k' of the model is missing in the guide"):
            pv.audit(model, guide, elbo, x)


@pytest.mark.filterwarnings("ignore:Failed to verify mean field")
def test_stock_closed_forms_in_another_order_are_no_kl():
    x = torch.randn(4)

    def model(x):
        with pyro.plate("data", 4):
            b = pyro.sample("b", dist.Normal(torch.zeros(4), 1.0))
            a = pyro.sample("a", dist.Normal(b, 1.0))
            pyro.sample("x", dist.Normal(a, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", 4):
            a = pyro.sample("a", dist.Normal(x, 0.5))
            pyro.sample("b", dist.Normal(0.5 * a, 0.5))

    audited = pv.audit(model, guide, TraceMeanField_ELBO(), x)
    assert row(audited, "a").how == "closed form: guide and model draw in different orders"
    with pytest.raises(pv.NoClosedFormError, match="different orders"):
        pv.audit(model, guide, TraceMeanField_ELBO(), x, strict=True)


def test_what_is_printed_of_importance_weights_adds_up(x):
    model, guide = make_pair()
    audited = pv.audit(model, guide, pv.DoublyReparameterizedELBO(5, beta=0.7), x)
    assert audited.rest < 0
    assert row(audited, "z").how == "sampled, doubly reparameterised weights of 5"
    assert "how unequal the weights are" in str(audited)
    assert audited.line.startswith("DoublyReparameterizedELBO, β = 0.7: ")
    assert pv.audit(model, guide, pv.MonteCarloELBO(), x).rest == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("family", "elbo", "computation", "reason", "fallback"),
    [
        (pv.DiagonalPosterior, pv.AnalyticELBO(), Computation.CLOSED_FORM, None, False),
        (pv.DiagonalPosterior, pv.MonteCarloELBO(), Computation.SAMPLED, Reason.BY_CHOICE, False),
        (pv.FlowPosterior, pv.MonteCarloELBO(), Computation.SAMPLED, Reason.NO_CLOSED_FORM, False),
        (pv.FlowPosterior, TraceMeanField_ELBO(), Computation.SAMPLED, Reason.NO_CLOSED_FORM, True),
        (pv.DiagonalPosterior, pv.ClosedFormEntropyELBO(), Computation.ENTROPY, None, False),
        (pv.DiagonalPosterior, pv.StickingTheLandingELBO(), Computation.PATH_DERIVATIVE, Reason.BY_CHOICE, False),
        (pv.FlowPosterior, pv.ImportanceWeightedELBO(2), Computation.WEIGHTS, None, False),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_what_was_computed_has_a_type(family, elbo, computation, reason, fallback, x):
    audited = pv.audit(*make_pair(family), elbo, x)
    z = row(audited, "z")
    assert (z.computation, z.reason, z.fallback) == (computation, reason, fallback)
    assert (row(audited, "x").reason, row(audited, "x").at_draws_of) == (Reason.OBSERVED, ("z",))


def test_the_table_and_the_line(x):
    audited = pv.audit(*make_pair(), pv.AnalyticELBO(), x)
    assert list(audited.to_frame()) == [
        "site", "guide", "model", "how", "guide_scale", "model_scale", "reparameterized", "event_dim", "batch_shape",
        "nats_per_datum", "fallback",
    ]  # fmt: skip
    assert audited.line == (
        f"AnalyticELBO: x Normal; z Normal ‖ Normal closed form; loss {audited.loss:.4g} nats per datum"
    )


def test_pyros_module_stays_as_it_is_while_its_estimator_is_audited(x):
    class Watched(dist.Normal):
        pass

    seen = []

    @torch.distributions.register_kl(Watched, dist.Normal)
    def _kl(q, p):
        seen.append(trace_mean_field_elbo.kl_divergence)
        return torch.distributions.kl_divergence(dist.Normal(q.loc, q.scale), p)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", Watched(torch.zeros(5, 2).double(), 1.0).to_event(1))

    model, _ = make_pair()
    assert row(pv.audit(model, guide, TraceMeanField_ELBO(), x), "z").how == "closed form"
    assert set(seen) == {torch.distributions.kl_divergence}


@pytest.mark.parametrize("call", [pv.audit, lambda m, g, e, x: pv.gradient_statistics(m, g, e, x, 4)])
def test_bad_input_is_one_clear_message(call, x):
    model, guide = make_pair()
    for data, error, message in (
        (x[:, :2], ValueError, r"cannot run on data of shape \(5, 2\)"),
        (x[:0], ValueError, "x is empty"),
        (["one"], TypeError, "x must be a tensor, a NumPy array, a DataFrame of numbers or a Dataset, not list"),
        (x * float("nan"), ValueError, "x holds 15 NaN or infinite values"),
    ):
        with pytest.raises(error, match=message) as caught:
            call(model, guide, pv.AnalyticELBO(), data)
        assert "\n" not in str(caught.value)
    with pytest.raises(TypeError, match="AnalyticELBO"):
        call(model, guide, pv.AnalyticELBO, x)
