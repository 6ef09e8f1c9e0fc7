"""Data larger than memory, with a limit that makes small data large: the same numbers, and few pages in memory."""

import io
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import pyrovae as pv
from pyrovae import blocks
from pyrovae.datasets import Pipeline, Standardize, StandardNormalVariate
from pyrovae.frames import tensor_of
from pyrovae.linear_gaussian._moments import few_rows, moments
from pyrovae.linear_gaussian.baselines import linear_baselines
from pyrovae.linear_gaussian.factor_model import diagonal_model
from pyrovae.training.settings import sha256
from tests.training.runs import make_pair

X = (
    torch.randn(600, 2, generator=torch.Generator().manual_seed(0)).double()
    @ torch.tensor([[1.0, 2, 0], [0, 1, 3]]).double()
)
X += 0.3 * torch.randn(600, 3, generator=torch.Generator().manual_seed(1)).double() + torch.tensor([50.0, -3.0, 0.0])


@pytest.fixture
def small_limit(monkeypatch):
    monkeypatch.setattr(blocks, "LARGE", 4000)


@pytest.fixture
def in_file(tmp_path, monkeypatch):
    """A function that maps rows of a file, from its fourth on, with a limit that they exceed."""

    def rows(x):
        monkeypatch.setattr(blocks, "LARGE", 500)
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.npy"
        np.save(path, np.concatenate([np.full((3, x.shape[1]), 7.0), x]))
        found = tensor_of("x", np.load(path, mmap_mode="r")[3:])
        assert blocks.is_mapped(found)
        return found

    return rows


@pytest.fixture
def mapped(in_file):
    """X in a file."""
    return in_file(X)


def test_rows_of_a_mapped_file(mapped):
    index = torch.tensor([599, 0, 17, 17, 5])
    assert torch.equal(blocks.take(mapped, index), X[index])
    assert torch.equal(blocks.take(mapped[100:], index[1:]), X[100:][index[1:]])
    assert torch.equal(torch.cat(list(blocks.blocks(mapped))), X)
    assert len(list(blocks.blocks(mapped))) > 10
    assert max(map(len, blocks.blocks(mapped, 3))) == 3


def test_what_is_made_of_large_data_lies_in_a_file_and_goes_with_it(mapped, small_limit):
    double, sums = blocks.in_blocks(lambda rows: (2 * rows, rows.sum(1)), mapped)
    assert torch.equal(double, 2 * X)
    assert torch.equal(sums, X.sum(1))
    assert (blocks.is_mapped(double), blocks.is_mapped(sums)) == (True, True)
    small = blocks.in_blocks(lambda rows: rows[:, 0].float(), mapped)
    assert not blocks.is_mapped(small)
    assert torch.equal(small, X[:, 0].float())
    blocks.let_go(double)
    assert torch.equal(double, 2 * X)


def test_pages_of_a_mapped_file_are_let_go(tmp_path, monkeypatch):
    if not Path("/proc/self/smaps").exists():
        pytest.skip("needs Linux's /proc")

    def resident():
        found, of_file = 0, False
        for line in Path("/proc/self/smaps").read_text().splitlines():
            if "-" in line.split()[0]:
                of_file = line.endswith("pages.npy")
            elif of_file and line.startswith("Rss:"):
                found += 1024 * int(line.split()[1])
        return found

    monkeypatch.setattr(blocks, "LARGE", 2**22)
    np.save(tmp_path / "pages.npy", np.ones((2**16, 64), np.float32))  # 16 MiB
    x = tensor_of("x", np.load(tmp_path / "pages.npy", mmap_mode="r"))
    total = sum(block.sum().item() for block in blocks.blocks(x))
    assert total == x.numel()
    blocks.take(x, torch.randperm(len(x))[:2000])
    assert resident() == 0
    assert x[:: 2**10].sum() == 64 * 64
    assert resident() > 0


