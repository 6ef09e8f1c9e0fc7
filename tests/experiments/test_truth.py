"""The study of the truth: its script, its tables, its counts."""

import re

import pandas as pd
import pytest

from experiments.truth import failures, linear


def test_truths_tables_of_linear_models():
    rows = []
    for family in linear.FAMILIES:
        rows += linear.predict(2, family)
        rows += [linear.Reached(2, family, "fixed", how, 0.0, 0.25, 10) for how in linear.FIXED_ESTIMATORS]
        rows += [linear.Reached(2, family, "free", how, 0.5, 0.25, 10) for how in linear.FREE_ESTIMATORS]
        rows += [linear.Reached(2, family, "fixed", linear.PER_DATUM, 0.0, 0.25, 10, stderr=0.01)]
    (_, fixed), (_, free) = linear.tables(rows)
    assert fixed.count("0.2500 ± 0.0100") == 7
    assert free.count("0.7500 = 0.5000 + 0.2500") == 14
    assert "untrained, the diagonal family loses" in linear.reading(rows)
    assert len(linear.to_frame(rows)) == 7 * 8


@pytest.mark.slow
def test_truth(tmp_path, run):
    result = run(
        "experiments.truth", "--parts", "failures", "--seeds", 2, "--epochs", 1, "--num-train", 64, "--num-test", 20,
        "--workers", 1, "--out", tmp_path / "out",
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--parts", "linaer"], "unknown --parts 'linaer' (did you mean 'linear'?)"),
        (["--num-data", "0"], "--num-data must be a positive integer, not 0"),
        (["--dims", "0"], "--dims must be a positive integer, not 0"),
    ],
)
def test_bad_input(arguments, message, run):
    result = run("experiments.truth", *arguments)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert message in result.stderr
