"""Planted outliers in spectra: false alarms, and how well log p(x), T², Q residuals and isolation forests rank them.

python -m experiments.outliers --data tecator.csv tablets_nir.csv
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

import pyrovae as pv
from experiments import page
from experiments.options import Options
from pyrovae.commands import console
from pyrovae.comparison.tables import markdown_table
from pyrovae.datasets import read_spectra, simulated
from pyrovae.files import write_table
from pyrovae.progress import progress_bar

Array = NDArray[np.float64]
Score = Callable[[Array], Array]
"""Spectra (num, n) -> how strange each is, shape (num,): the larger, the stranger."""
Limit = Callable[[float], float]
"""α -> the score above which the method's own theory calls a spectrum an outlier."""

ALPHAS = (0.01, 0.05, 0.10)


@dataclass(frozen=True)
class Settings(Options):
    """Plant outliers in spectra, and count detections and false alarms."""

    data: tuple[Path, ...] = ()
    """Files of spectra; none: simulated ones."""
    splits: int = 10
    """Random splits into half to train, a quarter held out, a quarter to test."""


def spike(x: Array, size: float, rng: np.random.Generator) -> Array:
    """Five times the noise at one channel."""
    found = x.copy()
    found[np.arange(len(x)), rng.integers(x.shape[1], size=len(x))] += 5 * size
    return found


def peak(x: Array, size: float, rng: np.random.Generator) -> Array:
    """A band that no other spectrum has, twice the noise high, a thirtieth of the axis wide."""
    n = x.shape[1]
    away = (np.arange(n) - rng.integers(n, size=(len(x), 1))) / (n / 60)
    return x + 2 * size * np.exp(-0.5 * away**2)


def tilt(x: Array, size: float, rng: np.random.Generator) -> Array:
    """A slope, twice the noise at either end."""
    return x + 2 * size * np.linspace(-1, 1, x.shape[1]) * rng.choice([-1, 1], size=(len(x), 1))


def noise(x: Array, size: float, rng: np.random.Generator) -> Array:
    """White noise, 0.7 times the usual one."""
    return x + 0.7 * size * rng.standard_normal(x.shape)


PLANTED = {"spike": spike, "peak": peak, "tilt": tilt, "noise": noise}


def pca(train: Array, num: int) -> tuple[dict[str, tuple[Score, Limit]], float]:
    """Hotelling's T² and the Q residuals with their usual limits (F; Box's scaled χ²), and the residuals' size."""
    mean, m = train.mean(0), len(train)
    _, values, axes = np.linalg.svd(train - mean, full_matrices=False)
    axes, variances = axes[:num], values[:num] ** 2 / (m - 1)

    def t2(x: Array) -> Array:
        found: Array = (((x - mean) @ axes.T) ** 2 / variances).sum(1)
        return found

    def q(x: Array) -> Array:
        centred = x - mean
        found: Array = ((centred - centred @ axes.T @ axes) ** 2).sum(1)
        return found

    known = q(train)
    scale, freedom = known.var() / (2 * known.mean()), 2 * known.mean() ** 2 / known.var()
    factor = num * (m**2 - 1) / (m * (m - num))
    methods: dict[str, tuple[Score, Limit]] = {
        "T²": (t2, lambda alpha: factor * stats.f.isf(alpha, num, m - num)),
        "Q residuals": (q, lambda alpha: scale * stats.chi2.isf(alpha, freedom)),
    }
    return methods, float(np.sqrt(known.mean() / train.shape[1]))


def methods_of(train: Array, num: int, seed: int) -> tuple[dict[str, tuple[Score, Limit]], float]:
    """Each method's score and its own limit, and the size of the noise; log p has the training data's quantile."""
    from sklearn.ensemble import IsolationForest

    methods, size = pca(train, num)
    forest = IsolationForest(random_state=seed).fit(train)
    scores: dict[str, Score] = {"isolation forest": lambda x: -forest.score_samples(x)}
    for name, likelihood in (("log p, factor analysis", "gaussian-per-dimension"), ("log p, AR(1) noise", "ar1")):
        model = pv.FactorModelTransformer(num, likelihood).fit(train)
        scores[name] = lambda x, model=model: -model.score_samples(x)  # type: ignore[misc]
    for name, score in scores.items():
        known = score(train)
        methods[name] = (score, lambda alpha, known=known: float(np.quantile(known, 1 - alpha)))  # type: ignore[misc]
    return methods, size


