"""How often the interval of a gain holds, and how large a gain must be to be found: simulations with a known truth.

python -m experiments.intervals
"""

import itertools
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats

from experiments import page
from experiments.options import Options, at_least
from pyrovae import plotting
from pyrovae.commands import console
from pyrovae.comparison.intervals import reach, remaining_bias
from pyrovae.comparison.recommendation import MIN_DATA
from pyrovae.comparison.tables import markdown_table
from pyrovae.evaluation import LogMarginal
from pyrovae.evaluation.importance import log_mean_weight
from pyrovae.files import write_table
from pyrovae.plotting import write_figure
from pyrovae.progress import progress_bar

Array = NDArray[np.float64]
TAIL = 0.025
"""Nominal share on each side."""
SD = 5.0
"""Standard deviation of the gains over the data, in nats."""


@dataclass(frozen=True)
class Settings(Options):
    """Simulate gains with a known mean, and count how often an interval misses it."""

    repeats: int = 4000
    """Simulated comparisons for each entry of a table."""
    sizes: tuple[int, ...] = at_least(2, (5, 10, 20, 36, 60, 147, 500, 1000))
    """Numbers of test data."""
    seeds: tuple[int, ...] = at_least(2, (2, 3, 5, 10))
    """Numbers of seeds."""
    resamples: int = 1000
    """Draws of each bootstrap."""


Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]
"""(generator, shape) -> gains of mean 0 and standard deviation ``SD``."""


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Gains without skewness."""
    return SD * rng.standard_normal(shape)


def right_skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """A few data gain much: a simpler model fails on them. Lognormal, σ = 1."""
    spread = math.sqrt((math.e - 1) * math.e)
    return SD / spread * (rng.lognormal(0.0, 1.0, shape) - math.exp(0.5))


def left_skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """A few data lose much."""
    return -right_skewed(rng, shape)


def heavy_tailed(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Student's t with three degrees of freedom."""
    return SD / math.sqrt(3) * rng.standard_t(3, shape)


GAINS: dict[str, Draw] = {
    "normal": normal,
    "left-skewed": left_skewed,
    "right-skewed": right_skewed,
    "heavy-tailed": heavy_tailed,
}

Limits = tuple[Array, Array]


def ours(gains: Array, resamples: int, rng: np.random.Generator) -> Limits:
    """The interval of :func:`~pyrovae.recommend`."""
    mean, (below, above) = gains.mean((-1, -2)), reach(gains, TAIL)
    return mean - below, mean + above


def students_t(gains: Array, resamples: int, rng: np.random.Generator) -> Limits:
    """Student's t over the data."""
    x = gains.mean(1)
    half = stats.t(x.shape[1] - 1).isf(TAIL) * x.std(1, ddof=1) / math.sqrt(x.shape[1])
    return x.mean(1) - half, x.mean(1) + half


def percentile(gains: Array, resamples: int, rng: np.random.Generator) -> Limits:
    """The percentile bootstrap over the data; the draws are the same for all repeats."""
    x = gains.mean(1)
    num = x.shape[1]
    drawn = x @ (rng.multinomial(num, np.full(num, 1 / num), resamples).T / num)
    low, high = np.quantile(drawn, [TAIL, 1 - TAIL], axis=1)
    return low, high


def bootstrap_t(gains: Array, resamples: int, rng: np.random.Generator) -> Limits:
    """The studentised bootstrap over the data; the draws are the same for all repeats."""
    x = gains.mean(1)
    num = x.shape[1]
    weights = rng.multinomial(num, np.full(num, 1 / num), resamples).T / num
    mean, stderr = x.mean(1, keepdims=True), x.std(1, ddof=1, keepdims=True) / math.sqrt(num)
    centred = x - mean
    drawn = centred @ weights
    spread = np.sqrt(np.maximum(centred**2 @ weights - drawn**2, 1e-12) / (num - 1))
    low, high = np.quantile(drawn / spread, [TAIL, 1 - TAIL], axis=1)
    return (mean - high[:, None] * stderr)[:, 0], (mean - low[:, None] * stderr)[:, 0]


METHODS = {
    "pyrovae": ours,
    "Student's t": students_t,
    "percentile bootstrap": percentile,
    "bootstrap-t": bootstrap_t,
}


