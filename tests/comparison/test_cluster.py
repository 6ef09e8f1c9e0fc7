"""Runs on a Dask cluster: a scheduler and workers as processes of their own on this machine."""

import inspect
import io
import json
import os
import signal
import subprocess
import sys
import zipfile
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import pyrovae as pv
from pyrovae.comparison._cluster import run_on_cluster
from pyrovae.comparison._data import prepare
from pyrovae.comparison._result import finished, pack, unpack
from pyrovae.comparison.compare import plan_of
from pyrovae.comparison.compare_file import compare_file
from pyrovae.comparison.settings import ComparisonSettings, Execution
from pyrovae.comparison.study import COMPARED_BY_DEFAULT, Study
from pyrovae.files import to_json
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]


def make_likelihood(in_features, n):
    """A Gaussian one; a worker counts its models in a file, and ends itself where it makes its third."""
    counted = os.environ.get("MODELS_OF_WORKERS")
    if counted is not None and any(frame.function == "run_group" for frame in inspect.stack()):
        with open(counted, "a") as file:
            print(os.getpid(), file=file)
        killed = Path(counted).with_name("killed")
        if Path(counted).read_text().split().count(str(os.getpid())) == 3 and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return pv.GaussianLikelihood(in_features, n)


SETTINGS = {
    "posteriors": ["diagonal", "full-covariance"],
    "estimators": ["analytic", "monte-carlo"],
    "likelihoods": {"gaussian": make_likelihood},
    "seeds": (0, 1),
    "epochs": 2,
    "hidden": (8,),
    "log_marginal_samples": 10,
    "engine": "eager",
    "pictures": False,
    "progress": False,
}


def data():
    g = torch.Generator().manual_seed(0)
    return torch.randn(60, 2, generator=g) @ torch.randn(2, 5, generator=g) + 0.3 * torch.randn(60, 5, generator=g)


@contextmanager
def cluster(folder, num_workers):
    """A scheduler's address, and its workers' processes, each with one thread and on the loopback alone."""
    pytest.importorskip("distributed")
    counted = {"MODELS_OF_WORKERS": str(folder / "models.txt")}
    env = {**os.environ, **counted, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def started(name, *options):
        command = [sys.executable, "-m", f"distributed.cli.dask_{name}", *map(str, options), "--no-dashboard"]
        with (folder / f"{name}.log").open("a") as log:
            return subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log)

    told = folder / "scheduler.json"
    processes = [started("scheduler", "--host", "127.0.0.1", "--port", 0, "--scheduler-file", told)]
    try:
        wait_until(lambda: told.exists() and told.read_text().endswith("}"))
        address = json.loads(told.read_text())["address"]
        processes += [
            started("worker", address, "--host", "127.0.0.1", "--nthreads", 1, "--no-nanny") for _ in range(num_workers)
        ]
        yield address, processes[1:]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def without_time(table):
    return table.drop(columns=[name for name in table if "second" in name])


@pytest.mark.slow
def test_a_cluster_gives_the_same_bits_although_a_worker_is_killed(tmp_path, monkeypatch):
    """The run that the lost worker was making is made again by the other, and no other run is."""
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "killed").touch()
    with monkeypatch.context() as patch:
        patch.setenv("MODELS_OF_WORKERS", str(tmp_path / "alone" / "models.txt"))
        here = pv.compare(data(), out=tmp_path / "here", **SETTINGS)
    needed = len((tmp_path / "alone" / "models.txt").read_text().split())
    with cluster(tmp_path, 2) as (address, workers):
        there = pv.compare(data(), out=tmp_path / "there", scheduler=address, **SETTINGS)
        assert (tmp_path / "killed").exists()
        assert sum(worker.poll() is not None for worker in workers) == 1
    pd.testing.assert_frame_equal(without_time(there), without_time(here))
    assert there.attrs == here.attrs
    files = [sorted(p.relative_to(out) for p in out.rglob("*")) for out in (tmp_path / "here", tmp_path / "there")]
    assert files[0] == files[1]
    made = (tmp_path / "models.txt").read_text().split()
    assert len(made) == needed + 3
    again = pv.compare(data(), out=tmp_path / "there", resume=True, **SETTINGS)
    assert again["seconds"].tolist() == there["seconds"].tolist()  # taken over


