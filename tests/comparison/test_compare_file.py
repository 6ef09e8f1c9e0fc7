"""pyrovae compare: the right answer on simulated spectra, a study gone on with, and its report."""

import dataclasses
import functools
import gzip
import json
import shlex
import time
from contextlib import nullcontext
from html import unescape
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import pyrovae as pv
from pyrovae.commands.compare import Compare, seconds_of, summary_of
from pyrovae.commands.console import parse
from pyrovae.commands.main import main
from pyrovae.comparison._budget import (
    GAP_DATA,
    Counts,
    Seconds,
    counts_within,
    epochs_within,
    measure,
    refit_epochs_within,
)
from pyrovae.comparison._data import are_counts, prepare
from pyrovae.comparison._linear import folder_of
from pyrovae.comparison.compare import plan_of
from pyrovae.comparison.compare_file import _LinearFits, compare_file
from pyrovae.comparison.notes import NoteKind
from pyrovae.comparison.report import command_of, write_report
from pyrovae.comparison.settings import Execution, ModelSettings
from pyrovae.comparison.study import COMPARED_BY_DEFAULT, Project, Study, load_begun
from pyrovae.datasets import ReadingSettings, Spectra, read_data, split_spectra
from pyrovae.evaluation.estimate import Step
from pyrovae.files import locked_folder
from pyrovae.linear_gaussian.keys import (
    FACTOR_ANALYSIS,
    PCA_BY_VALIDATION,
    PROBABILISTIC_PCA,
    SHRUNK_GAUSSIAN,
    linear_with,
)
from pyrovae.trained_model import TrainedModel


def make_study(data=None, *, reading=None, learning_rate=3e-3, validate_every=1, **options):
    own = {f.name: options.pop(f.name) for f in dataclasses.fields(Study) if f.name in options}
    training = pv.TrainingSettings(epochs=500, learning_rate=learning_rate, validate_every=validate_every)
    compared = dataclasses.replace(COMPARED_BY_DEFAULT, training=training, **options)
    return Study(data=data, settings=compared, reading=reading or ReadingSettings(), **own)


SETTINGS = {
    "posteriors": ("full-covariance",),
    "likelihoods": ("gaussian", "ar1"),
    "seeds": (0, 2),
    "epochs": 20,
    "hidden": (32,),
    "log_marginal_samples": 50,
    "learning_rate": 1e-2,
}
STUDY = make_study(**SETTINGS, validate_every=10)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("studies") / "study"
    return compare_file(STUDY, out, progress=False), out


def test_ar1_noise_is_found(found):
    result, _ = found
    assert result.recommendation.verdict == "better"
    table = result.table.set_index("model")
    by_noise = {noise: table.loc[f"full-covariance posterior, {noise} likelihood"] for noise in ("gaussian", "ar1")}
    assert by_noise["ar1"]["low"] > by_noise["gaussian"]["high"] + 0.1
    assert table.loc["linear, ar1", "low"] > table.loc["factor analysis", "high"] + 0.1
    baselines = ["probabilistic PCA", "factor analysis", "linear, ar1"]
    baselines += ["probabilistic PCA, d by validation", "Gaussian, shrunk covariance"]
    assert list(table.index[:5]) == baselines
    assert (table["low"] <= table["gain"]).all()
    assert (table["gain"] <= table["high"]).all()
    kinds = {note.kind for note in result.notes}
    assert NoteKind.RESOLUTION in kinds
    assert not kinds & {NoteKind.COPIES, NoteKind.ENOUGH_DATA, NoteKind.GAPS_LEFT_OUT, NoteKind.NO_LINEAR_MODELS}
    own = table.iloc[5:]
    # full covariance holds the linear model's posterior, and its encoder starts as that: neither costs anything yet
    assert (own["approximation_gap"] < 0.5).all()
    assert (own["amortization_gap"].abs() < 0.5).all()
    assert table.iloc[:5][["approximation_gap", "seconds"]].isna().all(axis=None)


def test_an_interrupted_study_is_resumed(found, tmp_path):
    result, out = found
    whole = (out / "comparison.csv").read_text()
    kept = next((out / "runs").glob("*-gaussian-*-seed2")) / "metrics.json"
    before_kept = kept.stat().st_mtime_ns
    lost = next((out / "runs").glob("*-ar1-*-seed2"))
    (lost / "metrics.json").unlink()  # as if it had been interrupted there
    begun = tmp_path / "begun"  # and one that was interrupted before its first run
    begun.mkdir()
    (begun / "config.json").write_bytes((out / "config.json").read_bytes())
    assert load_begun(out).to_dict() == load_begun(begun).to_dict() == STUDY.to_dict()
    with pytest.raises(pv.InputError, match="holds no training to resume"):
        load_begun(tmp_path)
    again = compare_file(load_begun(out), out, progress=False)
    assert kept.stat().st_mtime_ns == before_kept  # that run was not made again
    values = pd.read_csv(out / "comparison.csv", dtype={"note": str}).drop(columns="seconds")
    before = result.table.drop(columns="seconds")
    pd.testing.assert_frame_equal(values.fillna({"note": ""}), before.reset_index(drop=True), check_dtype=False)
    assert again.recommendation.text == result.recommendation.text
    assert whole.splitlines()[0] == ",".join(result.table.columns)


