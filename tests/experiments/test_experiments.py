"""Every experiment runs for one epoch, and its command line answers bad input in one line."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from experiments.truth import failures, linear

ROOT = Path(__file__).parents[2]
TINY = ["--epochs", "1", "--num-train", "200", "--num-test", "200", "--workers", "1"]


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("dataset", ["rotated-gaussian", "mixture"])
def test_synthetic(tmp_path, dataset):
    result = run(
        "experiments.synthetic", "--dataset", dataset, *TINY, "--latent-dim", 1, 2, "--posteriors", "ar1",
        "full-covariance", "--estimators", "analytic", "--noise", 0.4, "--out", tmp_path / "out",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert len(re.findall(r"^\| (?:ar1|full-covariance) ", result.stdout, re.M)) == 4
    assert (tmp_path / "out" / "comparison.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "rotated"], "unknown --dataset 'rotated' (did you mean 'rotated-gaussian'?)"),
        (["--posteriors", "diagonal", "fullcovariance"], "did you mean 'full-covariance'?"),
        (["--estimators", "exact"], "unknown --estimators 'exact'; choose one of monte-carlo, analytic"),
        (["--epochs", "many"], "--epochs"),
        (["--epochs", "0"], "--epochs must be a positive integer, not 0"),
        (["--noise", "-1"], "scale must be 'shared', 'per-dimension', 'per-datum' or a positive number, not -1.0"),
        (["--seed", "3"], "--seed"),
        (["--seeds", "0"], "--seeds must be a positive integer, not 0"),
        (["--out", "README.md"], "--out README.md already holds files"),
        (["--out", "/proc/nowhere"], "cannot write to the output folder /proc/nowhere"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, message):
    result = run("experiments.synthetic", *TINY, *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


def test_help():
    result = run("experiments.synthetic", "--help")
    assert result.returncode == 0
    assert "--latent-dim" in result.stdout


def test_benchmarks(tmp_path):
    result = run(
        "experiments.benchmarks.distributions", "--dims", 4, 8, "--repeats", 3, "--out", tmp_path / "distributions"
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "distributions" / "cost.png").exists()
    assert result.stdout.count("| full-covariance ") == 3
    result = run(
        "experiments.benchmarks.estimators", "--repeats", 2, "--batch-sizes", 4, "--particles", 3, "--posteriors",
        "diagonal", "--out", tmp_path / "estimators",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "doubly-reparameterized, K = 3" in result.stdout
    result = run(
        "experiments.benchmarks.training_step", "--repeats", 1, "--seconds", 0.01, "--no-images", "--no-growth",
        "--no-memory", "--no-compiled", "--out", tmp_path / "training",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    table = pd.read_csv(tmp_path / "training" / "training_step.csv")
    assert len(table) >= 4 * 3
    assert set(table["implementation"]) >= {"PyTorch by hand", "pyrovae eager", "stock Pyro SVI.step"}
    assert (table["seconds"] > 0).all()


def test_suite_goes_on_where_it_stopped(tmp_path):
    small = [
        "--datasets", "rotated-gaussian", "figure-eight", "--posteriors", "diagonal", "--num-train", 64,
        "--num-test", 50, "--epochs", 1, "--seeds", 2, "--workers", 1, "--out", tmp_path / "out",
    ]  # fmt: skip
    first = run("experiments.suite", *small)
    assert first.returncode == 0, first.stderr
    assert "rotated-gaussian" in first.stdout
    folders = sorted((tmp_path / "out" / "figure-eight").glob("diagonal-*"))
    assert len(folders) == 4
    kept = {folder: (folder / "metrics.json").stat().st_mtime_ns for folder in folders}
    (folders[1] / "metrics.json").unlink()
    second = run("experiments.suite", *small)
    assert second.returncode == 0, second.stderr
    now = {folder: (folder / "metrics.json").stat().st_mtime_ns for folder in folders}
    assert [folder for folder in folders if now[folder] != kept[folder]] == [folders[1]]
    before, after = (result.stdout.split("Training took")[0] for result in (first, second))
    assert before == after


def test_estimators(tmp_path):
    result = run(
        "experiments.estimators", "--seeds", 1, "--steps", 20, "--repeats", 8, "--particles", 3, "--batch-size", 400,
        "--samples", 10, "--workers", 1, "--out", tmp_path / "out",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "## linear-Gaussian, gradient noise" in result.stdout
    assert "doubly-reparameterized, K = 3" in result.stdout
    assert result.stdout.count("the largest test log p(x) is") == 8  # two sets, two budgets, told twice
    for picture in ("linear-Gaussian-variance", "digits-snr", "figure-eight-trainings"):
        assert (tmp_path / "out" / f"{picture}.png").stat().st_size > 5000


def test_loss_terms(tmp_path):
    result = run(
        "experiments.loss_terms",
        "--seeds",
        1,
        "--steps",
        20,
        "--betas",
        3,
        "--samples",
        10,
        "--workers",
        1,
        "--out",
        tmp_path / "out",
    )
    assert result.returncode == 0, result.stderr
    assert len(re.findall(r"^\| (?:reconstruction alone|both|β = 3|KL alone) ", result.stdout, re.M)) == 8
    assert (tmp_path / "out" / "rate-distortion.png").stat().st_size > 5000


def test_truths_tables_of_linear_models():
    rows = []
    for family in linear.FAMILIES:
        rows += linear.Predicted(2, family)()
        rows += [linear.Reached(2, family, "fixed", how, 0.0, 0.25, 10) for how in linear.FIXED_ESTIMATORS]
        rows += [linear.Reached(2, family, "free", how, 0.5, 0.25, 10) for how in linear.FREE_ESTIMATORS]
        rows += [linear.Reached(2, family, "fixed", linear.PER_DATUM, 0.0, 0.25, 10, stderr=0.01)]
    (_, fixed), (_, free) = linear.tables(rows)
    assert fixed.count("0.2500 ± 0.0100") == 7
    assert free.count("0.7500 = 0.5000 + 0.2500") == 14
    assert "untrained, the diagonal family loses" in linear.reading(rows)
    assert len(linear.to_frame(rows)) == 7 * 8


def test_truth(tmp_path):
    result = run(
        "experiments.truth", "--parts", "failures", "--seeds", 2, "--epochs", 1, "--num-train", 64, "--workers", 1,
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "failures.png").stat().st_size > 5000
    assert len(re.findall(r"^\| (?:mixture|three-blobs) .*\| 2 +\| [012]/2 ", result.stdout, re.M)) == 8
    runs = pd.read_csv(tmp_path / "out" / "failures.csv")
    assert (runs["modes_found"] <= runs["modes"]).all()
    assert f"of {len(runs) // 8} runs each: a mode dropped" in result.stdout


def test_truths_count_of_failures():
    share = failures.share(3, 20)  # scipy's exact interval, as in any table of binomial ones
    assert share == "3/20 (3–38 %)"


def test_the_sources_losses_against_the_elbo():
    from experiments.loss_terms import convention_table

    table = convention_table()
    proportional = table["verdict"].str.startswith("equal")
    assert (table.loc[proportional, "rest"].astype(float) < 1e-12).all()
    assert (table.loc[~proportional, "rest"].astype(float) > 0.1).all()
    assert proportional.sum() == 7
    assert table["decoder alone"].tolist()[0] == "-1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["experiments.estimators", "--particles", "0"], "--particles must be a positive integer, not 0"),
        (["experiments.estimators", "--repeats", "1"], "--repeats must be an integer of at least 4"),
        (["experiments.estimators", "--workers", "0"], "--workers must be a positive integer, not 0"),
        (["experiments.truth", "--parts", "linaer"], "unknown --parts 'linaer' (did you mean 'linear'?)"),
        (["experiments.truth", "--num-data", "0"], "--num-data must be a positive integer, not 0"),
        (["experiments.truth", "--dims", "0"], "--dims must be a positive integer, not 0"),
        (["experiments.loss_terms", "--betas", "-1"], "beta must be a finite number ≥ 0"),
        (["experiments.loss_terms", "--out", "README.md"], "--out README.md already holds files"),
    ],
)
def test_bad_input_of_the_studies(arguments, message):
    result = run(*arguments)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert message in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "tpu"], "unknown --device 'tpu'; choose one of cpu, cuda"),
        (["--dims", "1"], "--dims must be an integer of at least 2, not 1"),
    ],
)
def test_bad_input_of_a_benchmark(arguments, message):
    result = run("experiments.benchmarks.distributions", *arguments)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert message in result.stderr


def test_every_run_failing_is_an_error(tmp_path):
    result = run(
        "experiments.synthetic", *TINY, "--posteriors", "flow", "--estimators", "analytic", "--out", tmp_path / "out"
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: every run failed; the first: failed: no closed form")


def running_workers(process):
    """The identities of a study's two workers, once they have started to train."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        pytest.skip("this system does not list a process's children")
    deadline = time.monotonic() + 120
    busy = []
    while len(busy) < 2 and time.monotonic() < deadline:
        time.sleep(0.5)
        # a resource tracker is a child too, but does no work
        busy = [int(pid) for pid in children.read_text().split() if processor_seconds(pid) > 6]
    assert len(busy) == 2, process.poll()
    return busy


def processor_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_workers_do_not_outlive_a_killed_parent(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.synthetic", "--epochs", "500", "--workers", "2", "--out", tmp_path / "out"],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    workers = running_workers(process)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


def test_an_interrupt_ends_all_processes_quietly(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.synthetic", "--epochs", "500", "--workers", "2", "--out", tmp_path / "out",
         "--engine", "eager"],  # a compiler at work would hold the pipes open until it is done
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        # a shell starts what runs in its background with interrupts ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    running_workers(process)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert errors.startswith("interrupted")
    assert "Traceback" not in errors
    assert not list((tmp_path / "out").rglob(".*-*"))
