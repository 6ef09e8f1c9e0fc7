"""Posterior × likelihood on a set of spectra, beside linear baselines: runs, table, pictures, reading."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import pyrovae as pv
from experiments.pool import in_processes
from experiments.spectra.checks import Checked, autocorrelation, check
from experiments.spectra.pictures import write_pictures
from experiments.spectra.sets import SpectraSet
from experiments.spectra.settings import Settings
from pyrovae.datasets import SimulatedSpectra, Standardize
from pyrovae.likelihoods import LIKELIHOODS
from pyrovae.plans import Cell
from pyrovae.posteriors import POSTERIORS
from pyrovae.report import markdown_table, write_table

INITIAL_SCALE = 0.05
"""Where σ starts, in units of all the data's standard deviation: from far above the noise latents collapse."""


@dataclass(frozen=True)
class Found:
    """What a set gave.

    Attributes:
        runs: one row a run.
        baselines: one row a baseline.
        log_prob: log p(x) of each test datum by posterior, likelihood and seed, and by baseline's name.
        pictures: files by caption.
    """

    runs: pd.DataFrame
    baselines: pd.DataFrame
    log_prob: dict[Any, torch.Tensor]
    pictures: dict[str, Path]


def study(settings: Settings, data: SpectraSet, out: Path) -> Found:
    """Train, choose learning rates by validation, and check every run on the test spectra."""
    seeds = tuple(range(0, 2 * settings.seeds, 2))
    # fit's replicas want seeds that follow one another: these run alone, and share a compiled program
    rates = settings.learning_rates if len(settings.learning_rates) > 1 else settings.learning_rates[0]
    runs = pv.compare(
        data.train.x,
        test=data.test.x,
        validation=data.validation.x,
        preprocessing=Standardize("mean"),
        posteriors={name: POSTERIORS[name] for name in settings.posteriors},
        estimators={"analytic": pv.AnalyticELBO()},
        likelihoods={name: partial(LIKELIHOODS[name], initial_scale=INITIAL_SCALE) for name in settings.likelihoods},
        latent_dims=(settings.latent_dim,),
        seeds=seeds,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=rates,
        hidden=settings.hidden,
        start=settings.start,
        log_marginal_samples=25,
        out=out / data.name,
        pictures=False,
        workers=settings.workers,
    )
    good = runs[~runs["note"].str.startswith("failed")]
    if good.empty:
        raise ValueError(f"every run on {data.name} failed; the first: {runs['note'].iloc[0]}")
    jobs = [Check(folder_of(out / data.name, row, settings), data, settings.samples) for row in rows_of(good)]
    checked = in_processes(jobs, settings.workers, f"{data.name}: test spectra")
    metrics = pd.DataFrame([found.metrics for found in checked], index=good.index)
    runs = runs[
        ["posterior", "likelihood", "seed", "learning_rate", "validation_neg_elbo", "seconds", "engine", "note"]
    ]
    runs = runs.join(metrics)
    runs.insert(0, "set", data.name)
    baselines, log_prob = _baselines(data, settings.latent_dim)
    keys = list(good[["posterior", "likelihood", "seed"]].itertuples(index=False, name=None))
    log_prob |= {key: found.log_prob for key, found in zip(keys, checked, strict=True)}
    by_key = dict(zip(keys, checked, strict=True))
    shown: dict[str, Checked] = {}
    for likelihood in settings.likelihoods:
        own = good[good["likelihood"] == likelihood]
        if not own.empty:
            row = row_of_smallest(own, "validation_neg_elbo")
            shown[likelihood] = by_key[row["posterior"], likelihood, row["seed"]]
    row = row_of_smallest(good, "validation_neg_elbo")
    path = folder_of(out / data.name, row, settings) / "model.safetensors"
    model, guide = pv.load(path)
    step = pv.load_preprocessing(path)
    assert step is not None
    pictures = write_pictures(out, data, row["likelihood"], shown, model, guide, step, settings.color)
    write_table(out / f"{data.name}-runs.csv", runs)
    write_table(out / f"{data.name}-baselines.csv", baselines)
    return Found(runs, baselines, log_prob, pictures)


def folder_of(out: Path, row: Any, settings: Settings) -> Path:
    """Where a run of the comparison was written."""
    rate = row.learning_rate if len(settings.learning_rates) > 1 else None
    return out / Cell(row.posterior, "analytic", row.likelihood, settings.latent_dim, int(row.seed), rate).folder


