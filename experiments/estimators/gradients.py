"""One model's gradient under each estimator: its value, its noise by part, its seconds."""

import copy
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

import pyrovae as pv
from experiments.estimators.settings import Settings, epochs_of, estimators, training_data
from experiments.pictures import grouped_intervals
from experiments.summaries import geometric_means_and_errors, mean_and_error, means_and_errors
from pyrovae.linear_gaussian.exact import LinearGaussianVAE
from pyrovae.progress import progress_bar
from pyrovae.randomness import seeded

MONTE_CARLO = "monte-carlo"
PARTS = ("encoder location head", "encoder covariance head", "encoder body", "decoder")


@dataclass(frozen=True)
class Case:
    """A pair of programs whose gradients are measured, and −log p(x) per datum where it is known."""

    where: str
    seed: int
    model: pv.GenerativeModel
    guide: pv.AmortizedGuide
    x: Tensor
    truth: float = 0.0


def linear_gaussian(settings: Settings) -> Iterator[Case]:
    """X = Az + b + 0.5 ε, 4 latent and 6 observed dimensions, A and b standard normal: q at three of its values."""
    for seed in range(settings.seeds):
        with seeded(seed):
            truth = LinearGaussianVAE(torch.randn(6, 4), 0.5, torch.randn(6))
            x = truth.sample(settings.batch_size)
        at = {
            "q = prior": truth.gaussian_guide(torch.zeros_like(truth.gain), torch.eye(4, dtype=torch.float64)),
            "q = best mean-field": truth.gaussian_guide(truth.gain, truth.best_covariance("diagonal")),
            "q = exact posterior": truth.to_guide(),
        }
        for where, guide in at.items():
            yield Case(where, seed, truth.to_model(), guide, x, -truth.log_prob(x).mean().item())


def networks(name: str, settings: Settings) -> Iterator[Case]:
    """A full-covariance VAE before, early in and at the end of its training with the analytic estimator."""
    x, d = training_data(name)
    epochs = epochs_of(len(x), settings)
    for seed in range(settings.seeds):
        with seeded(seed):
            n = x.shape[-1]
            likelihood = pv.GaussianLikelihood(128, n, initial_scale=0.25 * x.var(0).mean().sqrt().item())
            model = pv.GenerativeModel(pv.nn.MLP(d, 128, 128), likelihood, d)
            pair = model, pv.AmortizedGuide(pv.nn.MLP(n, 128, 128), pv.FullCovariancePosterior(128, d))
        stages = {"before training": copy.deepcopy(pair)}
        early = max(1, epochs // 10)
        pv.fit(
            *pair,
            x,
            pv.AnalyticELBO(),
            epochs=epochs,
            batch_size=settings.batch_size,
            seed=seed,
            progress=False,
            on_epoch=partial(_keep, stages, pair, early),
        )
        if early == epochs:
            stages.pop("after a tenth")  # too short a training to have both
        stages["at the end"] = pair
        for where, (model, guide) in stages.items():
            yield Case(where, seed, model, guide, x[: settings.batch_size])


def _keep(stages: dict[str, Any], pair: tuple[Any, Any], epoch: int, record: pv.training.EpochRecord) -> None:
    if record.epoch == epoch:
        stages["after a tenth"] = copy.deepcopy(pair)


def gradient_noise(
    cases: Iterator[Case],
    total: int,
    repeats: int,
    settings: Settings,
    label: str,
) -> pd.DataFrame:
    """One row a case, seed, estimator and part."""
    rows = []
    with progress_bar(total=total, desc=label, unit="case") as bar:
        for case in cases:
            for name, elbo in estimators(settings.particles).items():
                found = pv.gradient_statistics(case.model, case.guide, elbo, case.x, repeats, seed=case.seed)
                shared = {
                    "where": case.where,
                    "seed": case.seed,
                    "estimator": name,
                    "loss": found.loss - case.truth,
                    "loss_variance": found.loss_variance,
                    "milliseconds": 1e3 * found.seconds,
                }
                rows += [{**shared, **asdict(part)} for part in found.parts]
            bar.update()
    return pd.DataFrame(rows)


def noise_tables(table: pd.DataFrame, loss: str) -> dict[str, pd.DataFrame]:
    """One table a case: an estimator's value, gradient variances as ratios to Monte Carlo's, signal-to-noise, cost."""
    tables = {}
    for where, case in table.groupby("where", sort=False):
        rows = []
        for name in case["estimator"].unique():
            row: dict[str, Any] = {"estimator": name}
            of_encoder = _of(case, name, "encoder")
            row[loss] = mean_and_error(of_encoder["loss"], ".3f")
            row["variance of the value"] = mean_and_error(of_encoder["loss_variance"], ".2g")
            for part in [p for p in PARTS if (case["part"] == p).any()]:
                ratio = _of(case, name, part)["variance"] / _of(case, MONTE_CARLO, part)["variance"]
                row[f"{part}, variance ×"] = _ratio(ratio)
            rounding = _is_rounding(case, name, "encoder").all()
            row["encoder signal-to-noise"] = "(rounding)" if rounding else mean_and_error(of_encoder["snr"], ".2f")
            row["ms"] = f"{of_encoder['milliseconds'].median():.2f}"
            row["encoder variance × seconds, ×"] = _ratio(
                of_encoder["variance_seconds"] / _of(case, MONTE_CARLO, "encoder")["variance_seconds"]
            )
            rows.append(row)
        tables[str(where)] = pd.DataFrame(rows)
    return tables


def _of(case: pd.DataFrame, estimator: str, part: str) -> pd.DataFrame:
    return case[(case["estimator"] == estimator) & (case["part"] == part)].set_index("seed")


def _ratio(ratios: pd.Series) -> str:
    """Geometric mean over seeds, with its standard error."""
    logs = np.log(ratios.clip(lower=1e-40))
    mean = math.exp(logs.mean())
    if mean < 1e-6:
        return f"{mean:.0e}"
    return f"{mean:.3g}" if len(logs) == 1 else f"{mean:.3g} ± {mean * logs.std() / math.sqrt(len(logs)):.2g}"


def noise_pictures(table: pd.DataFrame) -> dict[str, Figure]:
    """Gradient variance by part against Monte Carlo's, and signal-to-noise ratio, of each estimator."""
    names = list(table["estimator"].unique())
    parts = [part for part in PARTS if (table["part"] == part).any()]
    variances: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    ratios: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for where, case in table.groupby("where", sort=False):
        variances[str(where)] = {
            part: geometric_means_and_errors(
                (_measure(case, name, part, "variance") / _of(case, MONTE_CARLO, part)["variance"]).map(math.log)
                for name in names
            )
            for part in parts
        }
        ratios[str(where)] = {
            part: means_and_errors(_measure(case, name, part, "snr") for name in names)
            for part in ("encoder", "decoder")
        }
    return {
        "variance": grouped_intervals(
            names, variances, "variance of the gradient, relative to monte-carlo's", log=True
        ),
        "snr": grouped_intervals(names, ratios, "signal-to-noise ratio of the gradient"),
    }


def _measure(case: pd.DataFrame, name: str, part: str, measure: str) -> pd.Series:
    """An estimator's measure by seed; NaN where the gradient's variance is that of rounding errors."""
    return _of(case, name, part)[measure].where(~_is_rounding(case, name, part))


def _is_rounding(case: pd.DataFrame, name: str, part: str) -> pd.Series:
    return _of(case, name, part)["variance"] < 1e-12 * _of(case, MONTE_CARLO, part)["variance"]
