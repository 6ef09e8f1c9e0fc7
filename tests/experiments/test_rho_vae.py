"""The ρ-VAE put to the test: the audit's arithmetic against numpy and dense algebra, and the script."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch.distributions import kl_divergence

import pyrovae as pv
from experiments.rho_vae.__main__ import main
from experiments.rho_vae.mmd import InfoELBO, squared_mmd
from experiments.rho_vae.released import (
    DeclaredPosterior,
    RandomWalkNormal,
    ReleasedLoss,
    ReleasedPosterior,
    reported_loss,
)
from experiments.rho_vae.settings import Settings
from pyrovae.commands import console
from pyrovae.likelihoods import LIKELIHOODS
from pyrovae.linear_gaussian.exact import LinearGaussianVAE

TINY = [
    "--epochs", 2, "--hidden", 8, "--batch-size", 40, "--num-train", 80, "--num-test", 40, "--samples", 200,
    "--workers", 1,
]  # fmt: skip


def command_line(*arguments):
    console.run(main, Settings, [str(argument) for argument in arguments])


def released_pair(n, d):
    torch.manual_seed(0)
    model = pv.GenerativeModel(pv.nn.MLP(d, 8), LIKELIHOODS["bernoulli-soft-targets"](8, n), d)
    return model, pv.AmortizedGuide(pv.nn.MLP(n, 8), ReleasedPosterior(8, d))


def test_the_released_loss_is_its_formula():
    model, guide = released_pair(6, 3)
    x = torch.rand(5, 6)
    torch.manual_seed(1)
    found = ReleasedLoss().loss(model, guide, x) / len(x)
    torch.manual_seed(1)
    with torch.no_grad():
        features = guide.encoder(x)
        mu, raw = (
            head(features).double().numpy()
            for head in (guide.posterior_head.loc_head, guide.posterior_head.covariance_head)
        )
        s, rho = np.exp(raw[:, 0]), np.tanh(raw[:, 1])
        noise = torch.randn(5, 3).double().numpy()
        z, step = mu.copy(), np.zeros(5)
        for j in range(3):
            step = step + np.sqrt(s) * noise[:, j]
            z[:, j] += step
        logits = model.likelihood.logits_head(model.decoder(torch.tensor(z, dtype=torch.float32))).double().numpy()
    p, grey = 1 / (1 + np.exp(-logits)), x.double().numpy()
    cross_entropy = -(grey * np.log(p) + (1 - grey) * np.log(1 - p)).sum()
    covariance = 0.5 * (3 * (s - 1 - np.log(s)) - 2 * np.log(1 - rho**2)).sum()
    expected = (cross_entropy + 0.5 * (mu**2).sum() + covariance / 5) / 5
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_random_walk_is_what_its_sampler_draws():
    declared = pv.AR1Normal(torch.tensor([1.0, -2.0, 0.5, 0.0]), 0.7, 0.6)
    walk = RandomWalkNormal(declared)
    expected = 0.49 * torch.tensor([[1.0, 1, 1, 1], [1, 2, 2, 2], [1, 2, 3, 3], [1, 2, 3, 4]])
    torch.testing.assert_close(walk.covariance_matrix, expected)
    draws = walk.rsample(torch.Size([100_000])).double()
    # an entry's standard error is at most √(2 · 1.96²/100,000) = 0.009: false alarms below 1 in 10,000
    torch.testing.assert_close(draws.T.cov(), expected.double(), rtol=0, atol=0.04)
    torch.testing.assert_close(draws.mean(0), walk.loc.double(), rtol=0, atol=0.02)
    dense = torch.distributions.MultivariateNormal(walk.loc, expected)
    torch.testing.assert_close(walk.log_prob(draws[:5].float()), dense.log_prob(draws[:5].float()))
    prior = pv.GenerativeModel(pv.nn.MLP(4, 2), LIKELIHOODS["bernoulli-soft-targets"](2, 3), 4).prior_distribution()
    sigma, mu = expected.double().numpy(), walk.loc.double().numpy()
    kl = 0.5 * (np.trace(sigma) + mu @ mu - 4 - np.linalg.slogdet(sigma)[1])
    assert kl_divergence(walk, prior).item() == pytest.approx(kl, rel=1e-5)
    assert walk.expand(torch.Size([3, 2])).rsample().shape == (3, 2, 4)


def test_rho_never_reaches_the_released_sampler():
    model, guide = released_pair(6, 3)
    x = torch.rand(4, 6)
    with torch.no_grad():
        torch.manual_seed(1)
        before = guide.posterior(x).rsample()
        guide.posterior_head.covariance_head.bias[1] += 2.0
        torch.manual_seed(1)
        torch.testing.assert_close(guide.posterior(x).rsample(), before)
        declared = pv.AmortizedGuide(guide.encoder, DeclaredPosterior(guide.posterior_head)).posterior(x)
    assert isinstance(declared, pv.AR1Normal)
    assert (declared.correlation > 0.9).all()


def test_the_released_loss_bounds_nothing():
    """Below −log p(x), which is known exactly, on a linear-Gaussian model and a batch at its mode."""
    vae = LinearGaussianVAE(torch.eye(2), 0.1, torch.zeros(2))
    head = ReleasedPosterior(2, 2)
    guide = pv.AmortizedGuide(torch.nn.Identity(), head).double()
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.zero_()
        head.covariance_head.bias[0] = math.log(1e-3)
    x = torch.zeros(128, 2, dtype=torch.float64)
    model = vae.to_model().double()
    truth = -vae.log_prob(x).mean().item()
    assert reported_loss(model, guide, x, 128) < truth - 3
    for true in (guide, pv.AmortizedGuide(guide.encoder, DeclaredPosterior(head))):
        assert -pv.elbo_terms(model, true, x, num_samples=500).elbo.mean() > truth
    # with one datum a batch nothing is divided once too often, and it is an ELBO but for the sampler
    assert reported_loss(model, guide, x, 1) > truth


def test_the_discrepancy_is_that_of_its_kernel():
    torch.manual_seed(0)
    z, prior = 0.5 + 0.8 * torch.randn(400, 3).double(), torch.randn(2000, 3).double()

    def mean_kernel(a, b, same):
        k = torch.exp(-torch.cdist(a, b).square() / 6)
        return (k.sum() - len(a)) / (len(a) * (len(a) - 1)) if same else k.mean()

    sampled = mean_kernel(z, z, True) - 2 * mean_kernel(z, prior, False) + mean_kernel(prior, prior, True)
    assert squared_mmd(z).item() == pytest.approx(sampled.item(), abs=0.01)
    assert abs(squared_mmd(prior).item()) < 2e-3 < squared_mmd(z).item()
    model = pv.GenerativeModel(pv.nn.MLP(3, 4), LIKELIHOODS["bernoulli-soft-targets"](4, 5), 3)
    guide = pv.AmortizedGuide(pv.nn.MLP(5, 4), pv.DiagonalPosterior(4, 3))
    losses = []
    for elbo in (InfoELBO(0.0, 1.0), pv.AnalyticELBO()):  # α = 0 and λ = 1 are the ELBO
        torch.manual_seed(1)
        losses.append(elbo.loss(model, guide, torch.rand(7, 5)))
    assert losses[0] == pytest.approx(losses[1])


@pytest.mark.slow
def test_the_script(tmp_path, run):
    result = run(
        "experiments.rho_vae", *TINY, "--latent-dim", 2, "--posteriors", "diagonal", "ar1", "--seeds", 2,
        "--learning-rates", 1e-3, 1e-2, "--audit", "--out", tmp_path / "out",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "cross-entropy bound" in result.stdout
    assert "log p(x)" not in result.stdout
    assert result.stdout.count("the released objective reports") == 1
    runs = pd.read_csv(tmp_path / "out" / "runs.csv")
    assert len(runs) == 4
    assert runs.groupby("posterior")["learning_rate"].nunique().eq(1).all()
    assert runs.groupby("posterior")["covariance_parameters"].first().to_dict() == {"ar1": 2, "diagonal": 2}
    audits = pd.read_csv(tmp_path / "out" / "audit.csv")
    assert np.isfinite(audits).all(axis=None)
    for picture in ("reconstructions", "samples", "interpolations", "posterior-correlations", "manifold"):
        assert (tmp_path / "out" / f"{picture}-d2.png").stat().st_size > 3000


@pytest.mark.parametrize(
    "arguments",
    [
        ["--variant", "convolutional", "--channels", 4, 8, "--pixels", "binarised"],
        pytest.param(["--variant", "beta", "--pixels", "continuous-bernoulli"], marks=pytest.mark.slow),
        pytest.param(["--variant", "info", "--posteriors", "full-covariance"], marks=pytest.mark.slow),
    ],
)
def test_the_variants(tmp_path, arguments):
    command_line(
        *TINY, "--latent-dim", 3, "--posteriors", "ar1-per-step", "--seeds", 1, "--learning-rates", 1e-3, *arguments,
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert len(pd.read_csv(tmp_path / "out" / "runs.csv")) == (2 if "beta" in arguments else 1)


def test_runs_that_break(tmp_path, capsys):
    """At a rate of 10³⁰ the loss is not finite: that rate is passed over, and where there is none other it is said."""
    few = [*TINY, "--latent-dim", 2, "--posteriors", "diagonal", "--seeds", 1, "--learning-rates", 1e30]
    command_line(*few, 1e-3, "--out", tmp_path / "one")
    assert pd.read_csv(tmp_path / "one" / "runs.csv")["learning_rate"].tolist() == [1e-3]
    assert "diagonal-beta1-d2-rate1e+30-seed0 failed: the loss is" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        command_line(*few, "--out", tmp_path / "none")
    error = capsys.readouterr().err
    assert (stopped.value.code, error.count("\n")) == (2, 1), error
    assert "every run failed" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "mnits"], "unknown --dataset 'mnits' (did you mean 'mnist'?)"),
        (["--posteriors", "flow"], "unknown --posteriors 'flow'"),
        (["--variant", "vanila"], "did you mean 'vanilla'?"),
        (["--epochs", "0"], "--epochs must be a positive integer, not 0"),
        (["--latent-dim", "2", "2"], "--latent-dim holds duplicates: 2 2"),
        (["--learning-rates", "-1"], "learning_rate must be a positive number"),
        (["--audit", "--pixels", "continuous-bernoulli"], "--audit needs a cross-entropy"),
        (["--info-alpha", "2", "--variant", "info"], "--info-alpha must be at most 1"),
        (["--device", "abacus"], "--device abacus cannot be used"),
    ],
)
def test_bad_input(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        command_line(*TINY, *arguments, "--out", tmp_path / "out")
    error = capsys.readouterr().err
    assert (stopped.value.code, error.count("\n")) == (2, 1), error
    assert message in error
    assert not (tmp_path / "out").exists()