def in_parts(repeats: int, values: int) -> Iterable[int]:
    """Split the repeats into blocks, each small enough for the memory."""
    at_once = max(1, 2**24 // values)
    return [min(at_once, repeats - done) for done in range(0, repeats, at_once)]


def missed(repeats: int, intervals: Iterable[Limits], exact: float) -> dict[str, float]:
    """The shares of intervals above and below the truth, 0, and their mean width beside the exact one."""
    above = below = width = 0.0
    for low, high in intervals:
        above, below, width = above + (low > 0).sum(), below + (high < 0).sum(), width + (high - low).sum()
    return {"above": above / repeats, "below": below / repeats, "width": width / exact / repeats}


def errors_over_data(settings: Settings, advance: Callable[[], None]) -> pd.DataFrame:
    """A row for each kind of gain, size and method: shares of intervals above and below the truth, and their width."""
    rows = []
    for kind, num, name in itertools.product(GAINS, settings.sizes, METHODS):
        rng, parts = np.random.default_rng(0), in_parts(settings.repeats, 2 * num)
        drawn = (np.broadcast_to(GAINS[kind](rng, (part, 1, num)), (part, 2, num)) for part in parts)
        limits = (METHODS[name](x, settings.resamples, rng) for x in drawn)
        exact = 2 * stats.norm.isf(TAIL) * SD / math.sqrt(num)
        rows.append({"gains": kind, "test data": num, "method": name} | missed(settings.repeats, limits, exact))
        advance()
    return pd.DataFrame(rows)


def over_seeds(rng: np.random.Generator, kind: str, sd: float, shape: tuple[int, int, int]) -> Array:
    """Gains (repeats, seeds, num) with an effect of the seed; a fifth of the data's variance is a seed's own."""
    common, own = GAINS[kind](rng, (shape[0], 1, shape[2])), GAINS[kind](rng, shape)
    x = math.sqrt(0.8) * common + math.sqrt(0.2) * own
    return x + sd * rng.standard_normal((*shape[:2], 1))


def errors_over_seeds(settings: Settings, advance: Callable[[], None]) -> pd.DataFrame:
    """A row for each number of seeds, size and effect of the seed, in units of the data's standard error."""
    rows, kinds = [], ("normal", "left-skewed")
    sizes = [size for size in settings.sizes if size >= MIN_DATA]
    for seeds, effect, kind, num in itertools.product(settings.seeds, (0.0, 1.0, 5.0), kinds, sizes):
        rng, sd = np.random.default_rng(0), effect * SD / math.sqrt(num)
        parts = in_parts(settings.repeats, seeds * num)
        limits = (ours(over_seeds(rng, kind, sd, (part, seeds, num)), 0, rng) for part in parts)
        exact = 2 * stats.norm.isf(TAIL) * SD / math.sqrt(num) * math.sqrt(0.8 + (0.2 + effect**2) / seeds)
        row = {"seeds": seeds, "effect": effect, "gains": kind, "test data": num}
        rows.append(row | missed(settings.repeats, limits, exact))
        advance()
    return pd.DataFrame(rows)


def power(settings: Settings, advance: Callable[[], None]) -> pd.DataFrame:
    """A row for each size, gain and effect of the seed: how often three seeds find the gain."""
    rows, sizes = [], [size for size in settings.sizes if size >= MIN_DATA]
    kinds, gains = ("normal", "left-skewed", "right-skewed"), (0.3, 1.0, 2.0, 5.0)
    for effect, kind, gain, num in itertools.product((0.0, 0.3), kinds, gains, sizes):
        rng, found = np.random.default_rng(0), 0.0
        for part in in_parts(settings.repeats, 3 * num):
            x = gain + GAINS[kind](rng, (part, 1, num)) + effect * rng.standard_normal((part, 3, 1))
            found += (ours(x, 0, rng)[0] > 0).sum()
        row = {"gains": kind, "seed effect": effect, "gain": gain, "test data": num}
        rows.append(row | {"found": found / settings.repeats})
        advance()
    return pd.DataFrame(rows)


def biases(settings: Settings, advance: Callable[[], None]) -> pd.DataFrame:
    """A row for each proposal N(0, scale² I_d) for N(0, I_d): the bias of log p(x), and the bias that is reported."""
    rows = []
    for num_samples in (100, 1000):
        for d in (2, 8, 20):
            for scale in (0.5, 0.7, 0.9):
                g = torch.Generator().manual_seed(0)
                z = scale * torch.randn(num_samples, 300, d, generator=g, dtype=torch.float64)
                log_w = (-0.5 * z**2 + 0.5 * (z / scale) ** 2 + math.log(scale)).sum(-1)
                per_datum, stderr, effective, gain, k = log_mean_weight(log_w)
                found = LogMarginal(per_datum, stderr, num_samples, effective, gain, k)
                rows.append(
                    {
                        "draws": num_samples,
                        "d": d,
                        "σ of the proposal": scale,
                        "median k̂": f"{k.median().item():.2f}",
                        "bias": f"{found.mean:.3f} ± {found.stderr:.3f}",
                        "gain of doubling": f"{gain.mean().item():.3f}",
                        "the interval allows for": f"{remaining_bias(found)[0]:.3f}",
                    }
                )
                advance()
    return pd.DataFrame(rows)


def picture(table: pd.DataFrame) -> Figure:
    """How often equal models are called better, by the number of test data: panels by gain, lines by method."""
    fig, axes = plotting.figure(len(GAINS), size=3.0)
    for ax, (kind, rows) in zip(axes[0], table.groupby("gains", sort=False), strict=True):
        for color, (method, own) in zip(plotting.COLORS, rows.groupby("method", sort=False), strict=False):
            own = own[(own["test data"] >= MIN_DATA) | (own["method"] != "pyrovae")]
            width = 2.4 if method == "pyrovae" else 1.0
            ax.plot(own["test data"], 100 * own["above"], marker=".", color=color, linewidth=width, label=method)
        ax.axhline(100 * TAIL, color=plotting.COLORS[6], linewidth=0.8, linestyle="--")
        ax.set(xscale="log", xlabel="test data", title=kind, ylim=(0, None))
    axes[0, 0].set_ylabel("equals called better, %")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
    return fig


def cells(table: pd.DataFrame) -> list[str]:
    """The errors on both sides, in percent, and the width of each row."""
    columns = (table[name] for name in ("above", "below", "width"))
    return [f"{100 * a:.1f} / {100 * b:.1f} ({width:.2f})" for a, b, width in zip(*columns, strict=True)]


def wide(table: pd.DataFrame, rows: list[str], columns: str) -> str:
    """The column ``cell`` as a table, rows and columns in the order in which they come."""
    found = table.pivot(index=rows, columns=columns, values="cell")
    order = table[rows].drop_duplicates()
    found = found.loc[pd.MultiIndex.from_frame(order), table[columns].unique()].reset_index()
    found.columns = [f"{name} data" if isinstance(name, int) else str(name) for name in found.columns]
    return markdown_table(found)


def data_text(table: pd.DataFrame) -> str:
    """A row a kind of gain and size, a column a method."""
    silent = (table["method"] == "pyrovae") & (table["test data"] < MIN_DATA)
    table = table.assign(cell=np.where(silent, "too few", cells(table)))
    return (
        "Two models are equally good. Percent of intervals above the truth (the second model is called better) / below "
        "it, nominally 2.5 / 2.5; in brackets the mean width, as a multiple of the width where the standard deviation "
        f"is known. Below {MIN_DATA} test data pyrovae says *too few*.\n\n"
        + wide(table, ["gains", "test data"], "method")
    )


def seeds_text(table: pd.DataFrame) -> str:
    """A row for each number of seeds, effect and kind of gain; a column for each size."""
    table = table.assign(cell=cells(table))
    return (
        "The same with an effect of the seed, whose standard deviation is in units of the data's standard error; a "
        "fifth of the variance over the data is each seed's own.\n\n"
        + wide(table, ["seeds", "effect", "gains"], "test data")
    )


def power_text(table: pd.DataFrame) -> str:
    """A row a gain, a column a size."""
    table = table.assign(cell=(100 * table["found"]).map("{:.1f}".format), gain=table["gain"].map("{:g}".format))
    return (
        "Percent of comparisons of two models and three seeds that find a true gain (nats), at threshold 0; the "
        f"standard deviation over the data is {SD:g} nats, that over the seeds is given in nats.\n\n"
        + wide(table, ["gains", "seed effect", "gain"], "test data")
    )


def main(settings: Settings) -> None:
    """Run the study; print its tables, write them and the picture."""
    out, start = page.run_folder(settings.out, "intervals"), time.perf_counter()
    large = len([size for size in settings.sizes if size >= MIN_DATA])
    total = len(GAINS) * len(settings.sizes) * len(METHODS) + 6 * large * len(settings.seeds) + 24 * large + 18
    with progress_bar(total=total, unit="entry") as bar:

        def advance() -> None:
            bar.update()

        parts = {
            "data": errors_over_data(settings, advance),
            "seeds": errors_over_seeds(settings, advance),
            "power": power(settings, advance),
            "bias": biases(settings, advance),
        }
    for name, table in parts.items():
        write_table(out / f"{name}.csv", table)
    path = write_figure(out / "equals-called-better.png", picture(parts["data"]))
    pictures = {"how often equals are called better": path}
    took = f"{settings.repeats:,} comparisons an entry. {page.took(start, 1)}"
    bias = (
        "Log p(x) = 0 is estimated by importance sampling from a proposal that is too narrow, of 300 data. The "
        "interval of a gain is widened by the last column: the gain of doubling the draws, extrapolated by k̂.\n\n"
    )
    for section, text, shown in (
        ("Which data", f"{took}\n\n{data_text(parts['data'])}", pictures),
        ("Which seeds", seeds_text(parts["seeds"]), {}),
        ("Power", power_text(parts["power"]), {}),
        ("Bias of log p(x)", bias + markdown_table(parts["bias"]), {}),
    ):
        page.show("intervals", section, text, shown, settings.publish)
    print(f"results: {out}")


if __name__ == "__main__":
    console.run(main, Settings)
