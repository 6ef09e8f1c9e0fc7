"""DataFrames at every public function that takes data: equal to the tensor's result, index and columns kept."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import pyrovae as pv
from pyrovae.frames import tensor_of
from pyrovae.linear_gaussian.exact import LinearGaussianVAE
from pyrovae.linear_gaussian.factor_model import diagonal_model
from tests.pairs import make_pair

NAMES = [f"sample {i}" for i in range(5)]
CHANNELS = list("abcde")  # as many as data: a number for each datum could be taken for one of each channel
_MIXED = torch.randn(60, 5, generator=torch.Generator().manual_seed(0)).double() @ torch.tril(torch.ones(5, 5).double())
X, GAPS = _MIXED[:5], _MIXED[:5].masked_fill(torch.eye(5).bool(), torch.nan)
MANY = pd.DataFrame(_MIXED.numpy(), columns=CHANNELS).set_axis([f"sample {i}" for i in range(60)])
FACTORS = pv.FactorModel.fit(_MIXED, pv.AR1GaussianLikelihood(1, 5), 2)
SHRUNK = pv.ShrunkGaussian.fit(_MIXED[:40], _MIXED[40:], {"its diagonal": diagonal_model(_MIXED[:40])})[0]
EXACT = LinearGaussianVAE.fit(_MIXED, 2)
PAIR = make_pair(n=5, d=2, seed=0, missing=True)
QUICK = {"epochs": 1, "progress": False}


def frame(x):
    return pd.DataFrame(x.numpy(), index=NAMES, columns=CHANNELS)


def numbers(found):
    """Everything that a result holds, as one array."""
    if isinstance(found, pd.DataFrame | pd.Series | np.ndarray):
        return np.ravel(np.asarray(found, dtype=np.float64))
    if isinstance(found, torch.Tensor):
        return found.double().numpy().ravel()
    if isinstance(found, torch.nn.Module):
        return np.concatenate([numbers(value) for value in found.state_dict().values()])
    if isinstance(found, tuple | list):
        return np.concatenate([numbers(part) for part in found])
    return np.ravel(np.asarray(found, dtype=np.float64))


OF_DATA = {
    f"{type(model).__name__}.{name}": getattr(model, name)
    for model, names in ((FACTORS, "log_prob kl"), (SHRUNK, "log_prob kl"))
    for name in names.split()
} | {
    "FactorModel.best_elbo": partial(FACTORS.best_elbo, "diagonal"),
    "LinearGaussianVAE.elbo": partial(EXACT.elbo, EXACT.to_guide()),
}
OF_VALUES = {
    f"{type(model).__name__}.{name}": getattr(model, name)
    for model in (FACTORS, SHRUNK)
    for name in ("reconstruct", "spread", "complete", "score", "conditional_means")
}


@pytest.mark.parametrize("name", OF_DATA)
def test_numbers_of_data_are_a_series(name):
    """The method's name is the Series' name."""
    x = X if "elbo" in name else GAPS
    found = OF_DATA[name](frame(x))
    assert isinstance(found, pd.Series)
    assert list(found.index) == NAMES
    assert found.name == name.split(".")[1]
    np.testing.assert_allclose(found, OF_DATA[name](x), rtol=1e-12)


@pytest.mark.parametrize("x", [X, GAPS], ids=["complete", "gaps"])
@pytest.mark.parametrize("name", OF_VALUES)
def test_numbers_of_values_are_frames(name, x):
    found, same = OF_VALUES[name](frame(x)), OF_VALUES[name](x)
    parts, same = (found, same) if isinstance(found, tuple) else ((found,), (same,))
    for part, tensor in zip(parts, same, strict=True):
        assert isinstance(part, pd.DataFrame)
        assert (list(part.index), list(part.columns)) == (NAMES, CHANNELS)
        np.testing.assert_allclose(part, tensor.expand(5, 5), rtol=1e-12)


def test_a_table_may_be_given_by_name():
    pd.testing.assert_series_equal(FACTORS.log_prob(x=frame(X)), FACTORS.log_prob(frame(X)))


RESULTS = {
    "FactorModel.fit": lambda x: pv.FactorModel.fit(x, pv.GaussianLikelihood(1, 5), 2),
    "FactorModel.fit, full covariance": lambda x: pv.FactorModel.fit(
        x, pv.FullCovarianceGaussianLikelihood(1, 5), 2, x
    ),
    "FactorModel.fit_in_units": lambda x: pv.FactorModel.fit_in_units(x, 2),
    "FactorModel.refit": lambda x: FACTORS.refit(x),
    "FactorModel.refit, no latents": lambda x: diagonal_model(_MIXED).refit(x),
    "FactorModel.posterior": lambda x: FACTORS.posterior(x).mean,
    "FactorModel.expected_moments": lambda x: FACTORS.expected_moments(x),
    "ShrunkGaussian.fit": lambda x: pv.ShrunkGaussian.fit(x, x, {"its diagonal": diagonal_model(_MIXED)})[0],
    "ShrunkGaussian.refit": lambda x: SHRUNK.refit(x),
    "exact.LinearGaussianVAE.fit": lambda x: LinearGaussianVAE.fit(x, 2).loadings,
    "linear_baselines": lambda x: [b.log_prob for b in pv.linear_baselines(x, x, 2, progress=False)[1:]],
    "datasets.find_copies": pv.datasets.find_copies,
    "fit": lambda x: pv.fit(*make_pair(n=5, seed=0), x, pv.AnalyticELBO(), validation=x, **QUICK).best_loss,
    "compare": lambda x: pv.compare(
        x, test=x, validation=x, estimators=["analytic"], posteriors=["diagonal"], seeds=[0], **QUICK
    )["test_neg_elbo"],
    "log_marginal": lambda x: pv.log_marginal(*PAIR, x, num_samples=20, method="importance").per_datum,
    "elbo_terms": lambda x: pv.elbo_terms(*PAIR, x).elbo,
    "elbo_estimate": lambda x: pv.elbo_estimate(*PAIR, x, num_samples=20).per_datum,
    "refine": lambda x: pv.refine(*PAIR, x.iloc[:3] if isinstance(x, pd.DataFrame) else x[:3]).elbo.per_datum,
    "refit": lambda x: pv.refit(*PAIR, x, pv.DiagonalPosterior, max_steps=60)[0],
    "refit_encoder": lambda x: pv.refit_encoder(*PAIR, x, validation=x, num_draws=20, **QUICK).guide,
    "collapse_report": lambda x: pv.collapse_report(*PAIR, x).to_frame(),
    "active_directions": lambda x: pv.active_directions(PAIR[1], x),
    "gradient_statistics": lambda x: pv.gradient_statistics(*PAIR, pv.AnalyticELBO(), x, num_repeats=3).to_frame()[
        "variance"
    ],
    "audit": lambda x: pv.audit(*PAIR, pv.AnalyticELBO(), x).loss,
}
"""Of 60 data, all public functions of data whose results have no index."""


@pytest.mark.parametrize("name", RESULTS)
def test_results_are_those_of_tensors(name):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        found = numbers(RESULTS[name](MANY))
        torch.manual_seed(1)
        same = numbers(RESULTS[name](_MIXED))
    np.testing.assert_allclose(found, same, rtol=1e-9)


def test_imputations_keep_index_and_columns():
    found, same = (pv.impute(*PAIR, data, num_samples=50) for data in (frame(GAPS), GAPS))
    for name in ("mean", "lower", "upper"):
        part = getattr(found, name)
        assert (list(part.index), list(part.columns)) == (NAMES, CHANNELS)
        np.testing.assert_array_equal(part, getattr(same, name))
    assert torch.equal(found.reliable, same.reliable)


def test_text_is_refused():
    with pytest.raises(pv.InputError, match=r"x must hold only numbers, not .*; leave out columns of text"):
        FACTORS.log_prob(frame(X).assign(e="text"))
    what = "a tensor, a NumPy array, a DataFrame of numbers or a Dataset"
    with pytest.raises(pv.InputError, match=f"x must be {what}, not str"):
        tensor_of("x", "file.csv")


TYPED = """
from typing import Any, assert_type
import pandas as pd, torch
from torch import Tensor
import pyrovae as pv

