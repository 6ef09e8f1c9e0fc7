"""Comparisons: the table, what is written, and that processes do not change the numbers."""

import dataclasses
import inspect
import json
import math
import random
import shutil

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import special, stats

import pyrovae as pv
from pyrovae import plotting
from pyrovae.comparison._data import prepare
from pyrovae.comparison._measures import marginal_of, measures_of, score, scores_of
from pyrovae.comparison._plan import Cell, Plan, groups
from pyrovae.comparison.compare import plan_of
from pyrovae.comparison.recommendation import Limit
from pyrovae.comparison.settings import ComparisonKeywords, ComparisonSettings
from pyrovae.datasets import SYNTHETIC
from pyrovae.elbo import ESTIMATORS
from pyrovae.evaluation import LogMarginal, RefinedELBO
from pyrovae.linear_gaussian.exact import LinearGaussianVAE
from pyrovae.plotting import PictureWarning
from pyrovae.posteriors import POSTERIORS

SMALL = {
    "posteriors": {"diagonal": pv.DiagonalPosterior, "full-covariance": pv.FullCovariancePosterior},
    "estimators": {"analytic": pv.AnalyticELBO()},
    "seeds": (0, 1),
    "epochs": 2,
    "hidden": (16, 16),
    "num_train": 200,
    "num_test": 100,
    "log_marginal_samples": 50,
    "progress": False,
}


def evaluate(model, guide, test, truth):
    return measures_of(model, guide, test, truth, *score(model, guide, test, 100))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("comparison") / "out"
    return out, pv.compare(SYNTHETIC["rotated-gaussian"], **SMALL, out=out)


def test_the_table_and_its_summary(written):
    _, table = written
    assert len(table) == 4
    assert table.groupby(["posterior", "seed"]).size().eq(1).all()
    np.testing.assert_allclose(table["test_neg_elbo"], table["test_kl"] - table["test_reconstruction"])
    summary = pv.summarize(table)
    assert list(summary["posterior"]) == ["diagonal", "full-covariance"]
    both = table[table["posterior"] == "diagonal"]["nats_above_truth"]
    assert summary["nats_above_truth"][0] == pytest.approx(both.mean())
    assert summary["nats_above_truth_stderr_seeds"][0] == pytest.approx(abs(both.diff().iloc[1]) / 2)
    assert "| diagonal " in pv.to_markdown(summary)


