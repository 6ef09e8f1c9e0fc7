"""The study of refined posteriors: its script on digits, and an interrupted run."""

import pandas as pd
import pytest

from experiments.refining import Settings, main
from pyrovae.commands import console


@pytest.mark.slow
def test_refined_posteriors_are_as_good_as_refitted_ones(tmp_path, capsys):
    arguments = ["--sets", "digits", "--epochs", "20", "--num-test", "20", "--out", str(tmp_path)]
    console.run(main, Settings, arguments)
    assert "| refined less refitted |" in " ".join(capsys.readouterr().out.split())
    found = pd.read_csv(tmp_path / "refining.csv").iloc[0]
    assert found["ELBO"] < found["ELBO refined"] < found["log p(x)"] + 0.05
    assert abs(found["ELBO refined"] - found["ELBO refitted"]) < 0.3
    assert abs(found["log p(x)"] - found["log p(x) by refitted q"]) < 0.2
    console.run(main, Settings, arguments)  # trained already
    again = pd.read_csv(tmp_path / "refining.csv").iloc[0]
    assert again["log p(x)"] == found["log p(x)"]


def test_spectra_need_a_file(capsys):
    with pytest.raises(SystemExit):
        console.run(main, Settings, ["--sets", "spectra"])
    assert "--spectra FILE is missing" in capsys.readouterr().err
