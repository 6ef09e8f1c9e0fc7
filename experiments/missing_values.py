"""Missing values filled in, and log p(x) of what was observed, on spectra whose distribution is known.

python -m experiments.missing_values
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pyro.distributions import MultivariateNormal
from torch import Tensor

import pyrovae as pv
from experiments import page
from experiments.options import Options, at_least
from pyrovae.commands import console
from pyrovae.comparison.tables import markdown_table
from pyrovae.datasets.simulation import SpectraTruth
from pyrovae.distributions import PartiallyObserved
from pyrovae.files import write_table
from pyrovae.progress import progress_bar

Array = NDArray[np.float64]
LEVEL = 0.9
REFITS = 20
LATENT_DIM = 6
"""Latent dimensions of the simulated spectra: three substances, and three terms of a baseline."""


@dataclass(frozen=True)
class Settings(Options):
    """Remove values of simulated spectra at random or in blocks, and fill them in by several methods."""

    num: int = at_least(20, 400)
    """Spectra, and as many new ones for log p(x)."""
    channels: int = at_least(20, 60)
    """Channels."""
    repeats: int = 10
    """Simulations of each kind of gaps."""


def at_random(x: Tensor, share: float, g: torch.Generator) -> Tensor:
    """Each value of x (num, n) is missing with this probability."""
    return x.masked_fill(torch.rand(x.shape, generator=g) < share, torch.nan)


def in_blocks(x: Tensor, share: float, g: torch.Generator) -> Tensor:
    """A block of this share of the channels, at a random place, is missing in each row."""
    n, width = x.shape[1], round(share * x.shape[1])
    first = torch.randint(0, n - width + 1, (len(x), 1), generator=g)
    channel = torch.arange(n)
    return x.masked_fill((channel >= first) & (channel < first + width), torch.nan)


GAPS: dict[str, Callable[[Tensor, float, torch.Generator], Tensor]] = {"at random": at_random, "blocks": in_blocks}
SHARES = (0.1, 0.3, 0.5)


def by_truth(truth: SpectraTruth, x: Array) -> tuple[Array, Array]:
    """E[x_M | x_O] under the distribution that the spectra were drawn from, and the standard deviations."""
    mean, covariance, found = truth.offset.numpy(), truth.covariance_matrix.numpy(), x.copy()
    deviation = np.zeros_like(found)
    for row, spread in zip(found, deviation, strict=True):
        missing = np.isnan(row)
        along = covariance[np.ix_(~missing, missing)]
        slopes = np.linalg.solve(covariance[np.ix_(~missing, ~missing)], along)
        row[missing] = mean[missing] + (row[~missing] - mean[~missing]) @ slopes
        spread[missing] = np.sqrt(np.diag(covariance)[missing] - (along * slopes).sum(0))
    return found, deviation


def by_nipals(x: Array, num: int = LATENT_DIM, rounds: int = 300) -> Array:
    """NIPALS PCA: components one after the other, each by regressions that leave missing values out."""
    seen, mean = ~np.isnan(x), np.nanmean(x, axis=0)
    weights, left, made = seen.astype(float), np.where(seen, x - mean, 0.0), np.tile(mean, (len(x), 1))
    for _ in range(num):
        scores = left[:, np.square(left).sum(0).argmax()]
        for _ in range(rounds):
            loadings = left.T @ scores / np.maximum(weights.T @ scores**2, 1e-12)
            loadings /= np.linalg.norm(loadings)
            before, scores = scores, left @ loadings / np.maximum(weights @ loadings**2, 1e-12)
            if np.linalg.norm(scores - before) < 1e-8 * np.linalg.norm(scores):
                break
        made += np.outer(scores, loadings)
        left = np.where(seen, left - np.outer(scores, loadings), 0.0)
    return np.where(seen, x, made)


def by_regressions(x: Array) -> Array:
    """scikit-learn's IterativeImputer: each channel by ridge regression on its 20 most correlated ones."""
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    imputer = IterativeImputer(n_nearest_features=20, max_iter=5, random_state=0)
    found: Array = imputer.fit_transform(x)
    return found


def cpu_seconds(fit: Callable[[], object], times: int = 3) -> float:
    """CPU time of a fit, the shortest of several."""
    seconds = []
    for _ in range(times):
        start = time.process_time()
        fit()
        seconds.append(time.process_time() - start)
    return min(seconds)


