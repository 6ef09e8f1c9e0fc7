"""The slides' "there are times when it fails", counted: modes dropped and units collapsed, over many seeds."""

from collections.abc import Callable

import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import binomtest

import pyrovae as pv
from experiments.truth.settings import Settings
from pyrovae import plotting
from pyrovae.comparison.tables import markdown_table
from pyrovae.datasets import SYNTHETIC

SETS = ("mixture", "three-blobs")
FAMILIES = ("isotropic", "diagonal", "ar1", "full-covariance")
FAILURES: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "a mode dropped": lambda runs: runs["modes_found"] < runs["modes"],
    "a unit collapsed": lambda runs: runs["active_directions"] < runs["latent_dim"],
    "0.1 nats behind the family's best": lambda runs: runs["nats_above_truth"] > runs["nats_above_truth"].min() + 0.1,
    "not a number": lambda runs: runs["test_neg_elbo"].isna(),
}
"""What counts as a failure among a family's runs on a set, by name."""


def study(settings: Settings) -> pd.DataFrame:
    """One row a run: every family trained with every seed on the mixture and the blobs."""
    tables = []
    for name in SETS:
        data = SYNTHETIC[name]
        table = pv.compare(
            data,
            posteriors=FAMILIES,
            estimators=["analytic"],
            seeds=range(settings.seeds),
            epochs=settings.epochs,
            num_train=settings.num_train,
            num_test=2 * settings.num_test,
            log_marginal_samples=50,
            workers=settings.workers,
        )
        tables.append(table.assign(modes=len(data.mode_weights)))
    return pd.concat(tables, ignore_index=True)


def counts(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a set and family: the share of failed runs with exact 95 % (Clopper–Pearson) intervals."""
    rows = []
    for (name, family), group in runs.groupby(["dataset", "posterior"], sort=False):
        row = {"set": name, "posterior": family, "runs": len(group)}
        for failure, happened in FAILURES.items():
            row[failure] = share(int(happened(group).sum()), len(group))
        gaps = group["nats_above_truth"]
        row["nats above truth, median"] = f"{gaps.median():.3f}"
        row["best to worst"] = f"{gaps.min():.3f} to {gaps.max():.3f}"
        rows.append(row)
    return pd.DataFrame(rows)


def share(failed: int, runs: int) -> str:
    """The share of failures, and its interval."""
    low, high = binomtest(failed, runs).proportion_ci(0.95)
    return f"{failed}/{runs} ({100 * low:.0f}–{100 * high:.0f} %)"


def tables(runs: pd.DataFrame) -> str:
    """The counts as a table to read."""
    return markdown_table(counts(runs))


def picture(runs: pd.DataFrame) -> Figure:
    """Nats above the truth of every run, a panel a set; hollow where a mode was dropped or a unit collapsed."""
    fig, axes = plotting.figure(len(SETS), size=4.2)
    families = list(FAMILIES)
    for ax, (name, group) in zip(axes[0], runs.groupby("dataset", sort=False), strict=True):
        failed = FAILURES["a mode dropped"](group) | FAILURES["a unit collapsed"](group)
        place = group["posterior"].map(families.index) + 0.3 * (group["seed"] / max(1, group["seed"].max()) - 0.5)
        for which, fill, label in ((~failed, plotting.COLORS[0], "all modes, all units"), (failed, "none", "failed")):
            ax.scatter(
                place[which],
                group.loc[which, "nats_above_truth"].clip(lower=1e-4),
                facecolors=fill,
                edgecolors=plotting.COLORS[0 if fill != "none" else 1],
                s=22,
                label=label,
            )
        ax.set_xticks(range(len(families)), families, rotation=20, fontsize=8)
        ax.set(title=name, ylabel="nats above the truth", yscale="log")
        ax.legend(fontsize=8)
    return fig


def reading(runs: pd.DataFrame) -> str:
    """What the counts say."""
    lines = []
    for name, group in runs.groupby("dataset", sort=False):
        parts = []
        for failure, happened in FAILURES.items():
            by_family = {
                str(family): int(happened(runs).sum()) for family, runs in group.groupby("posterior", sort=False)
            }
            each = ", ".join(f"{family} {num}" for family, num in by_family.items() if num)
            parts.append(f"{failure}: {each or 'none'}")
        lines.append(f"- {name}, of {len(group) // group['posterior'].nunique()} runs each: {'; '.join(parts)}.")
    return "\n".join(lines)
