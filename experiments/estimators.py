"""Which ELBO estimator to optimise: values, gradient noise by part, seconds, and where training ends.

python -m experiments.estimators
"""

import copy
import math
import os
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from scipy import stats
from torch import Tensor
from tqdm.auto import tqdm

import pyrovae as pv
from experiments import page
from experiments.benchmarks.estimators import interleaved, training_step
from pyrovae import cli, plotting
from pyrovae.atomic import make_folder
from pyrovae.datasets import SYNTHETIC, SyntheticDataset, digits
from pyrovae.elbo import BetaELBO
from pyrovae.exact import LinearGaussianVAE
from pyrovae.report import markdown_table, write_figure, write_table

ONE_SAMPLE: dict[str, type[BetaELBO]] = {
    "monte-carlo": pv.MonteCarloELBO,
    "analytic": pv.AnalyticELBO,
    "closed-form-entropy": pv.ClosedFormEntropyELBO,
    "sticking-the-landing": pv.StickingTheLandingELBO,
}
MANY_SAMPLES: dict[str, type[BetaELBO]] = {
    "importance-weighted": pv.ImportanceWeightedELBO,
    "doubly-reparameterized": pv.DoublyReparameterizedELBO,
}
PARTS = ("encoder location head", "encoder covariance head", "encoder body", "decoder")


@dataclass(frozen=True)
class Settings:
    """Compare ELBO estimators on a linear-Gaussian model, the figure eight and scikit-learn's digits."""

    seeds: int = 5
    """Number of models and trainings, with seeds 0, 1, …"""
    particles: tuple[int, ...] = (1, 5, 50)
    """Draws K of the importance-weighted pair."""
    repeats: int = 200
    """Gradients for each statistic on the linear-Gaussian model; half as many on the networks."""
    steps: int = 1000
    """Steps of a training; at equal time, those of monte-carlo."""
    batch_size: int = 32
    """Data per step."""
    samples: int = 250
    """Draws of z per test datum for log p(x); eight times as many on the digits."""
    out: Path | None = None
    """Folder for the results; by default a new one under runs/."""
    publish: bool = False
    """Also write the study's page, experiments/results/estimators.md."""
    workers: int = min(os.cpu_count() or 1, 8)
    """Processes for the trainings, one thread each."""


def estimators(particles: Sequence[int]) -> dict[str, BetaELBO]:
    """Every estimator by name, the importance-weighted pair once for each K."""
    found: dict[str, BetaELBO] = {name: make() for name, make in ONE_SAMPLE.items()}
    for name, make in MANY_SAMPLES.items():
        found |= {f"{name}, K = {k}": make(num_particles=k) for k in particles}
    return found


@dataclass(frozen=True)
class Case:
    """A pair of programs whose gradients are looked at, and −log p(x) per datum where it is known."""

    where: str
    seed: int
    model: pv.GenerativeModel
    guide: pv.AmortizedGuide
    x: Tensor
    truth: float = 0.0


def linear_gaussian(settings: Settings) -> Iterator[Case]:
    """X = Az + b + 0.5 ε, 4 latent and 6 observed dimensions, A and b standard normal: q at three of its values."""
    for seed in range(settings.seeds):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
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
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
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


def training_data(name: str) -> tuple[Tensor, int]:
    """2,000 points of the figure eight, or the digits; and the latent dimension."""
    if name == "digits":
        x, _ = digits()
        return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))], 8
    return SYNTHETIC[name].sample(2000, torch.Generator().manual_seed(0)), 2


def epochs_of(num: int, settings: Settings) -> int:
    """Epochs that make about the number of steps asked for."""
    return max(1, round(settings.steps / math.ceil(num / settings.batch_size)))


def gradient_noise(
    cases: Iterator[Case],
    total: int,
    repeats: int,
    settings: Settings,
    label: str,
) -> pd.DataFrame:
    """One row a case, seed, estimator and part."""
    rows = []
    with tqdm(total=total, desc=label, unit="case", disable=None) as bar:
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
            row[loss] = _pm(of_encoder["loss"], ".3f")
            row["variance of the value"] = _pm(of_encoder["loss_variance"], ".2g")
            for part in [p for p in PARTS if (case["part"] == p).any()]:
                ratio = _of(case, name, part)["variance"] / _of(case, "monte-carlo", part)["variance"]
                row[f"{part}, variance ×"] = _ratio(ratio)
            rounding = _is_rounding(case, name, "encoder").all()
            row["encoder signal-to-noise"] = "(rounding)" if rounding else _pm(of_encoder["snr"], ".2f")
            row["ms"] = f"{of_encoder['milliseconds'].median():.2f}"
            row["encoder variance × seconds, ×"] = _ratio(
                of_encoder["variance_seconds"] / _of(case, "monte-carlo", "encoder")["variance_seconds"]
            )
            rows.append(row)
        tables[str(where)] = pd.DataFrame(rows)
    return tables


