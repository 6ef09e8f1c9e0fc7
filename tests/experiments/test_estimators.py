"""The study of estimators runs with its smallest settings."""

import pytest


@pytest.mark.slow
def test_estimators(tmp_path, run):
    result = run(
        "experiments.estimators", "--seeds", 1, "--steps", 20, "--repeats", 8, "--particles", 3, "--batch-size", 400,
        "--samples", 50, "--num-test", 3, "--workers", 1, "--out", tmp_path / "out",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "## linear-Gaussian, gradient noise" in result.stdout
    assert "doubly-reparameterized, K = 3" in result.stdout
    assert result.stdout.count("the largest test log p(x) is") == 8  # two sets, two budgets, told twice
    for picture in ("linear-Gaussian-variance", "digits-snr", "figure-eight-trainings"):
        assert (tmp_path / "out" / f"{picture}.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--particles", "0"], "--particles must be a positive integer, not 0"),
        (["--repeats", "1"], "--repeats must be an integer of at least 4"),
        (["--workers", "0"], "--workers must be a positive integer, not 0"),
    ],
)
def test_bad_input(arguments, message, run):
    result = run("experiments.estimators", *arguments)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert message in result.stderr
