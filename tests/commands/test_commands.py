"""The console command and its subcommands."""

import dataclasses
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import pyrovae as pv
from pyrovae.commands.main import main
from pyrovae.comparison.fit_file import fit_file, make_pair
from pyrovae.comparison.study import HOW_BY_DEFAULT, TRAINED_BY_DEFAULT, Project, load_begun
from pyrovae.datasets import Standardize, TrainingRows, simulated
from pyrovae.linear_gaussian.exact import LinearGaussianVAE
from pyrovae.trained_model import TrainedModel
from tests.waiting import wait_until

LIBRARY = Path(pv.__file__).parent


@pytest.fixture(scope="module")
def spectra(tmp_path_factory):
    x = simulated(120, 12).x.numpy()
    path = tmp_path_factory.mktemp("data") / "spectra.csv"
    pd.DataFrame(x, columns=[f"{900 + 10 * j}" for j in range(12)]).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def fitted(spectra, tmp_path_factory):
    out = tmp_path_factory.mktemp("fits") / "run"
    model = dataclasses.replace(TRAINED_BY_DEFAULT, posterior="full-covariance", likelihood="ar1", hidden=(16,))
    training = dataclasses.replace(HOW_BY_DEFAULT, epochs=5, seed=1)
    return out, fit_file(Project(data=spectra, model=model, training=training), out, progress=False)


def in_this_process(capsys, *arguments):
    """Status, output and errors."""
    try:
        main([str(argument) for argument in arguments])
        status = 0
    except SystemExit as stop:
        status = stop.code
    return status, *capsys.readouterr()


def test_every_subcommand(spectra, tmp_path, capsys):
    out = tmp_path / "run"
    status, said, _ = in_this_process(capsys, "fit", spectra, "--out", out, "--epochs", 2, "--hidden", 16, "--json")
    assert status == 0
    assert said.count("\n") == 1
    assert np.isfinite(json.loads(said)["test_log_marginal"])
    names = {".lock", "config.json", "checkpoints", "history.csv", "metrics.json", "model.json", "model.safetensors"}
    names |= {"channels.json", "training-rows.npy"}
    assert {path.name for path in out.iterdir()} == names
    for name in ("evaluate", "encode", "reconstruct"):
        status, said, errors = in_this_process(capsys, name, out, spectra, "--json")
        assert (status, errors) == (0, "")
        assert len(pd.read_csv(json.loads(said)["out"])) == 120
    status, said, errors = in_this_process(
        capsys, "sample", out, "--num", 7, "--out", tmp_path / "draws.parquet", "--json"
    )
    assert (status, errors) == (0, "")
    assert pd.read_parquet(tmp_path / "draws.parquet").shape == (7, 13)
    status, said, errors = in_this_process(capsys, "resume", out, "--json")  # at its end
    assert status == 0
    status, said, errors = in_this_process(capsys, "--help")
    assert status == 0
    assert "evaluate" in said


def test_compare_and_resume(spectra, tmp_path, capsys, monkeypatch):
    stacks, loss = [], pv.AnalyticELBO.differentiable_loss

    def watched(*arguments, **keywords):
        files = [Path(frame.filename) for frame in traceback.extract_stack()]
        stacks.append([str(file.relative_to(LIBRARY)) for file in files if file.is_relative_to(LIBRARY)])
        return loss(*arguments, **keywords)

    monkeypatch.setattr(pv.AnalyticELBO, "differentiable_loss", watched)
    out, small = tmp_path / "study", ["--epochs", 2, "--seeds", 2, "--posteriors", "diagonal", "--gap-data", 0]
    status, said, errors = in_this_process(
        capsys, "compare", spectra, "--likelihoods", "gaussian", *small, "--out", out, "--json"
    )
    assert (status, errors) == (0, "")
    assert said.count("\n") == 1
    found = json.loads(said)
    assert found["choice"] == "probabilistic PCA"  # two epochs from the linear start gain nothing
    assert found["model"] == str(out / "linear" / "probabilistic-PCA")
    assert found["report"] == str(out / "report.html")
    assert "VAE with equal noise" in (out / "report.html").read_text()
    steps = [["elbo/_reparameterized.py", *stack] for stack in stacks if "training/engines/eager.py" in stack]
    assert len(steps) >= 4
    assert all(len(step) <= 10 and len(set(step)) <= 7 for step in steps)  # from the console to the estimator's loss
    status, said, errors = in_this_process(capsys, "resume", out)
    assert (status, errors) == (0, "")
    assert found["recommendation"] in said
    assert said.rstrip().endswith(f"report: {out / 'report.html'}")
    status, said, errors = in_this_process(
        capsys, "evaluate", found["model"], spectra, "--out", tmp_path / "scores.csv", "--json"
    )
    assert (status, errors) == (0, "")
    assert json.loads(said)["num"] == 120
    assert json.loads(said)["num_trained_on"] == 84  # 70 %