@pytest.mark.parametrize("engine", ["eager", "graph", "compiled"])
def test_training_on_a_mapped_file(mapped, engine):
    """Batches of 64 leave a smaller one; replicas have batches of their own."""
    if engine == "compiled":
        pytest.importorskip("jax")
    settings = {"epochs": 3, "batch_size": 64, "engine": engine, "progress": False}
    losses = [pv.fit(*make_pair(), x, pv.MonteCarloELBO(), **settings).batch_loss for x in (X, mapped)]
    assert losses[0] == losses[1]
    if engine != "eager":
        several = [pv.fit(*make_pair(), x, pv.MonteCarloELBO(), num_replicas=2, **settings) for x in (X, mapped)]
        assert [r.history.batch_loss for r in several[0]] == [r.history.batch_loss for r in several[1]]


def test_a_transform_of_a_mapped_file(mapped):
    settings = {"epochs": 2, "batch_size": 50, "engine": "eager", "progress": False}
    whole, of_file, without = (
        pv.fit(*make_pair(), x, pv.AnalyticELBO(), transform=transform, **settings).batch_loss
        for x, transform in ((X, lambda x, _: x / 2), (mapped, lambda x, _: x / 2), (X, None))
    )
    assert whole == of_file
    assert max(whole) < 0.5 * max(without)


def test_evaluation_of_a_mapped_file(mapped):
    model, guide = make_pair()
    for function in (pv.elbo_terms, lambda *a: pv.log_marginal(*a, num_samples=50, method="importance")):
        found = [function(model, guide, x[:200]) for x in (X, mapped)]
        values = [getattr(each, "elbo", None) if hasattr(each, "elbo") else each.per_datum for each in found]
        assert torch.equal(*values)


def test_one_bar_for_all_blocks_of_a_mapped_file(mapped, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    pv.log_marginal(*make_pair(), mapped[:200], num_samples=50, progress=True)
    assert terminal.getvalue().count(" 0/") == 1
    assert "200/200" in terminal.getvalue()


@pytest.mark.parametrize(
    "likelihood",
    [
        pv.GaussianLikelihood(1, 3),
        pv.GaussianLikelihood(1, 3, scale="per-dimension"),
        pv.AR1GaussianLikelihood(1, 3),
        pv.FullCovarianceGaussianLikelihood(1, 3),
    ],
    ids=lambda noise: f"{type(noise).__name__}-{getattr(noise, 'scale', '')}",
)
def test_linear_models_of_large_data(likelihood, in_file):
    """Fitted to few rows with the data's mean and covariance; the prior on the noise is that of all data."""
    whole = pv.FactorModel.fit(X[:400], likelihood, 1, validation=X[400:])
    found = pv.FactorModel.fit(in_file(X[:400]), likelihood, 1, validation=in_file(X[400:]))
    assert torch.allclose(found.log_prob(X), whole.log_prob(X), rtol=0, atol=1e-9)
    assert torch.allclose(found.log_prob(in_file(X)), found.log_prob(X), rtol=0, atol=1e-12)


@pytest.mark.parametrize("units", [[1.0, 1e7, 1], [1e-5, 1.0, 1e3], [1e9, 1, 1e-3]])
def test_large_data_in_other_units(units, in_file):
    """No channel is lost beside a much larger one."""
    x = (X - X.mean(0)) * torch.tensor(units).double()
    for fit in (lambda x: pv.FactorModel.fit_in_units(x, 1), diagonal_model):
        assert torch.allclose(fit(in_file(x)).log_prob(x), fit(x).log_prob(x), rtol=0, atol=1e-6)


def test_baselines_of_large_data(in_file):
    x = torch.cat([X, X.roll(1, 0) ** 2 / 50], 1)
    parts = x[:400], x[500:], x[400:500]
    whole, found = (
        linear_baselines(train, test, 1, validation=validation)
        for train, test, validation in (parts, [in_file(part) for part in parts])
    )
    for one, expected in zip(found, whole, strict=True):
        if expected.log_prob is not None:
            assert torch.allclose(one.log_prob, expected.log_prob, rtol=0, atol=1e-9), one.name


def test_few_rows_have_the_data_s_moments(in_file):
    drifting, line = torch.cat([X, X + 5, X - 1, X + 1e4]), X[:, :1] * torch.tensor([1.0, -2, 3])
    with_constant = X.clone()
    with_constant[:, 1] = 0.1
    for x, num in ((drifting, 6), (line, 2), (with_constant, 4)):
        rows = few_rows(in_file(x))
        assert len(rows) == num
        for mean, covariance in (moments(in_file(x)), (rows.mean(0), torch.cov(rows.T, correction=0))):
            assert torch.allclose(mean, x.mean(0), rtol=1e-12)
            assert torch.allclose(covariance, torch.cov(x.T, correction=0), rtol=1e-9, atol=1e-12)
    assert (rows[:, 1] == rows[0, 1]).all()
    assert len(few_rows(in_file(X.masked_fill(X > 52, torch.nan)))) == len(X)
    assert torch.equal(few_rows(in_file(torch.ones(100, 3).double())), torch.ones(2, 3).double())


STEPS = [Standardize(), Standardize("all"), Standardize("mean"), Pipeline(StandardNormalVariate())]


@pytest.mark.parametrize("step", STEPS)
def test_preprocessing_of_large_data(step, in_file):
    x = X.masked_fill(X > 52, torch.nan)
    whole = step.fit(x).transform(x)
    assert torch.equal(whole.isnan(), x.isnan())
    assert abs(whole.nanmean().item()) < 1e-9
    assert torch.allclose(step.fit(x.numpy()).transform(x.numpy()), whole, rtol=0, atol=1e-12, equal_nan=True)
    y = step.fit(in_file(x)).transform(in_file(x))
    assert torch.allclose(y, whole, rtol=0, atol=1e-12, equal_nan=True)
    if step.comparable:
        assert torch.allclose(step.inverse(y), x, equal_nan=True)


def test_what_is_written_to_a_result_stays(mapped):
    """A result in a file is the user's, and is read and let go as it is."""
    y = Standardize().fit(mapped).transform(mapped)
    y.clamp_(-0.5, 0.5)
    blocks.let_go(y)
    assert y.abs().max() == 0.5
    assert blocks.take(y, torch.arange(600)).abs().max() == 0.5


def test_rows_are_read_by_several_threads_at_once(mapped):
    index = torch.randint(600, (3000,), generator=torch.Generator().manual_seed(0))
    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(found, X[index]) for found in pool.map(partial(blocks.take, mapped), [index] * 8))


