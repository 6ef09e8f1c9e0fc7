"""Likelihoods of counts: probabilities, starts, support, dispersions that are learned, engines."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats

import pyrovae as pv
from pyrovae.nn import LogCounts
from pyrovae.testing import check_likelihood
from pyrovae.training import TrainingSettings
from tests.pairs import as_graph

COUNTS = {"poisson": pv.PoissonLikelihood, "negative-binomial": pv.NegativeBinomialLikelihood}


def overdispersed(num, dispersion, log_mean=3.0, n=6, seed=0):
    """Counts (num, n) around means that one latent variable moves, and the means."""
    rng = np.random.default_rng(seed)
    mean = np.exp(log_mean + rng.normal(size=(num, 1)) * np.linspace(-0.5, 0.5, n))
    scatter = rng.gamma(1 / dispersion, dispersion, size=mean.shape) if dispersion else 1.0
    return torch.as_tensor(rng.poisson(mean * scatter)).float(), mean


def make_pair(make, n=6, missing=False):
    torch.manual_seed(1)
    model = pv.GenerativeModel(pv.nn.MLP(1, 8), make(8, n), 1, missing=missing).double()
    encoder = LogCounts(pv.nn.MLP(n, 8))
    encoder = pv.nn.ImputeMissing(encoder) if missing else encoder
    return model, pv.AmortizedGuide(encoder, pv.DiagonalPosterior(8, 1)).double()


@pytest.mark.parametrize("make", COUNTS.values(), ids=COUNTS)
def test_contract(make):
    check_likelihood(make)
    check_likelihood(partial(make, initial_mean=20.0))


@pytest.mark.parametrize("name", COUNTS)
@torch.no_grad()
def test_log_prob_is_scipys_in_nats_with_all_constants(name):
    head = COUNTS[name](4, 3, initial_mean=[1.0, 20.0, 300.0]).double()
    torch.nn.init.normal_(head.log_mean_head.weight)
    if name == "negative-binomial":
        head.raw_dispersion.copy_(torch.tensor([-3.0, 0.0, 1.0]))
    features = torch.randn(5, 4, dtype=torch.float64)
    x = head(features).sample()
    mean = (head.log_mean_head(features).exp() * torch.tensor([1.0, 20.0, 300.0])).numpy()
    torch.testing.assert_close(head(features).mean, torch.as_tensor(mean), rtol=1e-6, atol=0)
    if name == "poisson":
        expected = stats.poisson(mean).logpmf(x).sum(-1)
    else:
        r = 1 / head.dispersion.numpy()
        expected = stats.nbinom(r, r / (r + mean)).logpmf(x).sum(-1)
    np.testing.assert_allclose(head(features).log_prob(x), expected, rtol=1e-6)
    assert head.is_density  # a probability: log p(x) is one
    assert head.is_count


@pytest.mark.parametrize("make", COUNTS.values(), ids=COUNTS)
@pytest.mark.parametrize("value", [-1.0, 0.5, float("inf")])
def test_what_is_no_count_is_refused(make, value):
    x, _ = overdispersed(20, 0.0)
    x[3, 2] = value
    for run in (lambda: pv.fit(*make_pair(make), x.double(), pv.AnalyticELBO(), epochs=1, progress=False),):
        with pytest.raises(pv.InputError, match=r"row 3, column 2"):
            run()
    if value == 0.5:
        with pytest.raises(pv.InputError, match=r"must be counts 0, 1, 2, …; give counts without preprocessing"):
            make(4, 6).check_support("data", x)


@pytest.mark.parametrize(
    ("initial_mean", "message"),
    [
        (0.0, "initial_mean must be a positive number, not 0"),
        ([1.0, -2.0, 1.0], "initial_mean must be a positive number, not -2"),
        ([1.0, 2.0], "initial_mean must be a number or 3 numbers, one per channel, not 2"),
    ],
)
def test_starts_that_cannot_be(initial_mean, message):
    for make in COUNTS.values():
        with pytest.raises(pv.InputError, match=message):
            make(4, 3, initial_mean=initial_mean)


@pytest.mark.slow
@pytest.mark.parametrize("dispersion", [0.05, 2.0])
def test_the_dispersion_is_learned(dispersion):
    """Each channel's α from 4000 data, to a standard error below 5 %; what the networks do not fit adds to it."""
    x, _ = overdispersed(4000, dispersion)
    torch.manual_seed(0)
    likelihood = pv.NegativeBinomialLikelihood(16, 6, initial_mean=20.0)
    model = pv.GenerativeModel(pv.nn.MLP(1, 16), likelihood, 1)
    guide = pv.AmortizedGuide(LogCounts(pv.nn.MLP(6, 16)), pv.DiagonalPosterior(16, 1))
    pv.fit(model, guide, x, pv.AnalyticELBO(), epochs=60, batch_size=128, learning_rate=2e-2, progress=False)
    np.testing.assert_allclose(likelihood.dispersion.detach(), dispersion, rtol=0.25, atol=0.02)