def test_a_study_of_version_0_1_is_read():
    old = {
        "data": None, "posteriors": ["full-covariance"], "likelihoods": ["gaussian", "ar1"], "estimators": ["analytic"],
        "latent_dim": 2, "seeds": 2, "epochs": 20, "budget": 600.0, "batch_size": 32, "learning_rate": 0.01,
        "hidden": [32], "samples": 50, "threshold": 0.1, "channels": None, "group": None, "missing": "error",
    }  # fmt: skip
    assert Study.from_dict(old).to_dict() == make_study(**SETTINGS).to_dict()


def test_a_folder_of_another_study_or_in_use_is_refused(found):
    _, out = found
    settings = dataclasses.replace(STUDY.settings, seeds=(0, 2, 4))
    with pytest.raises(ValueError, match="holds a study with seeds 0, 2, not 0, 2, 4; give another folder"):
        compare_file(dataclasses.replace(STUDY, settings=settings), out, progress=False)
    with locked_folder(out), pytest.raises(ValueError, match="another run is writing to"):
        compare_file(STUDY, out, progress=False)


def test_the_command_is_the_study(tmp_path):
    study = make_study(
        tmp_path / "my data.csv",
        budget=90.0,
        reading=ReadingSettings(missing="mask", drop_constant=True),
        likelihoods=("gaussian", "low-rank"),
        seeds=(0, 2, 4, 6),
        threshold=0.2,
        latent_dims=(3,),
        missing="mask",
        learning_rate=1e-3,
    )
    rarely = make_study(tmp_path / "x.csv", validate_every=3)
    for told in (
        study,
        rarely,
        dataclasses.replace(study, epochs=7, gap_data=0, max_test=50, linear_only=("low-rank",)),
    ):
        assert parse(Compare, shlex.split(command_of(told))[2:]).study().to_dict() == told.to_dict()
    auto = make_study(tmp_path / "x.csv", latent_dims="auto")
    assert "--latent-dim auto" in command_of(auto)
    assert parse(Compare, shlex.split(command_of(auto))[2:]).study().to_dict() == auto.to_dict()


def test_a_budget_is_turned_into_epochs(tmp_path):
    most = Counts(500, GAP_DATA, 200, 1000)
    # of 60 s each seed's evaluation takes 5, and the gaps 10: 0.65 of the 40 that are left are for training
    assert epochs_within(Seconds(epoch=0.5, evaluation=5.0, gap=10 / GAP_DATA), 2, 60.0, most) == (26, GAP_DATA)
    # gaps that take too large a share are left out
    assert epochs_within(Seconds(epoch=0.5, evaluation=5.0, gap=1.0), 2, 60.0, most) == (32, 0)
    assert epochs_within(Seconds(epoch=500.0, evaluation=5.0, gap=1.0), 2, 60.0, most) == (0, 0)
    assert epochs_within(Seconds(epoch=1e-3, evaluation=5.0, gap=1.0), 2, 60.0, most) == (500, 0)


def test_scores_and_slow_likelihoods_yield_to_training():
    most = Counts(500, GAP_DATA, 200, 1000)
    fast, slow = Seconds(epoch=0.1, evaluation=1.0, gap=0.01), Seconds(epoch=9.0, evaluation=4.0, gap=1.0)
    # 18 of 60 s are for scores: 2 seeds take 2 s
    assert counts_within({"gaussian": fast}, 2, 60.0, most) == Counts(187, GAP_DATA, 200, 1000)
    # 2 seeds of both would take 10, and training 91 an epoch in what is left
    assert counts_within({"gaussian": fast, "full": slow}, 2, 60.0, most).linear_only == ("full",)
    assert counts_within({"full": slow}, 2, 60.0, most).linear_only == ()
    # a tenth of the time: first a fifth of the data; the fewest draws take 5/8 of the rest; then 160 data
    found = counts_within({"gaussian": Seconds(0.1, 90.0, 1.0)}, 2, 60.0, most)
    assert (found.max_test, found.log_marginal_samples) == (160, 50)
    # three twentieths: a fifth of the data, and half of the draws, which take 3/4 of the rest
    found = counts_within({"gaussian": Seconds(0.1, 60.0, 1.0)}, 2, 60.0, most)
    assert (found.max_test, found.log_marginal_samples) == (200, 100)
    found = counts_within({"gaussian": Seconds(0.1, 1e5, 1.0)}, 2, 60.0, most)
    assert (found.epochs, found.max_test, found.log_marginal_samples) == (1, 100, 50)
    # without a VAE all test data are scored; the last likelihood stays where there is time for an epoch
    found = counts_within({"gaussian": Seconds(0.1, 1e5, 1.0)}, 2, 60.0, most, without_vaes=True)
    assert (found.linear_only, found.max_test) == (("gaussian",), 1000)
    assert counts_within({"full": slow}, 2, 60.0, most, without_vaes=True).linear_only == ()


