"""The study of priors: its script on digits, and an interrupted run."""

import pandas as pd
import pytest

from experiments.priors import Settings, main
from pyrovae.commands import console

TINY = [
    "--dataset", "digits", "--latent-dim", 2, "--hidden", 8, "--components", 3, "--seeds", 2, "--epochs", 1,
    "--num-train", 200, "--num-test", 30, "--samples", 20, "--workers", 1,
]  # fmt: skip


@pytest.mark.slow
def test_priors_are_compared_and_finished_runs_are_kept(tmp_path, capsys):
    arguments = [str(argument) for argument in [*TINY, "--out", tmp_path]]
    console.run(main, Settings, arguments)
    assert "| KL of the aggregate posterior" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "priors.csv")
    assert list(table["prior"].unique()) == ["standard-normal", "mixture", "vamp"]
    assert (table["aggregate_kl"] < table["test_kl"] + 0.1).all()  # the rest is the mutual information
    console.run(main, Settings, arguments)
    assert pd.read_csv(tmp_path / "priors.csv").equals(table)