def test_a_file_that_became_shorter_is_refused(tmp_path, mapped):
    (path,) = tmp_path.glob("*.npy")
    with path.open("rb+") as file:
        file.truncate(5000)
    assert torch.equal(blocks.take(mapped, torch.tensor([0])), X[:1])
    with pytest.raises(pv.InputError, match="has become shorter"):
        blocks.take(mapped, torch.tensor([599]))
    with pytest.raises(IndexError):
        blocks.take(mapped[:10], torch.tensor([10]))


def test_identities_of_numbers():
    assert sha256(torch.tensor(1.0)) == sha256(torch.tensor([1.0]))


class Pairs(Dataset):
    """Items (x, label), as of images."""

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return X[i].numpy(), i % 3


class Stream(IterableDataset):
    def __iter__(self):
        return iter(X)


def collate(items):
    """Twice the rows, as of a loader that augments."""
    return torch.as_tensor(np.stack([2 * x for x, _ in items]))


DATASETS = {
    "tensors": TensorDataset(X),
    "tensors and labels": TensorDataset(X, X[:, 0]),
    "items and labels": Pairs(),
    "a stream": Stream(),
    "a subset": Subset(Pairs(), range(600)),
    "a loader that shuffles": DataLoader(Pairs(), 7, shuffle=True, drop_last=True),
    "a loader of a stream": DataLoader(Stream(), 9),
    "a loader that collates": DataLoader(Pairs(), 8, collate_fn=collate),
}


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("limit", [2**28, 4000])
def test_a_dataset_is_read_in_its_order(name, limit, monkeypatch):
    monkeypatch.setattr(blocks, "LARGE", limit)
    x = tensor_of("x", DATASETS[name])
    assert torch.equal(x, 2 * X if name == "a loader that collates" else X)
    assert blocks.is_mapped(x) == (limit < 2**28)


