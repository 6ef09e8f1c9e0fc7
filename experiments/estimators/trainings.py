"""Trainings with each estimator, for the same steps and for the same time, and what they say."""

import math
import statistics
from functools import partial

import pandas as pd
from matplotlib.figure import Figure
from scipy import stats
from torch import Tensor

import pyrovae as pv
from experiments.benchmarks.estimators import training_step
from experiments.benchmarks.timing import interleaved
from experiments.estimators.settings import Settings, epochs_of, estimators, training_data
from experiments.pictures import grouped_intervals
from experiments.summaries import mean_and_error, means_and_errors
from pyrovae.datasets import SYNTHETIC, SyntheticDataset


def trainings(name: str, settings: Settings) -> pd.DataFrame:
    """Train with every estimator for the same number of steps, then for the time that Monte Carlo takes for them."""
    x, d = training_data(name)
    x = x[: 5 * settings.num_test] if name == "digits" else x
    data: SyntheticDataset | Tensor = x if name == "digits" else SYNTHETIC[name]
    chosen = {n: e for n, e in estimators(settings.particles).items() if not n.endswith("K = 1")}
    num = len(x) - len(x) // 5 if name == "digits" else 2000
    epochs = epochs_of(num, settings)
    compare = partial(
        pv.compare,
        data,
        engine="eager",  # the steps whose seconds are measured below
        posteriors=["full-covariance"],
        estimators=chosen,
        latent_dims=(d,),
        seeds=range(settings.seeds),
        batch_size=settings.batch_size,
        learning_rate=3e-3 if name == "digits" else 1e-3,
        num_train=None if name == "digits" else 2000,
        num_test=None if name == "digits" else settings.num_test,
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
    equal_time = compare(epochs_by_estimator=by_time)
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
                "test log p(x) ≥": mean_and_error(group["test_log_marginal"], ".3f"),
                "gain of doubling the draws": f"{group['test_log_marginal_gain_of_doubling'].mean():.3f}",
                "more than monte-carlo": "" if name == "monte-carlo" else mean_and_error(difference, "+.3f"),
                "test ELBO": mean_and_error(-group["test_neg_elbo"], ".3f"),
            }
        )
    return pd.DataFrame(rows)


def training_picture(runs: pd.DataFrame) -> Figure:
    """Test log p(x) where each training ended."""
    names = list(runs["estimator"].unique())
    panels = {}
    for budget, case in runs.groupby("budget", sort=False):
        groups = [case.loc[case["estimator"] == name, "test_log_marginal"] for name in names]
        panels[str(budget)] = {"full covariance": means_and_errors(groups)}
    return grouped_intervals(names, panels, "test log p(x), nats per datum")


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
        others = f"; no difference shown to: {', '.join(level)}" if level else ""
        sentences.append(f"- {name}, {budget}: the largest test log p(x) is {best}'s{others}.")
    return "\n".join(sentences)
