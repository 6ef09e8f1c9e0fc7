"""The study of log p(x) of images: its schedule, an interrupted run, bad input."""

import pandas as pd
import pytest

from experiments.image_likelihood import Settings, main, staged
from pyrovae.commands import console
from pyrovae.training import Checkpoints

TINY = [
    "--dataset", "digits", "--latent-dim", 3, "--hidden", 8, "--particles", 1, 3, "--epochs", 3, "--num-train", 100,
    "--num-test", 40, "--samples", 50, "--workers", 1,
]  # fmt: skip


def command_line(*arguments):
    console.run(main, Settings, [str(argument) for argument in arguments])


def test_the_staged_rate_is_that_of_the_literature():
    """3^i passes at 10^(−i/7), i = 0 … 7; Burda et al. (2016), section 5."""
    expected = [10 ** (-i / 7) for i in range(8) for _ in range(3**i)]
    assert len(expected) == 3280
    found = [staged((k + 0.5) / 3280) for k in range(3280)]
    assert found == pytest.approx(expected)
    assert (staged(0.0), staged(1 - 1e-12)) == pytest.approx((1.0, 0.1))


@pytest.mark.slow
def test_an_interrupted_run_goes_on(tmp_path, monkeypatch, capsys):
    command_line(*TINY, "--posteriors", "diagonal", "ar1-per-dimension", "--out", tmp_path / "whole")
    assert "test −log p(x)" in capsys.readouterr().out
    whole = pd.read_csv(tmp_path / "whole" / "runs.csv")
    assert len(whole) == 4
    assert whole["test_nll"].between(20, 60).all()
    assert (whole["test_nll"] < whole["test_neg_elbo"]).all()

    states, save = [], Checkpoints.save

    def interrupt_after_two(checkpoints, steps, state):
        save(checkpoints, steps, state)
        states.append(steps)
        if len(states) == 2:
            raise KeyboardInterrupt

    broken = [*TINY, "--posteriors", "diagonal", "--checkpoint-seconds", 0, "--out", tmp_path / "broken"]
    monkeypatch.setattr(Checkpoints, "save", interrupt_after_two)
    with pytest.raises(SystemExit):
        command_line(*broken)
    monkeypatch.setattr(Checkpoints, "save", save)
    assert not (tmp_path / "broken" / "diagonal-k1-seed0" / "model.safetensors").exists()
    command_line(*broken)
    timeless = whole.columns.drop("seconds")
    resumed = pd.read_csv(tmp_path / "broken" / "runs.csv")
    pd.testing.assert_frame_equal(resumed[timeless], whole.loc[whole["posterior"] == "diagonal", timeless])

    capsys.readouterr()
    for arguments, message in (
        (["--epochs", 4], "holds runs with epochs 3, not 4"),
        ([], "cannot read the checkpoint"),
    ):
        for checkpoint in (tmp_path / "broken" / "diagonal-k1-seed0" / "checkpoints").glob("*.json"):
            checkpoint.write_bytes(b"no checkpoint")
        with pytest.raises(SystemExit) as stopped:
            command_line(*broken, *arguments)
        error = capsys.readouterr().err
        assert (stopped.value.code, error.count("\n")) == (2, 1), error
        assert message in error


def test_with_all_training_images(tmp_path):
    command_line(
        *TINY, "--posteriors", "full-covariance", "--all-training-images", "--schedule", "staged", "--epochs", 1,
        "--out", tmp_path / "out",
    )  # fmt: skip
    runs = pd.read_csv(tmp_path / "out" / "runs.csv")
    assert runs["best_epoch"].isna().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--binarization", "dynamical"], "did you mean 'dynamic'?"),
        (["--particles", "0"], "--particles must be a positive integer, not 0"),
        (["--schedule", "burda"], "unknown --schedule 'burda'"),
        (["--samples", "0"], "--samples must be a positive integer, not 0"),
    ],
)
def test_bad_input(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        command_line(*TINY, *arguments, "--out", tmp_path / "out")
    error = capsys.readouterr().err
    assert (stopped.value.code, error.count("\n")) == (2, 1), error
    assert message in error
    assert not (tmp_path / "out").exists()