def _of(case: pd.DataFrame, estimator: str, part: str) -> pd.DataFrame:
    return case[(case["estimator"] == estimator) & (case["part"] == part)].set_index("seed")


def _pm(values: pd.Series, form: str) -> str:
    """Mean ± standard error over seeds."""
    if len(values) == 1:
        return f"{values.iloc[0]:{form}}".replace("-0.000", "0.000")
    mean = f"{values.mean():{form}}".replace("-0.000", "0.000")
    return f"{mean} ± {values.std() / math.sqrt(len(values)):{form}}"


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
            part: _means([np.log(_relative(case, name, part, "variance")) for name in names], exponentiate=True)
            for part in parts
        }
        ratios[str(where)] = {
            part: _means([_of(case, name, part)["snr"].where(~_is_rounding(case, name, part)) for name in names])
            for part in ("encoder", "decoder")
        }
    return {
        "variance": plotting.grouped_intervals(
            names, variances, "variance of the gradient, relative to monte-carlo's", log=True
        ),
        "snr": plotting.grouped_intervals(names, ratios, "signal-to-noise ratio of the gradient"),
    }


def _relative(case: pd.DataFrame, name: str, part: str, measure: str) -> pd.Series:
    """An estimator's measure over Monte Carlo's, by seed; NaN where it is rounding errors."""
    ratio = _of(case, name, part)[measure] / _of(case, "monte-carlo", part)[measure]
    return ratio.where(~_is_rounding(case, name, part))


def _is_rounding(case: pd.DataFrame, name: str, part: str) -> pd.Series:
    return _of(case, name, part)["variance"] < 1e-12 * _of(case, "monte-carlo", part)["variance"]


def _means(groups: list[pd.Series], exponentiate: bool = False) -> tuple[list[float], list[float]]:
    """Means over seeds and their standard errors, of logarithms if asked for."""
    means = [group.mean() for group in groups]
    stderrs = [group.std() / math.sqrt(len(group)) if len(group) > 1 else 0.0 for group in groups]
    if exponentiate:
        means = [math.exp(mean) for mean in means]
        stderrs = [mean * stderr for mean, stderr in zip(means, stderrs, strict=True)]
    return means, stderrs


def trainings(name: str, settings: Settings) -> pd.DataFrame:
    """Train with every estimator for the same number of steps, then for the time that those take Monte Carlo."""
    x, d = training_data(name)
    data: SyntheticDataset | Tensor = x if name == "digits" else SYNTHETIC[name]
    chosen = {n: e for n, e in estimators(settings.particles).items() if not n.endswith("K = 1")}
    num = len(x) - len(x) // 5 if name == "digits" else 2000
    epochs = epochs_of(num, settings)
    compare = partial(
        pv.compare,
        data,
        engine="eager",  # the steps whose seconds are measured below
        posteriors={"full-covariance": pv.FullCovariancePosterior},
        estimators=chosen,
        latent_dims=(d,),
        seeds=range(settings.seeds),
        batch_size=settings.batch_size,
        learning_rate=3e-3 if name == "digits" else 1e-3,
        num_train=None if name == "digits" else 2000,
        num_test=None if name == "digits" else 2000,
        log_marginal_samples=8 * settings.samples if name == "digits" else settings.samples,
        workers=settings.workers,
    )
    equal_steps = compare(epochs=epochs)
    batch = x[: settings.batch_size]
    times = interleaved(
        {e: training_step("full-covariance", elbo, (128, 128), d, batch) for e, elbo in chosen.items()},
        100,
        f"{name}, seconds a step",
    )
    seconds = {estimator: statistics.median(values) for estimator, values in times.items()}
    by_time = {e: max(1, round(epochs * seconds["monte-carlo"] / seconds[e])) for e in chosen}
    equal_time = compare(epochs=by_time)
    for table in (equal_steps, equal_time):
        table["milliseconds_a_step"] = 1e3 * table["estimator"].map(seconds)
    return pd.concat([equal_steps.assign(budget="equal steps"), equal_time.assign(budget="equal time")])


