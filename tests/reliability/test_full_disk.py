"""A disk that is full, or a limit on the size of files, at any moment of writing: one line, status 2, nothing torn.

What was written before is whole, and `pyrovae resume` goes on from it to the same bits.
"""

import errno
import json
import os
import resource
import subprocess

import pandas as pd
import pytest
import safetensors.torch

import pyrovae as pv
from pyrovae import files
from pyrovae.commands.main import main
from pyrovae.datasets import simulated
from pyrovae.training.checkpoint import read_checkpoint

FIT = ("--epochs", "1", "--hidden", "8", "--engine", "eager", "--checkpoint-seconds", "0")
COMPARE = ("--posteriors", "diagonal", "--likelihoods", "gaussian", "--seeds", "2", "--epochs", "2")


@pytest.fixture(scope="module")
def spectra(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "spectra.csv"
    pd.DataFrame(simulated(60, 6).x.numpy(), columns=[f"{900 + j}" for j in range(6)]).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def whole(spectra, tmp_path_factory):
    """The bits of a run that nothing went wrong with."""
    out = tmp_path_factory.mktemp("whole") / "run"
    main(["fit", str(spectra), "--out", str(out), *FIT])
    return bits(out)


def bits(out):
    return [(out / name).read_bytes() for name in ("model.safetensors", "model.json")]


def status_and_errors(capsys, *arguments):
    try:
        main([str(argument) for argument in arguments])
        status = 0
    except SystemExit as stop:
        status = stop.code
    said, errors = capsys.readouterr()
    # before it fails, a command says what it read and what it will do, and nothing else
    assert status == 0 or all(line.startswith(("read ", "comparing ")) for line in said.splitlines()), said
    return status, errors


def check_whole(folder):
    """Every file that is there can be read, and nothing else lies about."""
    for path in folder.rglob("*"):
        assert not path.name.startswith(".partial-"), path
        if path.match("checkpoint-*.json"):
            read_checkpoint(path)
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".safetensors":
            safetensors.torch.load_file(path)
        elif path.suffix == ".csv":
            assert path.read_text().endswith("\n")
    assert (folder / "model.safetensors").exists() == (folder / "model.json").exists()


class FullDisk:
    """From one file on, nothing can be written: the making of a temporary file, or fsync, says so."""

    def __init__(self, monkeypatch, first, where="fsync", number=errno.ENOSPC):
        self.left, self.number = first, number
        self.patch = monkeypatch
        self.original = getattr(files.os, where)
        monkeypatch.setattr(files.os, where, self)

    def __call__(self, file, *arguments, **options):
        self.left -= isinstance(file, int) or ".partial-" in str(file)  # locks and folders open files, too
        if self.left < 0:
            raise OSError(self.number, os.strerror(self.number))
        return self.original(file, *arguments, **options)


@pytest.mark.filterwarnings("default::pyrovae.training.checkpoint.CheckpointWarning")
@pytest.mark.parametrize(
    ("where", "number"), [pytest.param("fsync", errno.ENOSPC, marks=pytest.mark.slow), ("open", errno.EROFS)]
)
def test_a_fit_where_the_disk_fills_up_at_any_file(where, number, spectra, whole, tmp_path, capsys, monkeypatch):
    statuses = []
    for first in range(100):
        out = tmp_path / str(first)
        with monkeypatch.context() as patch:
            FullDisk(patch, first, where, number)
            status, errors = status_and_errors(capsys, "fit", spectra, "--out", out, *FIT)
        if out.exists():
            check_whole(out)
        statuses.append(status)
        if status == 0:
            break
        *others, last = errors.splitlines()
        assert last.startswith("error: "), errors
        assert os.strerror(number) in last
        assert ".partial-" not in last
        warned = [line for line in others if line.startswith("warning: cannot write a checkpoint of step")]
        assert all("engine" in line or "ELBO" in line for line in others if line not in warned)
        if (out / "config.json").exists():
            assert status_and_errors(capsys, "resume", out)[0] == 0
            check_whole(out)
            assert bits(out) == whole
    assert statuses == [2] * (len(statuses) - 1) + [0]
    assert len(statuses) > 8  # files


@pytest.mark.slow
def test_a_comparison_where_the_disk_fills_up(spectra, tmp_path, capsys, monkeypatch):
    arguments = ["compare", spectra, "--out", tmp_path / "study", *COMPARE]
    finished, enough = set(), 10**6
    for first in (1, 5, 3, 30, 60, enough):
        with monkeypatch.context() as patch:
            FullDisk(patch, first)
            status, errors = status_and_errors(capsys, *arguments)
        assert status == (0 if first == enough else 2), errors
        if status:
            assert errors.count("\n") == 1
            assert "No space left on device" in errors
        runs = {path.parent.name for path in tmp_path.rglob("runs/*/model.json")}
        assert finished <= runs
        finished = runs
        for path in tmp_path.rglob("*"):
            assert not path.name.startswith(".partial-")
    assert len(finished) == 2
    assert (tmp_path / "study" / "report.html").read_text().rstrip().endswith("</html>")


def test_a_model_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    def pair(width):
        model = pv.GenerativeModel(pv.nn.MLP(2, width), pv.GaussianLikelihood(width, 3), 2)
        return model, pv.AmortizedGuide(pv.nn.MLP(3, width), pv.DiagonalPosterior(width, 2))

    path = tmp_path / "model.safetensors"
    pv.save(path, *pair(4))
    before = path.read_bytes()
    for first in range(2):  # its tensors, its JSON
        with monkeypatch.context() as patch:
            FullDisk(patch, first)
            with pytest.raises(OSError, match="No space left on device") as caught:
                pv.save(path, *pair(8))
            assert caught.value.filename in (str(path), str(path.with_suffix(".json")))
        assert path.read_bytes() == before
        assert pv.load(path)[0].decoder.out_features == 4
    pv.save(tmp_path / "other.safetensors", *pair(4))
    path.write_bytes((tmp_path / "other.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"damaged, or model\.json is of another model"):
        pv.load(path)


@pytest.fixture
def limited():
    """Files of at most 1,500 bytes, by the kernel's own refusal."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size=before[0]):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    limit()


@pytest.mark.filterwarnings("default::pyrovae.training.checkpoint.CheckpointWarning")
def test_a_limit_on_the_size_of_files(spectra, whole, tmp_path, capsys, limited):
    """The settings fit in, a checkpoint does not, nor does the model."""
    out = tmp_path / "run"
    limited(1500)
    status, errors = status_and_errors(capsys, "fit", spectra, "--out", out, *FIT)
    limited()
    *lines, last = errors.splitlines()
    assert (status, last) == (2, f"error: {out / 'model.safetensors'}: File too large")
    warned = [line for line in lines if line.startswith("warning: ")]
    assert warned
    assert all("File too large; training continues; there is none" in line for line in warned)
    check_whole(out)
    assert not list(out.glob("checkpoints/checkpoint-*"))
    assert status_and_errors(capsys, "resume", out)[0] == 0
    assert bits(out) == whole
    for arguments, path in (
        (["evaluate", out, spectra], out / "spectra-scores.csv"),
        (["encode", out, spectra, "--out", tmp_path / "a.parquet"], tmp_path / "a.parquet"),
    ):
        limited(1500)
        status, errors = status_and_errors(capsys, *arguments)
        limited()
        assert status == 2
        assert errors.startswith(f"error: {path}: ")
        assert errors.endswith("File too large\n")
        assert errors.count("\n") == 1
        assert not path.exists()
        assert not list(path.parent.glob(".partial-*"))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, where the tests run as root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "pyrovae-test", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.filterwarnings("default::pyrovae.training.checkpoint.CheckpointWarning")
def test_a_disk_that_is_full(small_disk, spectra, whole, capsys):
    """A real one: with room for one block, for a checkpoint, and for everything."""
    out, ballast = small_disk / "run", small_disk / "ballast"
    statuses = []
    for spare in (1, 9, None):
        ballast.unlink(missing_ok=True)
        if spare is not None:
            stat = os.statvfs(small_disk)
            ballast.write_bytes(bytes(max(0, stat.f_bavail - spare) * stat.f_bsize))
        status, errors = status_and_errors(capsys, "fit", spectra, "--out", out, *FIT)
        statuses.append(status)
        if status:
            assert errors.splitlines()[-1].endswith("No space left on device")
        check_whole(out)
    assert statuses == [2, 2, 0]
    assert bits(out) == whole