def test_what_a_run_writes(written):
    out, table = written
    folder = out / "diagonal-analytic-gaussian-d2-seed1"
    names = {p.name for p in folder.iterdir()}
    assert names == {
        "config.json", "metrics.json", "history.csv", "scores.csv", "model.safetensors", "model.json",
        "loss.png", "samples.png", "reconstructions.png", "latent.png", "conditional.png",
    }  # fmt: skip
    config = json.loads((folder / "config.json").read_text())
    assert (config["seed"], config["epochs"], config["hidden"]) == (1, 2, [16, 16])
    assert set(config["versions"]) == {"python", "pyrovae", "torch", "pyro-ppl", "numpy"}
    metrics = json.loads((folder / "metrics.json").read_text())
    row = table[(table["posterior"] == "diagonal") & (table["seed"] == 1)].iloc[0]
    assert metrics["nats_above_truth"] == pytest.approx(row["nats_above_truth"])
    assert len(pd.read_csv(folder / "history.csv")) == 2
    model, guide = pv.load(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    dataset = SYNTHETIC["rotated-gaussian"]
    dataset.sample(200, generator)
    again = evaluate(model, guide, dataset.sample(SMALL["num_test"], generator), dataset)
    assert again["test_neg_elbo"] == pytest.approx(metrics["test_neg_elbo"], rel=1e-6)
    assert {p.name for p in out.iterdir() if p.is_file()} == {
        ".lock", "runs.csv", "comparison.csv", "comparison.md", "recommendation.json", "comparison.png", "samples.png",
    }  # fmt: skip


@pytest.mark.slow
def test_processes_give_the_same_numbers(written):
    _, table = written
    parallel = pv.compare(SYNTHETIC["rotated-gaussian"], **SMALL, workers=2)
    columns = ["posterior", "seed", "test_neg_elbo", "test_kl", "nats_above_truth"]
    pd.testing.assert_frame_equal(table[columns], parallel[columns], rtol=1e-5)


def test_a_cell_that_fails_says_so_and_the_others_finish():
    class Diverging(pv.DiagonalPosterior):
        def forward(self, features):
            q = super().forward(features)
            return q if not self.training else type(q)(type(q.base_dist)(q.base_dist.loc / 0, q.base_dist.scale), 1)

    settings = SMALL | {"posteriors": {"good": pv.DiagonalPosterior, "bad": Diverging}, "seeds": (0,)}
    table = pv.compare(SYNTHETIC["rotated-gaussian"], **settings).set_index("posterior")
    assert table["note"]["good"] == ""
    assert (table["status"]["good"], table["status"]["bad"]) == ("finished", "failed")
    assert table["error"]["bad"] == "NonFiniteLossError"
    assert table["note"]["bad"].startswith("failed: the loss is")
    assert "site 'z'" in table["note"]["bad"]
    assert np.isnan(table["test_neg_elbo"]["bad"])
    assert "failed" in pv.to_markdown(pv.summarize(table.reset_index()))


def test_dropped_modes_and_collapse_are_named():
    dataset = SYNTHETIC["mixture"]
    model = pv.GenerativeModel(pv.nn.MLP(2, 8), pv.GaussianLikelihood(8, 2, scale=0.5), 2)
    guide = pv.AmortizedGuide(pv.nn.MLP(2, 8), pv.DiagonalPosterior(8, 2))
    x = dataset.sample(200, torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.likelihood.loc_head.weight.zero_()
        model.likelihood.loc_head.bias.copy_(torch.tensor([0.0, 5.2]))  # one component's centre
    metrics = evaluate(model, guide, x, dataset)
    assert (metrics["modes_found"], metrics["note"]) == (1, "2 of 3 modes dropped")
    with torch.no_grad():
        guide.posterior_head.loc_head.weight.zero_()
    assert evaluate(model, guide, x, None)["note"] == "posterior collapsed"


@pytest.mark.slow
def test_a_given_model_of_correlated_posterior_asks_for_full_covariance(tmp_path):
    loadings = torch.tensor([[1.0, 0.8], [0.8, 1.0], [1.0, 1.0], [0.5, 0.9]])
    truth = LinearGaussianVAE(loadings, 0.5)
    torch.manual_seed(0)
    x = truth.sample(1200).float()
    model = truth.to_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    posteriors = {"diagonal": pv.DiagonalPosterior, "full-covariance": pv.FullCovariancePosterior}
    settings = {"estimators": [pv.AnalyticELBO()], "epochs": 15, "learning_rate": 5e-3, "hidden": (32,)}
    settings |= {"seeds": (0, 2), "gap_data": 20, "progress": False}
    table = pv.compare(x, model=model, posteriors=posteriors, **settings)
    advice = table.attrs["recommendation"]
    assert (advice["choice"], advice["verdict"]) == ("full-covariance posterior", "better")
    gain = advice["gains"][1]
    # what theory says that the diagonal family loses at this decoder: 0.806 nats
    assert gain["low"] - 0.1 < truth.gap("diagonal") < gain["high"] + 0.1
    assert gain["gain"] > 0.7
    gaps = table[table["seed"] == 0].set_index("posterior")["approximation_gap"]
    assert gaps["diagonal"] == pytest.approx(truth.gap("diagonal"), abs=0.05)
    assert abs(gaps["full-covariance"]) < 0.01
    assert table[table["seed"] == 2]["approximation_gap"].isna().all()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    log_p = truth.log_prob(x).mean().item()
    assert table["test_log_marginal"].between(log_p - 0.5, log_p + 0.5).all()
    json.dumps(advice)
    for change, message in (
        ({"likelihoods": [pv.GaussianLikelihood]}, "has its own likelihood"),
        ({"start": "linear"}, "has its own likelihood"),
        ({"latent_dims": (3,)}, "2 latent dimensions"),
    ):
        with pytest.raises(ValueError, match=message):
            pv.compare(x, model=model, posteriors=posteriors, **settings | change)
    with pytest.raises(ValueError, match="4 columns, and the data have 3"):
        pv.compare(x[:, :3], model=model, posteriors=posteriors, **settings)
    with pytest.raises(TypeError, match="cannot save model"):  # before it trains, and writes nothing
        pv.compare(x, model=model, posteriors=posteriors, **settings, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_guides_of_a_model_written_by_hand_are_compared():
    """Its parameters stay as they are, and cost the diagonal family what theory says."""
    loadings = torch.tensor([[1.0, 0.8], [0.8, 1.0], [1.0, 1.0], [0.5, 0.9]])
    truth = LinearGaussianVAE(loadings, 0.5)
    torch.manual_seed(0)
    x = truth.sample(300).float()

    def model(x):
        weight = pyro.param("weight_by_hand", torch.zeros(4, 2))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight.mT, 0.5).to_event(1), obs=x)

    pyro.param("weight_by_hand", loadings)
    posteriors = {"diagonal": pv.DiagonalPosterior, "full-covariance": pv.FullCovariancePosterior}
    settings = {"estimators": [pv.AnalyticELBO()], "epochs": 40, "learning_rate": 1e-2, "hidden": (16,)}
    table = pv.compare(x, model=model, posteriors=posteriors, seeds=(0,), progress=False, **settings)
    assert (table["status"] == "finished").all()
    elbo = -table.groupby("posterior")["test_neg_elbo"].mean()
    assert elbo["full-covariance"] - elbo["diagonal"] == pytest.approx(truth.gap("diagonal"), abs=0.15)
    assert torch.equal(pyro.param("weight_by_hand"), loadings)
    for change, message in (
        ({"latent_dims": (3,)}, r"event shapes \{'z': \(2,\)\}, and the guides draw \{'z': \(3,\)\}"),
        ({"out": "nowhere"}, "a model written by hand cannot be saved"),
        ({"gap_data": 3}, "gap_data and refit_epochs need a GenerativeModel"),
    ):
        with pytest.raises(pv.InputError, match=message):
            pv.compare(x, model=model, posteriors=posteriors, progress=False, **settings | change)


def test_a_given_model_is_not_put_into_training_mode(tmp_path):
    class Decoder(pv.nn.MLP):
        def forward(self, z):
            assert not self.training
            return super().forward(z)

    model = pv.GenerativeModel(Decoder(2, 8), pv.BernoulliLikelihood(8, 5), 2).train()
    x = torch.rand(60, 5).round()
    settings = {"posteriors": [pv.DiagonalPosterior], "estimators": [pv.AnalyticELBO()], "epochs": 1}
    table = pv.compare(x, model=model, **settings, hidden=(8,), progress=False)
    assert table["note"][0] in ("", "posterior collapsed")
    assert model.training
    assert table.attrs["recommendation"]["verdict"] == "too few"  # of one seed
    with pytest.raises(ValueError, match="cannot score"):
        pv.compare(x + 0.5, model=model, **settings)


def test_the_recommendation_is_that_of_the_scores_on_disk(written):
    out, table = written
    by_name = {}
    for posterior in ("diagonal", "full-covariance"):
        folders = [out / f"{posterior}-analytic-gaussian-d2-seed{seed}" for seed in (0, 1)]
        tables = [pd.read_csv(folder / "scores.csv") for folder in folders]
        by_name[f"{posterior} posterior, gaussian likelihood"] = [marginal_of(table, 50) for table in tables]
    found = pv.recommend(by_name)
    advice = table.attrs["recommendation"]
    assert advice["text"] == found.text
    assert json.loads((out / "recommendation.json").read_text()) == advice
    np.testing.assert_allclose(pd.DataFrame(advice["gains"])["log_prob"], found.gains["log_prob"])


def test_finished_runs_give_the_same_recommendation(written):
    out, table = written
    again = pv.compare(SYNTHETIC["rotated-gaussian"], **SMALL, out=out, resume=True)
    assert again.attrs["recommendation"] == table.attrs["recommendation"]


def test_a_run_of_an_earlier_version_is_taken_over(written, tmp_path):
    """Its files do not name the prior, which was N(0, I)."""
    out, table = written
    shutil.copytree(out, tmp_path / "out")
    for path in [*(tmp_path / "out").glob("*/config.json"), *(tmp_path / "out").glob("*/metrics.json")]:
        content = json.loads(path.read_text())
        assert content.pop("prior") == "standard-normal"
        path.write_text(json.dumps(content))
    again = pv.compare(SYNTHETIC["rotated-gaussian"], **SMALL, out=tmp_path / "out", resume=True)
    pd.testing.assert_frame_equal(again, table, check_like=True)


def test_priors_are_compared():
    torch.manual_seed(0)
    drawn = pv.GenerativeModel(torch.nn.Identity(), pv.GaussianLikelihood(20, 20), 20, pv.priors.AR1Prior(20, 0.95))
    settings = {"posteriors": ["ar1-per-step"], "estimators": ["analytic"], "hidden": (32,), "latent_dims": (20,)}
    priors = {"standard-normal": pv.priors.StandardNormalPrior, "ar1": lambda d: pv.priors.AR1Prior(d, 0.95)}
    table = pv.compare(drawn.sample(500), priors=priors, epochs=1, progress=False, **settings)
    assert list(table["prior"]) == ["standard-normal", "ar1"]
    assert list(table["folder"]) == [f"ar1-per-step-analytic-gaussian{prior}-d20-seed0" for prior in ("", "-ar1")]
    models = [row["model"] for row in table.attrs["recommendation"]["gains"]]
    assert models == [f"ar1-per-step posterior, gaussian likelihood, {prior} prior" for prior in priors]
    with pytest.raises(pv.InputError, match=r"unknown priors 'ar2' \(did you mean 'ar1'\?\)"):
        pv.compare(drawn.sample(50), priors=["ar2"], epochs=1, **settings)
    with pytest.raises(pv.InputError, match="a given model has its own likelihood, prior"):
        pv.compare(drawn.sample(50), model=drawn, priors=["ar1"], epochs=1, **settings)


def test_a_tensor_of_ones_own():
    table = pv.compare(torch.randn(60, 5), posteriors=[pv.AR1Posterior], estimators=[pv.MonteCarloELBO()], epochs=1)
    assert table["posterior"][0] == "AR1Posterior"
    assert (table["num_train"][0], table["num_test"][0]) == (48, 12)
    assert "nats_above_truth" not in table


class _OwnPosterior(pv.DiagonalPosterior):
    """A family of one's own."""


def test_a_family_of_ones_own_is_compared_and_drawn(tmp_path):
    settings = SMALL | {"posteriors": [_OwnPosterior], "seeds": (0,)}
    table = pv.compare(SYNTHETIC["rotated-gaussian"], **settings, out=tmp_path / "out")
    assert np.isfinite(table["nats_above_truth"]).all()
    assert (tmp_path / "out" / "samples.png").exists()


def test_nothing_but_failures(tmp_path):
    settings = SMALL | {"posteriors": [pv.FlowPosterior], "seeds": (0,)}
    table = pv.compare(SYNTHETIC["rotated-gaussian"], **settings, out=tmp_path / "out", pictures=False)
    assert table["note"][0].startswith("failed: no closed form for KL(FlowPosterior")
    assert np.isnan(table["test_neg_elbo"][0])
    assert (tmp_path / "out" / "comparison.md").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"posteriors": "diagonal"}, "the posteriors must be a sequence"),
        ({"estimators": [pv.AnalyticELBO]}, r"must be an instance such as AnalyticELBO\(\)"),
        ({"seeds": 2}, "seeds must be a sequence"),
        ({"seeds": "auto"}, "seeds must be a sequence"),
        ({"epochs": 1, "learning_rates": "auto"}, "learning_rates must be a sequence"),
    ],
)
def test_misuse_is_named(settings, message):
    with pytest.raises(TypeError, match=message):
        pv.compare(SYNTHETIC["rotated-gaussian"], **SMALL | settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be a positive integer"),
        ({"seeds": ()}, "at least one seed"),
        ({"posteriors": {}}, "at least one of the posteriors"),
        ({"schedule": "linear"}, "unknown schedule 'linear'"),
        ({"likelihoods": {"g": lambda i, n: pv.GaussianLikelihood(i, n, scale=-1)}}, "scale must be"),
        ({"latent_dims": (0,)}, "latent_dim must be a positive integer"),
        ({"learning_rate": -1.0}, "learning_rate must be a positive number"),
        ({"hidden": ()}, "at least one hidden width"),
        ({"num_train": -5}, "num_train must be an integer of at least 2"),
    ],
)
def test_bad_settings_leave_no_trace(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        pv.compare(SYNTHETIC["rotated-gaussian"], **SMALL | settings, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match="cannot write to the output folder"):
        pv.compare(SYNTHETIC["rotated-gaussian"], **SMALL, out=tmp_path / "file")


def test_bad_tensors():
    settings = {
        "posteriors": [pv.DiagonalPosterior],
        "estimators": [c() for c in ESTIMATORS.values()],
        "epochs": 1,
    }
    with pytest.raises(ValueError, match="row 1, column 2"):
        pv.compare(torch.tensor([[0.0, 0, 0], [0, 0, torch.nan], [0, 0, 0], [0, 0, 0]]), **settings)
    with pytest.raises(ValueError, match=r"must have shape \(num, n\)"):
        pv.compare(torch.zeros(5), **settings)


def test_the_gap_is_paired_and_has_its_sign_and_error():
    """On the exact posterior of a linear-Gaussian model the ELBO is log p_model(x), so the gap is known."""
    dataset = SYNTHETIC["rotated-gaussian"]
    model = pv.GenerativeModel(torch.nn.Identity(), pv.GaussianLikelihood(2, 2, scale=math.sqrt(0.2)), 2).double()
    guide = pv.AmortizedGuide(torch.nn.Identity(), pv.FullCovariancePosterior(2, 2)).double()
    loadings = dataset.loadings
    covariance = torch.linalg.inv(torch.eye(2).double() + loadings.T @ loadings / 0.2)
    factor = torch.linalg.cholesky(covariance)
    with torch.no_grad():
        model.likelihood.loc_head.weight.copy_(loadings)
        model.likelihood.loc_head.bias.copy_(torch.tensor([0.5, 0.0]))  # an offset the data do not have
        gain = covariance @ loadings.T / 0.2
        head = guide.posterior_head
        head.loc_head.weight.copy_(gain)
        head.loc_head.bias.copy_(-gain @ model.likelihood.loc_head.bias)
        head.covariance_head.weight.zero_()
        head.covariance_head.bias.copy_(torch.cat([torch.log(torch.expm1(factor.diagonal() - 1e-6)), factor[1, :1]]))
    x = dataset.sample(4000, torch.Generator().manual_seed(0)).double()
    p_model = torch.distributions.MultivariateNormal(
        torch.tensor([0.5, 0.0]).double(), loadings @ loadings.T + 0.2 * torch.eye(2).double()
    )
    gap = dataset.log_density(x) - p_model.log_prob(x)
    metrics = evaluate(model, guide, x, dataset)
    stderr = gap.std().item() / math.sqrt(len(x))
    assert metrics["nats_above_truth"] == pytest.approx(gap.mean().item(), abs=4 * 0.7 / math.sqrt(16 * len(x)))
    assert metrics["nats_above_truth"] > 0.1
    assert metrics["nats_above_truth_stderr"] == pytest.approx(stderr, rel=0.3)
    assert metrics["test_neg_elbo"] == pytest.approx(-p_model.log_prob(x).mean().item(), abs=0.02)


def test_the_sampled_kl_of_a_flow_has_the_right_sign_and_is_averaged_over_draws():
    torch.manual_seed(0)
    model = pv.GenerativeModel(pv.nn.MLP(2, 8), pv.GaussianLikelihood(8, 2), 2)
    guide = pv.AmortizedGuide(pv.nn.MLP(2, 8), pv.FlowPosterior(8, 2))
    x = torch.randn(50, 2)
    with torch.no_grad():
        z = guide.posterior(x).sample(torch.Size([4000]))
        log_ratio = guide.posterior(x).log_prob(z) - model.prior_distribution().log_prob(z)
    kl = pv.elbo_terms(model, guide, x, num_samples=400).kl.mean().item()
    assert kl == pytest.approx(log_ratio.mean().item(), abs=5 * log_ratio.std().item() / math.sqrt(400 * 50))
    assert kl > 0


def test_seeds_initialise_differently(written):
    out, _ = written
    folders = [out / f"diagonal-analytic-gaussian-d2-seed{seed}" / "model.safetensors" for seed in (0, 1)]
    first, second = (pv.load(folder)[0].likelihood.loc_head.weight for folder in folders)
    assert (first - second).abs().mean() > 0.05


def test_the_config_says_everything(written):
    out, _ = written
    config = json.loads((out / "diagonal-analytic-gaussian-d2-seed1" / "config.json").read_text())
    assert config["estimator_settings"]["beta"] == 1
    assert config["model"]["arguments"]["likelihood"]["arguments"]["initial_scale"] == pytest.approx(0.55, abs=0.1)
    assert config["guide"]["arguments"]["posterior"]["class"] == "DiagonalPosterior"


def test_one_column_arrays_of_any_dtype(tmp_path):
    settings = {
        "posteriors": [pv.DiagonalPosterior],
        "estimators": [pv.AnalyticELBO()],
        "epochs": 1,
    }
    for number, x in enumerate((torch.randn(40, 1).double(), np.arange(40).reshape(40, 1))):
        table = pv.compare(x, **settings, latent_dims=(1,), out=tmp_path / str(number))
        assert np.isfinite(table["test_neg_elbo"]).all()
        assert (tmp_path / str(number) / "samples.png").exists()


def test_names_and_seeds_must_differ():
    settings = {"posteriors": [pv.DiagonalPosterior], "estimators": [pv.AnalyticELBO()], "epochs": 1}
    for wrong in (
        {"estimators": [pv.AnalyticELBO(), pv.AnalyticELBO(beta=0.5)]},
        {"seeds": (0, 0)},
        {"latent_dims": (2, 2)},
    ):
        with pytest.raises(ValueError, match=r"called alike|duplicate"):
            pv.compare(torch.randn(20, 2), **settings | wrong)


@pytest.mark.slow
@pytest.mark.parametrize("together", ["eager", "graph"])
def test_a_seed_alone_is_that_seed_in_company(together):
    settings = SMALL | {"posteriors": dict(POSTERIORS), "estimators": {"monte-carlo": pv.MonteCarloELBO()}}
    settings |= {"num_test": 20, "log_marginal_samples": 5}
    if together == "graph":
        settings |= {"engine": "graph", "epochs": 16, "posteriors": {k: POSTERIORS[k] for k in ("diagonal", "ar1")}}
    company = pv.compare(SYNTHETIC["rotated-gaussian"], **settings)
    alone = pv.compare(SYNTHETIC["rotated-gaussian"], **(settings | {"seeds": (1,), "engine": "eager"}))
    assert set(company["engine"]) == {together}
    second = company[company["seed"] == 1]
    np.testing.assert_allclose(second["test_neg_elbo"], alone["test_neg_elbo"], rtol=1e-4)


def test_groups_of_seeds():
    def cells(*seeds):
        return [Cell(family, "analytic", "gaussian", 2, seed) for family in ("diagonal", "ar1") for seed in seeds]

    def seeds_of(cells, workers, together=True):
        training = pv.TrainingSettings(1)
        settings = ComparisonSettings(
            posteriors=["diagonal"], estimators=["analytic"], training=training, together=together
        )
        return [[c.seed for c in group] for group in groups(Plan(settings, None), cells, workers)]

    assert seeds_of(cells(0, 1, 2), workers=1) == [[0, 1, 2], [0, 1, 2]]
    assert seeds_of(cells(0, 1, 2), workers=4) == [[0, 1], [2], [0, 1], [2]]
    assert seeds_of(cells(4, 0, 5), workers=2) == [[0], [4, 5], [0], [4, 5]]
    assert seeds_of(cells(0, 1), workers=1, together=False) == [[0], [1], [0], [1]]


@pytest.mark.slow
def test_a_comparison_goes_on_where_it_stopped(tmp_path):
    settings = SMALL | {"out": tmp_path, "pictures": False}
    first = pv.compare(SYNTHETIC["rotated-gaussian"], **settings)
    with pytest.warns(UserWarning, match=r"4 runs in .* again .*: diagonal-.*-seed0 has epochs = 2, not 3$"):
        changed = pv.compare(SYNTHETIC["rotated-gaussian"], **(settings | {"epochs": 3}), resume=True)
    assert (changed["epochs"] == 3).all()
    for path in tmp_path.glob("*/config.json"):  # as of a version without these settings
        config = json.loads(path.read_text())
        del config["training"]["strict"], config["training"]["clip_norm"]
        path.write_text(json.dumps(config))
    again = pv.compare(SYNTHETIC["rotated-gaussian"], **(settings | {"epochs": 3}), resume=True)
    pd.testing.assert_frame_equal(again, changed, check_dtype=False)  # its seconds too: nothing ran
    assert (first["test_neg_elbo"] != changed["test_neg_elbo"]).all()


def _parts():
    generator = torch.Generator().manual_seed(3)
    mixing = torch.randn(2, 5, generator=generator)
    x = 7 + 3 * (torch.randn(160, 2, generator=generator) @ mixing + 0.1 * torch.randn(160, 5, generator=generator))
    return x.split([100, 30, 30])


OWN = {
    "posteriors": [pv.DiagonalPosterior],
    "estimators": [pv.AnalyticELBO()],
    "hidden": (8,),
    "log_marginal_samples": 25,
    "progress": False,
}


@pytest.mark.filterwarnings("ignore::pyrovae.UnreliableEstimateWarning")  # of a guide trained for three epochs
def test_densities_are_those_of_the_original_data(tmp_path):
    train, validation, test = _parts()
    settings = OWN | {"epochs": 3, "validation": validation, "log_marginal_samples": 50}
    step = pv.datasets.Standardize()
    table = pv.compare(train, test=test, preprocessing=step, out=tmp_path / "out", pictures=False, **settings)
    assert step.mean is None  # the caller's own is left as it was
    folder = tmp_path / "out" / "DiagonalPosterior-AnalyticELBO-gaussian-d2-seed0"
    model, guide = pv.load(folder / "model.safetensors")
    saved = pv.load_preprocessing(folder / "model.safetensors")
    # the same affine map in the decoder's head: the model of the original data
    scale = torch.tensor(saved.scale)
    terms = pv.elbo_terms(model, guide, saved.transform(test))
    expected = terms.elbo.mean().item() - scale.double().log().sum().item()
    assert table["test_neg_elbo"][0] == pytest.approx(-expected, rel=1e-6)
    np.testing.assert_allclose(table["test_neg_elbo"], table["test_kl"] - table["test_reconstruction"])
    marginal = pv.log_marginal(model, guide, saved.transform(test), num_samples=50).mean - scale.double().log().sum()
    assert table["test_log_marginal"][0] == pytest.approx(marginal.item(), rel=1e-6)
    assert table["validation_neg_elbo"].notna().all()
    lossy = pv.compare(train, test=test, preprocessing=pv.datasets.StandardNormalVariate(), **settings)
    assert lossy["note"][0].startswith("not comparable: preprocessing loses dimensions")
    assert lossy[["test_neg_elbo", "test_reconstruction", "test_log_marginal"]].isna().all(axis=None)


def test_the_learning_rate_is_chosen_by_validation(tmp_path):
    train, validation, test = _parts()
    settings = OWN | {"epochs": 10, "validation": validation, "test": test, "out": tmp_path / "out", "pictures": False}
    table = pv.compare(train, learning_rates=(1e-6, 1e-2), seeds=(0, 1), **settings)
    assert table["learning_rate"].tolist() == [1e-2, 1e-2]
    tried = pd.read_csv(tmp_path / "out" / "rates.csv").set_index("learning_rate")
    assert tried["validation_loss"].idxmin() == 1e-2
    assert tried["test_neg_elbo"][1e-2] == pytest.approx(table["test_neg_elbo"][0])  # that run is not made again
    assert tried.filter(like="test_").loc[1e-6].isna().all()  # the test data are for what was chosen
    assert len(list((tmp_path / "out").glob("*-rate1e-06-seed0/scores.csv"))) == 0
    again = pv.compare(train, learning_rates=(1e-6, 1e-2), seeds=(0, 1), resume=True, **settings)
    pd.testing.assert_frame_equal(again, table)
    with pytest.raises(ValueError, match="validation data choose among several learning rates"):
        pv.compare(train, learning_rates=(1e-3, 1e-2), epochs=1, **OWN)
    with pytest.raises(ValueError, match="test has 4 columns and the training data 5"):
        pv.compare(train, test=test[:, :4], epochs=1, **OWN)


def test_what_the_encoder_loses_is_what_theory_says_of_linear_models():
    """Started as the linear model, an encoder of full covariance loses nothing, a diagonal one what its family does."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 2, generator=generator) @ torch.tensor([[1.0, 0.8, 1.0, 0.5], [0.8, 1.0, 1.0, 0.9]])
    train, validation, test = (x + 0.5 * torch.randn(300, 4, generator=generator)).split([200, 50, 50])
    settings = OWN | {"posteriors": ["diagonal", "full-covariance"], "start": "linear", "learning_rate": 1e-9}
    table = pv.compare(train, validation=validation, test=test, likelihoods=["gaussian"], epochs=1, **settings)
    # PCA's axes leave no correlation, so turn them: the family's loss is that of these loadings
    model = LinearGaussianVAE.fit(train, 2)
    lost = table.set_index("posterior")["lost_by_encoder"]
    assert lost["full-covariance"] == pytest.approx(0, abs=1e-3)
    assert lost["diagonal"] == pytest.approx(model.gap("diagonal"), abs=0.02)
    own = model.to_model().float()
    own.likelihood.loc_head.set_affine(*_turned(model))
    guides = pv.compare(train, model=own, test=test, epochs=30, **OWN | {"learning_rate": 1e-2})
    turned = LinearGaussianVAE(_turned(model)[0], model.noise_scale)
    assert guides["lost_by_encoder"][0] > turned.gap("diagonal") - 0.02 > 0.05


def _turned(model):
    """The model's loadings, rotated by 45 degrees, and its offset."""
    return model.loadings @ torch.tensor([[1.0, -1.0], [1.0, 1.0]]).double() / math.sqrt(2), model.offset


def test_candidates_are_in_the_order_of_their_numbers_of_parameters():
    """A linear model of nearly as many dimensions as channels is not simpler than one of few, nor than a small VAE."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 2, generator=generator) @ torch.randn(2, 40, generator=generator)
    train, test = (x + torch.randn(300, 40, generator=generator)).split([200, 100])
    large, small = (pv.linear_baselines(train, test, d, progress=False)[1] for d in (38, 2))
    given = [dataclasses.replace(large, name="large"), dataclasses.replace(small, name="small")]
    settings = OWN | {"posteriors": ["full-covariance", "diagonal"], "hidden": (4,), "latent_dims": (1,)}
    table = pv.compare(train, test=test, baselines=given, epochs=1, seeds=(0, 1), **settings)
    names = [row["model"] for row in table.attrs["recommendation"]["gains"]]
    vaes = [f"{family} posterior, {table['likelihood'][0]} likelihood" for family in ("full-covariance", "diagonal")]
    assert (small.model.num_parameters, large.model.num_parameters) == (120, 858)
    assert names == ["small", *vaes, "large"]  # 209 = 4 + 4 of the hidden layer, 200 of the mean and 1 of σ


@pytest.mark.parametrize("resume", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_test_data_are_scored_for_the_chosen_learning_rate_alone(resume, tmp_path, monkeypatch):
    """Test data near the start's mean are likelier, the less was learned; validation data are like the training's."""
    generator, seen = torch.Generator().manual_seed(0), []
    train, validation = (5 + torch.randn(num, 3, generator=generator) for num in (80, 40))
    settings = OWN | {"epochs": 10, "validation": validation, "test": 1e-3 * train, "out": tmp_path / "out"}
    settings["pictures"] = False

    def counted(model, guide, test, *rest):
        seen.append(torch.equal(test, settings["test"]))
        return score(model, guide, test, *rest)

    monkeypatch.setattr("pyrovae.comparison._runs.score", counted)
    table = pv.compare(train, learning_rates=(1e-6, 1e-2), seeds=(0, 1), **settings)
    assert table["learning_rate"].tolist() == [1e-2] * 2
    assert seen == [True] * 2
    if resume:  # the best of these is not scored yet; and then everything is there
        again = pv.compare(train, learning_rates=(1e-6, 1e-7), seeds=(0, 1), resume=True, **settings)
        assert again["learning_rate"].nunique() == 1
        assert again["test_log_marginal"].mean() > table["test_log_marginal"].mean() + 1
        assert len(seen) == 4
        settings |= {"resume": True}
        once_more = pv.compare(train, learning_rates=(1e-6, 1e-7), seeds=(0, 1), **settings)
        pd.testing.assert_frame_equal(again, once_more)
        assert len(seen) == 4


def test_the_old_spellings_still_work():
    x = torch.randn(40, 2)
    with pytest.warns(DeprecationWarning, match="learning_rates="):
        table = pv.compare(x, validation=x[:10], learning_rate=(1e-6, 1e-3), epochs=1, **OWN)
    assert table["learning_rate"][0] in (1e-6, 1e-3)
    with pytest.warns(DeprecationWarning, match="epochs_by_estimator="):
        table = pv.compare(x, epochs={"AnalyticELBO": 2}, **OWN)
    assert table["epochs"][0] == 2


def test_parts_by_their_names():
    x = torch.randn(40, 2)
    settings = {"estimators": ["monte-carlo"], "epochs": 1, "hidden": (8,), "progress": False}
    table = pv.compare(x, posteriors=["diagonal", pv.AR1Posterior], likelihoods=["ar1"], **settings)
    assert table["posterior"].tolist() == ["diagonal", "AR1Posterior"]
    assert set(table["likelihood"]) == {"ar1"}
    with pytest.raises(pv.InputError, match=r"unknown posteriors 'diagnal' \(did you mean 'diagonal'\?\)"):
        pv.compare(x, posteriors=["diagnal"], **settings)
    with pytest.raises(pv.InputError, match=r"no setting 'epohcs' \(did you mean 'epochs'\?\)"):
        pv.compare(x, posteriors=["diagonal"], epohcs=3, **settings)
    with pytest.raises(pv.InputError, match=r"^compare\(\) needs posteriors=$"):
        pv.compare(x, **settings)


def test_the_keywords_are_the_settings():
    own = {f.name: f.type for f in dataclasses.fields(ComparisonSettings)}
    training = {f.name for f in dataclasses.fields(pv.TrainingSettings)}
    keywords = set(ComparisonKeywords.__annotations__)
    assert keywords == (set(own) | training) - {"training", "seed", "device"}
    assert keywords <= set(inspect.signature(pv.compare).parameters)


def test_the_callers_state_is_left_alone():
    pyro.param("mine", torch.tensor(1.0))
    before = torch.get_rng_state(), str(np.random.get_state()), random.getstate()  # noqa: NPY002
    pv.compare(torch.randn(40, 2, generator=torch.Generator().manual_seed(0)), epochs=1, **OWN)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert str(np.random.get_state()) == before[1]  # noqa: NPY002
    assert random.getstate() == before[2]
    assert list(pyro.get_param_store()) == ["mine"]


def test_a_failure_keeps_its_type_and_its_traceback(tmp_path):
    class Broken(pv.DiagonalPosterior):
        def forward(self, features):
            raise KeyError("a bug of one's own")

    table = pv.compare(torch.randn(40, 2), epochs=1, out=tmp_path / "out", **OWN | {"posteriors": {"broken": Broken}})
    assert (table["status"][0], table["error"][0]) == ("failed", "KeyError")
    folder = tmp_path / "out" / table["folder"][0]
    assert "in forward" in (folder / "traceback.txt").read_text()
    assert not list(folder.glob("*.png"))
    assert json.loads((folder / "metrics.json").read_text())["error"] == "KeyError"


def test_schedules_are_named_and_stored(tmp_path):
    x = torch.randn(40, 2)
    settings = OWN | {"learning_rate": pv.linear_warmup(0.5), "epochs": 1, "out": tmp_path / "out", "pictures": False}
    table = pv.compare(x, **settings)
    assert "linear_warmup" in table["learning_rate"][0]
    config = json.loads((tmp_path / "out" / table["folder"][0] / "config.json").read_text())
    assert config["training"]["learning_rate"]["values"][:2] == [0.0, 0.2]
    assert pv.compare(x, resume=True, **settings).equals(table)


def test_data_that_a_likelihood_cannot_score_are_refused_before_a_run(tmp_path):
    x = torch.randn(40, 2)
    for settings in ({}, {"test": x[:20].sigmoid().round(), "validation": x[:20]}):
        data = x.sigmoid().round() if settings else x
        with pytest.raises(pv.InputError, match="Bernoulli"):
            pv.compare(data, likelihoods=["bernoulli"], epochs=1, out=tmp_path / "out", **OWN, **settings)
        assert not (tmp_path / "out").exists()


def test_a_picture_that_cannot_be_drawn_loses_no_result(tmp_path, monkeypatch):
    """Every other file is there, and equal to that of a comparison whose pictures can all be drawn."""
    x, settings = torch.randn(40, 2), {"epochs": 1, "seeds": (0,), "progress": False, **OWN}
    whole = pv.compare(x, out=tmp_path / "whole", **settings)

    def fails(*_):
        raise ZeroDivisionError("in the\npicture")

    monkeypatch.setattr(plotting, "reconstructions", fails)
    monkeypatch.setattr(plotting, "intervals", fails)
    with pytest.warns(PictureWarning) as warned:
        table = pv.compare(x, out=tmp_path / "out", **settings)
    folders = table["folder"].tolist()
    lost = [f"{folder}/reconstructions.png" for folder in folders] + ["comparison.png"]
    assert [str(w.message) for w in warned] == [
        f"cannot draw {tmp_path / 'out' / name} (ZeroDivisionError: in the picture); the rest was written"
        for name in lost
    ]
    assert table["status"].tolist() == ["finished"]
    assert table["test_neg_elbo"].equals(whole["test_neg_elbo"])
    files = [
        {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
        for out in (tmp_path / "whole", tmp_path / "out")
    ]
    assert files[0] - files[1] == set(lost)
    assert files[1] < files[0]


@pytest.mark.slow
def test_names_of_any_kind_are_drawn_and_written(tmp_path):
    names = {"$\\frac$": "diagonal", "a$b_{": "isotropic", "\x1b[2J\n\u202e|": "ar1", "$x$": "low-rank"}
    posteriors = {name: POSTERIORS[family] for name, family in names.items()}
    settings = {**OWN, "posteriors": posteriors, "epochs": 1, "seeds": (0,)}
    table = pv.compare(torch.randn(40, 2), out=tmp_path, **settings)
    assert table["status"].tolist() == ["finished"] * 4
    assert (tmp_path / "samples.png").stat().st_size > 10_000
    text = (tmp_path / "comparison.md").read_text()
    assert "\\x1b[2J \\u202e" in text
    assert all(c.isprintable() or c == "\n" for c in text)
    assert len(text.splitlines()) == 2 + 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seeds": (0, -1)}, "a seed must be"),
        ({"epochs": 3, "epochs_by_estimator": 3}, "epochs_by_estimator must be a mapping"),
        ({"epochs": 1, "posteriors": 3}, "the posteriors must be a sequence or a mapping, not 3"),
        ({"epochs": 1, "preprocessing": 3}, "preprocessing must be a Preprocessing, a name or None, not 3"),
        ({"epochs": 1, "threshold": "small"}, "threshold must be a number ≥ 0, not 'small'"),
        ({"epochs": 1, "hidden": "8"}, "hidden must be a sequence"),
    ],
)
def test_values_of_another_kind_are_named(settings, message):
    with pytest.raises(pv.InputError, match=message):
        pv.compare(torch.randn(40, 2), **OWN | {"epochs": 1} | settings)


def counts(num, dispersion, seed=0):
    """Counts (num, 5) of means around 20 that a latent variable moves, and log p(x) of each datum, by quadrature."""
    rng = np.random.default_rng(seed)
    loadings = np.linspace(-0.6, 0.6, 5)
    mean = 20 * np.exp(rng.normal(size=(num, 1)) * loadings)
    scatter = rng.gamma(1 / dispersion, dispersion, size=mean.shape) if dispersion else 1.0
    x = rng.poisson(mean * scatter)
    z, weights = np.polynomial.hermite_e.hermegauss(80)
    at = 20 * np.exp(z[:, None] * loadings)  # (80, 5)
    r = 1 / max(dispersion, 1e-9)
    p = stats.nbinom(r, r / (r + at)) if dispersion else stats.poisson(at)
    log_p = p.logpmf(x[:, None]).sum(-1) + np.log(weights / weights.sum())
    return torch.as_tensor(x).float(), special.logsumexp(log_p, axis=1)


OF_COUNTS = {
    "posteriors": ["diagonal"],
    "estimators": ["analytic"],
    "likelihoods": ["poisson", "negative-binomial"],
    "log_marginal_samples": 25,
    "progress": False,
}


@pytest.mark.slow
@pytest.mark.parametrize(("dispersion", "num_seeds"), [(0.3, 2), (0.0, 3)])
def test_the_likelihood_that_counts_are_of_is_preferred(dispersion, num_seeds):
    """Over-dispersed ones by many nats; of Poisson's the other is no better, for it can only be as good."""
    x, truth = counts(1500, dispersion)
    settings = {"epochs": 60, "seeds": range(num_seeds), "hidden": (32,), "learning_rate": 5e-3, "latent_dims": (1,)}
    settings |= {"validate_every": 10, "log_marginal_samples": 200}
    table = pv.compare(x[:1000], test=x[1000:], **OF_COUNTS | settings)
    advice = table.attrs["recommendation"]
    log_p = table.groupby("likelihood")["test_log_marginal"].mean()
    best = "negative-binomial" if dispersion else "poisson"
    assert best in advice["choice"]
    assert advice["verdict"] == ("better" if dispersion else "no difference")
    # no model is better than the truth, but for the test data's chance: 5 standard errors of a difference
    assert log_p[best] < truth[1000:].mean() + 0.2
    assert log_p[best] > truth[1000:].mean() - 1.0
    if dispersion:
        assert log_p["negative-binomial"] > log_p["poisson"] + 3


def test_counts_are_taken_as_they_are(tmp_path):
    x, _ = counts(60, 0.3)
    x = x * torch.tensor([1, 1, 1, 1, 1000])
    table = pv.compare(x, epochs=1, seeds=(0,), hidden=(8,), out=tmp_path, pictures=False, **OF_COUNTS)
    assert table["status"].tolist() == ["finished"] * 2
    for folder in table["folder"]:
        model, guide = pv.load(tmp_path / folder / "model.safetensors")
        assert isinstance(guide.encoder, pv.nn.LogCounts)
        # 48 of them train, and means start at theirs, but for the random features: within a factor of e
        ratio = model.likelihood(torch.zeros(8)).mean / x.mean(0)
        assert (ratio.log().abs() < 1).all()
    again = pv.compare(x, epochs=1, seeds=(0,), hidden=(8,), out=tmp_path, resume=True, pictures=False, **OF_COUNTS)
    assert again["seconds"].tolist() == table["seconds"].tolist()  # taken over


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preprocessing": "mean"}, "poisson is of counts, which must not be standardised; give preprocessing='none'"),
        ({"preprocessing": pv.datasets.Standardize()}, "poisson is of counts, which must not be standardised"),
        (
            {"likelihoods": ["gaussian", "poisson"]},
            "gaussian gives densities and poisson gives probabilities, which cannot be compared",
        ),
        ({"baselines": ["any"]}, "baselines have densities and these models do not"),
        ({"data": torch.randn(40, 5)}, "a PoissonLikelihood cannot score: they must be counts 0, 1, 2, …"),
        ({"start": "linear"}, "needs a Gaussian likelihood"),
    ],
)
def test_counts_and_densities_are_not_mixed(settings, message, tmp_path):
    settings = {"data": counts(40, 0.3)[0], **OF_COUNTS, "epochs": 1, "out": tmp_path / "out", **settings}
    with pytest.raises(pv.InputError, match=message):
        pv.compare(**settings)
    assert not (tmp_path / "out").exists()