def measure(x: Array, num: int, seed: int) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Of one split: false alarms, one row a method and α; areas under the curve, one row a method and kind."""
    rng = np.random.default_rng(seed)
    train, held_out, test = np.split(x[rng.permutation(len(x))], [len(x) // 2, 3 * len(x) // 4])
    methods, size = methods_of(train, num, seed)
    alarms: list[dict[str, object]] = []
    areas: list[dict[str, object]] = []
    planted = {kind: plant(test, size, rng) for kind, plant in PLANTED.items()}
    for method, (score, limit) in methods.items():
        clean = score(test)
        p_values = pv.conformal_p_values(-clean, -score(held_out))
        for alpha in ALPHAS:
            usual, ours = (clean > limit(alpha)).mean(), (p_values <= alpha).mean()
            alarms.append({"method": method, "alpha": alpha, "own limit": usual, "p-value": ours})
        for kind, strange in planted.items():
            rank = stats.mannwhitneyu(score(strange), clean).statistic / len(test) ** 2
            areas.append({"method": method, "kind": kind, "area": rank})
    return alarms, areas


def main(settings: Settings) -> None:
    """Run the study; print its tables, and write them."""
    out, start = page.run_folder(settings.out, "outliers"), time.perf_counter()
    sets = {path.stem: read_spectra(path).x for path in settings.data} or {"simulated": simulated(300, 40).x}
    all_alarms, all_areas, about = [], [], []
    with warnings.catch_warnings(action="ignore"):  # of fits that have not ended
        for name, spectra in sets.items():
            x = spectra.double().numpy()
            half = x[np.random.default_rng(0).permutation(len(x))[: len(x) // 2]]
            num = pv.FactorModelTransformer(likelihood="ar1").fit(half).model_.latent_dim
            about.append(f"{name}: {x.shape[0]} spectra × {x.shape[1]} channels, {num} components")
            for seed in progress_bar(range(settings.splits), name):
                alarms, areas = measure(x, num, seed)
                all_alarms += [{"set": name, **row} for row in alarms]
                all_areas += [{"set": name, **row} for row in areas]
    alarms_table, areas_table = pd.DataFrame(all_alarms), pd.DataFrame(all_areas)
    write_table(out / "false-alarms.csv", alarms_table)
    write_table(out / "areas.csv", areas_table)
    took = f"{'; '.join(about)}. {settings.splits} random splits each. {page.took(start, 1)}"
    for section, text in (("False alarms", false_alarms(alarms_table)), ("Who finds them", found(areas_table))):
        page.show("outliers", section, f"{took}\n\n{text}", {}, settings.publish)
    print(f"results: {out}")


def false_alarms(table: pd.DataFrame) -> str:
    """A row a set and method, a column an α: by the method's own limit → by the p-value."""
    mean = table.groupby(["set", "method", "alpha"], sort=False)[["own limit", "p-value"]].mean().reset_index()
    mean["cell"] = [f"{100 * a:.1f} → {100 * b:.1f}" for a, b in zip(mean["own limit"], mean["p-value"], strict=True)]
    wide = mean.pivot(index=["set", "method"], columns="alpha", values="cell")
    wide = wide.loc[pd.MultiIndex.from_frame(mean[["set", "method"]].drop_duplicates())].reset_index()
    wide.columns = [f"α = {name:.0%}" if isinstance(name, float) else str(name) for name in wide.columns]
    return (
        "Percent of good spectra that are called outliers: by the method's own limit → by p-values against held-out "
        "spectra. The own limit is F's for T², Box's scaled χ² for Q, else the quantile of the training spectra.\n\n"
        + markdown_table(wide)
    )


def found(table: pd.DataFrame) -> str:
    """A row a set and kind of outlier, a column a method."""
    mean = table.groupby(["set", "kind", "method"], sort=False)["area"].mean().reset_index()
    wide = mean.pivot(index=["set", "kind"], columns="method", values="area")
    wide = wide.loc[pd.MultiIndex.from_frame(mean[["set", "kind"]].drop_duplicates()), mean["method"].unique()]
    kinds = "; ".join(f"*{kind}*: {plant.__doc__.rstrip('.')}" for kind, plant in PLANTED.items() if plant.__doc__)
    return (
        "Area under the curve, the probability that a planted outlier is stranger than a good spectrum. The noise is "
        f"the root mean square of the PCA's residuals. {kinds}.\n\n"
        + markdown_table(wide.map("{:.2f}".format).reset_index())
    )


if __name__ == "__main__":
    console.run(main, Settings)
