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
    splits: int = 20
    """Random splits into half to train, nine twentieths held out, a twentieth to test. With few tested spectra to many
    held out, false alarms of a right method are nearly independent."""


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


@dataclass(frozen=True)
class Scores:
    """Each method's scores of a split's held-out spectra, and then of those tested, shape (methods, held out + tested).

    Attributes:
        values: the scores.
        held_out: number of held-out spectra.
    """

    values: Array
    held_out: int

    def redrawn(self, alpha: float, num: int, rng: np.random.Generator) -> Array:
        """False alarms (methods, num), as shares of the tested spectra, of random choices of the held-out ones."""
        held_out = rng.permuted(np.tile(np.arange(self.values.shape[1]) < self.held_out, (num, 1)), axis=1)
        allowed = np.floor(alpha * (self.held_out + 1) + 1e-9)  # one more held-out spectrum is as strange: no alarm
        found = []
        for scores in self.values:
            falling = held_out[:, np.argsort(-scores)]
            found.append((~falling & (falling.cumsum(1) < allowed)).sum(1) / (len(scores) - self.held_out))
        return np.stack(found)


def measure(x: Array, num: int, seed: int) -> tuple[list[dict[str, object]], list[dict[str, object]], Scores]:
    """Of one split: false alarms, one row a method and α; areas under the curve, one row a method and kind; scores."""
    rng = np.random.default_rng(seed)
    train, held_out, test = np.split(x[rng.permutation(len(x))], [len(x) // 2, 19 * len(x) // 20])
    methods, size = methods_of(train, num, seed)
    alarms: list[dict[str, object]] = []
    areas: list[dict[str, object]] = []
    planted = {kind: plant(test, size, rng) for kind, plant in PLANTED.items()}
    scores = Scores(np.stack([np.append(score(held_out), score(test)) for score, _ in methods.values()]), len(held_out))
    for (method, (score, limit)), values in zip(methods.items(), scores.values, strict=True):
        known, clean = np.split(values, [len(held_out)])
        p_values = pv.conformal_p_values(-clean, -known)
        for alpha in ALPHAS:
            usual, ours = (clean > limit(alpha)).mean(), (p_values <= alpha).mean()
            sizes = {"held out": len(held_out), "tested": len(test)}
            alarms.append({"method": method, "alpha": alpha, "own limit": usual, "p-value": ours, **sizes})
        for kind, strange in planted.items():
            rank = stats.mannwhitneyu(score(strange), clean).statistic / len(test) ** 2
            areas.append({"method": method, "kind": kind, "area": rank})
    return alarms, areas, scores


def main(settings: Settings) -> None:
    """Run the study; print its tables, and write them."""
    out, start = page.run_folder(settings.out, "outliers"), time.perf_counter()
    sets = {path.stem: read_spectra(path).x for path in settings.data} or {"simulated": simulated(300, 40).x}
    all_alarms, all_areas, about = [], [], []
    all_scores: dict[str, list[Scores]] = {name: [] for name in sets}
    with warnings.catch_warnings(action="ignore"):  # of fits that have not ended
        for name, spectra in sets.items():
            x = spectra.double().numpy()
            half = x[np.random.default_rng(0).permutation(len(x))[: len(x) // 2]]
            num = pv.FactorModelTransformer(likelihood="ar1").fit(half).model_.latent_dim
            about.append(f"{name}: {x.shape[0]} spectra × {x.shape[1]} channels, {num} components")
            for seed in progress_bar(range(settings.splits), name):
                alarms, areas, scores = measure(x, num, seed)
                all_scores[name].append(scores)
                all_alarms += [{"set": name, **row} for row in alarms]
                all_areas += [{"set": name, **row} for row in areas]
    alarms_table, areas_table = pd.DataFrame(all_alarms), pd.DataFrame(all_areas)
    write_table(out / "false-alarms.csv", alarms_table)
    write_table(out / "areas.csv", areas_table)
    took = f"{'; '.join(about)}. {settings.splits} random splits each. {page.took(start, 1)}"
    for section, text in (
        ("False alarms", f"{false_alarms(alarms_table)}\n\n{by_chance(all_scores)}"),
        ("Who finds them", found(areas_table)),
    ):
        page.show("outliers", section, f"{took}\n\n{text}", {}, settings.publish)
    print(f"results: {out}")


def counts_by_chance(alpha: float, held_out: int, tested: int, splits: int) -> dict[str, tuple[float, float]]:
    """Shares of false alarms that chance gives in 95 % of studies, with every split drawn anew.

    *Binomial*: each good spectrum is called an outlier with probability α. *Conformal*: the spectra of a split share
    their held-out spectra. Of m of these, k = ⌊α(m + 1)⌋ may be as strange as a spectrum that is called an outlier, so
    the number of alarms among n spectra is beta-binomial(n, k, m + 1 − k).
    """
    binomial = stats.binom.pmf(np.arange(splits * tested + 1), splits * tested, alpha)
    k, of_split = int(np.floor(alpha * (held_out + 1) + 1e-9)), np.eye(1, tested + 1).ravel()  # k = 0: never an alarm
    if k:
        of_split = stats.betabinom.pmf(np.arange(tested + 1), tested, k, held_out + 1 - k)
    conformal = np.ones(1)
    for _ in range(splits):
        conformal = np.convolve(conformal, of_split)
    return {name: _middle(pmf, splits * tested) for name, pmf in (("binomial", binomial), ("conformal", conformal))}


def _middle(pmf: Array, num: int) -> tuple[float, float]:
    """Ends of the middle 95 % of a count's distribution, as shares of num."""
    low, high = np.searchsorted(pmf.cumsum(), [0.025, 0.975])
    return float(low) / num, float(high) / num


def false_alarms(table: pd.DataFrame) -> str:
    """A row a set and method: by its own limit → by the p-value, and the α at which that lies within chance."""
    rows: list[dict[str, str]] = []
    ranges: dict[str, str] = {}
    for (name, method), group in table.groupby(["set", "method"], sort=False):
        row = {"set": str(name), "method": str(method)}
        within: dict[str, list[str]] = {"binomial": [], "conformal": []}
        for alpha in ALPHAS:
            splits = group[group["alpha"] == alpha]
            usual, ours = splits[["own limit", "p-value"]].mean()
            row[f"α = {alpha:.0%}"] = f"{100 * usual:.1f} → {100 * ours:.1f}"
            sizes = int(splits["held out"].iloc[0]), int(splits["tested"].iloc[0])
            found = counts_by_chance(alpha, *sizes, len(splits))
            for kind, (low, high) in found.items():
                within[kind] += [f"{100 * alpha:.0f}"] if low - 1e-9 <= ours <= high + 1e-9 else []
            shown = "; ".join(f"{kind} {100 * low:.1f} to {100 * high:.1f}" for kind, (low, high) in found.items())
            ranges[f"{name}, α = {alpha:.0%}"] = shown
        rows.append(row | {f"within, {kind}": ", ".join(alphas) or "none" for kind, alphas in within.items()})
    return (
        "Percent of good spectra that are called outliers: by the method's own limit → by p-values against held-out "
        "spectra. The own limit is F's for T², Box's scaled χ² for Q, else the quantile of the training spectra.\n\n"
        "*Within*: the α in percent at which the p-values' share lies in the middle 95 % of what chance gives. "
        "*Binomial*: every good spectrum is an alarm with probability α, independently. *Conformal*: with the chance "
        "of which spectra are held out, exactly (beta-binomial).\n\n"
        + markdown_table(pd.DataFrame(rows))
        + "\n\nThe ranges, in percent:\n\n"
        + markdown_table(pd.DataFrame({"set": ranges.keys(), "middle 95 %": ranges.values()}))
    )


def by_chance(all_scores: dict[str, list[Scores]], num: int = 2000) -> str:
    """How many cells lie outside their ranges where the held-out spectra are chosen anew, every score unchanged."""
    rng, outside = np.random.default_rng(0), {"binomial": np.zeros(num), "conformal": np.zeros(num)}
    cells = 0
    for splits in all_scores.values():
        first = splits[0]
        sizes = first.held_out, first.values.shape[1] - first.held_out
        state = rng.bit_generator.state
        for alpha in ALPHAS:
            rng.bit_generator.state = state  # the same choices for each α
            shares = np.mean([scores.redrawn(alpha, num, rng) for scores in splits], axis=0)
            cells += len(shares)
            for kind, (low, high) in counts_by_chance(alpha, *sizes, len(splits)).items():
                outside[kind] += ((shares < low - 1e-9) | (shares > high + 1e-9)).sum(0)
    lines = [
        f"- {kind}: {100 * counts.mean() / cells:.1f} % of the cells outside, {counts.mean():.1f} of {cells}; "
        f"in 95 % of the choices at most {np.quantile(counts, 0.95):.0f}; "
        f"{np.quantile(counts, 0.99):.0f} in 99 %."
        for kind, counts in outside.items()
    ]
    return (
        f"What chance gives: {num} random choices of the held-out spectra among those not trained on, with the same "
        "scores. All methods and α share a choice, so cells lie outside together.\n\n" + "\n".join(lines)
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