def test_training_on_a_dataset():
    settings = {"epochs": 2, "progress": False}
    losses = [pv.fit(*make_pair(), x, pv.AnalyticELBO(), **settings).batch_loss for x in (X, Pairs())]
    assert losses[0] == losses[1]
    assert torch.equal(pv.elbo_terms(*make_pair(), DataLoader(Pairs())).elbo, pv.elbo_terms(*make_pair(), X).elbo)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            DataLoader(Pairs(), sampler=SubsetRandomSampler([1, 2])),
            "in a way of its own.*give its dataset",
        ),
        (
            DataLoader(Pairs(), sampler=WeightedRandomSampler([1.0] * 600, 600)),
            "in a way of its own",
        ),
        ([{"x": 1.0}], "data must be a tensor, a NumPy array, a DataFrame of numbers or a Dataset, not list"),
        (TensorDataset(X[:0]), "data is empty"),
        (DataLoader([{"x": X[0]}] * 3), "items of data must be x, or begin with x.*not dict"),
        (DataLoader([[1.0, 2.0, 3.0]] * 9), "items of data must be x, or begin with x.*not single numbers"),
        (DataLoader(Pairs(), batch_sampler=BatchSampler(SubsetRandomSampler([1, 2]), 8, False)), "of its own"),
        (DataLoader(Pairs(), sampler=RandomSampler(Pairs(), True, 20)), "of its own"),
        (DataLoader(Pairs(), sampler=SequentialSampler(range(10))), "of its own"),
        (DataLoader(TensorDataset(X), batch_size=None), "of its own"),
        (DataLoader([X[0], X[1][:2]], 2), "the items of data cannot be stacked"),
    ],
)
def test_datasets_that_are_refused(data, message):
    with pytest.raises(pv.InputError, match=message) as error:
        pv.fit(*make_pair(), data, pv.AnalyticELBO(), epochs=1, progress=False)
    assert "\n" not in str(error.value)


def test_a_folder_is_read_file_by_file(tmp_path):
    header = ",".join(f"{400 + k}" for k in range(3))
    for k, part in enumerate(X.split(250)):
        np.savetxt(tmp_path / f"part{k}.csv", part.numpy(), delimiter=",", header=header, comments="", fmt="%.17g")
    files = pv.datasets.SpectraFiles(tmp_path, "part*.csv")
    assert torch.equal(tensor_of("x", files), X.to(torch.get_default_dtype()))
    with pytest.raises(pv.InputError, match=r"has no file \*.parquet"):
        pv.datasets.SpectraFiles(tmp_path, "*.parquet")
    (tmp_path / "part9.csv").write_text("400,401,403\n1,2,3\n2,3,5\n")
    with pytest.raises(pv.InputError, match=r"part9.csv has 3 channels with 403 among them.*part0.csv has 3"):
        tensor_of("x", pv.datasets.SpectraFiles(tmp_path, "part*.csv"))


class Broken(Pairs):
    def __getitem__(self, i):
        raise TypeError("a bug of the dataset")


def test_a_bug_in_a_dataset_is_no_bad_input():
    with pytest.raises(TypeError, match="a bug of the dataset") as error:
        tensor_of("x", Broken())
    assert not isinstance(error.value, pv.InputError)


@pytest.mark.parametrize("second", [X[:300, :2], X[:300].float()])
def test_batches_that_differ_are_refused(second, monkeypatch):
    monkeypatch.setattr(blocks, "LARGE", 4000)
    with pytest.raises(pv.InputError, match="rows must be alike"):
        blocks.gathered([X[:300], second])


@pytest.mark.skipif(sys.platform != "linux", reason="the heap is that of glibc")
def test_memory_that_was_freed_below_an_array_in_use_goes_back_to_the_system() -> None:
    def resident() -> int:
        fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
        return int(fields["RssAnon"].split()[0]) * 1024

    size, number = 100_000, 2_000
    arrays = [np.ones(size, np.uint8) for _ in range(number)]
    last = arrays[-1]  # at the heap's end
    arrays.clear()
    before = resident()
    blocks.give_back_freed()
    assert before - resident() > size * number // 2
    assert last.all()