def test_what_is_unreliable_is_so_among_the_scores(tmp_path):
    """Also where nothing but draws from the prior, or chains, showed it."""
    zeros, doubtful = torch.zeros(30).double(), torch.arange(30) < 10
    marginal = LogMarginal(zeros, zeros, 100, zeros + 100, zeros, zeros + 0.1, doubtful=doubtful)
    scores_of(pv.evaluation.ELBOTerms(zeros, zeros, zeros), marginal).to_csv(tmp_path / "scores.csv")
    found = marginal_of(pd.read_csv(tmp_path / "scores.csv"), 100)
    assert found.unreliable.tolist() == doubtful.tolist()
    kept = pv.recommend({"a": [found] * 2, "b": torch.full((2, 30), 0.5)})
    assert kept.limit is Limit.ESTIMATE
    assert not marginal_of(pd.read_csv(tmp_path / "scores.csv").drop(columns="unreliable"), 100).unreliable.any()


@pytest.mark.parametrize("other", ["bernoulli-soft-targets", "bernoulli"])
def test_densities_are_compared_with_nothing_else(other):
    """A cross-entropy won over a density, and so may a density over a probability, of 0 and 1."""
    x = (torch.rand(60, 4) < 0.5).float()
    settings = {"test": x[40:], "epochs": 1, "hidden": (8,), "posteriors": ["diagonal"], "estimators": ["analytic"]}
    with pytest.raises(pv.InputError, match=f"gaussian gives densities and {other} gives .* cannot be compared"):
        pv.compare(x[:40], likelihoods=["gaussian", other], **settings)
    with pytest.raises(pv.InputError, match="baselines have densities and these models do not"):
        pv.compare(x[:40], likelihoods=[other], baselines=["any"], **settings)