def test_bad_input_to_every_subcommand(fitted, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, nowhere = fitted[0], tmp_path / "nowhere.csv"
    bad = {
        "compare": [nowhere],
        "fit": [nowhere, "--out", tmp_path / "out"],
        "resume": [tmp_path],
        "evaluate": [folder, nowhere],
        "encode": [folder, nowhere],
        "reconstruct": [folder, nowhere],
        "impute": [folder, nowhere],
        "outliers": [folder, nowhere, "--calibration", nowhere],
        "sample": [tmp_path],
    }
    for name, arguments in bad.items():
        status, said, errors = in_this_process(capsys, name, *arguments)
        assert (status, said) == (2, ""), (name, said, errors)
        assert errors.startswith("error: "), (name, errors)
        assert errors.count("\n") == 1, (name, errors)
    assert not list(tmp_path.iterdir())


def test_a_seed_is_no_negative_number(spectra, tmp_path, capsys):
    for arguments in (
        ["compare", spectra, "--seed", -1],
        ["fit", spectra, "--seed", -1],
    ):
        status, said, errors = in_this_process(capsys, *arguments, "--out", tmp_path / "out")
        assert (status, said, errors.count("\n")) == (2, "", 1), errors
        assert "seed" in errors
    assert not (tmp_path / "out").exists()


def test_parquet_without_pyarrow(fitted, spectra, tmp_path, capsys, monkeypatch):
    def missing(self, *arguments, **keywords):
        raise ImportError("no pyarrow")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", missing)
    status, _, errors = in_this_process(capsys, "encode", fitted[0], spectra, "--out", tmp_path / "z.parquet")
    assert status == 2
    assert "pip install 'pyrovae[parquet]'" in errors.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_as_a_process(tmp_path):
    command = [sys.executable, "-m", "pyrovae", "compare", "nowhere.csv"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    first, error = done.stderr.splitlines()
    assert first == "pyrovae compare nowhere.csv: loading PyTorch"
    assert error.startswith("error: ")


COMMANDS = ["compare", "fit", "resume", "evaluate", "encode", "reconstruct", "impute", "outliers", "sample"]


@pytest.mark.parametrize("which", ["--help", "--help-all"])
@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_what_each_option_is(name, which, capsys):
    status, said, _ = in_this_process(capsys, name, which)
    assert status == 0
    lines = [line.strip("│ ") for line in said.splitlines()]
    options = [i for i, line in enumerate(lines) if line.startswith("--")]
    assert len(options) >= 2
    for i in options:  # each has words beside it or below it, not its default alone
        words = re.sub(r"\(.*\)|--[\w-]+|[A-Z|{}\[\]]{3,}", "", " ".join(lines[i : i + 2]))
        assert len(re.findall(r"[A-Za-z]{2,}", words)) >= 2, (lines[i], words)
    assert not re.search(r"default: (None|False|\))", said)
    assert "{None}" not in said
    assert "…" not in said


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_one_screen_and_leaves_nothing_out(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    brief, whole = (in_this_process(capsys, name, which)[1] for which in ("--help", "--help-all"))
    assert len(brief.splitlines()) <= 45
    subcommand = importlib.import_module(f"pyrovae.commands.{name}")
    fields = dataclasses.fields(getattr(subcommand, name.capitalize()))
    accepted = {f"--{f.name.replace(chr(95), chr(45))}" for f in fields}
    accepted -= {"--model", "--data", "--folder"}  # by their place
    assert set(re.findall(r"--[a-z-]+", whole)) >= accepted
    assert ("--help-all" in brief) == (len(brief.splitlines()) < len(whole.splitlines()))


def test_one_spectrum_is_scored(fitted, spectra, tmp_path, capsys):
    folder = fitted[0]
    whole = TrainedModel.load(folder).latents(pv.datasets.read_spectra(spectra).x)
    pd.read_csv(spectra).iloc[[5]].to_csv(tmp_path / "one.csv", index=False)
    for name in ("evaluate", "encode", "reconstruct"):
        out = tmp_path / f"{name}.csv"
        status, _, errors = in_this_process(capsys, name, folder, tmp_path / "one.csv", "--out", out, "--json")
        assert (status, errors) == (0, "")
        assert len(pd.read_csv(out)) == 1
    means = ["mean_1", "mean_2"]
    np.testing.assert_allclose(pd.read_csv(tmp_path / "encode.csv")[means], whole.iloc[[5]][means], rtol=1e-4)
    status, _, errors = in_this_process(capsys, "fit", tmp_path / "one.csv", "--out", tmp_path / "run")
    assert status == 2
    assert "needs at least two" in errors


@pytest.mark.slow
def test_an_interrupted_fit_is_resumed_to_the_same_bits(spectra, tmp_path, capsys):
    options = ["--epochs", "200", "--hidden", "16", "--engine", "eager"]
    assert in_this_process(capsys, "fit", spectra, "--out", tmp_path / "whole", *options)[0] == 0
    for i, number in enumerate((signal.SIGINT, signal.SIGTERM, signal.SIGKILL)):
        out = tmp_path / str(i)
        process = subprocess.Popen(
            [sys.executable, "-m", "pyrovae", "fit", spectra, "--out", out, *options, "--checkpoint-seconds", "0.1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        wait_until(lambda: list(out.glob("checkpoints/checkpoint-*.json")) or process.poll() is not None)  # noqa: B023
        process.send_signal(number)
        _, errors = process.communicate()
        assert process.returncode == (130 if number == signal.SIGINT else -number), errors
        assert not (out / "model.safetensors").exists()
        status, _, errors = in_this_process(capsys, "resume", out)
        assert status == 0, errors
        for name in ("model.safetensors", "model.json"):
            assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_latent_dimension_is_chosen_by_validation(tmp_path, capsys):
    """Three factors far above the noise; the same call finds the same, and another dimension is another training."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 3, generator=generator) @ torch.randn(3, 8, generator=generator)
    data, out = tmp_path / "x.npy", tmp_path / "run"
    np.save(data, (x + 0.1 * torch.randn(300, 8, generator=generator)).numpy())
    how = ["fit", data, "--out", out, "--hidden", 8, "--epochs", 1, "--json"]
    for _ in range(2):
        status, said, _ = in_this_process(capsys, *how, "--latent-dim", "auto")
        assert (status, json.loads(said)["latent_dim"]) == (0, 3)
        assert pv.load(out / "model.safetensors")[0].latent_dim == 3
    status, _, errors = in_this_process(capsys, *how, "--latent-dim", 3)
    assert status == 2
    assert "latent_dim auto, not 3" in errors


def test_an_encoder_is_trained_again(spectra, tmp_path):
    """Begun again in the same folder, it ends with the same bits; the setting belongs to the folder."""
    model = dataclasses.replace(TRAINED_BY_DEFAULT, hidden=(16,), refit_epochs=1)
    project = Project(data=spectra, model=model, training=dataclasses.replace(HOW_BY_DEFAULT, epochs=3))
    metrics = [fit_file(project, tmp_path / "run", progress=False) for _ in range(2)]
    assert metrics[0]["encoder_gain"] >= 0
    assert {k: v for k, v in metrics[0].items() if k != "seconds"} == {
        k: v for k, v in metrics[1].items() if k != "seconds"
    }
    assert load_begun(tmp_path / "run") == project
    other = dataclasses.replace(project, model=dataclasses.replace(model, refit_epochs=2))
    with pytest.raises(pv.InputError, match="a training with refit_epochs 1, not 2"):
        fit_file(other, tmp_path / "run", progress=False)


def test_scores_are_of_the_original_data(fitted, spectra):
    folder, metrics = fitted
    trained = TrainedModel.load(folder)
    x = pv.datasets.read_spectra(spectra).x
    scores = trained.scores(x, num_samples=50)
    y = trained.prepare(x)
    jacobian = trained.preprocessing.log_abs_det_jacobian(x)
    marginal = pv.log_marginal(trained.fitted.model, trained.fitted.guide, y, num_samples=50)
    np.testing.assert_allclose(scores["log_prob"], marginal.per_datum + jacobian)
    np.testing.assert_allclose(scores["elbo"], scores["reconstruction"] - scores["kl"])
    strange = x.clone()
    strange[7] += 3 * torch.randn(12)
    assert trained.scores(strange)["log_prob"].idxmin() == 7
    assert metrics["test_log_marginal"] >= -metrics["test_neg_elbo"] - 0.5


def test_a_fit_starts_at_probabilistic_pca_where_it_can(spectra):
    x = pv.datasets.read_spectra(spectra).x
    y = Standardize("mean").fit(x).transform(x)
    linear = LinearGaussianVAE.fit(y, 2)

    def model_settings(**settings):
        return dataclasses.replace(TRAINED_BY_DEFAULT, hidden=(16,), **settings)

    for settings in ({}, {"start": "linear"}):
        model, guide = make_pair(model_settings(posterior="full-covariance", **settings), y)
        found = pv.log_marginal(model, guide, y[:20], num_samples=50)  # at the exact posterior every draw has log p(x)
        np.testing.assert_allclose(found.per_datum, linear.log_prob(y[:20]), rtol=1e-4, atol=1e-3)
    for settings in ({"start": "random"}, {"posterior": "flow"}, {"missing": "mask"}, {"latent_dim": 12}):
        model, _ = make_pair(model_settings(**settings), y)
        assert isinstance(model.decoder, pv.nn.MLP), settings
    with pytest.raises(TypeError, match="needs a Gaussian likelihood"):
        make_pair(model_settings(likelihood="bernoulli", start="linear"), y)


def test_latents_are_the_posteriors_moments(fitted, spectra):
    trained = TrainedModel.load(fitted[0])
    x = pv.datasets.read_spectra(spectra).x
    table = trained.latents(x)
    with torch.no_grad():
        q = trained.fitted.guide.posterior(trained.prepare(x))
    np.testing.assert_allclose(table[["mean_1", "mean_2"]], q.mean, rtol=1e-5)
    np.testing.assert_allclose(table["covariance_1_2"], q.covariance_matrix[:, 0, 1], rtol=1e-4, atol=1e-7)


def test_reconstructions_and_draws_are_in_the_datas_units(fitted, spectra):
    trained = TrainedModel.load(fitted[0])
    x = pv.datasets.read_spectra(spectra).x
    table = trained.reconstructions(x).drop(columns="row").to_numpy()
    assert np.abs(table - x.numpy()).mean() < 2 * x.std()
    draws = trained.samples(500).drop(columns="row").to_numpy()
    np.testing.assert_allclose(draws.mean(0), x.mean(0), atol=6 * x.std() / 20)


def test_bad_input_is_one_line(fitted, spectra, tmp_path, capsys):
    folder = fitted[0]
    other = tmp_path / "other.csv"
    pd.DataFrame(np.random.default_rng(0).normal(size=(9, 4)), columns=list("1234")).to_csv(other, index=False)
    for arguments, message in (
        (["fit", "nowhere.csv", "--out", tmp_path / "a"], "there is no file nowhere.csv"),
        (["fit", spectra, "--out", tmp_path / "a", "--posterior", "diagnal"], "unknown posterior 'diagnal'"),
        (["fit", spectra, "--out", tmp_path / "a", "--epochs", "0"], "epochs must be a positive integer"),
        (["fit", spectra, "--out", tmp_path / "a", "--likelihood", "bernoulli"], "cannot score"),
        (["fit", spectra, "--out", tmp_path / "a", "--start", "pca"], "unknown start 'pca'"),
        (["fit", spectra, "--out", tmp_path / "a", "--start", "linear", "--posterior", "flow"], "cannot start as"),
        (["fit", spectra, "--out", tmp_path / "a", "--group", "sample"], "there is no column 'sample'"),
        (["compare", spectra, "--out", tmp_path / "a", "--group", "sample"], "there is no column 'sample'"),
        (["fit", spectra, "--out", folder], "posterior full-covariance, not diagonal"),
        (["fit", spectra], "out"),
        (["encode", folder, other], "channels"),
        (["encode", tmp_path, spectra], "there is no model"),
        (["evaluate", folder, spectra, "--out", tmp_path / "a.xlsx"], "must end in .csv or .parquet"),
        (["evaluate", folder, spectra, "--num-samples", "0"], "num_samples must be a positive integer"),
        (["sample", folder, "--num", "0"], "must be a positive integer"),
        (["resume", tmp_path], "holds no training to resume"),
        (["resume", folder, "--workers", "2"], "--workers and --scheduler are for comparisons"),
        (["frobnicate"], "frobnicate"),
    ):
        status, said, errors = in_this_process(capsys, *arguments)
        assert status == 2, (arguments, said, errors)
        assert all(line.startswith(("comparing ", "read ", "guessed: ")) for line in said.splitlines())
        assert errors.count("\n") == 1, errors
        assert errors.startswith("error: ")
        assert message in errors
    assert not (tmp_path / "a").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["other.csv"]


@pytest.mark.slow
@pytest.mark.filterwarnings("default::pyrovae.comparison._data.CountsWarning")
def test_counts_are_noticed_once(tmp_path, capsys):
    rng = np.random.default_rng(0)
    data = tmp_path / "counts.csv"
    pd.DataFrame(rng.poisson(20, size=(60, 5)), columns=[f"gene_{j}" for j in range(5)]).to_csv(data, index=False)
    short, few = ["--epochs", 1, "--hidden", 8], ["--seeds", 2, "--posteriors", "diagonal"]
    for arguments in (
        ["fit", data, "--out", tmp_path / "fit", *short],
        ["compare", data, "--out", tmp_path / "compare", *few, *short, "--likelihoods", "gaussian"],
    ):
        status, _, errors = in_this_process(capsys, *arguments)
        assert status == 0
        (line,) = (line for line in errors.splitlines() if line.startswith("warning: the data are counts"))
        assert re.search(r"whole numbers from \d+ to \d+, and gaussian noise does not suit them", line)
        assert line.endswith("try the likelihoods poisson and negative-binomial, with --preprocessing none")
    options = ["--likelihood", "negative-binomial", "--out", tmp_path / "counts", *short]
    status, _, errors = in_this_process(capsys, "fit", data, *options)
    assert status == 2
    assert "negative-binomial is of counts, which must not be standardised; give --preprocessing none" in errors
    status, said, errors = in_this_process(capsys, "fit", data, *options, "--preprocessing", "none")
    assert status == 0
    assert "counts" not in errors
    out = tmp_path / "both"
    options = ["--likelihoods", "poisson", "negative-binomial", "--preprocessing", "none", "--out", out, *few]
    status, said, errors = in_this_process(capsys, "compare", data, *options, *short)
    assert status == 0, errors
    assert "Linear models were not compared" in said
    assert "warning: the data are counts" not in errors
    for name in ("evaluate", "encode", "reconstruct"):
        assert in_this_process(capsys, name, tmp_path / "counts", data)[0] == 0
    assert in_this_process(capsys, "sample", tmp_path / "counts", "--num", 5, "--out", tmp_path / "s.csv")[0] == 0
    drawn = pd.read_csv(tmp_path / "s.csv").drop(columns="row")
    assert (drawn % 1 == 0).all(axis=None)


def nested(depth, inside=1):
    """A list in a list in a list …"""
    return f"{'[' * depth}{inside}{']' * depth}"


def test_nested_json_is_one_line(fitted, tmp_path, capsys):
    """However deep, and wherever: in what a folder was begun with, a model, a checkpoint."""
    config = json.loads((fitted[0] / "config.json").read_text())
    texts = [nested(depth) for depth in (10, 900, 100_000)]
    for name in ("posterior", "hidden", "epochs", "data"):
        texts += [json.dumps({"project": config["project"] | {name: "!"}}).replace('"!"', nested(d)) for d in (10, 900)]
        texts += [json.dumps({"study": config["project"] | {name: "!"}}).replace('"!"', nested(d)) for d in (10, 900)]
    for i, text in enumerate(texts):
        folder = tmp_path / str(i)
        folder.mkdir()
        (folder / "config.json").write_text(text)
        status, _, errors = in_this_process(capsys, "resume", folder)
        assert (status, errors.count("\n")) == (2, 1), (text[:200], errors)
        assert errors.startswith("error: ")
        assert len(errors) < 500
    whole = tmp_path / "whole"
    shutil.copytree(fitted[0], whole)
    (whole / "model.json").write_text(nested(100_000))
    status, _, errors = in_this_process(capsys, "sample", whole)
    assert (status, errors.count("\n")) == (2, 1)


def test_no_name_reaches_the_terminal_with_control_characters(fitted, tmp_path, capsys):
    evil = "\x1b]0;owned\x07\x1b[2J\u202e\x9b"
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(9, 4)), columns=[evil, "a\x1b[1m", "b\r", "c"])
    data = tmp_path / f"{evil}.csv"
    table.to_csv(data, index=False)
    for arguments in (
        ["fit", data, "--out", tmp_path / "a"],
        ["fit", f"{evil}.csv", "--out", tmp_path / "a"],
        ["evaluate", fitted[0], data],
        ["encode", tmp_path / evil, data],
        ["resume", tmp_path / evil],
        ["fit", data, "--out", tmp_path / "a", "--group", evil],
        ["fit", data, "--out", tmp_path / "a", "--posterior", evil],
        [evil],
        ["fit", f"--{evil}"],
        ["sample", fitted[0], "--num", 2, "--out", tmp_path / f"{evil}-samples.csv"],
    ):
        status, said, errors = in_this_process(capsys, *arguments)
        assert status == (0 if arguments[0] == "sample" else 2)
        assert all(c.isprintable() or c == "\n" for c in said + errors), repr(said + errors)
        assert (said + errors).count("\n") == 1


def test_missing_values_are_data_with_mask(spectra, tmp_path, capsys):
    table = pd.read_csv(spectra)
    table.iloc[3, 2] = np.nan
    table.to_csv(tmp_path / "holes.csv", index=False)
    data, out = tmp_path / "holes.csv", tmp_path / "run"
    status, _, errors = in_this_process(capsys, "fit", data, "--out", out)
    assert status == 2
    assert "missing" in errors
    options = ["--missing", "mask", "--json"]
    assert in_this_process(capsys, "fit", data, "--out", out, "--epochs", 2, "--hidden", 8, *options)[0] == 0
    for name in ("encode", "evaluate", "reconstruct", "impute"):
        status, said, _ = in_this_process(capsys, name, out, data, *options)
        assert status == 0
        table = pd.read_csv(json.loads(said)["out"])
        assert table.drop(columns="pareto_k", errors="ignore").notna().all(axis=None)  # of annealed data there is no k̂


def test_missing_values_are_filled_in(fitted, spectra, tmp_path, capsys):
    whole, model = pd.read_csv(spectra), tmp_path / "linear"
    model.mkdir()
    linear = pv.FactorModel.fit(torch.tensor(whole.to_numpy()), pv.AR1GaussianLikelihood(1, 12), 2)
    pv.save(model / "model.safetensors", linear)
    whole.iloc[3, [2, 5]] = np.nan
    whole.to_csv(tmp_path / "holes.csv", index=False)
    status, said, errors = in_this_process(capsys, "impute", model, tmp_path / "holes.csv", "--level", 0.5)
    assert (status, errors) == (0, "")
    assert "2 missing values of 1 data filled in" in said
    assert "they take the fitted model as known; --refits 20" in said
    filled, intervals = (pd.read_csv(model / f"holes-imputed{end}.csv") for end in ("", "-intervals"))
    mean, deviation = linear.complete(torch.tensor(whole.to_numpy()))
    np.testing.assert_allclose(filled[whole.columns], mean, rtol=1e-5)
    assert [str(channel) for channel in intervals["channel"]] == list(whole.columns[[2, 5]])
    np.testing.assert_allclose(intervals["upper"] - intervals["mean"], 0.67449 * deviation[3, [2, 5]], rtol=1e-3)
    assert intervals["reliable"].all()
    status, said, errors = in_this_process(capsys, "impute", fitted[0], tmp_path / "holes.csv", "--json")
    assert (status, said) == (2, "")
    assert "the model was trained without them; train it with --missing mask" in errors


def test_refits_need_the_data_that_trained_the_model(spectra, tmp_path, capsys):
    whole, model = pd.read_csv(spectra), tmp_path / "linear"
    model.mkdir()
    linear = pv.FactorModel.fit(torch.tensor(whole.to_numpy()), pv.AR1GaussianLikelihood(1, 12), 2)
    pv.save(model / "model.safetensors", linear)
    holes = whole.copy()
    holes.iloc[3, [2, 5]] = np.nan
    holes.to_csv(tmp_path / "holes.csv", index=False)
    arguments = ["impute", model, tmp_path / "holes.csv", "--refits", 3]
    more = tmp_path / "more.csv"  # with rows that did not train it
    pd.concat([whole, whole + 1]).to_csv(more, index=False)
    refused = "--refits needs the data that trained the model"
    assert refused in in_this_process(capsys, *arguments)[2]
    results = []
    for known in (None, TrainingRows.of(torch.tensor(whole.to_numpy()))):  # of version 0.1, and now
        if known is not None:
            known.write(model)
            assert refused in in_this_process(capsys, *arguments)[2]
            assert refused in in_this_process(capsys, *arguments, "--training", tmp_path / "holes.csv")[2]
        status, said, errors = in_this_process(capsys, *arguments, "--training", spectra if known is None else more)
        assert (status, errors) == (0, "")
        assert "allow for the estimation of the model (3 refits)" in said
        results.append(pd.read_csv(model / "holes-imputed-intervals.csv"))
    pd.testing.assert_frame_equal(*results)
    x = torch.tensor(holes.to_numpy())
    lower, _ = linear.intervals(x, torch.tensor(whole.to_numpy()), refits=3)
    np.testing.assert_allclose(results[0]["lower"], lower[3, [2, 5]], rtol=1e-4)


@pytest.mark.filterwarnings("default:half of the values")
def test_outliers_are_found_with_their_channels(fitted, spectra, tmp_path, capsys):
    strange = pd.read_csv(spectra).iloc[:20]
    strange.iloc[7, 4] += 0.5
    strange.to_csv(tmp_path / "new.csv", index=False)
    arguments = ["outliers", fitted[0], tmp_path / "new.csv"]
    how = ["--calibration", spectra, "--alpha", 0.05, "--num-samples", 50]
    status, said, errors = in_this_process(capsys, *arguments, *how, "--out", tmp_path / "found.csv", "--json")
    assert (status, errors) == (0, "")
    found, table = json.loads(said), pd.read_csv(tmp_path / "found.csv")
    assert found["num_held_out"] == 36  # of 120, 84 trained the model
    assert "7" in found["outliers"]
    assert table["p_value"].min() == table["p_value"][7] == pytest.approx(1 / 37)
    assert table["channels"][7].startswith("940 (")
    assert (table["outlier"] == (table["p_value"] <= 0.05)).all()
    assert not table["trained"][7]  # changed since
    assert 0 < table["trained"].sum() < 20
    how = ["--alpha", 0.05, "--num-samples", 50, "--out", tmp_path / "found.csv", "--json"]
    status, said, errors = in_this_process(capsys, "outliers", fitted[0], spectra, *how)  # the file's own held-out data
    assert (status, errors, json.loads(said)["num_held_out"]) == (0, "", 36)
    _, said, _ = in_this_process(capsys, "outliers", fitted[0], spectra, *how[:-1])
    assert "of the 36 held-out data at most 1 can be outliers at this alpha" in said
    (strange + 1).to_csv(tmp_path / "others.csv", index=False)
    status, said, errors = in_this_process(capsys, "outliers", fitted[0], tmp_path / "others.csv", "--json")
    assert (status, said) == (2, "")
    assert "give --calibration FILE with good data" in errors
    for wrong, message in (
        ([], "needs at least 100 data that did not train the model"),
        (["--calibration", spectra, "--alpha", 0.01], "needs at least 99 data that did not train the model"),
        (["--calibration", spectra, "--alpha", 1.5], "--alpha must be between 0 and 1"),
    ):
        status, said, errors = in_this_process(capsys, *arguments, *wrong, "--json")
        assert (status, said) == (2, "")
        assert message in errors


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="a folder that nobody can write to")
def test_a_folder_that_cannot_be_written(fitted, spectra, capsys):
    for arguments in (["fit", spectra, "--out", "/proc/run"], ["sample", fitted[0], "--out", "/proc/run/a.csv"]):
        status, _, errors = in_this_process(capsys, *arguments)
        assert status == 2
        assert "cannot write to the output folder /proc/run" in errors


def test_an_interruption_names_the_command_that_resumes(spectra, tmp_path, capsys, monkeypatch):
    from pyrovae.comparison import fit_file as module

    def interrupted(*arguments, **keywords):
        raise KeyboardInterrupt

    out = tmp_path / "a run"
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # the handler of this process stays
    monkeypatch.setattr(module, "fit_file", interrupted)
    status, _, errors = in_this_process(capsys, "fit", spectra, "--out", out)
    assert (status, errors) == (130, "interrupted\n")  # nothing to resume yet
    out.mkdir()
    (out / "config.json").write_text("{}")
    status, _, errors = in_this_process(capsys, "fit", spectra, "--out", out)
    assert (status, errors) == (130, f"interrupted; to resume: pyrovae resume '{out}'\n")


def test_results_do_not_replace_the_data(fitted, spectra, tmp_path, capsys):
    data, content = tmp_path / "x.csv", spectra.read_bytes()
    data.write_bytes(content)
    (tmp_path / "same.csv").symlink_to(data)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "x.csv").write_bytes(content)
    for given, out, says in (
        (data, data, "would replace the data"),
        (data, tmp_path / "same.csv", "would replace the data"),
        (folder, folder / "scores.csv", "would lie in the data"),
    ):
        how = ["--samples", "rows"] if given == folder else []
        status, _, said = in_this_process(capsys, "encode", fitted[0], given, "--out", out, *how)
        assert status == 2
        assert says in said
    assert data.read_bytes() == content
    assert len(list(folder.iterdir())) == 1


def test_a_tilde_after_an_option_is_the_home_folder(fitted, spectra, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert in_this_process(capsys, "encode", fitted[0], spectra, "--out=~/a.csv")[0] == 0
    assert in_this_process(capsys, "encode", fitted[0], "~/a.csv", "--dry-run")[0] == 2  # found, and of other channels
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv"}


@pytest.mark.filterwarnings("default:half of the values")
@pytest.mark.parametrize("factor", [1, 100, 0.01])
def test_data_in_other_units_are_warned_of(factor, fitted, tmp_path, capsys):
    x = 50 + 5 * simulated(120, 12).x
    frame = pd.DataFrame(x.numpy(), columns=[f"{900 + 10 * j}" for j in range(12)])
    frame.to_csv(tmp_path / "x.csv", index=False)
    (factor * frame).to_csv(tmp_path / "new.csv", index=False)
    assert (
        in_this_process(capsys, "fit", tmp_path / "x.csv", "--out", tmp_path / "m", "--epochs", 1, "--hidden", 8)[0]
        == 0
    )
    status, _, said = in_this_process(capsys, "encode", tmp_path / "m", tmp_path / "new.csv")
    assert status == 0
    assert ("warning: half of the values in" in said) == (factor != 1)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("command", ["evaluate", "encode", "reconstruct", "outliers", "impute", "sample"])
def test_a_file_of_the_user_is_not_replaced(command, suffix, fitted, spectra, tmp_path, capsys):
    out, arguments = tmp_path / f"mine{suffix}", [] if command == "sample" else [spectra]
    alpha = ["--alpha", "0.5"] if command == "outliers" else []
    mine = pd.DataFrame({"row": [1, 2], "price": [3, 4]})
    mine.to_csv(out, index=False) if suffix == ".csv" else mine.to_parquet(out, index=False)
    before = out.read_bytes()
    status, said, error = in_this_process(capsys, command, fitted[0], *arguments, "--out", out, *alpha)
    assert (status, out.read_bytes()) == (2, before)
    assert error.splitlines()[-1].startswith(
        f"error: --out {out} would replace a file that is no result of this command"
    )
    out.write_bytes(b"no table\n\xff\xfe")
    assert in_this_process(capsys, command, fitted[0], *arguments, "--out", out, *alpha)[0] == 2
    assert out.read_bytes() == b"no table\n\xff\xfe"
    out.unlink()
    for _ in range(2):  # its own result is replaced
        assert in_this_process(capsys, command, fitted[0], *arguments, "--out", out, *alpha)[0] == 0


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["fit", "--epochs", "1"], "metrics.json"),
        (["fit", "--epochs", "1"], "model.safetensors"),
        (["fit", "--epochs", "1"], "config.json"),
        (["compare", "--budget", "20s"], "report.html"),
        (["compare", "--budget", "20s"], "runs.csv"),
        (["compare", "--budget", "20s"], "config.json"),
    ],
)
def test_files_of_the_user_in_a_folder_of_results_are_not_replaced(command, name, spectra, tmp_path, capsys):
    data = Path(shutil.copy(spectra, tmp_path))
    (tmp_path / name).write_text('{"mine": 1}')
    before = sorted(path.name for path in tmp_path.iterdir())
    status, _, error = in_this_process(capsys, command[0], data, "--out", tmp_path, *command[1:])
    assert (status, (tmp_path / name).read_text()) == (2, '{"mine": 1}')
    assert str(tmp_path / name) in error.splitlines()[-1]
    assert "give another folder" in error.splitlines()[-1]
    assert {path.name for path in tmp_path.iterdir()} - {".lock"} == set(before)
