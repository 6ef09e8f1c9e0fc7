"""The five synthetic sets: the gap to the truth split into model error and inference gap, log p(x) by every method."""

import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure

import pyrovae as pv
from experiments.pictures import grouped_intervals
from experiments.pool import in_processes
from experiments.truth.settings import Settings
from pyrovae.comparison.tables import markdown_table
from pyrovae.datasets import SYNTHETIC
from pyrovae.evaluation import Estimate

FAMILIES = ("diagonal", "ar1", "full-covariance")
ANNEALING: dict[str, Any] = {"num_samples": 2, "num_temperatures": 150}


def train(name: str, settings: Settings, out: Path) -> dict[str, Path]:
    """One run of each family, saved under ``out``; the runs' folders by family."""
    table = pv.compare(
        SYNTHETIC[name],
        posteriors=FAMILIES,
        estimators=["analytic"],
        epochs=settings.epochs,
        num_train=settings.num_train,
        num_test=settings.num_test,
        log_marginal_samples=50,
        out=out,
        workers=settings.workers,
    )
    return {family: out / folder for family, folder in zip(table["posterior"], table["folder"], strict=True)}


def study(settings: Settings, out: Path) -> pd.DataFrame:
    """One row a set and family."""
    folders = {name: train(name, settings, out / name) for name in SYNTHETIC}
    num, each = settings.num_test, [(name, family) for name in SYNTHETIC for family in FAMILIES]
    jobs = [partial(split, folders[name][family], name, family, num) for name, family in each]
    return pd.DataFrame(in_processes(jobs, settings.workers, "log p(x) by every method"))


def split(folder: Path, name: str, family: str, num: int) -> dict[str, Any]:
    """Log p(x) − ELBO(x) of the data's own p, split; and log p(x) of the trained model by every method."""
    num_annealed = max(2, num // 10)
    truth = SYNTHETIC[name]
    model, guide = pv.load(folder / "model.safetensors")
    x = truth.sample(num, torch.Generator().manual_seed(1))
    grid = pv.log_marginal(model, guide, x, "quadrature", num_points=256)
    with warnings.catch_warnings(action="ignore", category=pv.UnreliableEstimateWarning):  # a column of the table
        importance = pv.log_marginal(model, guide, x, num_samples=1000)
    few = x[:num_annealed]
    annealed = pv.log_marginal(model, guide, few, "annealed", **ANNEALING)
    bounds = pv.sandwich(model, guide, num_annealed, **ANNEALING)
    true = truth.log_density(x)
    elbo = pv.elbo_estimate(model, guide, x, num_samples=200)
    row: dict[str, Any] = {"set": name, "posterior": family}
    for part, estimate in (
        ("total", Estimate(true, torch.zeros_like(true)) - elbo),
        ("model_error", Estimate(true - grid.per_datum, grid.stderr_per_datum)),
        ("inference_gap", grid - elbo),
    ):
        row |= {part: estimate.mean, f"{part}_stderr": estimate.stderr}
    simulated = pv.log_marginal(model, guide, bounds.x, "quadrature", num_points=256)
    return row | {
        "truth": true.mean().item(),
        "quadrature": grid.mean,
        "quadrature_error": (grid.quadrature_error if grid.quadrature_error is not None else true).mean().item(),
        "importance": importance.mean,
        "importance_stderr": importance.stderr_monte_carlo,
        "unreliable": importance.unreliable.double().mean().item(),
        "annealed_data": num_annealed,
        "annealed_off": (annealed.per_datum - grid.per_datum[:num_annealed]).mean().item(),
        "annealed_stderr": annealed.stderr_monte_carlo,
        "lower": bounds.lower.mean - simulated.mean,
        "lower_stderr": bounds.lower.stderr_monte_carlo,
        "upper": bounds.upper.mean - simulated.mean,
        "upper_stderr": bounds.upper_stderr,
    }


def tables(rows: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """The split; log p(x) by every method."""
    split = rows[["set", "posterior"]].copy()
    for heading, part in (
        ("nats above truth", "total"),
        ("= model error", "model_error"),
        ("+ inference gap", "inference_gap"),
    ):
        split[heading] = [f"{m:.4f} ± {s:.4f}" for m, s in zip(rows[part], rows[f"{part}_stderr"], strict=True)]
    yield "the gap to the truth, split (log p(x) of the model by quadrature)", markdown_table(split)
    methods = rows[["set", "posterior"]].copy()
    methods["data's own log p(x)"] = [f"{v:.4f}" for v in rows["truth"]]
    methods["model's, quadrature (± grid)"] = _pm(rows, "quadrature", "quadrature_error")
    methods["importance, 1000 draws (± Monte Carlo)"] = _pm(rows, "importance", "importance_stderr")
    methods["bad k̂"] = [f"{100 * v:.1f} %" for v in rows["unreliable"]]
    methods["annealed − quadrature (± Monte Carlo)"] = _pm(rows, "annealed_off", "annealed_stderr")
    for side in ("lower", "upper"):
        methods[f"simulated data: {side} − quadrature"] = _pm(rows, side, f"{side}_stderr")
    yield f"log p(x) by every method (annealed: {rows['annealed_data'].iloc[0]} data)", markdown_table(methods)


def _pm(rows: pd.DataFrame, value: str, error: str) -> list[str]:
    return [f"{v:.4f} ± {e:.1g}" for v, e in zip(rows[value], rows[error], strict=True)]


def picture(rows: pd.DataFrame) -> Figure:
    """Model error and inference gap, a panel a set."""
    panels = {
        str(name): {
            label: (list(group[part]), list(group[f"{part}_stderr"]))
            for label, part in (("model error", "model_error"), ("inference gap", "inference_gap"))
        }
        for name, group in rows.groupby("set", sort=False)
    }
    return grouped_intervals(list(FAMILIES), panels, "nats per datum")


def reading(rows: pd.DataFrame) -> str:
    """What the split says."""
    lines = []
    for name, group in rows.groupby("set", sort=False):
        by = group.set_index("posterior")
        best, widest = str(by["total"].idxmin()), str(by["inference_gap"].idxmax())
        lines.append(
            f"- {name}: nearest the truth is {best} ({by['total'].min():.4f} nats, of them "
            f"{by['inference_gap'][best]:.4f} inference gap); the widest inference gap is {widest}'s, "
            f"{by['inference_gap'].max():.4f}."
        )
    off = (rows["importance"] - rows["quadrature"]).abs().max()
    low, high = rows["lower"] - 2 * rows["lower_stderr"], rows["upper"] + 2 * rows["upper_stderr"]
    lines.append(
        f"- Importance sampling and quadrature differ by at most {off:.4f} nats. Quadrature lies between annealing's "
        f"bounds, each ± 2 Monte Carlo errors, in {int(((low <= 0) & (high >= 0)).sum())} of {len(rows)} models; they "
        f"are at most {(rows['upper'] - rows['lower']).max():.4f} apart."
    )
    return "\n".join(lines)