@pytest.mark.parametrize("name", COUNTS)
def test_the_graph_is_the_eager_engine(name):
    x, elbo = overdispersed(64, 0.3)[0].double(), pv.AnalyticELBO()
    eager = pv.fit(*make_pair(COUNTS[name]), x, elbo, engine="eager", epochs=4, learning_rate=3e-3, progress=False)
    losses = as_graph(*make_pair(COUNTS[name]), x, elbo, TrainingSettings(epochs=4, learning_rate=3e-3))
    np.testing.assert_allclose(losses, eager.batch_loss, atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", COUNTS)
def test_missing_counts_count_for_nothing(name):
    x = overdispersed(64, 0.3)[0].double()
    holes = x.masked_fill(torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.2, torch.nan)
    model, guide = make_pair(COUNTS[name], missing=True)
    z = torch.zeros(64, 1, dtype=torch.float64)
    each = model.likelihood(model.decoder(z)).base_dist.log_prob(x)
    torch.testing.assert_close(model.conditional(z).log_prob(holes), each.masked_fill(holes.isnan(), 0.0).sum(-1))
    history = pv.fit(model, guide, holes, pv.AnalyticELBO(), epochs=2, progress=False)
    assert np.isfinite(history.batch_loss).all()


@pytest.mark.parametrize("name", COUNTS)
def test_files_hold_them(name, tmp_path):
    model, guide = make_pair(partial(COUNTS[name], initial_mean=[1.0, 2.0, 3.0, 4.0, 5.0, 1e5]), missing=True)
    pv.save(tmp_path / "vae.safetensors", model, guide)
    other, other_guide = pv.load(tmp_path / "vae.safetensors")
    x, z = overdispersed(5, 0.3)[0].double(), torch.randn(5, 1, dtype=torch.float64)
    assert torch.equal(other.conditional(z).log_prob(x), model.conditional(z).log_prob(x))
    assert torch.equal(other_guide.posterior(x).mean, guide.posterior(x).mean)


def test_log_marginal_is_a_probability():
    """Of all pairs of counts up to 60 the probabilities sum to 1, whatever the networks."""
    torch.manual_seed(0)
    model = pv.GenerativeModel(pv.nn.MLP(1, 8), pv.NegativeBinomialLikelihood(8, 2, initial_mean=2.0), 1).double()
    guide = pv.AmortizedGuide(LogCounts(pv.nn.MLP(2, 8)), pv.DiagonalPosterior(8, 1)).double()
    x = torch.cartesian_prod(*[torch.arange(60.0, dtype=torch.float64)] * 2)
    marginal = pv.log_marginal(model, guide, x, method="quadrature", num_points=200, center="prior")
    assert marginal.is_density
    assert marginal.per_datum.logsumexp(0).item() == pytest.approx(0, abs=1e-3)