def test_a_linear_model_is_left_out_if_it_may_not_end_in_time(monkeypatch):
    """It is expected to take as long as the slowest so far."""
    ticks = iter([0.0, 3.0, 3.0, 5.0, 5.5])  # the first takes 3 s, the second 2
    monkeypatch.setattr("pyrovae.comparison.compare_file.time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    fits = _LinearFits(8.0, ["linear, ar1"])
    keys = [linear_with(name) for name in ("gaussian", "ar1", "gaussian-per-dimension", "low-rank")]
    assert [fits(key, lambda: 7) for key in keys] == [7, None, 7, None]  # 3 + 3, but 5.5 + 3 > 8
    assert fits.left_out == ["linear, ar1", "linear, low-rank"]


def test_a_linear_model_that_does_not_end_in_time_is_left_out(monkeypatch):
    monkeypatch.setattr("pyrovae.comparison.compare_file.time", SimpleNamespace(perf_counter=lambda: 0.0))
    fits, x = _LinearFits(1e-9, []), STUDY.read().x[:50, :6]  # a time that is over by the minimiser's own clock
    assert fits(linear_with("ar1"), lambda: pv.FactorModel.fit(x, pv.AR1GaussianLikelihood(1, 6), 2)) is None
    assert fits.left_out == ["linear, ar1"]


def test_a_budget_may_leave_linear_models_alone(tmp_path):
    """A noise without the linear model to start as has no VAE; where no VAE is left, linear models are compared."""
    small = {"posteriors": ("diagonal",), "seeds": (0, 2), "hidden": (8,), "log_marginal_samples": 25}
    study = make_study(epochs=1, linear_only=("gaussian",), linear_left_out=("linear, ar1",), **small)
    study = dataclasses.replace(study, settings=dataclasses.replace(study.settings, likelihoods=("gaussian", "ar1")))
    found = compare_file(study, tmp_path / "study", progress=False)
    keys = (PROBABILISTIC_PCA, FACTOR_ANALYSIS, PCA_BY_VALIDATION, SHRUNK_GAUSSIAN)
    assert found.table["model"].tolist() == [str(key) for key in keys]
    assert TrainedModel.load(tmp_path / "study" / found.model).scores(found.test)["log_prob"].notna().all()
    kinds = {note.kind: note.names for note in found.notes}
    assert kinds[NoteKind.LINEAR_ONLY] == ("gaussian", "ar1")
    assert NoteKind.GAPS_LEFT_OUT not in kinds
    assert "trainings of each VAE" not in write_report(found, tmp_path / "study").read_text()
    again = compare_file(load_begun(tmp_path / "study"), tmp_path / "study", progress=False)
    assert again.recommendation.text == found.recommendation.text


def test_a_budget_that_leaves_no_linear_model_to_start_from(tmp_path):
    study = make_study(budget=30.0, likelihoods=("ar1",), seeds=(0, 2), hidden=(8,), linear_left_out=("linear, ar1",))
    found = compare_file(study, tmp_path / "study", progress=False)
    assert str(PROBABILISTIC_PCA) in found.table["model"].tolist()
    kinds = {note.kind: note.names for note in found.notes}
    assert kinds[NoteKind.LINEAR_ONLY] == ("ar1",)
    assert kinds[NoteKind.LINEAR_LEFT_OUT] == ("linear, ar1",)


def test_epochs_are_fixed_when_a_study_is_begun(tmp_path):
    small = {"posteriors": ("diagonal",), "likelihoods": ("gaussian",), "seeds": (0, 2), "hidden": (8,)}
    left_out = ("Gaussian, shrunk covariance",)
    study = make_study(epochs=2, gap_data=0, log_marginal_samples=25, linear_left_out=left_out, **small)
    found = compare_file(study, tmp_path / "study", progress=False)
    assert found.epochs == 2
    assert not set(left_out) & set(found.table["model"])
    assert "no time for some linear models: Gaussian" in next(n.text for n in found.notes if n.names == left_out)
    path = tmp_path / "study" / "config.json"
    config = json.loads(path.read_text())
    assert (config["epochs"], config["gap_data"]) == (2, 0)
    path.write_text(json.dumps(config | {"epochs": 3, "validate_every": 2, "linear_left_out": []}))
    with pytest.warns(UserWarning, match="2 runs in .* with the new settings: .* has epochs = 2, not 3"):
        found = compare_file(study, tmp_path / "study", progress=False)
    assert found.epochs == 3
    assert set(left_out) < set(found.table["model"])
    for settings in (found.plan.settings, found.study.settings):
        assert settings.training.validate_every == 2


def test_the_budget_counts_on_each_worker(tmp_path, monkeypatch):
    given = []

    class StopError(Exception):
        pass

    def counts_within(needed, num_seeds, seconds, most, *, without_vaes):
        given.append(seconds)
        raise StopError

    monkeypatch.setattr("pyrovae.comparison.compare_file.measure", lambda *_: {})
    monkeypatch.setattr("pyrovae.comparison.compare_file.counts_within", counts_within)
    study = make_study(posteriors=("diagonal",), likelihoods=("gaussian",), seeds=(0, 2), hidden=(8,), budget=1e6)
    for workers in (1, 2, 5):
        with pytest.raises(StopError):
            compare_file(study, tmp_path / str(workers), execution=Execution(workers), progress=False)
    assert given[1] / given[0] == pytest.approx(2, rel=1e-3)
    assert given[2] / given[0] == pytest.approx(2, rel=1e-3)  # there are two runs


def test_unknown_names_of_linear_models_are_refused():
    with pytest.raises(
        pv.InputError, match=r"unknown linear model 'linear, ar-1' .did you mean 'linear, ar1'.*; linear, "
    ):
        make_study(linear_left_out=("linear, ar-1",))


def test_what_a_study_takes_is_measured():
    settings = dataclasses.replace(STUDY.settings, likelihoods=("gaussian",))
    x = STUDY.read().x
    plan = plan_of(settings, prepare(x, x[:50], x[:50], settings), progress=False)
    begin = time.perf_counter()
    found = measure(plan, plan.cells[:1])["gaussian"]
    took = time.perf_counter() - begin
    assert 0 < found.epoch < took
    assert 0 < found.gap < took
    assert found.evaluation > 0


def test_data_that_the_guide_scores_count_as_refined(monkeypatch):
    """At the start they are easy; after training nearly all of them need a proposal of their own."""
    settings = dataclasses.replace(STUDY.settings, likelihoods=("gaussian",))
    x = STUDY.read().x
    plan, found = plan_of(settings, prepare(x, x[:50], x[:50], settings), progress=False), {}
    clock = SimpleNamespace(now=0.0)  # refining of 32 data takes half a second, all else no time
    monkeypatch.setattr("pyrovae.comparison._budget.time", SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(
        "pyrovae.comparison._budget.loss_of_encoder", lambda *_: vars(clock).update(now=clock.now + 0.5)
    )
    for step in (Step.GUIDE, Step.REFINED):
        scored = SimpleNamespace(steps=(step,) * 50)
        monkeypatch.setattr("pyrovae.comparison._budget.score", lambda *_, scored=scored: (None, scored))
        found[step] = measure(plan, plan.cells[:1])["gaussian"].evaluation
    assert found == {Step.GUIDE: pytest.approx(0.5 * (32 + 50) / 32), Step.REFINED: pytest.approx(0.5)}


def test_a_likelihood_that_no_time_allows_is_not_measured_further(monkeypatch):
    """Its epoch alone takes longer than all measuring may."""
    settings = dataclasses.replace(STUDY.settings, likelihoods=("gaussian", "ar1"))
    x = STUDY.read().x
    plan = plan_of(settings, prepare(x, x[:50], x[:50], settings), progress=False)
    scored = []
    monkeypatch.setattr("pyrovae.comparison._budget.score", lambda model, *_: scored.append(type(model.likelihood)))
    monkeypatch.setattr("pyrovae.comparison._budget.loss_of_encoder", lambda *_: None)
    cells = [cell for cell in plan.cells if cell.seed == settings.seeds[0]]
    found = measure(plan, cells, budget=1e-9)  # over before a step is done
    assert not scored
    assert found["ar1"].epoch > found["gaussian"].epoch > 1e-4  # there is no time to look at the second
    needed = {"gaussian": Seconds(0.01, 0.1), "ar1": Seconds(90.0, 90.0)}  # an epoch of 90 s, scores guessed
    assert counts_within(needed, 2, 60.0, Counts(500, 0, 200, 50)).linear_only == ("ar1",)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200)])
