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
from experiments.summaries import standard_error
from pyrovae.comparison import RunStatus
from pyrovae.comparison.tables import markdown_table
from pyrovae.datasets import SimulatedSpectra, Standardize
from pyrovae.errors import InputError
from pyrovae.files import write_table
from pyrovae.likelihoods import LIKELIHOODS
from pyrovae.linear_gaussian.baselines import Baseline
from pyrovae.linear_gaussian.exact import most_latent_dims

INITIAL_SCALE = 0.05
"""Where σ starts, in units of all the data's standard deviation: from far above the noise latents collapse."""


TRUTH = "the truth"
"""Name of the row of what simulated spectra were drawn from."""


@dataclass(frozen=True)
class Found:
    """The results on one set.

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
    runs = pv.compare(
        data.train.x,
        test=data.test.x,
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
        log_marginal_samples=25,
        out=out / data.name,
        pictures=False,
        workers=settings.workers,
    )
    good = runs[runs["status"] == RunStatus.FINISHED]
    if good.empty:
        raise InputError(f"every run on {data.name} failed; the first: {runs['note'].iloc[0]}")
    jobs = [Check(out / data.name / folder, data, settings.samples) for folder in good["folder"]]
    checked = in_processes(jobs, settings.workers, f"{data.name}: test spectra")
    metrics = pd.DataFrame([found.metrics for found in checked], index=good.index)
    jacobian = Standardize("mean").fit(data.train.x).log_abs_det_jacobian(data.validation.x).mean().item()
    runs["validation_elbo"] = jacobian - runs["validation_neg_elbo"]
    runs = runs[
        [
            "posterior",
            "likelihood",
            "seed",
            "learning_rate",
            "best_epoch",
            "validation_neg_elbo",
            "validation_elbo",
            "seconds",
            "engine",
            "status",
            "note",
        ]
    ]
    runs = runs.join(metrics)
    runs.insert(0, "set", data.name)
    baselines, log_prob = _baselines(data, settings)
    keys = list(good[["posterior", "likelihood", "seed"]].itertuples(index=False, name=None))
    log_prob |= {key: found.log_prob for key, found in zip(keys, checked, strict=True)}
    by_key = dict(zip(keys, checked, strict=True))
    shown: dict[str, Checked] = {}
    for likelihood in settings.likelihoods:
        of_likelihood = good[good["likelihood"] == likelihood]
        if not of_likelihood.empty:
            row = row_of_smallest(of_likelihood, "validation_neg_elbo")
            shown[likelihood] = by_key[row["posterior"], likelihood, row["seed"]]
    row = row_of_smallest(good, "validation_neg_elbo")
    path = out / data.name / row["folder"] / "model.safetensors"
    model, guide = pv.load(path)
    step = pv.load_preprocessing(path)
    assert step is not None
    pictures = write_pictures(out, data, row["likelihood"], shown, model, guide, step, settings.color)
    write_table(out / f"{data.name}-runs.csv", runs)
    write_table(out / f"{data.name}-baselines.csv", baselines)
    return Found(runs, baselines, log_prob, pictures)


@dataclass(frozen=True)
class Check:
    """One trained run on the test spectra."""

    folder: Path
    data: SpectraSet
    samples: int

    def __call__(self) -> Checked:
        """Log p(x), errors, residuals and bands."""
        path = self.folder / "model.safetensors"
        model, guide = pv.load(path)
        step = pv.load_preprocessing(path)
        assert step is not None
        return check(model, guide, step, self.data.test.x, self.samples)


def _baselines(data: SpectraSet, settings: Settings) -> tuple[pd.DataFrame, dict[Any, torch.Tensor]]:
    x = data.test.x.double()
    rows, log_prob = [], {}
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
    if isinstance(data.test, SimulatedSpectra):
        truth = data.test.truth
        sigma = truth.noise_scale.expand(x.shape[1])
        baselines.append(Baseline(TRUTH, truth.log_prob(data.test.x), data.test.clean.double(), sigma))
    for found in baselines:
        row: dict[str, Any] = {"set": data.name, "baseline": found.name, "note": found.note}
        row |= dict.fromkeys(("log_prob", "log_prob_stderr", "rmse", "rmse_worst_channel", "residual_autocorrelation"))
        if found.log_prob is not None:
            log_prob[found.name] = found.log_prob
            row["log_prob"] = found.log_prob.mean().item()
            row["log_prob_stderr"] = (found.log_prob.std() / len(x) ** 0.5).item()
        if found.reconstruction is not None:
            residual = x - found.reconstruction
            row["rmse"] = residual.square().mean().sqrt().item()
            row["rmse_worst_channel"] = residual.square().mean(0).sqrt().max().item()
            row["residual_autocorrelation"] = autocorrelation(residual)
        row["sigma"] = math.nan if found.noise_scale is None else found.noise_scale.square().mean().sqrt().item()
        rows.append(row)
    return pd.DataFrame(rows).astype({"rmse": float, "log_prob": float}), log_prob


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
        failed = int((group["status"] == RunStatus.FAILED).sum())
        rows.append(
            {
                "model": f"{posterior}, {likelihood}",
                "order": mean["log_prob"],
                "validation ELBO": f"{mean['validation_elbo']:.1f}",
                "log p(x) (± data)": f"{mean['log_prob']:.2f} ± {mean['log_prob_stderr']:.2f}",
                "± seeds": f"{standard_error(group['log_prob']):.2f}" if len(group) > 1 else "",
                "bad k̂": f"{mean['bad_pareto_k']:.0%}",
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