def measure(kind: str, share: float, seed: int, settings: Settings) -> list[dict[str, object]]:
    """One row a method for one simulation."""
    data = pv.datasets.simulated(settings.num, settings.channels, seed=seed, linear=True, correlation=0.9)
    g = torch.Generator().manual_seed(seed)
    full, new = data.x.double(), data.truth.sample(settings.num, seed=seed + 1000).x.double()
    x, new = GAPS[kind](full, share, g), GAPS[kind](new, share, g)
    missing, values = x.isnan().numpy(), x.numpy()
    best, deviation = by_truth(data.truth, values)
    least = np.sqrt(np.mean((best - full.numpy())[missing] ** 2))
    half = NormalDist().inv_cdf(0.5 + LEVEL / 2)
    whole = MultivariateNormal(data.truth.offset, data.truth.covariance_matrix)
    log_prob = PartiallyObserved(whole).log_prob(new).numpy()

    def row(method: str, found: Array, **more: object) -> dict[str, object]:
        error = np.sqrt(np.mean((found - full.numpy())[missing] ** 2))
        return {"gaps": kind, "share": share, "method": method, "error": error / least, **more}

    def within(lower: Array, upper: Array) -> float:
        return float(((lower <= full.numpy()) & (full.numpy() <= upper))[missing].mean())

    rows = [row("truth", best, inside=within(best - half * deviation, best + half * deviation))]
    rows += [row("NIPALS PCA", by_nipals(values)), row("IterativeImputer", by_regressions(values))]
    for likelihood in ("gaussian", "ar1"):
        model = pv.FactorModelTransformer(LATENT_DIM, likelihood)
        complete = cpu_seconds(partial(model.fit, full.numpy()))
        ratio = cpu_seconds(partial(model.fit, values)) / complete
        mean, ends = model.impute(values, level=LEVEL)
        lost = float(np.mean(log_prob - model.score_samples(new.numpy())))
        rows.append(row(f"linear, {likelihood}", mean, inside=within(*ends), lost=lost, ratio=ratio))
        refitted = partial(model.impute, values, level=LEVEL, refits=REFITS)
        ratio, inside = cpu_seconds(refitted, 1) / complete, within(*refitted()[1])
        rows.append(row(f"linear, {likelihood}, {REFITS} refits", mean, inside=inside, ratio=ratio))
    return rows


def main(settings: Settings) -> None:
    """Run the study; print its table, and write it."""
    out, start, rows = page.run_folder(settings.out, "missing_values"), time.perf_counter(), []
    jobs: list[tuple[str, float, int]] = [
        (kind, share, seed) for kind in GAPS for share in SHARES for seed in range(settings.repeats)
    ]
    with warnings.catch_warnings(action="ignore"):  # of fits and regressions that have not ended
        for kind, share, seed in progress_bar(jobs, "simulations"):
            rows += measure(kind, share, seed, settings)
    table = pd.DataFrame(rows)
    write_table(out / "missing-values.csv", table)
    cells = table.groupby(["gaps", "share", "method"], sort=False)
    mean = cells.mean().reset_index()
    low, high = cells["inside"].min().to_numpy(), cells["inside"].max().to_numpy()
    shown = pd.DataFrame(
        {
            "gaps": mean["gaps"],
            "missing": mean["share"].map("{:.0%}".format),
            "method": mean["method"],
            "error": mean["error"].map("{:.2f}".format),
            "inside 90 %": mean["inside"].map(lambda v: "" if np.isnan(v) else f"{v:.1%}"),
            "least and most": ["" if np.isnan(v) else f"{v:.0%}, {w:.0%}" for v, w in zip(low, high, strict=True)],
            "log p lost": mean["lost"].map(lambda v: "" if np.isnan(v) else f"{v:.2f}"),
            "time": mean["ratio"].map(lambda v: "" if np.isnan(v) else f"{v:.1f}×"),
        }
    )
    text = (
        f"{settings.num} simulated spectra of {settings.channels} channels with AR(1) noise (correlation 0.9), "
        f"{settings.repeats} simulations of each kind of gaps.\n\n"
        "- *Error*: root mean square error of the values filled in, in units of that of the truth's conditional mean.\n"
        "- *Inside 90 %*: missing values inside their 90 % intervals; *least and most* of the simulations.\n"
        f"- *Refits*: intervals that allow for the estimation of the model, `impute(…, refits={REFITS})`.\n"
        f"- *Log p lost*: log p of what was observed of {settings.num} new spectra, truth minus model, in nats per "
        "spectrum.\n"
        "- *Time*: CPU time of the fit, in units of the fit to complete data (the shortest of three each); with refits "
        "that of their intervals.\n\n"
        f"{page.took(start, 1)}\n\n{markdown_table(shown)}"
    )
    page.show("missing_values", "Missing values", text, {}, settings.publish)
    print(f"results: {out}")


if __name__ == "__main__":
    console.run(main, Settings)