def training_table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a budget and estimator; differences to Monte Carlo are paired by seed."""
    rows = []
    for (budget, name), group in runs.groupby(["budget", "estimator"], sort=False):
        base = runs[(runs["budget"] == budget) & (runs["estimator"] == "monte-carlo")].set_index("seed")
        ours = group.set_index("seed")
        difference = ours["test_log_marginal"] - base["test_log_marginal"]
        rows.append(
            {
                "budget": budget,
                "estimator": name,
                "steps": int(group["steps"].median()),
                "ms a step": f"{group['milliseconds_a_step'].iloc[0]:.2f}",
                "seconds": f"{1e-3 * group['milliseconds_a_step'].iloc[0] * group['steps'].median():.1f}",
                "test log p(x) ≥": _pm(group["test_log_marginal"], ".3f"),
                "gain of doubling the draws": f"{group['test_log_marginal_gain_of_doubling'].mean():.3f}",
                "more than monte-carlo": "" if name == "monte-carlo" else _pm(difference, "+.3f").replace("± +", "± "),
                "test ELBO": _pm(-group["test_neg_elbo"], ".3f"),
            }
        )
    return pd.DataFrame(rows)


def training_picture(runs: pd.DataFrame) -> Figure:
    """Test log p(x) where each training ended."""
    names = list(runs["estimator"].unique())
    panels = {}
    for budget, case in runs.groupby("budget", sort=False):
        groups = [case.loc[case["estimator"] == name, "test_log_marginal"] for name in names]
        panels[str(budget)] = {"full covariance": _means(groups)}
    return plotting.grouped_intervals(names, panels, "test log p(x), nats per datum")


def which_one(name: str, runs: pd.DataFrame) -> str:
    """What the numbers say, in a sentence a budget.

    A difference counts where it is beyond a 95 % interval of Student's t over seeds, paired, and beyond what more
    importance samples could add to the lower bounds that are compared.
    """
    sentences = []
    for budget, case in runs.groupby("budget", sort=False):
        by_seed = case.pivot_table(index="seed", columns="estimator", values="test_log_marginal")
        gain = case.groupby("estimator")["test_log_marginal_gain_of_doubling"].mean()
        best = str(by_seed.mean().idxmax())
        level = []
        for other in map(str, by_seed.columns.drop(best)):
            short = by_seed[best] - by_seed[other]
            interval = math.inf
            if len(short) > 1:
                interval = stats.t.ppf(0.975, len(short) - 1) * short.std() / math.sqrt(len(short))
            if short.mean() < max(interval, gain[best], gain[other]):
                level.append(other)
        others = f"; not told apart from it: {', '.join(level)}" if level else ""
        sentences.append(f"- {name}, {budget}: the largest test log p(x) is {best}'s{others}.")
    return "\n".join(sentences)


tell = partial(page.tell, "estimators")


def main(settings: Settings) -> None:
    """Run the study; print its tables, write them and the pictures."""
    for option in ("seeds", "steps", "batch_size", "samples", "workers"):
        if getattr(settings, option) < 1:
            raise ValueError(f"--{option.replace('_', '-')} must be at least 1, not {getattr(settings, option)}")
    if settings.repeats < 4 or not settings.particles:
        raise ValueError("--repeats must be at least 4, and --particles needs at least one number")
    out = page.new_folder(settings.out, "estimators")
    estimators(settings.particles)
    make_folder(out)
    torch.set_num_threads(1)
    studies = {
        "linear-Gaussian": (linear_gaussian(settings), settings.repeats),
        "figure-eight": (networks("figure-eight", settings), settings.repeats // 2),
        "digits": (networks("digits", settings), settings.repeats // 2),
    }
    conclusions = []
    for name, (cases, repeats) in studies.items():
        noise = gradient_noise(cases, 3 * settings.seeds, repeats, settings, f"{name}, gradients")
        write_table(out / f"{name}-gradients.csv", noise)
        pictures = {}
        for kind, picture in noise_pictures(noise).items():
            pictures[f"{name}: {kind}"] = out / f"{name}-{kind}.png"
            write_figure(out / f"{name}-{kind}.png", picture)
        loss = "loss + log p(x)" if name == "linear-Gaussian" else "loss"
        text = "\n\n".join(f"**{where}**\n\n{markdown_table(t)}" for where, t in noise_tables(noise, loss).items())
        tell(f"{name}, gradient noise", text, pictures, settings.publish)
        if name == "linear-Gaussian":
            continue
        runs = trainings(name, settings)
        write_table(out / f"{name}-trainings.csv", runs)
        write_figure(out / f"{name}-trainings.png", training_picture(runs))
        conclusions.append(which_one(name, runs))
        text = f"{markdown_table(training_table(runs))}\n\n{conclusions[-1]}"
        tell(f"{name}, trainings", text, {f"{name}: test log p(x)": out / f"{name}-trainings.png"}, settings.publish)
    criterion = "Told apart: beyond a 95 % interval of Student's t, paired by seed, and what more draws may add."
    tell("Which one to use", "\n".join([*conclusions, "", criterion]), {}, settings.publish)
    print(f"results: {out}")


if __name__ == "__main__":
    cli.run(main, Settings)
