"""Data larger than memory, with a limit that makes small data large: the same numbers, and few pages in memory."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
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
def mapped(tmp_path, small_limit):
    """Rows of a file that is larger than the limit, from the fourth on."""
    np.save(tmp_path / "x.npy", np.concatenate([np.full((3, 3), 7.0), X.numpy()]))
    x = tensor_of("x", np.load(tmp_path / "x.npy", mmap_mode="r")[3:])
    assert blocks.is_mapped(x)
    return x


def test_rows_of_a_mapped_file(mapped):
    index = torch.tensor([599, 0, 17, 17, 5])
    assert torch.equal(blocks.take(mapped, index), X[index])
    assert torch.equal(blocks.take(mapped[100:], index[1:]), X[100:][index[1:]])
    assert torch.equal(torch.cat(list(blocks.blocks(mapped))), X)
    assert len(list(blocks.blocks(mapped))) > 10
    assert max(map(len, blocks.blocks(mapped, 7))) == 7


def test_what_is_made_of_large_data_lies_in_a_file_and_goes_with_it(mapped):
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
def test_linear_models_of_large_data(likelihood, monkeypatch):
    """Fitted to few rows with the data's mean and covariance; the prior on the noise is that of all data."""
    parts = X[:400], X[400:]
    whole = pv.FactorModel.fit(parts[0], likelihood, 1, validation=parts[1])
    monkeypatch.setattr(blocks, "LARGE", 500)
    found = pv.FactorModel.fit(parts[0], likelihood, 1, validation=parts[1])
    assert torch.allclose(found.log_prob(X), whole.log_prob(X), rtol=0, atol=1e-9)
    scores = found.log_prob(X.float().numpy())
    assert scores.shape == (600,)


def test_baselines_of_large_data(monkeypatch):
    x = torch.cat([X, X.roll(1, 0) ** 2 / 50], 1)
    whole = linear_baselines(x[:400], x[500:], 1, validation=x[400:500])
    monkeypatch.setattr(blocks, "LARGE", 500)
    for found, expected in zip(linear_baselines(x[:400], x[500:], 1, validation=x[400:500]), whole, strict=True):
        if expected.log_prob is not None:
            assert torch.allclose(found.log_prob, expected.log_prob, rtol=0, atol=1e-9), found.name


def test_few_rows_have_the_data_s_moments(small_limit):
    drifting, line = torch.cat([X, X + 5, X - 1]), X[:, :1] * torch.tensor([1.0, -2, 3])
    for x, num in ((drifting, 6), (line, 2)):
        rows = few_rows(x)
        assert len(rows) == num
        for each in (rows, x):
            mean, covariance = moments(each)
            assert torch.allclose(mean, x.mean(0), rtol=1e-12)
            assert torch.allclose(covariance, torch.cov(x.T, correction=0), rtol=1e-12)
    assert len(few_rows(X.masked_fill(X > 52, torch.nan))) == len(X)


@pytest.mark.parametrize(
    "step", [Standardize(), Standardize("all"), Standardize("mean"), Pipeline(StandardNormalVariate())]
)
def test_preprocessing_of_large_data(step, monkeypatch):
    x = X.masked_fill(X > 52, torch.nan)
    whole = step.fit(x).transform(x)
    assert torch.equal(whole.isnan(), x.isnan())
    assert abs(whole.nanmean().item()) < 1e-9
    monkeypatch.setattr(blocks, "LARGE", 500)
    assert torch.allclose(step.fit(x).transform(x), whole, rtol=0, atol=1e-12, equal_nan=True)
    if step.comparable:
        assert torch.allclose(step.inverse(whole), x, equal_nan=True)


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
    "a loader without batches": DataLoader(TensorDataset(X), batch_size=None),
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
            "draws its data in a way of its own.*give its dataset",
        ),
        (DataLoader(Pairs(), sampler=WeightedRandomSampler([1.0] * 600, 600)), "draws its data in a way of its own"),
        ([{"x": 1.0}], "data must be a tensor, a NumPy array, a DataFrame of numbers or a Dataset, not list"),
        (TensorDataset(X[:0]), "data is empty"),
        (DataLoader([{"x": X[0]}] * 3), "items of data must be x, or begin with x.*they give dict"),
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
