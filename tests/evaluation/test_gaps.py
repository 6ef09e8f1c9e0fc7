"""Inference gaps, collapse reports and their errors, on linear-Gaussian models."""

import math

import pytest
import torch
from torch.distributions import kl_divergence

import pyrovae as pv
from experiments.truth.linear import Trained
from pyrovae.evaluation import Estimate, LogMarginal
from pyrovae.linear_gaussian.exact import LinearGaussianVAE
from pyrovae.posteriors import POSTERIORS

GAUSSIAN = [name for name in POSTERIORS if name != "flow"]


@pytest.fixture
def vae():
    return LinearGaussianVAE(torch.randn(5, 3), 0.6, torch.randn(5))


@pytest.mark.parametrize("family", GAUSSIAN)
def test_the_approximation_gap_is_the_predicted_one(vae, family, monkeypatch):
    fitted = []

    def kept(*arguments, **settings):
        fitted.append(pv.refit(*arguments, **settings))
        return fitted[-1]

    monkeypatch.setattr("pyrovae.evaluation.gaps.refit", kept)
    x = vae.sample(40)
    found = pv.inference_gaps(
        vae.to_model(), vae.to_guide("isotropic"), x, {family: POSTERIORS[family]},
        log_p=LogMarginal.exact(vae.log_prob(x)),
    )[family]  # fmt: skip
    assert found.approximation.mean == pytest.approx(vae.gap(family), abs=0.01)
    ((q, _),) = fitted
    kl = kl_divergence(q.posterior(), vae.posterior(x))
    assert kl.mean().item() == pytest.approx(vae.gap(family), abs=0.01)
    assert kl.min() > vae.gap(family) - 1e-6
    assert found.approximation.mean == pytest.approx(kl.mean().item(), abs=5 * found.approximation.stderr_monte_carlo)


def test_gaps_of_an_encoder_that_is_off(vae):
    """Amortisation and generalisation gap of a guide whose mean is biased, against exact ELBOs."""
    x, train = vae.sample(30), vae.sample(60)
    model = vae.to_model()
    guide = vae.gaussian_guide(0.8 * vae.gain, vae.covariance)
    families = {"full-covariance": pv.FullCovariancePosterior, "diagonal": pv.DiagonalPosterior}
    before = [p.clone() for p in (*model.parameters(), *guide.parameters())]
    state = torch.get_rng_state()
    found = pv.inference_gaps(model, guide, x, families, train=train, epochs=60, batch_size=20, learning_rate=0.01)
    assert (torch.get_rng_state() == state).all()
    assert all((a == b).all() for a, b in zip(before, (*model.parameters(), *guide.parameters()), strict=True))
    assert found.log_p.mean == pytest.approx(vae.log_prob(x).mean().item(), abs=0.01)
    full, diagonal = found["full-covariance"], found["diagonal"]
    exact = vae.log_prob(x) - vae.elbo(guide, x)
    assert full.amortization.mean == pytest.approx(exact.mean().item(), abs=0.03)
    assert full.amortization.stderr_data == pytest.approx((exact.std() / math.sqrt(30)).item(), rel=0.2)
    expected = (vae.elbo(guide, train).mean() - vae.elbo(guide, x).mean()).item()
    assert full.generalization.mean == pytest.approx(expected, abs=5 * full.generalization.stderr_monte_carlo)
    assert diagonal.amortization is None
    assert diagonal.generalization is None
    assert 0 <= full.amortization_refitted.mean + 0.01 < full.amortization.mean / 2
    assert diagonal.amortization_refitted.mean > 0
    table = found.to_frame().set_index("family")
    assert math.isnan(table.loc["diagonal", "amortization"])
    assert table.loc["diagonal", "approximation"] == diagonal.approximation.mean
    assert "approximation" in str(found)
    assert f"{full.best_elbo.mean:.4f} ± " in str(found)
    with pytest.raises(KeyError, match="no family 'flow'; there are full-covariance, diagonal"):
        found["flow"]


def test_the_decoder_is_frozen_even_to_running_statistics(vae):
    class Running(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.tensor(0.0))

        def forward(self, z):
            self.count += self.training
            return z

    decoder = torch.nn.Sequential(torch.nn.Linear(3, 3), Running(), torch.nn.Dropout(0.5))
    model = pv.GenerativeModel(decoder, pv.GaussianLikelihood(3, 5), 3)
    guide = pv.AmortizedGuide(torch.nn.Identity(), pv.DiagonalPosterior(5, 3))
    seen = []
    decoder[2].register_forward_hook(lambda module, *_: seen.append(module.training))
    families = {"diagonal": pv.DiagonalPosterior}
    x = vae.sample(20).float()
    pv.inference_gaps(model, guide, x, families, train=x, epochs=1, max_steps=50)
    pv.refit(model.double(), guide.double(), x.double(), pv.DiagonalPosterior, max_steps=50)
    assert all(p.grad is None for p in model.parameters())
    assert decoder[1].count == 0
    assert model.training
    assert not any(seen)


