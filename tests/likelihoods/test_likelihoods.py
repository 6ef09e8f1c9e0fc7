"""Likelihoods of images and classes: densities, gradients, draws and refusals against truths worked out another way."""

import itertools
import json
import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy import integrate

import pyrovae as pv
from pyrovae.evaluation import Importance, Quadrature
from pyrovae.training import TrainingSettings
from tests.pairs import as_graph

LIKELIHOODS = {
    "bernoulli": pv.BernoulliLikelihood,
    "soft-targets": partial(pv.BernoulliLikelihood, soft_targets=True),
    "continuous-bernoulli": pv.ContinuousBernoulliLikelihood,
    "levels": partial(pv.CategoricalLikelihood, num_classes=5),
    "one-hot": partial(pv.CategoricalLikelihood, num_classes=3, one_hot=True),
}


def data(likelihood, num=48, n=6, seed=0):
    """Data (num, n) that a likelihood can score, float64."""
    u = torch.rand(num, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    if likelihood == "one-hot":
        return torch.nn.functional.one_hot(u.view(num, -1, 3).argmax(-1), 3).double().flatten(1)
    return {"bernoulli": u.round(), "levels": (5 * u).floor()}.get(likelihood, u)


def make_pair(likelihood, n=6, seed=1):
    torch.manual_seed(seed)
    model = pv.GenerativeModel(pv.nn.MLP(2, 8), LIKELIHOODS[likelihood](8, n), 2).double()
    return model, pv.AmortizedGuide(pv.nn.MLP(n, 8), pv.DiagonalPosterior(8, 2)).double()


@pytest.mark.parametrize("likelihood", ["bernoulli", "levels", "one-hot"])
def test_discrete_likelihoods_sum_to_one(likelihood):
    n = {"bernoulli": 4, "levels": 3, "one-hot": 9}[likelihood]
    head = LIKELIHOODS[likelihood](4, n).double()
    values = {"bernoulli": range(2), "levels": range(5), "one-hot": range(3)}[likelihood]
    combinations = torch.tensor(list(itertools.product(values, repeat=3 if likelihood == "one-hot" else n)))
    if likelihood == "one-hot":
        combinations = torch.nn.functional.one_hot(combinations, 3).flatten(1)
    log_p = head(torch.randn(4, dtype=torch.float64)).log_prob(combinations.double())
    assert log_p.logsumexp(0).item() == pytest.approx(0, abs=1e-12)


def test_the_continuous_bernoulli_integrates_to_one_and_soft_targets_do_not():
    features = torch.randn(4, dtype=torch.float64)
    totals = {}
    for likelihood in ("continuous-bernoulli", "soft-targets"):
        torch.manual_seed(0)
        p = LIKELIHOODS[likelihood](4, 2).double()(features)
        totals[likelihood], _ = integrate.dblquad(
            lambda a, b, p=p: p.log_prob(torch.tensor([a, b], dtype=torch.float64)).exp().item(), 0, 1, 0, 1
        )
    assert totals["continuous-bernoulli"] == pytest.approx(1, abs=1e-9)
    assert totals["soft-targets"] < 0.8
    assert [LIKELIHOODS[name](4, 2).is_density for name in totals] == [True, False]


def test_the_categorical_is_the_slides_cross_entropy():
    for likelihood in ("levels", "one-hot"):
        head = LIKELIHOODS[likelihood](4, 6).double()
        features, x = torch.randn(7, 4, dtype=torch.float64), data(likelihood, 7)
        q = np.exp(head.logits_head(features).detach().numpy().reshape(7, -1, head.num_classes))
        q /= q.sum(-1, keepdims=True)
        classes = x.numpy().reshape(7, -1, 3).argmax(-1) if likelihood == "one-hot" else x.numpy().astype(int)
        expected = np.log(np.take_along_axis(q, classes[..., None], -1)).sum((-1, -2))
        torch.testing.assert_close(head(features).log_prob(x).detach(), torch.as_tensor(expected))
        frequencies = head(features[0]).sample(torch.Size([40_000])).reshape(40_000, -1)
        if likelihood == "levels":
            frequencies = torch.nn.functional.one_hot(frequencies.long(), 5).double().flatten(1)
        # 5 standard errors, the seed fixed
        p = torch.as_tensor(q[0].ravel())
        assert ((frequencies.mean(0) - p).abs() <= 5 * (p * (1 - p) / 40_000).sqrt()).all()


def test_soft_targets_are_the_cross_entropy():
    head = LIKELIHOODS["soft-targets"](4, 6).double()
    features, x = torch.randn(7, 4, dtype=torch.float64), data("soft-targets", 7)
    q = 1 / (1 + np.exp(-head.logits_head(features).detach().numpy()))
    expected = (x.numpy() * np.log(q) + (1 - x.numpy()) * np.log1p(-q)).sum(-1)
    torch.testing.assert_close(head(features).log_prob(x).detach(), torch.as_tensor(expected))
    assert set(head(features).sample().unique().tolist()) == {0.0, 1.0}


REFUSED = [
    ("bernoulli", 0.25, r"holds 0.25 at row 40, column 2 .* first of 1 that .* must be 0 or 1; binarise them"),
    ("soft-targets", 1.5, r"holds 1.5 at row 40, column 2 .* must be in \[0, 1\]; scale them"),
    ("continuous-bernoulli", -3, r"holds -3 at row 40, column 2 .* must be in \[0, 1\]; scale them"),
    ("levels", 5, r"holds 5 at row 40, column 2 .* must be classes 0, …, 4; number the classes"),
    ("levels", 1.5, r"holds 1.5 at row 40, column 2 .* must be classes 0, …, 4"),
    (
        "one-hot",
        2,
        r"at row 40, column 0 .* must be a single 1 in each block of 3 .*; encode them one-hot",
    ),
]


@pytest.mark.parametrize(("likelihood", "value", "message"), REFUSED)
def test_data_outside_the_support_are_refused_before_anything_is_computed(likelihood, value, message):
    model, guide = make_pair(likelihood)
    x = data(likelihood)
    pv.fit(model, guide, x, pv.MonteCarloELBO(), epochs=1, progress=False)
    x[40, 2] = value  # not in the first batch
    for attempt in (
        lambda: pv.fit(model, guide, x, pv.MonteCarloELBO(), epochs=1, progress=False),
        lambda: pv.fit(model, guide, data(likelihood), pv.MonteCarloELBO(), epochs=1, validation=x, progress=False),
        lambda: pv.log_marginal(model, guide, x, num_samples=2),
        lambda: pv.log_marginal(model, guide, x, "quadrature", num_points=4),
        lambda: pv.elbo_terms(model, guide, x, num_samples=1),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            attempt()
        assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_bound_of_soft_targets_never_passes_for_log_p(tmp_path):
    x = data("soft-targets")
    soft, hard = make_pair("soft-targets"), make_pair("bernoulli")
    for method, sign in ((Importance(20), "≥"), (Quadrature(16), "=")):
        bound = pv.log_marginal(*soft, x, method)
        assert not bound.is_density
        assert str(bound).startswith(f"cross-entropy bound (no density, not log p(x)) {sign} -")
        density = pv.log_marginal(*hard, x.round(), method)
        assert density.is_density
        assert str(density).startswith(f"log p(x) {sign} -")
    compare = partial(
        pv.compare, x, posteriors=[pv.DiagonalPosterior], estimators=[pv.AnalyticELBO()], out=tmp_path / "out",
        epochs=1, seeds=(0,), latent_dims=(2,), hidden=(4,), progress=False,
    )  # fmt: skip
    table = compare(likelihoods={"soft": LIKELIHOODS["soft-targets"]})
    assert math.isnan(table["test_log_marginal"][0])
    assert table["note"][0].startswith("cross-entropy bound with soft targets, not log p(x)")
    assert math.isfinite(table["test_neg_elbo"][0])
    (metrics,) = (tmp_path / "out").glob("*soft*/metrics.json")
    assert json.loads(metrics.read_text())["test_log_marginal"] is None
    with pytest.raises(pv.InputError, match="soft gives neither and continuous gives densities"):
        compare(likelihoods={"soft": LIKELIHOODS["soft-targets"], "continuous": pv.ContinuousBernoulliLikelihood})


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_the_graph_is_the_eager_engine(likelihood):
    x, elbo = data(likelihood, 64), pv.AnalyticELBO()
    eager = pv.fit(*make_pair(likelihood), x, elbo, engine="eager", epochs=4, learning_rate=3e-3, progress=False)
    losses = as_graph(*make_pair(likelihood), x, elbo, TrainingSettings(epochs=4, learning_rate=3e-3))
    np.testing.assert_allclose(losses, eager.batch_loss, atol=1e-10, rtol=0)


@pytest.mark.parametrize("likelihood", ["continuous-bernoulli", "levels"])
def test_replicas_are_single_runs(likelihood):
    model, guide = make_pair(likelihood)
    x, elbo = data(likelihood, 64), pv.AnalyticELBO()
    settings = {"epochs": 2, "progress": False}
    together = pv.fit(model, guide, x, elbo, num_replicas=2, engine="graph", **settings)
    assert together[0].history.engine == "graph"
    for replica in together:
        alone = pv.fit(model, guide, x, elbo, engine="eager", num_replicas=1, seed=replica.seed, **settings)
        np.testing.assert_allclose(replica.history.batch_loss, alone[0].history.batch_loss, atol=1e-10, rtol=0)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_round_trip(tmp_path, likelihood):
    model, guide = make_pair(likelihood)
    pv.save(tmp_path / "vae.safetensors", model, guide)
    loaded, _ = pv.load(tmp_path / "vae.safetensors")
    x, z = data(likelihood), torch.randn(48, 2, dtype=torch.float64)
    assert torch.equal(loaded.conditional(z).log_prob(x), model.conditional(z).log_prob(x))
    assert loaded.likelihood.is_density == model.likelihood.is_density
    drawn = model.sample(5)
    assert (drawn.shape, drawn.dtype) == ((5, 6), torch.float64)
    guide.posterior(drawn)  # what is drawn can be encoded


def test_settings_that_cannot_be():
    with pytest.raises(ValueError, match="num_classes must be an integer of at least 2, not 1"):
        pv.CategoricalLikelihood(4, 3, num_classes=1)
    with pytest.raises(ValueError, match="one-hot data of 7 entries do not divide into blocks of 3 classes"):
        pv.CategoricalLikelihood(4, 7, num_classes=3, one_hot=True)
