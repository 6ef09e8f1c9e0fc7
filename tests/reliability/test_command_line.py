"""Random command lines end in status 0 or 2, and in one line where they are wrong; so do damaged files of runs."""

import json
import pickle
import random
import shutil

import numpy as np
import pytest

import pyrovae as pv
from pyrovae.commands import compare, fit
from pyrovae.commands.main import main
from pyrovae.comparison.fit_file import fit_file
from pyrovae.comparison.settings import ModelSettings
from pyrovae.comparison.study import Project
from pyrovae.datasets import simulated

NUM = 100
WORDS = (
    *(
        "",
        " ",
        "-",
        "--",
        "-1",
        "0",
        "1",
        "2",
        "1e3",
        "1_0",
        "nan",
        "inf",
        "1e400",
        "9" * 30,
        "None",
        "true",
        "é",
        "\n",
    ),
    *("'", '"', "\\", "$HOME", "..", "/", "/dev/null", "diagonal", "ar1", "gaussian", "analytic", "full-covariance"),
    *("mask", "eager", "10m", "5 m", "0s", "--json", "--demo", "--out", "x.csv", "x.parquet", "[1]", "{}", "0x10"),
)
OPTIONS = (
    *("--out", "--posterior", "--posteriors", "--likelihood", "--likelihoods", "--estimator", "--estimators", "--seed"),
    *("--seeds", "--epochs", "--batch-size", "--learning-rate", "--hidden", "--latent-dim", "--budget", "--threshold"),
    *(
        "--channels",
        "--missing",
        "--engine",
        "--checkpoint-seconds",
        "--samples",
        "--num",
        "--json",
        "--demo",
        "--help",
    ),
    *("--preprocessing", "--no-such", "-x", "--"),
)
SUBCOMMANDS = ("compare", "fit", "resume", "evaluate", "encode", "reconstruct", "impute", "outliers", "sample")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "spectra.npy"
    np.save(path, simulated(60, 6).x.numpy())
    return path


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("fits") / "run"
    training = pv.TrainingSettings(1, engine="eager")
    fit_file(Project(data=data, model=ModelSettings(hidden=(4,)), training=training), out, progress=False)
    return out


def status_and_errors(capsys, arguments):
    try:
        main([str(argument) for argument in arguments])
        status = 0
    except SystemExit as stop:
        status = stop.code or 0
    said, errors = capsys.readouterr()
    if status:
        assert status == 2, (arguments, status, said)
        lines = said.splitlines()  # what was read is said first
        assert all(line.startswith("guessed: ") for line in lines[1:]), (arguments, said)
        assert not lines or lines[0].startswith("read "), (arguments, said)
        assert errors.splitlines()[-1].startswith("error: ")
        assert errors.count("error: ") == 1
    assert "Traceback" not in errors
    return status, errors


def test_random_command_lines(data, trained, tmp_path, capsys, monkeypatch):
    """Settings are checked as ever; what takes long, training, is left out."""
    monkeypatch.chdir(tmp_path)
    for place in ("comparison.fit_file.fit_file", "comparison.compare_file.compare_file"):
        monkeypatch.setattr(f"pyrovae.{place}", lambda *_, **__: {})
    for module in (fit, compare):
        monkeypatch.setattr(module, "summary_of", lambda *_: {"text": "trained"})
    rng = random.Random(8)
    sound = {"compare": [data], "fit": [data, "--out", "run"], "resume": [trained], "sample": [trained]}
    found = {0: 0, 2: 0}
    for _ in range(NUM):
        name = rng.choice(SUBCOMMANDS)
        arguments = [name, *sound.get(name, [trained, data])]
        for _ in range(rng.randrange(4)):
            k = rng.randrange(len(arguments) + 1)
            how = rng.choice(("option", "option", "word", "drop", "twice", "cut"))
            if how == "option":
                arguments[k:k] = [rng.choice(OPTIONS), *rng.choices(WORDS, k=rng.randrange(3))]
            elif how == "word":
                arguments.insert(k, rng.choice(WORDS))
            elif k < len(arguments):
                old = str(arguments[k])
                arguments[k : k + 1] = {"drop": [], "twice": [old, old], "cut": [old[: rng.randrange(len(old) + 1)]]}[
                    how
                ]
        found[status_and_errors(capsys, arguments)[0]] += 1
    assert min(found.values()) > NUM / 20
    print(f"\n{NUM} command lines: {found[0]} ran, {found[2]} were refused in one line")


class Hostile:
    def __reduce__(self):
        return open, ("executed", "w")


@pytest.mark.parametrize("name", ["config.json", "model.json", "model.safetensors", "checkpoint"])
@pytest.mark.parametrize("how", ["empty", "torn", "pickle", "other JSON", "future"])
def test_damaged_files_of_a_run(name, how, trained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = shutil.copytree(trained, tmp_path / "run")
    paths = [out / name] if name != "checkpoint" else sorted(out.glob("checkpoints/checkpoint-*.json"))
    for path in paths:
        whole = path.read_bytes()
        if how == "future":
            if path.suffix != ".json":
                pytest.skip("it has no format number")
            path.write_text(json.dumps(json.loads(whole) | {"format": 99}))
        else:
            contents = {"empty": b"", "torn": whole[: len(whole) // 2], "pickle": pickle.dumps(Hostile())}
            path.write_bytes(contents.get(how, b"[]"))
    arguments = ["resume", out] if name in ("config.json", "checkpoint") else ["sample", out]
    status, errors = status_and_errors(capsys, arguments)
    assert status == (0 if (name, how) == ("config.json", "future") else 2)  # it has none
    if status:
        assert errors.count("\n") == 1
        assert str(out) in errors
    assert not (tmp_path / "executed").exists()