def meet(folder, piece):
    """Says that it has begun, and waits until another piece has."""
    (folder / str(piece)).touch()
    wait_until(lambda: len(list(folder.iterdir())) > 1)
    return str(os.getpid()).encode()


@pytest.mark.slow
def test_a_few_pieces_go_to_all_workers(tmp_path, monkeypatch):
    """The workers take nothing from each other here, so two pieces meet only where both workers were given one."""
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING", "False")
    begun = tmp_path / "begun"
    begun.mkdir()
    with cluster(tmp_path, 2) as (address, workers):
        with distributed.Client(address, set_as_default=False) as client:
            client.wait_for_workers(2)
        made = Counter(int(result) for _, result in run_on_cluster(partial(meet, begun), range(4), address))
    assert made == {worker.pid: 2 for worker in workers}


@pytest.mark.slow
def test_a_file_is_compared_with_the_same_bits_by_processes_and_on_a_cluster(tmp_path):
    study = Study(
        data=tmp_path / "data.npy",
        settings=replace(COMPARED_BY_DEFAULT, likelihoods=("gaussian",), seeds=(0, 1), hidden=(8,)),
        epochs=1,
        gap_data=0,
    )
    np.save(study.data, data().numpy())
    (tmp_path / "killed").touch()
    with cluster(tmp_path, 1) as (address, _):
        found = [
            compare_file(study, tmp_path / str(i), execution=execution, progress=False)
            for i, execution in enumerate([Execution(), Execution(2), Execution(scheduler=address)])
        ]
    for other in found[1:]:
        pd.testing.assert_frame_equal(without_time(other.runs), without_time(found[0].runs))


@pytest.mark.slow
def test_a_scheduler_that_is_not_there_is_named():
    pytest.importorskip("distributed")
    with pytest.raises(pv.InputError, match=r"cannot reach a Dask scheduler at 'tcp://127.0.0.1:1'"):
        pv.compare(data(), **SETTINGS, scheduler="tcp://127.0.0.1:1")


def test_a_scheduler_and_processes_of_this_machine_are_not_had_together():
    settings = SETTINGS | {"scheduler": "tcp://127.0.0.1:1"}
    with pytest.raises(pv.InputError, match="give only one"):
        pv.compare(data(), **settings, workers=2)


@pytest.fixture(scope="module")
def archived(tmp_path_factory):
    """A plan of one run, and the archive of its folder."""
    out = tmp_path_factory.mktemp("archived") / "run"
    settings = {**SETTINGS, "posteriors": ["diagonal"], "estimators": ["analytic"], "seeds": (0,)}
    pv.compare(data(), out=out, **settings)
    training = pv.TrainingSettings(epochs=settings.pop("epochs"), engine=settings.pop("engine"))
    del settings["progress"], settings["pictures"]
    settings = ComparisonSettings(training=training, **settings)
    plan = replace(plan_of(settings, prepare(data(), None, None, settings)), out=out)
    results = finished(plan, plan.cells)
    return plan, results, pack(results, out)


@pytest.mark.parametrize(
    ("name", "content"),
    [("../outside.txt", b"x"), ("deeper/outside.txt", b"x"), ("metrics.json", b"{"), ("model.safetensors", b"torn")],
)
def test_an_archive_is_read_as_data_or_refused(archived, name, content, tmp_path):
    """Nothing is written outside of the run's folder."""
    plan, results, packed = archived
    (found,) = unpack(plan, plan.cells, packed, tmp_path / "whole").values()
    assert to_json(found.metrics) == to_json(next(iter(results.values())).metrics)
    folder = plan.cells[0].folder
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(packed)) as old, zipfile.ZipFile(changed, "w") as new:
        for member in old.namelist():
            if member != f"{folder}/{name}":
                new.writestr(member, old.read(member))
        new.writestr(f"{folder}/{name}", content)
    with pytest.raises(ValueError):  # noqa: PT011 (of JSON, safetensors or our own)
        unpack(plan, plan.cells, changed.getvalue(), tmp_path / "changed" / "inner")
    assert not list(tmp_path.rglob("outside.txt"))
