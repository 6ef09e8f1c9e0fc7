"""Targets beside spectra (fat, moisture, assay): y given x by joint models, PLS and ridge regression.

python -m experiments.targets --data tecator.csv --targets fat moisture
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.cross_decomposition import PLSRegression
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import pyrovae as pv
from experiments import page
from experiments.options import Options
from experiments.summaries import mean_and_error
from pyrovae.commands import console
from pyrovae.comparison.tables import markdown_table
from pyrovae.datasets import read_spectra
from pyrovae.errors import InputError
from pyrovae.files import write_table
from pyrovae.progress import progress_bar

Array = NDArray[np.float64]
LEVEL = 0.9
DIMS = (4, 8, 16, 32)
"""Latent dimensions of factor analysis that are tried."""
MOST_CHANNELS = 200
"""Of a spectrum with more, every second, third, … channel is taken."""


@dataclass(frozen=True)
class Settings(Options):
    """Predict targets of spectra by joint models of spectra and targets, by PLS and by ridge regression."""

    data: tuple[Path, ...] = ()
    """Files of spectra with targets; none: simulated ones."""
    targets: tuple[str, ...] = ()
    """Columns to predict; each file must have one at least."""
    splits: int = 10
    """Random splits into 60 % to train, 15 % to choose and to calibrate, 25 % to test."""
    vae: bool = False
    """Train a VAE too."""
    epochs: int = 300
    """Epochs of a VAE."""


@dataclass(frozen=True)
class Prediction:
    """Of test data: E[y|x], the ends of 90 % intervals and log p(y|x)."""

    mean: Array
    lower: Array
    upper: Array
    log_prob: Array

    def row(self, y: Array, factor: float) -> dict[str, float]:
        """What is measured; the calibrated intervals are wider by a factor."""
        reach = factor * np.where(y > self.mean, self.upper - self.mean, self.mean - self.lower)
        return {
            "rmsep": float(np.sqrt(np.mean((self.mean - y) ** 2))),
            "inside": float(np.mean((self.lower <= y) & (y <= self.upper))),
            "calibrated": float(np.mean(np.abs(y - self.mean) <= reach)),
            "log_prob": float(self.log_prob.mean()),
        }

    def factor(self, y: Array) -> float:
        """By how much intervals must be wider to hold their share of calibration data: split conformal prediction."""
        reach = np.where(y > self.mean, self.upper - self.mean, self.mean - self.lower)
        scores = np.sort(np.abs(y - self.mean) / reach)
        return float(scores[min(len(y), int(np.ceil((len(y) + 1) * LEVEL))) - 1])


Predictor = Callable[[Array, Array], Prediction]
"""(x, y) of new data -> their prediction."""


def by_joint_model(model: pv.FactorModelTransformer | pv.VAETransformer, x: Array, y: Array) -> Predictor:
    """A joint model of x and y."""
    regressor = pv.JointRegressor(model).fit(x, y)

    def predict(x: Array, y: Array) -> Prediction:
        lower, upper = regressor.predict_interval(x, level=LEVEL)
        return Prediction(regressor.predict(x), lower, upper, regressor.log_prob(x, y))

    return predict


def by_regression(regressor: object, x: Array, y: Array, error: float) -> Predictor:
    """A regression, with a Gaussian of its error on validation data."""
    fitted = make_pipeline(StandardScaler(), regressor).fit(x, y)

    def predict(x: Array, y: Array) -> Prediction:
        mean = np.ravel(fitted.predict(x))
        reach = norm.isf((1 - LEVEL) / 2) * error
        return Prediction(mean, mean - reach, mean + reach, norm.logpdf(y, mean, error))

    return predict


def chosen(regressors: list[object], train: tuple[Array, Array], validation: tuple[Array, Array]) -> Predictor:
    """The regression with the smallest error on validation data."""
    found: list[tuple[float, int]] = []
    for regressor in regressors:
        fitted = make_pipeline(StandardScaler(), regressor).fit(*train)
        error = np.sqrt(np.mean((np.ravel(fitted.predict(validation[0])) - validation[1]) ** 2))
        found.append((float(error), len(found)))
    error, best = min(found)
    return by_regression(regressors[best], *train, error)


def factor_analysis(d: int) -> pv.FactorModelTransformer:
    """Factor analysis of standardised columns."""
    return pv.FactorModelTransformer(d, "gaussian-per-dimension", "channel", max_steps=300)


def measure(x: Array, y: Array, seed: int, settings: Settings) -> list[dict[str, object]]:
    """One row a method for one split."""
    order = np.random.default_rng(seed).permutation(len(x))
    parts = np.split(order, [int(0.6 * len(x)), int(0.75 * len(x))])
    train, validation, test = ((x[rows], y[rows]) for rows in parts)
    alphas = [Ridge(alpha) for alpha in 10.0 ** np.arange(-8, 3)]
    methods = {
        "PLS": chosen([PLSRegression(k) for k in range(1, 21)], train, validation),
        "ridge": chosen(alphas, train, validation),
    }
    joint = {d: by_joint_model(factor_analysis(d), *train) for d in DIMS if d < min(train[0].shape)}
    values = {d: predict(*validation).log_prob.mean() for d, predict in joint.items()}
    best = max(values, key=lambda d: values[d])
    methods["factor analysis, joint"] = joint[best]
    if settings.vae:
        vae = pv.VAETransformer(
            latent_dim=best, likelihood="gaussian-per-dimension", posterior="full-covariance", preprocessing="channel",
            missing="mask", hidden=(64,), epochs=settings.epochs, learning_rate=2e-3, seed=seed,
        )  # fmt: skip
        methods["VAE, joint"] = by_joint_model(vae, *train)
    rows: list[dict[str, object]] = []
    for method, predict in methods.items():
        factor = predict(*validation).factor(validation[1])
        rows.append({"method": method, "dim": best, **predict(*test).row(test[1], factor)})
    return rows


def read(settings: Settings) -> dict[str, tuple[Array, Array]]:
    """Spectra and a target, by the names of both."""
    if not settings.data:
        x = pv.datasets.simulated(200, 30, seed=0).x.double().numpy()
        return {"simulated, sum": (x, x.sum(1) + 0.1 * np.random.default_rng(0).normal(size=200))}
    found = {}
    for path in settings.data:
        spectra = read_spectra(path)
        x = spectra.x.double().numpy()
        names = [name for name in settings.targets if name in spectra.targets.columns]
        if not names:
            raise InputError(f"{path} has none of the columns {', '.join(settings.targets)}")
        for name in names:
            y = spectra.targets[name].to_numpy(dtype=np.float64)
            found[f"{path.stem}, {name}"] = (x[:, :: -(-x.shape[1] // MOST_CHANNELS)], y)
    return found


def main(settings: Settings) -> None:
    """Run the study; print its table, and write it."""
    out, start, rows = page.run_folder(settings.out, "targets"), time.perf_counter(), []
    sets = read(settings)
    with warnings.catch_warnings(action="ignore"):  # of fits that have not ended
        for name, (x, y) in sets.items():
            for seed in progress_bar(range(settings.splits), name):
                rows += [{"set": name, "split": seed, **row} for row in measure(x, y, seed, settings)]
                write_table(out / "targets.csv", pd.DataFrame(rows))
    about = "; ".join(
        f"{name}: {len(x)} spectra × {x.shape[1]} channels, standard deviation {y.std():.3g}"
        for name, (x, y) in sets.items()
    )
    text = (
        f"{about}. {settings.splits} random splits; means ± standard errors over splits.\n\n"
        "- Validation spectra choose PLS's components, ridge's penalty, and the latent dimensions of the joint "
        "models (by log p(y given x)).\n"
        "- *RMSEP*: root mean square error of new spectra's targets, in units of the target.\n"
        "- *Inside 90 %*: targets inside the method's 90 % intervals; *calibrated*: inside the same intervals, widened "
        "or narrowed by one factor such that they hold their share of the validation spectra.\n"
        "- *Log p(y given x)*: nats per spectrum; for PLS and ridge of a Gaussian with the error on validation "
        "spectra.\n\n"
        f"{page.took(start, 1)}\n\n{markdown_table(summary(pd.DataFrame(rows)))}"
    )
    files = ", ".join(path.stem for path in settings.data) or "simulated"
    page.show("targets", f"{files}, with a VAE" if settings.vae else files, text, {}, settings.publish)
    print(f"results: {out}")


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row a set and method."""
    rows = []
    for (name, method), group in table.groupby(["set", "method"], sort=False):
        rows.append(
            {
                "target": name,
                "method": method,
                "RMSEP": mean_and_error(group["rmsep"]),
                "inside 90 %": f"{group['inside'].mean():.0%}",
                "calibrated": f"{group['calibrated'].mean():.0%}",
                "log p(y given x)": mean_and_error(group["log_prob"]),
            }
        )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    console.run(main, Settings)
