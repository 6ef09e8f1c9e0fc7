"""The study of loss terms: its script, and the sources' losses against the ELBO."""

import re

import pytest

from experiments.loss_terms import convention_table


@pytest.mark.slow
def test_loss_terms(tmp_path, run):
    result = run(
        "experiments.loss_terms",
        "--seeds",
        1,
        "--steps",
        20,
        "--betas",
        3,
        "--samples",
        100,
        "--num-test",
        20,
        "--workers",
        1,
        "--out",
        tmp_path / "out",
    )
    assert result.returncode == 0, result.stderr
    assert len(re.findall(r"^\| (?:reconstruction alone|both|β = 3|KL alone) ", result.stdout, re.M)) == 8
    assert (tmp_path / "out" / "rate-distortion.png").stat().st_size > 5000


def test_the_sources_losses_against_the_elbo():
    table = convention_table()
    proportional = table["verdict"].str.startswith("equal")
    assert (table.loc[proportional, "rest"].astype(float) < 1e-12).all()
    assert (table.loc[~proportional, "rest"].astype(float) > 0.1).all()
    assert proportional.sum() == 7
    assert table["decoder alone"].tolist()[0] == "-1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--betas", "-1"], "beta must be a finite number ≥ 0"),
        (["--out", "README.md"], "--out README.md already holds files"),
    ],
)
def test_bad_input(arguments, message, run):
    result = run("experiments.loss_terms", *arguments)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert message in result.stderr