m: pv.FactorModel
v: pv.exact.LinearGaussianVAE
g: pv.ShrunkGaussian

def check(frame: pd.DataFrame, x: Tensor) -> None:
    assert_type(m.log_prob(frame), "pd.Series[Any]")
    assert_type(m.log_prob(x), Tensor)
    assert_type(v.best_elbo("diagonal", frame), "pd.Series[Any]")
    assert_type(v.best_elbo("diagonal", x=x), Tensor)
    assert_type(v.elbo(v.to_guide(), frame), "pd.Series[Any]")
    assert_type(v.elbo(guide=v.to_guide(), x=x), Tensor)
    for model in (m, g):
        assert_type(model.spread(), Tensor)
        assert_type(model.spread(None), Tensor)
        assert_type(model.spread(x), Tensor)
        assert_type(model.spread(frame), pd.DataFrame)
    assert_type(m.complete(frame), tuple[pd.DataFrame, pd.DataFrame])
"""


@pytest.mark.slow
def test_a_type_checker_knows_what_is_returned(tmp_path):
    api = pytest.importorskip("mypy.api")
    (tmp_path / "typed.py").write_text(TYPED)
    root = Path(pv.__file__).parents[1]
    said, _, status = api.run(["--config-file", str(root / "pyproject.toml"), str(tmp_path / "typed.py")])
    assert status == 0, said