@dataclass(frozen=True)
class Check:
    """One trained run on the test spectra."""

    folder: Path
    data: SpectraSet
    samples: int

    def __call__(self) -> Checked:
        """What it makes of them."""
        path = self.folder / "model.safetensors"
        model, guide = pv.load(path)
        step = pv.load_preprocessing(path)
        assert step is not None
        return check(model, guide, step, self.data.test.x, self.samples)


def _baselines(data: SpectraSet, latent_dim: int) -> tuple[pd.DataFrame, dict[Any, torch.Tensor]]:
    x = data.test.x.double()
    rows, log_prob = [], {}
    for found in pv.linear_baselines(data.train.x, data.test.x, latent_dim):
        residual = x - found.reconstruction
        row: dict[str, Any] = {
            "set": data.name,
            "baseline": found.name,
            "log_prob": math.nan,
            "log_prob_stderr": math.nan,
        }
        if found.log_prob is not None:
            log_prob[found.name] = found.log_prob
            row["log_prob"] = found.log_prob.mean().item()
            row["log_prob_stderr"] = (found.log_prob.std() / len(x) ** 0.5).item()
        row["rmse"] = residual.square().mean().sqrt().item()
        row["rmse_worst_channel"] = residual.square().mean(0).sqrt().max().item()
        row["residual_autocorrelation"] = autocorrelation(residual)
        row["sigma"] = math.nan if found.noise_scale is None else found.noise_scale.square().mean().sqrt().item()
        rows.append(row)
    return pd.DataFrame(rows), log_prob


def rows_of(table: pd.DataFrame) -> Iterator[Any]:
    """The rows, each with its columns as attributes."""
    yield from table.itertuples()


def row_of_smallest(table: pd.DataFrame, column: str) -> Any:
    """The row of a column's smallest value."""
    return table.iloc[int(np.nanargmin(table[column].to_numpy(dtype=float)))]


