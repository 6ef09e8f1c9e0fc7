"""Posterior × likelihood on a set of spectra, beside linear baselines: runs, table, pictures, reading."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

import pyrovae as pv
from experiments.pool import in_processes
from experiments.spectra.checks import Checked, autocorrelation, check
from experiments.spectra.pictures import write_pictures
from experiments.spectra.sets import SpectraSet
from experiments.spectra.settings import Settings
from experiments.summaries import standard_error
from pyrovae.comparison import RunStatus
from pyrovae.comparison.tables import markdown_table
from pyrovae.datasets import SimulatedSpectra, Standardize
from pyrovae.errors import InputError
from pyrovae.evaluation import LogMarginal, RefinedELBO
from pyrovae.files import write_table
from pyrovae.likelihoods import LIKELIHOODS
from pyrovae.linear_gaussian.exact import most_latent_dims
from pyrovae.linear_gaussian.keys import LinearKey

INITIAL_SCALE = 0.05
"""Where σ starts, in units of all the data's standard deviation: from far above the noise latents collapse."""


NUM_JUDGED = 48
"""Validation spectra that choose epochs, rates and cells."""

NUM_STAND_INS = 20
"""Validation spectra that stand in for the test spectra until all is chosen."""

TRUTH = "the truth"
"""Name of the row of what simulated spectra were drawn from."""


@dataclass(frozen=True)
class Found:
    """The results on one set.

    Attributes:
        runs: one row a run.
        baselines: one row a baseline.
        linear: which linear model each baseline is, by its name; not the truth.
        estimates: log p(x) of the test spectra by each seed of a model, by its name, the simplest first.
        test_groups: label of each test spectrum; None where all are independent.
        pictures: files by caption.
    """

    runs: pd.DataFrame
    baselines: pd.DataFrame
    linear: dict[str, LinearKey]
    estimates: dict[str, list[LogMarginal]]
    test_groups: NDArray[np.int64] | None
    pictures: dict[str, Path]


