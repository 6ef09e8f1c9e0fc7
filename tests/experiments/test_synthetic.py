"""The slides' experiments run for one epoch; bad input is one line; workers end with their parent."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
TINY = ["--epochs", "1", "--num-train", "200", "--num-test", "60", "--workers", "1"]


@pytest.mark.slow
@pytest.mark.parametrize(("dataset", "dims"), [("rotated-gaussian", (1, 2)), ("mixture", (2,))])
def test_synthetic(tmp_path, dataset, dims, run):
    result = run(
        "experiments.synthetic", "--dataset", dataset, *TINY, "--latent-dim", *dims, "--posteriors", "ar1",
        "full-covariance", "--estimators", "analytic", "--noise", 0.4, "--out", tmp_path / "out",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert len(re.findall(r"^\| (?:ar1|full-covariance) ", result.stdout, re.M)) == 2 * len(dims)
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
def test_bad_input_is_one_line_and_status_2(arguments, message, run):
    result = run("experiments.synthetic", *TINY, *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


def test_every_run_failing_is_an_error(tmp_path, run):
    result = run(
        "experiments.synthetic", *TINY, "--posteriors", "flow", "--estimators", "analytic", "--out", tmp_path / "out"
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: every run failed; the first: failed: no closed form")


def running_workers(process):
    """The identities of a study's two workers, once each has started to work: it then handles SIGTERM."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        pytest.skip("this system does not list a process's children")

    def busy():
        return [int(pid) for pid in children.read_text().split() if handles_sigterm(pid)]

    wait_until(lambda: len(busy()) == 2 or process.poll() is not None)
    assert process.poll() is None
    return busy()


def handles_sigterm(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(re.search(r"^SigCgt:\s*(\w+)$", status, re.M)[1], 16)
    return bool(caught >> signal.SIGTERM - 1 & 1)


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_parent(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.synthetic", "--epochs", "500", "--workers", "2", "--out", tmp_path / "out"],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    workers = running_workers(process)
    process.kill()
    process.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    assert len(workers) == 2


@pytest.mark.slow
def test_an_interrupt_ends_all_processes_quietly(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.synthetic", "--epochs", "500", "--workers", "2", "--out", tmp_path / "out",
         "--engine", "eager"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    running_workers(process)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130, errors
    assert errors.startswith("interrupted")
    assert "Traceback" not in errors
    assert not list((tmp_path / "out").rglob(".*-*"))