def test_guides_of_a_given_model_of_counts_see_logarithms():
    x, _ = counts(60, 0.3)
    model = pv.GenerativeModel(pv.nn.MLP(2, 8), pv.PoissonLikelihood(8, 5, initial_mean=20.0), 2)
    settings = {"posteriors": ["diagonal", "full-covariance"], "estimators": ["analytic"], "hidden": (8,)}
    table = pv.compare(x, model=model, epochs=2, progress=False, **settings)
    assert table["status"].tolist() == ["finished"] * 2
    assert table["test_neg_elbo"].max() < 500


@pytest.mark.slow
def test_encoders_are_trained_again_where_that_is_asked_for(tmp_path):
    """What is saved is the encoder that the validation data prefer; the decoder is the same."""
    train, validation, test = _parts()
    settings = OWN | {"epochs": 3, "validation": validation, "test": test}
    plain = pv.compare(train, out=tmp_path / "plain", **settings)
    table = pv.compare(train, out=tmp_path / "refitted", refit_epochs=1, **settings)
    assert "encoder_gain" not in plain
    assert table["encoder_gain"][0] > 0
    assert table["refit_epochs"][0] == 1
    models = [pv.load(tmp_path / out / plain["folder"][0] / "model.safetensors") for out in ("plain", "refitted")]
    for one, other in zip(models[0][0].parameters(), models[1][0].parameters(), strict=True):
        assert torch.equal(one, other)
    # sampled with other draws
    gain = plain["validation_neg_elbo"][0] - table["validation_neg_elbo"][0]
    assert gain == pytest.approx(table["encoder_gain"][0], rel=0.15)
    assert table["best_epoch"][0] == plain["best_epoch"][0]
    again = pv.compare(train, out=tmp_path / "refitted", refit_epochs=1, resume=True, **settings)
    pd.testing.assert_frame_equal(again, table)
    with pytest.raises(pv.InputError, match="decide whether the new encoder is kept; give validation="):
        pv.compare(train, refit_epochs=1, **OWN, epochs=1)
    with pytest.raises(pv.InputError, match="refit_epochs must be an integer of at least 0, not -1"):
        pv.compare(train, refit_epochs=-1, **settings)


