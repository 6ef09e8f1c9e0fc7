"""Every family at every dimension: learning rates chosen by validation, seeds, the table and what it says."""

import math
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from experiments.pictures import grouped_intervals
from experiments.pool import in_processes
from experiments.rho_vae.settings import PIXELS, Settings
from experiments.rho_vae.training import Training, evaluate_run
from experiments.summaries import mean_and_error, means_and_errors
from pyrovae.comparison.tables import markdown_table
from pyrovae.errors import InputError
from pyrovae.files import make_folder

CELL = ["latent_dim", "beta", "posterior"]
AUTHORS_LOG = 245.7
"""Test loss of the diagonal VAE that the ρ-VAE's authors logged: Fashion-MNIST, d = 5, 15 epochs, vanilla."""


def is_density(settings: Settings) -> bool:
    """Whether the likelihood is a probability or a density of the pixels."""
    return PIXELS[settings.pixels][1](1, 1).is_density


def study(settings: Settings, out: Path) -> pd.DataFrame:
    """One row a run at its cell's best learning rate, without those that failed; all are saved under ``out/models``.

    Raises:
        InputError: every run failed.
    """
    make_folder(out / "models")
    tried = [
        Training(settings, out, d, posterior, beta, rate, seed=0)
        for d in settings.dims
        for beta in settings.weights
        for posterior in settings.posteriors
        for rate in settings.learning_rates
    ]
    results = dict(zip(tried, in_processes(tried, settings.workers, "training, first seed"), strict=True))
    cells = dict.fromkeys(replace(run, learning_rate=0.0) for run in tried)
    best = [
        min(
            (replace(cell, learning_rate=rate) for rate in settings.learning_rates),
            key=lambda run: results[run]["validation_loss"],
        )
        for cell in cells
    ]
    others = [replace(run, seed=seed) for run in best for seed in range(1, settings.seeds)]
    results |= dict(zip(others, in_processes(others, settings.workers, "training, other seeds"), strict=True))
    wanted = [replace(run, seed=seed) for run in best for seed in range(settings.seeds)]
    runs = [run for run in wanted if math.isfinite(results[run]["validation_loss"])]
    if not runs:
        raise InputError(f"every run failed; the first: {results[tried[0]]['note']}")
    for note in filter(None, (result["note"] for result in results.values())):
        print(note, file=sys.stderr)
    rows = in_processes([partial(evaluate_run, run) for run in runs], settings.workers, "evaluation")
    return pd.DataFrame([row | results[run] for run, row in zip(runs, rows, strict=True)])


def bound_name(settings: Settings) -> str:
    """What importance sampling bounds."""
    return f"{'test −log p(x)' if is_density(settings) else 'cross-entropy bound'}, importance sampled"


def table(settings: Settings, runs: pd.DataFrame) -> str:
    """Means ± standard errors over seeds, a row a cell."""
    rows = []
    for (d, beta, posterior), group in runs.groupby(CELL, sort=False):
        row = {"d": d, "β": f"{beta:g}", "posterior": posterior}
        less = difference(runs, d, beta, posterior)
        if len(settings.weights) == 1:
            del row["β"]
        rows.append(
            row
            | {
                "covariance parameters": group["covariance_parameters"].iloc[0],
                "rate": f"{group['learning_rate'].iloc[0]:g}",
                "test −ELBO": mean_and_error(group["test_neg_elbo"]),
                "less diagonal's": mean_and_error(less) if posterior != "diagonal" else "",
                "reconstruction": mean_and_error(group["test_reconstruction"]),
                "KL": mean_and_error(group["test_kl"]),
                bound_name(settings): mean_and_error(group["test_bound"]),
                "bad k̂": f"{100 * group['unreliable'].mean():.0f} %",
                "σ": f"{group['scale'].mean():.3f}",
                "ρ of neighbours (spread over images)": f"{group['rho'].mean():.3f} ({group['rho_spread'].mean():.3f})",
                "seconds": f"{group['seconds'].mean():.0f}",
            }
        )
    return markdown_table(pd.DataFrame(rows))


def difference(runs: pd.DataFrame, d: Any, beta: Any, posterior: Any) -> pd.Series:
    """Test −ELBO of a family less the diagonal one's, seed by seed; empty where there is none."""
    here = runs[(runs["latent_dim"] == d) & (runs["beta"] == beta)]
    ours, theirs = (
        here[here["posterior"] == name].set_index("seed")["test_neg_elbo"] for name in (posterior, "diagonal")
    )
    return (ours - theirs).dropna()


def reading(settings: Settings, runs: pd.DataFrame) -> str:
    """What the numbers say."""
    lines = []
    for (d, beta), group in runs.groupby(["latent_dim", "beta"], sort=False):
        means = group.groupby("posterior", sort=False)["test_neg_elbo"].mean()
        at = f"d = {d}" + (f", β = {beta:g}" if len(settings.weights) > 1 else "")
        line = f"- {at}: lowest test −ELBO is {means.idxmin()}'s, {means.min():.2f}; highest {means.idxmax()}'s, "
        line += f"{means.max():.2f}."
        gain = difference(runs, d, beta, "ar1")
        if len(gain):
            which = "above" if gain.mean() > 0 else "below"
            nats = gain if gain.mean() >= 0 else -gain
            line += (
                f" The ρ-VAE's posterior, one scale and one ρ, ends {mean_and_error(nats)} nats "
                f"{which} the diagonal one (on MNIST and Fashion-MNIST the paper claims 20 below)."
            )
        lines.append(line)
    ours = runs[(runs["posterior"] == "diagonal") & (runs["latent_dim"] == 5)]
    at_log = settings.dataset == "fashion-mnist" and settings.variant == "vanilla" and settings.pixels == "soft-targets"
    if at_log and len(ours):
        off = ours["test_neg_elbo"].mean() - AUTHORS_LOG
        lines.append(
            f"- The authors logged {AUTHORS_LOG} for their diagonal VAE (Fashion-MNIST, d = 5, 15 epochs); ours is at "
            f"{mean_and_error(ours['test_neg_elbo'])} after {settings.num_epochs}, {off:+.1f}."
        )
    return "\n".join(lines)


def picture(settings: Settings, runs: pd.DataFrame) -> Figure:
    """Test −ELBO of each family, a panel a dimension."""
    families = list(settings.posteriors)
    panels = {}
    for d, here in runs.groupby("latent_dim", sort=False):
        panels[f"d = {d}"] = {
            f"β = {beta:g}": means_and_errors([group[group["posterior"] == name]["test_neg_elbo"] for name in families])
            for beta, group in here.groupby("beta", sort=False)
        }
    return grouped_intervals(families, panels, "test −ELBO, nats per datum")