def cells(runs: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, one row a posterior and likelihood."""
    return runs.groupby(["posterior", "likelihood"], sort=False).mean(numeric_only=True).reset_index()


def table(found: Found) -> str:
    """Every cell and baseline, the largest log p(x) first."""
    rows = []
    for (posterior, likelihood), group in found.runs.groupby(["posterior", "likelihood"], sort=False):
        mean = group.mean(numeric_only=True)
        seeds = group["log_prob"].std() / math.sqrt(len(group)) if len(group) > 1 else math.nan
        failed = int(group["note"].str.startswith("failed").sum())
        rows.append(
            {
                "model": f"{posterior}, {likelihood}",
                "order": mean["log_prob"],
                "log p(x) (± data)": f"{mean['log_prob']:.2f} ± {mean['log_prob_stderr']:.2f}",
                "± seeds": "" if seeds != seeds else f"{seeds:.2f}",
                "bad k̂": f"{mean['bad_pareto_k']:.0%}",
                "RMSE": f"{mean['rmse']:.3g}",
                "worst channel": f"{mean['rmse_worst_channel']:.3g}",
                "residuals' ρ₁": f"{mean['residual_autocorrelation']:.2f}",
                "innovations' ρ₁": f"{mean['innovation_autocorrelation']:.2f}",
                "90 % band holds": f"{mean['coverage']:.1%}",
                "σ": f"{mean['sigma']:.3g}",
                "ρ": f"{mean['rho']:.3f}",
                "rate": f"{group['learning_rate'].iloc[0]:g}",
                "seconds": f"{mean['seconds']:.0f}",
                "note": f"{failed} of {len(group)} failed" if failed else _on_floor(mean),
            }
        )
    for row in rows_of(found.baselines):
        known = row.log_prob == row.log_prob
        rows.append(
            {
                "model": f"{row.baseline}",
                "order": row.log_prob,
                "log p(x) (± data)": f"{row.log_prob:.2f} ± {row.log_prob_stderr:.2f}" if known else "no density",
                "RMSE": f"{row.rmse:.3g}",
                "worst channel": f"{row.rmse_worst_channel:.3g}",
                "residuals' ρ₁": f"{row.residual_autocorrelation:.2f}",
                "σ": f"{row.sigma:.3g}" if known else "",
            }
        )
    ordered = pd.DataFrame(rows).sort_values("order", ascending=False, na_position="last").drop(columns="order")
    return markdown_table(ordered.fillna(""))


def _on_floor(mean: pd.Series) -> str:
    return f"{mean['channels_on_floor']:.0f} channels on σ's floor" if mean["channels_on_floor"] > 0 else ""


def paired(found: Found, first: str, second: str) -> tuple[float, float] | None:
    """Gain of one likelihood over another in nats, each at its best posterior by validation: mean, standard error.

    Paired by test datum, the seeds' log p(x) averaged.
    """
    parts = []
    for likelihood in (first, second):
        own = cells(found.runs[found.runs["likelihood"] == likelihood]).dropna(subset=["validation_neg_elbo"])
        if own.empty:
            return None
        posterior = row_of_smallest(own, "validation_neg_elbo").posterior
        values = [v for key, v in found.log_prob.items() if key[:2] == (posterior, likelihood)]
        parts.append(torch.stack(values).mean(0))
    gain = parts[0] - parts[1]
    return gain.mean().item(), (gain.std() / math.sqrt(len(gain))).item()


def independent(found: Found) -> str:
    """The best likelihood of independent noise, by validation; empty if none was compared."""
    own = cells(found.runs[found.runs["likelihood"].str.startswith("gaussian")]).dropna(subset=["validation_neg_elbo"])
    return "" if own.empty else str(row_of_smallest(own, "validation_neg_elbo").likelihood)


def gains(found: Found) -> list[tuple[str, str, float, float]]:
    """Each correlated likelihood, the best independent one, and its gain over that with standard error."""
    reference = independent(found)
    correlated = [str(name) for name in found.runs["likelihood"].unique() if not str(name).startswith("gaussian")]
    measured = [(name, paired(found, name, reference)) for name in correlated] if reference else []
    return [(name, reference, *gain) for name, gain in measured if gain is not None]


def reading(data: SpectraSet, found: Found) -> str:
    """What the numbers say."""
    mean = cells(found.runs)
    best = row_of_smallest(mean, "validation_neg_elbo")
    lines = [
        f"- By validation the best cell is {best.posterior}, {best.likelihood}: log p(x) = {best.log_prob:.2f} nats, "
        f"RMSE {best.rmse:.3g}; k̂ is bad for {best.bad_pareto_k:.0%} of the test spectra, whose log p(x) may be higher."
    ]
    linear = found.baselines.dropna(subset=["log_prob"])
    winner = row_of_smallest(linear.assign(minus=-linear["log_prob"]), "minus")
    own = [v for key, v in found.log_prob.items() if key[:2] == (best.posterior, best.likelihood)]
    ahead = torch.stack(own).mean(0) - found.log_prob[winner.baseline]
    difference, error = ahead.mean().item(), (ahead.std() / math.sqrt(len(ahead))).item()
    who = "It is ahead of every linear baseline" if difference > 0 else "A linear baseline wins"
    if abs(difference) < 2 * error:
        who = "It cannot be told from the best linear baseline"
    lines.append(
        f"- {who}: {winner.baseline} with as many components has {winner.log_prob:.2f} nats, the cell "
        f"{difference:+.2f} ± {error:.2f} (paired by test spectrum)."
    )
    least = row_of_smallest(found.baselines, "rmse")
    vae = row_of_smallest(mean, "rmse")
    smaller = f"{vae.posterior}, {vae.likelihood}" if vae.rmse < least.rmse else least.baseline
    lines.append(
        f"- The smallest reconstruction error is that of {smaller}: "
        f"VAE {vae.rmse:.3g}, {least.baseline} {least.rmse:.3g}."
    )
    for name, reference, gain, error in gains(found):
        lines.append(f"- {name} noise over the best independent noise ({reference}): {gain:+.2f} ± {error:.2f} nats.")
    if isinstance(data.test, SimulatedSpectra):
        truth = data.test.truth
        sigma = truth.noise_scale.double().square().mean().sqrt().item()
        lines += [
            f"- {row.posterior}, {row.likelihood}: ρ̂ = {row.rho:.3f} (true {truth.correlation:g}), "
            f"σ̂ = {row.sigma:.4g} (true {sigma:.4g})."
            for row in rows_of(mean[mean["likelihood"].isin(["ar1", "ar1-per-dimension"])])
        ]
    reached = np.abs(mean["coverage"] - 0.9).max()
    lines.append(
        f"- The 90 % predictive bands hold between {mean['coverage'].min():.1%} and {mean['coverage'].max():.1%} "
        f"of held-out values (at most {reached:.1%} off; z is drawn from q(z|x) of the same x, so that even the exact "
        "model holds somewhat more than 90 %)."
    )
    return "\n".join(lines)