def test_models_are_judged_by_the_refined_elbo_and_guides_by_their_own():
    train, validation, test = _parts()
    settings = ComparisonSettings(
        posteriors=["diagonal"], estimators=["analytic"], likelihoods=["gaussian"], training=pv.TrainingSettings(100)
    )
    data = prepare(train, test, validation, settings)
    plan = plan_of(settings, data, progress=False)
    training = plan.training_of(plan.cells[0])
    assert training.measure == RefinedELBO()
    assert training.validate_every == 13  # eight looks
    model = pv.GenerativeModel(pv.nn.MLP(2, 8), pv.GaussianLikelihood(8, 5), 2)
    for other in (
        dataclasses.replace(plan, model=model),
        dataclasses.replace(plan, data=dataclasses.replace(data, validation=None)),
    ):
        assert other.training_of(other.cells[0]) == settings.training_of("analytic", 0, None)


def test_a_measure_of_ones_own_judges(tmp_path):
    train, validation, test = _parts()
    values = iter([0.0, 1.0, 5.0, 2.0])
    settings = OWN | {"epochs": 3, "validation": validation, "test": test}
    table = pv.compare(train, measure=lambda model, guide, x: next(values), **settings)
    assert (table["best_epoch"][0], table["validation_loss"][0]) == (2, -5.0)
    with pytest.raises(pv.InputError, match="a measure chooses the best epoch by validation data"):
        pv.compare(train, measure=lambda *_: 0.0, epochs=1, **OWN)