def test_a_gap_below_zero_is_reported_as_it_is(vae):
    x = vae.sample(10)
    low = LogMarginal.exact(vae.log_prob(x) - 1)
    found = pv.inference_gaps(vae.to_model(), vae.to_guide(), x, [pv.FullCovariancePosterior], log_p=low, max_steps=50)
    assert found["FullCovariancePosterior"].approximation.mean == pytest.approx(-1, abs=0.05)


def test_a_flow_of_its_own_for_every_datum(vae):
    x = vae.sample(6)
    found = pv.inference_gaps(vae.to_model(), vae.to_guide(), x, {"flow": pv.FlowPosterior}, max_steps=100)
    best = found["flow"].best_elbo
    assert ((vae.log_prob(x) - best.per_datum) > -5 * best.stderr_per_datum).all()
    assert (vae.log_prob(x) - best.per_datum).mean() < vae.gap("isotropic") + 0.5


@pytest.mark.parametrize("family", GAUSSIAN)
def test_data_are_fitted_apart_from_one_another(vae, family):
    """The guide of some of the data is theirs alone, and knows how many it is for."""
    x = vae.sample(5)
    q = pv.evaluation.PerDatumGuide(POSTERIORS[family], torch.randn(5, 3).double())
    whole, part = q.posterior(), q.select(slice(1, 3)).posterior()
    torch.testing.assert_close(part.mean, whole.mean[1:3])
    with pytest.raises(ValueError, match="for 5 data of its own, not for 3"):
        q(x[:3])
    terms = pv.elbo_terms(vae.to_model(), q, x, chunk_size=2, num_samples=1000)
    estimate = pv.elbo_estimate(vae.to_model(), q, x, num_samples=4000)
    spread = (terms.stderr_per_datum.square() + estimate.stderr_per_datum.square()).sqrt()
    assert ((terms.elbo - estimate.per_datum).abs() < 5 * spread).all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_particles": 0}, ValueError, "num_particles must be an integer of at least 1, not 0"),
        ({"num_samples": 1}, ValueError, "num_samples must be an integer of at least 2, not 1"),
        ({"x": torch.zeros(4, 2)}, ValueError, r"cannot run on data of shape \(4, 2\)"),
        ({"families": ["diagonal"]}, TypeError, "the families must be classes or instances, not the names"),
        ({"families": []}, ValueError, "give at least one of the families"),
        ({"families": pv.DiagonalPosterior}, TypeError, r"a sequence such as \[DiagonalPosterior\]"),
        ({"families": [pv.FlowPosterior] * 2}, ValueError, "called alike"),
        ({"epochs": 0}, ValueError, "epochs must be a positive integer, not 0"),
        ({"log_p": LogMarginal.exact(torch.zeros(3))}, ValueError, "log_p is of 3 data, x has 4"),
        ({"guide": lambda x: None}, TypeError, "needs a GenerativeModel and an AmortizedGuide"),
    ],
)
def test_bad_input(vae, arguments, error, message):
    settings = {"model": vae.to_model(), "guide": vae.to_guide(), "x": vae.sample(4)}
    with pytest.raises(error, match=message):
        pv.inference_gaps(**settings | arguments)


@pytest.mark.parametrize("family", ["diagonal", "full-covariance"])
def test_diagonal_and_full_covariance_end_alike_at_two_dimensions(family):
    (reached,) = Trained(2, family, "analytic", free=True, steps=3000)()
    assert -1e-9 < reached.total < 0.005


def test_a_collapse_report_where_everything_is_known(vae):
    """At the exact posterior of the model's own data I(x; z) = ½ log det P and the aggregate posterior is the prior."""
    x = vae.sample(2000)
    found = pv.collapse_report(vae.to_model(), vae.to_guide(), x, num_samples=2)
    information = 0.5 * torch.logdet(vae.precision).item()
    assert found.mutual_information.mean == pytest.approx(information, abs=0.15)
    assert found.aggregate_kl.mean == pytest.approx(0, abs=0.15)
    exact = kl_divergence(vae.to_guide().posterior(x), vae.to_model().prior_distribution()).mean().item()
    assert found.kl.mean == pytest.approx(exact, abs=5 * found.kl.stderr)
    assert found.kl.mean == pytest.approx(found.mutual_information.mean + found.aggregate_kl.mean)
    assert found.spectrum.sum().item() + found.correlation == pytest.approx(exact)
    means = vae.to_guide().posterior(x).mean
    torch.testing.assert_close(found.signal, torch.linalg.eigvalsh(torch.cov(means.T)).flip(0))
    torch.testing.assert_close(found.signal + found.noise, torch.ones(3).double(), atol=0.1, rtol=0)
    assert found.active == 3
    assert found.ar1 is None
    assert "3 of 3 latent directions active" in str(found)