def test_durations(text, seconds):
    assert seconds_of(text) == seconds


def test_bad_input_is_one_line(tmp_path, capsys):
    out, few = ["--out", str(tmp_path / "a")], tmp_path / "few.npy"
    np.save(few, np.random.default_rng(0).standard_normal((7, 3)))
    for arguments, message in (
        (["compare", str(few), "--epochs", "1", *out], "7 data are too few to compare models: the parts have 5, 1, 1"),
        (["compare", *out], "either a file of data or --demo"),
        (["compare", "--demo", "--budget", "soon", *out], "--budget must be a time"),
        (["compare", "--demo", "--seeds", "1", *out], "seeds must be at least 2"),
        (["compare", "--demo", "--posteriors", "diagnal", *out], "unknown posteriors 'diagnal'"),
        (["compare", "--demo", "--epochs", "0", *out], "epochs must be a positive integer"),
        (["compare", "nowhere.csv", *out], "there is no file nowhere.csv"),
        (["compare", "--demo", "--latent-dim", "0", *out], "latent_dim must be"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        said, errors = capsys.readouterr()
        assert stop.value.code == 2
        assert (said == "") == (str(few) not in arguments)  # what is read is shown
        assert errors.count("\n") == 1
        assert errors.startswith("error: ")
        assert message in errors
    assert not (tmp_path / "a").exists()


def test_a_channel_that_varies_in_test_data_alone(tmp_path, capsys):
    """It is constant where a model is trained, though not in the file."""
    x, path, out = np.random.default_rng(0).standard_normal((60, 4)), tmp_path / "x.csv", str(tmp_path / "out")
    split = split_spectra(Spectra(torch.tensor(x), torch.arange(4.0), "", pd.DataFrame(index=range(60))))
    x[:, 2] = np.where(x[:, 0] == split.test.x[0, 0].item(), 2.0, 1.0)
    np.savetxt(path, x, delimiter=",", header="900,901,902,903", comments="")
    how = ["compare", str(path), "--out", out, "--epochs", "1", "--seeds", "2", "--linear-only", "gaussian"]
    how += ["--likelihoods", "gaussian"]
    with pytest.raises(SystemExit):
        main(how)
    assert "channel 902 is constant in all training data; give --drop-constant" in capsys.readouterr().err
    main([*how, "--drop-constant"])
    assert json.loads((tmp_path / "out" / "recommendation.json").read_text())["choice"]


def test_numbers_that_a_likelihood_cannot_score_are_refused_before_a_run(tmp_path, capsys):
    np.save(tmp_path / "x.npy", torch.randn(60, 4).numpy())
    with pytest.raises(SystemExit) as stop:
        main(["compare", str(tmp_path / "x.npy"), "--likelihoods", "bernoulli", "--out", str(tmp_path / "study")])
    errors = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2
    assert [line for line in errors if line.startswith("error: ")] == errors[-1:]
    assert "Bernoulli" in errors[-1]
    assert not (tmp_path / "study" / "runs").exists()


@pytest.mark.slow
def test_no_difference_is_found_where_there_is_none(tmp_path):
    """Of linear-Gaussian data along the principal axes the posterior is diagonal: a full covariance gains nothing."""
    g = torch.Generator().manual_seed(0)
    loadings = torch.linalg.qr(torch.randn(6, 2, generator=g))[0] * torch.tensor([2.0, 1.0])
    x = torch.randn(1500, 2, generator=g) @ loadings.T + 0.5 * torch.randn(1500, 6, generator=g)
    np.save(tmp_path / "linear.npy", x.numpy())
    study = make_study(tmp_path / "linear.npy", likelihoods=("gaussian",), epochs=20, hidden=(32,), gap_data=0)
    advice = compare_file(study, tmp_path / "study", progress=False).recommendation
    assert advice.verdict == "no difference"
    assert advice.choice == "probabilistic PCA"
    assert advice.text.startswith("No difference within noise, take probabilistic PCA")


def write_factors(path, seed=0):
    """Noise that differs by channel, where VAEs have one scale for all: factor analysis is the right model."""
    g = torch.Generator().manual_seed(seed)
    noise = torch.tensor([0.1, 1.0, 0.1, 1.0, 0.1, 1.0]) * torch.randn(600, 6, generator=g)
    np.save(path, (torch.randn(600, 2, generator=g) @ torch.randn(2, 6, generator=g) + noise).numpy())


def write_curve(path):
    """A curve in the plane with noise along more channels: what only networks can follow."""
    g = torch.Generator().manual_seed(0)
    t = torch.randn(800, generator=g)
    x = torch.stack([t, t.square(), (2 * t).sin(), (2 * t).cos()], dim=1)
    np.save(path, (x + 0.2 * torch.randn(800, 4, generator=g)).numpy())


def write_few(path):
    """Few data of channels in different units, correlated as nothing simple: the covariance itself, shrunk, is best."""
    g = torch.Generator().manual_seed(1)
    mixing = torch.randn(60, 60, generator=g) * torch.logspace(-1, 1, 60)
    np.save(path, (torch.randn(170, 60, generator=g) @ mixing).numpy())


@pytest.mark.parametrize(
    ("write", "winner", "settings"),
    [
        pytest.param(write_factors, "factor analysis", {"epochs": 2}, marks=pytest.mark.slow),
        (write_few, "Gaussian, shrunk covariance", {"epochs": 2}),
        pytest.param(
            write_curve,
            "diagonal posterior, gaussian likelihood",
            {"epochs": 25, "learning_rate": 1e-2, "validate_every": 5},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_all_that_is_said_names_the_winner_and_it_can_be_had(tmp_path, capsys, write, winner, settings):
    write(tmp_path / "x.npy")
    how = {"posteriors": ("diagonal",), "likelihoods": ("gaussian",), "seeds": (0, 2, 4), "log_marginal_samples": 50}
    study = make_study(tmp_path / "x.npy", gap_data=0, **how, hidden=(32, 32), **settings)
    out = tmp_path / "study"
    found = compare_file(study, out, progress=False)
    report, said = write_report(found, out).read_text(), json.loads((out / "recommendation.json").read_text())
    assert found.recommendation.choice == said["choice"] == winner
    assert winner in found.recommendation.text
    assert found.words[winner] in (out / "comparison.md").read_text()
    folder = str(out / found.model)
    assert summary_of(found, out)["model"] == folder
    assert f"pyrovae evaluate {folder} " in unescape(report)
    np.save(tmp_path / "test.npy", found.test.numpy())
    main(["evaluate", folder, str(tmp_path / "test.npy"), "--out", str(tmp_path / "scores.csv"), "--num-samples", "50"])
    scores = pd.read_csv(tmp_path / "scores.csv")["log_prob"]
    table = found.table.set_index("model")
    assert table["log_prob"].max() < table.loc[winner, "log_prob"] + 0.1
    first = (
        [table.loc[winner, "log_prob"]]
        if winner in {b.name for b in found.baselines}
        else found.runs["test_log_marginal"]
    )
    assert scores.mean() == pytest.approx(first[0], abs=0.01)
    main(["sample", folder, "--num", "4"])
    capsys.readouterr()


def test_the_linear_models_on_disk_are_those_of_the_table(tmp_path):
    write_factors(tmp_path / "x.npy")
    how = {"posteriors": ("diagonal",), "likelihoods": ("gaussian", "ar1"), "seeds": (0, 2), "hidden": (8,)}
    study = make_study(
        tmp_path / "x.npy", epochs=1, gap_data=0, log_marginal_samples=10, preprocessing="channel", **how
    )
    found = compare_file(study, tmp_path / "study", progress=False)
    table = found.table.set_index("model")["log_prob"]
    names = {path.parent.name for path in (tmp_path / "study" / "linear").glob("*/model.json")}
    assert len(names) == len(found.baselines) == 5
    for baseline in found.baselines:
        trained = TrainedModel.load(tmp_path / "study" / folder_of(baseline))
        assert trained.scores(found.test)["log_prob"].mean() == pytest.approx(table[baseline.name], abs=1e-4)
    first = json.loads((tmp_path / "study" / "linear" / "recommendation.json").read_text())
    assert first["choice"] == found.recommendation.choice == "factor analysis"


def test_groups_count_as_one_for_the_linear_models_too(tmp_path):
    write_factors(tmp_path / "x.npy")
    x = np.load(tmp_path / "x.npy")[:120]
    frame = pd.DataFrame(x).add_prefix("x").assign(sample=[f"s{i // 2}" for i in range(len(x))])
    frame.to_csv(tmp_path / "x.csv", index=False)
    how = {"posteriors": ("diagonal",), "likelihoods": ("gaussian",), "seeds": (0, 2), "hidden": (8,), "epochs": 1}
    study = make_study(tmp_path / "x.csv", gap_data=0, log_marginal_samples=10, group="sample", **how)
    found = compare_file(study, tmp_path / "study", progress=False)
    first = json.loads((tmp_path / "study" / "linear" / "recommendation.json").read_text())
    assert first["num_groups"] == found.recommendation.num_groups == found.recommendation.num_data / 2


def test_gaussians_do_not_compete_with_probabilities_of_whole_numbers(tmp_path):
    x = np.random.default_rng(0).integers(0, 2, (120, 5)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    how = {"posteriors": ("diagonal",), "likelihoods": ("bernoulli",), "seeds": (0, 2), "hidden": (8,)}
    study = make_study(
        tmp_path / "x.npy", epochs=1, gap_data=0, log_marginal_samples=10, preprocessing="none", start="random", **how
    )
    found = compare_file(study, tmp_path / "study", progress=False)
    assert found.baselines == []
    assert NoteKind.NO_LINEAR_MODELS in {note.kind for note in found.notes}


@pytest.mark.slow
def test_the_counts_of_a_budget_give_the_same_bits(tmp_path):
    """What a time became is in the study that was told, and in the command that the report prints."""
    write_factors(tmp_path / "x.npy")
    how = {"posteriors": ("diagonal",), "likelihoods": ("gaussian", "ar1"), "seeds": (0, 2), "hidden": (8,)}
    study = make_study(tmp_path / "x.npy", budget=8.0, log_marginal_samples=20, **how)
    first = compare_file(study, tmp_path / "first", progress=False)
    again = parse(Compare, shlex.split(command_of(first.study))[2:]).study()
    assert again.epochs == first.epochs
    second = compare_file(again, tmp_path / "second", progress=False)
    for name in (p.relative_to(tmp_path / "first") for p in (tmp_path / "first").glob("*/*/model.safetensors")):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    drop = ["seconds"]
    pd.testing.assert_frame_equal(first.table.drop(columns=drop), second.table.drop(columns=drop))


def test_the_latent_dimension_is_chosen_by_validation(tmp_path):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(500, 4, generator=g) @ torch.randn(4, 12, generator=g) + 0.2 * torch.randn(500, 12, generator=g)
    np.save(tmp_path / "x.npy", x.numpy())
    how = {"posteriors": ("diagonal",), "likelihoods": ("gaussian", "ar1"), "seeds": (0, 2), "hidden": (8,)}
    study = make_study(tmp_path / "x.npy", epochs=1, gap_data=0, log_marginal_samples=10, latent_dims="auto", **how)
    found = compare_file(study, tmp_path / "study", progress=False)
    assert found.study.settings.latent_dims == (4,)
    assert set(found.runs["latent_dim"]) == {4}
    assert load_begun(tmp_path / "study").settings.latent_dims == "auto"
    with pytest.raises(pv.InputError, match="a latent dimension 'auto' is chosen by linear models"):
        pv.compare(x, posteriors=["diagonal"], estimators=["analytic"], epochs=1, latent_dims="auto", progress=False)


@pytest.mark.slow
def test_missing_values_and_images_are_compared(tmp_path):
    small = {"likelihoods": ("gaussian",), "epochs": 2, "seeds": (0, 2), "hidden": (8,), "gap_data": 0}
    small["log_marginal_samples"] = 25
    x = STUDY.read().x[:60, :8].clone()
    x[3, 2] = np.nan
    np.save(tmp_path / "holes.npy", x.numpy())
    study = make_study(tmp_path / "holes.npy", reading=ReadingSettings(missing="mask"), missing="mask", **small)
    found = compare_file(study, tmp_path / "a", progress=False)
    assert found.plan.linear is None
    assert [baseline.name for baseline in found.baselines] == [
        "probabilistic PCA",
        "factor analysis",
        "probabilistic PCA, d by validation",
        "Gaussian, shrunk covariance",
    ]
    assert len(found.table) == 4 + 2
    assert found.table["log_prob"].notna().all()
    assert NoteKind.NO_LINEAR_MODELS not in {note.kind for note in found.notes}
    for baseline in found.baselines:  # each is saved, and scores data with gaps as it did in the comparison
        scores = TrainedModel.load(tmp_path / "a" / folder_of(baseline)).scores(found.test)
        np.testing.assert_allclose(scores["log_prob"], baseline.log_prob, rtol=1e-5)
    with pytest.raises(ValueError, match="the value is missing"):
        compare_file(dataclasses.replace(study, reading=ReadingSettings()), tmp_path / "b", progress=False)
    images = np.random.default_rng(0).integers(0, 256, (60, 3, 4), dtype=np.uint8)
    images[:, 0, 0] = 0  # a border that never changes
    content = bytes([0, 0, 8, 3, 0, 0, 0, 60, 0, 0, 0, 3, 0, 0, 0, 4]) + images.tobytes()
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(content))
    found = compare_file(make_study(path, **small), tmp_path / "c", progress=False)
    assert found.data.axis.tolist() == list(range(1, 12))
    np.testing.assert_allclose(found.data.x[5], images[5].reshape(-1)[1:] / 255, rtol=1e-6)
    assert found.table["log_prob"].notna().all()
    labels = tmp_path / "train-labels-idx1-ubyte"
    labels.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 4, 1, 2, 3, 4]))
    with pytest.raises(ValueError, match=r"holds no images, but numbers of shape \(4,\)"):
        read_data(labels)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_data(tmp_path / "missing-ubyte.gz")


def test_what_a_folder_was_begun_with_is_read_back(tmp_path):
    """Settings that are None, and settings that are not the usual ones."""
    for model in (ModelSettings(), ModelSettings(hidden=(4,), preprocessing="all", start="linear")):
        training = pv.TrainingSettings(3, clip_norm=2.0, engine="eager")
        project = Project(data=tmp_path / "x.csv", model=model, training=training, group="sample")
        assert Project.from_dict(json.loads(json.dumps(project.to_dict()))) == project
    assert Study.from_dict(json.loads(json.dumps(STUDY.to_dict()))).to_dict() == STUDY.to_dict()


@pytest.mark.parametrize("text", ['{"project": {}}', '{"study": {}}', '{"study": []}', "[]", "3", "{", "{}"])
def test_a_damaged_folder_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    for begin in (load_begun, lambda folder: compare_file(STUDY, folder, progress=False)):
        with pytest.raises(pv.InputError) as error:
            begin(tmp_path)
        assert "\n" not in str(error.value)
        assert "config.json" in str(error.value)
    assert {path.name for path in tmp_path.iterdir()} <= {"config.json", ".lock"}


def test_a_file_that_has_changed_is_another_study(tmp_path, capsys):
    """The results of the first are kept, and the same file goes on."""
    path, out = tmp_path / "x.csv", tmp_path / "out"
    x = np.random.default_rng(0).standard_normal((60, 4))
    ask = ["compare", str(path), "--epochs", "1", "--out", str(out), "--posteriors", "diagonal", "--seeds", "2"]
    ask += ["--likelihoods", "gaussian", "--log-marginal-samples", "25"]
    for values, status in ((x, 0), (x + 1, 2), (x, 0)):
        np.savetxt(path, values, delimiter=",", header="1,2,3,4", comments="")
        before = (out / "comparison.csv").read_bytes() if out.exists() else b""
        with pytest.raises(SystemExit) if status else nullcontext():
            main(ask)
        said = capsys.readouterr()
        if status:
            assert f"{out} holds a study of other data: {path} has changed; give another folder" in said.err
        if before:
            assert (out / "comparison.csv").read_bytes() == before
    assert "which has been begun: finished runs are kept" in said.out


def test_a_bug_in_every_run_is_no_bad_input(tmp_path, monkeypatch):
    """Bad input is one line and status 2; a bug keeps its traceback."""

    def broken(self, features):
        raise KeyError("a bug of ours")

    monkeypatch.setattr(pv.FullCovariancePosterior, "forward", broken)
    with pytest.raises(RuntimeError, match=r"(?s)every run failed.*in broken"):
        compare_file(dataclasses.replace(STUDY, epochs=1), tmp_path / "study", progress=False)


def test_nothing_to_measure_leaves_the_epochs_as_they_are():
    assert counts_within({}, 2, 10.0, Counts(7, 3, 25, 40)) == Counts(7, 0, 25, 40)


def test_training_encoders_again_has_its_share_of_the_budget():
    needed = Seconds(epoch=1.0, evaluation=2.0, look=0.25, refit=3.0)
    assert refit_epochs_within(needed, 2, 180.0, 30) == 10  # a third, 60 seconds, at 2 × 3 a piece
    assert refit_epochs_within(needed, 2, 180.0, 4) == 4
    assert refit_epochs_within(needed, 2, 1.0, 4) == 0
    most = Counts(500, 0, 200, 1000, 30)
    assert counts_within({"gaussian": needed}, 2, 180.0, most) == Counts(int(0.65 * 112 / 2), 0, 200, 1000, 10)
    without = dataclasses.replace(most, refit_epochs=0)
    assert counts_within({"gaussian": needed}, 2, 180.0, without) == Counts(int(0.65 * 172 / 2), 0, 200, 1000)


def test_looks_at_the_validation_data_leave_time_for_training():
    most = Counts(500, 0, 200, 1000)
    needed = Seconds(epoch=0.5, evaluation=1.0, look=1.0)
    assert counts_within({"gaussian": needed}, 2, 80.0, most) == Counts(
        int(0.65 * (80 - 18 - 2)), 0, 200, 1000
    )  # 8 looks, and one before training
    epochs = int(0.65 * (40 - 10 - 2))  # a fifth of the time is for 4 looks of 2 seeds
    assert counts_within({"gaussian": needed}, 2, 40.0, most) == Counts(epochs, 0, 200, 1000, 0, -(-epochs // 4))
    assert counts_within({"gaussian": needed}, 2, 10.0, most) == Counts(1, 0, 200, 1000, 0, 1)  # 2 looks in any case


@pytest.mark.slow
def test_encoders_are_trained_again_in_a_study(tmp_path, monkeypatch):
    quick = functools.partial(pv.refit_encoder, num_draws=64)
    monkeypatch.setattr("pyrovae.comparison._runs.refit_encoder", quick)
    small = {"posteriors": ("diagonal",), "likelihoods": ("gaussian",), "seeds": (0, 2), "hidden": (8,)}
    study = make_study(epochs=2, gap_data=0, log_marginal_samples=25, refit_epochs=1, **small)
    found = compare_file(study, tmp_path / "study", progress=False)
    assert (found.runs["encoder_gain"] >= 0).all()
    path = tmp_path / "study" / "config.json"
    config = json.loads(path.read_text())
    assert config["refit_epochs"] == 1
    again = compare_file(found.study, tmp_path / "again", progress=False)  # as the report's command does
    assert again.runs["test_neg_elbo"].tolist() == found.runs["test_neg_elbo"].tolist()
    path.write_text(json.dumps(config | {"refit_epochs": 0}))  # where the budget left no time for it
    with pytest.warns(UserWarning, match="has refit_epochs = 1, not 0"):
        without = compare_file(study, tmp_path / "study", progress=False)
    assert without.study.settings.refit_epochs == 0
    assert "encoder_gain" not in without.runs
    path.write_text(json.dumps(config | {"refit_epochs": -1}))
    with pytest.raises(pv.InputError, match="its refit_epochs is -1"):
        compare_file(study, tmp_path / "study", progress=False)


def test_a_study_begun_before_encoders_were_trained_again_goes_on(tmp_path):
    small = {"posteriors": ("diagonal",), "likelihoods": ("gaussian",), "seeds": (0, 2), "hidden": (8,)}
    study = make_study(epochs=1, gap_data=0, log_marginal_samples=25, **small)
    path = tmp_path / "study" / "config.json"
    compare_file(study, tmp_path / "study", progress=False)
    config = json.loads(path.read_text())
    del config["refit_epochs"], config["study"]["refit_epochs"]
    path.write_text(json.dumps(config))
    found = compare_file(study, tmp_path / "study", progress=False)
    assert found.study.settings.refit_epochs == 0
    assert "encoder_gain" not in found.runs


@pytest.mark.parametrize(("scale", "counts"), [(1.0, True), (2.0**22, False), (0.3, False)])
def test_numbers_so_large_that_all_are_whole_are_no_counts(scale, counts):
    x = torch.randint(1, 90, (50, 4), generator=torch.Generator().manual_seed(0))
    assert are_counts(scale * x.float()) == counts