def train(settings: Settings, data: SpectraSet, out: Path) -> pd.DataFrame:
    """Train every run; validation spectra choose epochs and rates for the model, by its refined ELBO.

    No test spectra are seen: those that the comparison asks for are of the validation.
    """
    return pv.compare(
        data.train.x,
        test=data.validation.x[:NUM_STAND_INS],
        validation=data.validation.x,
        preprocessing=Standardize("mean"),
        posteriors=settings.posteriors,
        estimators=["analytic"],
        likelihoods={name: partial(LIKELIHOODS[name], initial_scale=INITIAL_SCALE) for name in settings.likelihoods},
        latent_dims=(settings.latent_dim,),
        seeds=range(0, 2 * settings.seeds, 2),
        together=False,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rates=settings.learning_rates,
        hidden=settings.hidden,
        start=settings.start,
        engine=settings.engine,
        measure=RefinedELBO(num_data=NUM_JUDGED, num_steps=1),
        validate_every=-(-settings.epochs // settings.looks),
        log_marginal_samples=25,
        out=out / data.name,
        pictures=False,
        resume=settings.resume,
        workers=settings.workers,
    )


def study(settings: Settings, data: SpectraSet, out: Path) -> Found:
    """Train, choose learning rates by validation, and check every run on the test spectra."""
    runs = train(settings, data, out)
    good = runs[runs["status"] == RunStatus.FINISHED]
    if good.empty:
        raise InputError(f"every run on {data.name} failed; the first: {runs['note'].iloc[0]}")
    jobs = [partial(check_run, out / data.name / folder, data, settings.samples) for folder in good["folder"]]
    checked = in_processes(jobs, settings.workers, f"{data.name}: test spectra")
    metrics = pd.DataFrame([found.metrics for found in checked], index=good.index)
    jacobian = Standardize("mean").fit(data.train.x).log_abs_det_jacobian(data.validation.x).mean().item()
    runs["validation"] = jacobian - runs["validation_loss"]
    columns = ["posterior", "likelihood", "seed", "learning_rate", "best_epoch", "validation_loss", "validation"]
    runs = runs[[*columns, "seconds", "engine", "status", "note"]].join(metrics)
    runs.insert(0, "set", data.name)
    baselines, linear, estimates = _baselines(data, settings)
    by_index = dict(zip(good.index, checked, strict=True))
    failed = LogMarginal.exact(torch.full((len(data.test),), math.nan))
    for likelihood, posterior in itertools.product(settings.likelihoods, settings.posteriors):
        rows = runs.index[(runs["posterior"] == posterior) & (runs["likelihood"] == likelihood)]
        of_seeds = [by_index[i].marginal if i in by_index else failed for i in rows]
        estimates[cell_name(posterior, likelihood)] = of_seeds
    of_noise = [good[good["likelihood"] == likelihood] for likelihood in settings.likelihoods]
    best = [row_of_smallest(rows, "validation_loss") for rows in of_noise if not rows.empty]
    shown = {row["likelihood"]: by_index[row.name] for row in best}
    row = row_of_smallest(good, "validation_loss")
    path = out / data.name / row["folder"] / "model.safetensors"
    model, guide = pv.load(path)
    step = pv.load_preprocessing(path)
    assert step is not None
    pictures = write_pictures(out, data, row["likelihood"], shown, model, guide, step, settings.color)
    write_table(out / f"{data.name}-runs.csv", runs)
    write_table(out / f"{data.name}-baselines.csv", baselines)
    return Found(runs, baselines, linear, estimates, data.test_groups, pictures)


def check_run(folder: Path, data: SpectraSet, samples: int) -> Checked:
    """One trained run on the test spectra."""
    path = folder / "model.safetensors"
    model, guide = pv.load(path)
    step = pv.load_preprocessing(path)
    assert step is not None
    return check(model, guide, step, data.test.x, samples)


def _baselines(
    data: SpectraSet, settings: Settings
) -> tuple[pd.DataFrame, dict[str, LinearKey], dict[str, list[LogMarginal]]]:
    # the first two are probabilistic PCA and factor analysis
    others = [name for name in settings.likelihoods if name not in ("gaussian", "gaussian-per-dimension")]
    most = most_latent_dims(torch.cov(data.train.x.double().T, correction=0))
    baselines = pv.linear_baselines(
        data.train.x,
        data.test.x,
        settings.latent_dim,
        {name: LIKELIHOODS[name] for name in others},
        validation=data.validation.x,
        latent_dims=[d for d in settings.linear_dims if d <= most],
    )
    rows = [_row(data, b.name, b.log_prob, b.reconstruction, b.noise_scale, b.note) for b in baselines]
    scores = {b.name: b.log_prob for b in baselines if b.log_prob is not None}
    if isinstance(data.test, SimulatedSpectra):
        truth, clean = data.test.truth, data.test.clean.double()
        scores[TRUTH] = truth.log_prob(data.test.x)
        rows.append(_row(data, TRUTH, scores[TRUTH], clean, truth.noise_scale.expand(clean.shape[1])))
    estimates = {name: [LogMarginal.exact(score)] * settings.seeds for name, score in scores.items()}
    table = pd.DataFrame(rows).astype({"rmse": float, "log_prob": float})
    return table, {b.name: b.key for b in baselines}, estimates


def _row(
    data: SpectraSet,
    name: str,
    log_prob: Tensor | None,
    reconstruction: Tensor | None,
    noise_scale: Tensor | None,
    note: str = "",
) -> dict[str, Any]:
    """The row of a model without networks."""
    row: dict[str, Any] = {"set": data.name, "baseline": name, "note": note}
    row |= dict.fromkeys(("log_prob", "log_prob_stderr", "rmse", "rmse_worst_channel", "residual_autocorrelation"))
    if log_prob is not None:
        row["log_prob"] = log_prob.mean().item()
        row["log_prob_stderr"] = (log_prob.std() / len(log_prob) ** 0.5).item()
    if reconstruction is not None:
        residual = data.test.x.double() - reconstruction
        row["rmse"] = residual.square().mean().sqrt().item()
        row["rmse_worst_channel"] = residual.square().mean(0).sqrt().max().item()
        row["residual_autocorrelation"] = autocorrelation(residual)
    row["sigma"] = math.nan if noise_scale is None else noise_scale.square().mean().sqrt().item()
    return row


def cell_name(posterior: str, likelihood: str) -> str:
    """Name of a VAE in tables."""
    return f"{posterior}, {likelihood}"


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
        num_checked = len(next(iter(found.estimates.values()))[0].per_datum) * int(group["log_prob"].notna().sum())
        name = cell_name(str(posterior), str(likelihood))
        failed = int((group["status"] == RunStatus.FAILED).sum())
        rows.append(
            {
                "model": name,
                "order": mean["log_prob"],
                "validation": f"{mean['validation']:.1f}",
                "log p(x) (± data)": f"{mean['log_prob']:.2f} ± {mean['log_prob_stderr']:.2f}",
                "± seeds": f"{standard_error(group['log_prob']):.2f}" if len(group) > 1 else "",
                "untrusted": f"{group['num_untrusted'].sum():.0f} of {num_checked}",
                "lost by the encoder": f"{mean['lost_by_encoder']:.2f}",
                "RMSE": f"{mean['rmse']:.3g}",
                "worst channel": f"{mean['rmse_worst_channel']:.3g}",
                "residuals' ρ₁": f"{mean['residual_autocorrelation']:.2f}",
                "innovations' ρ₁": f"{mean['innovation_autocorrelation']:.2f}",
                "90 % band holds": f"{mean['coverage']:.1%}",
                "σ": f"{mean['sigma']:.3g}",
                "ρ": f"{mean['rho']:.3f}",
                "rate": f"{group['learning_rate'].iloc[0]:g}",
                "best epoch": f"{mean['best_epoch']:.0f}",
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
                "RMSE": number(row.rmse, ".3g"),
                "worst channel": number(row.rmse_worst_channel, ".3g"),
                "residuals' ρ₁": number(row.residual_autocorrelation, ".2f"),
                "σ": number(row.sigma, ".3g"),
                "note": row.note,
            }
        )
    ordered = pd.DataFrame(rows).sort_values("order", ascending=False, na_position="last").drop(columns="order")
    return markdown_table(ordered.fillna(""))


def number(value: float | None, form: str) -> str:
    """A number as text, empty where there is none."""
    return "" if value is None or math.isnan(value) else format(value, form)


def _on_floor(mean: pd.Series) -> str:
    return f"{mean['channels_on_floor']:.0f} channels on σ's floor" if mean["channels_on_floor"] > 0 else ""