def test_a_collapse_report_does_not_change_when_the_latent_space_is_turned(vae):
    x = vae.sample(500)
    turn = torch.linalg.qr(torch.randn(3, 3).double()).Q
    turned = LinearGaussianVAE(vae.loadings @ turn, vae.noise_scale, vae.offset)
    a, b = (pv.collapse_report(v.to_model(), v.to_guide(), x) for v in (vae, turned))
    torch.testing.assert_close(a.spectrum, b.spectrum)
    torch.testing.assert_close(a.signal, b.signal)
    assert a.correlation == pytest.approx(b.correlation, abs=1e-9)


def test_a_unit_that_the_decoder_ignores_is_reported(vae):
    loadings = vae.loadings.clone()
    loadings[:, 2] = loadings[:, 1]  # in no coordinate is a unit idle, in one direction it is
    folded = LinearGaussianVAE(loadings, 0.6)
    found = pv.collapse_report(folded.to_model(), folded.to_guide(), folded.sample(500))
    assert found.active == 2
    assert found.spectrum[2] < 1e-6
    assert list(found.to_frame()["signal"] > 0.01) == [True, True, False]


@pytest.mark.parametrize("family", [pv.FlowPosterior, pv.LowRankPosterior, pv.IsotropicPosterior])
def test_a_collapse_report_of_other_families_in_float32(vae, family):
    model = pv.GenerativeModel(torch.nn.Identity(), pv.GaussianLikelihood(3, 5), 3)
    guide = pv.AmortizedGuide(torch.nn.Identity(), family(5, 3))
    found = pv.collapse_report(model, guide, vae.sample(60), num_samples=20)
    assert found.kl.mean == pytest.approx(found.mutual_information.mean + found.aggregate_kl.mean)
    assert math.isnan(found.correlation) == (family is pv.FlowPosterior)
    if family is not pv.FlowPosterior:
        assert found.spectrum.sum().item() + found.correlation == pytest.approx(found.kl.mean, abs=5 * found.kl.stderr)
    with pytest.raises(TypeError, match="needs a GenerativeModel and an AmortizedGuide"):
        pv.collapse_report(model, lambda x: None, vae.sample(5))


def test_ar1_quantiles_and_another_prior(vae):
    prior = torch.distributions.Independent(torch.distributions.Normal(torch.ones(3), 2 * torch.ones(3)), 1)
    model = pv.GenerativeModel(torch.nn.Identity(), pv.GaussianLikelihood(3, 5), 3, prior=prior)
    guide = pv.AmortizedGuide(torch.nn.Identity(), pv.AR1Posterior(5, 3))
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.zero_()
        guide.posterior_head.loc_head.bias.fill_(1.0)
        guide.posterior_head.covariance_head.bias.copy_(torch.tensor([math.log(math.expm1(2.0)), math.atanh(0.6)]))
    found = pv.collapse_report(model, guide, torch.randn(50, 5))
    assert found.ar1.loc["correlation"].tolist() == pytest.approx([0.6] * 5, abs=1e-2)
    assert found.ar1.loc["scale"].tolist() == pytest.approx([2.0] * 5, abs=1e-3)
    assert found.active == 0
    assert found.mutual_information.mean == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(found.noise, torch.ones(3).double(), atol=1e-3, rtol=0)
    assert "AR(1), quantiles" in str(found)
    with pytest.raises(ValueError, match="at least two data"):
        pv.collapse_report(model, guide, torch.randn(1, 5))


def test_the_errors_of_an_estimate():
    values, errors = torch.tensor([1.0, 2.0, 4.0]).double(), torch.tensor([0.3, 0.0, 0.4]).double()
    found = Estimate(values, errors)
    assert found.stderr_monte_carlo == pytest.approx(0.5 / 3)
    assert found.stderr == pytest.approx(values.std().item() / math.sqrt(3))
    assert found.stderr**2 == pytest.approx(found.stderr_data**2 + found.stderr_monte_carlo**2)
    difference = found - Estimate(values, errors)
    assert difference.mean == 0
    assert difference.stderr_monte_carlo == pytest.approx(0.5 / 3 * math.sqrt(2))
    assert difference.stderr_data == 0
