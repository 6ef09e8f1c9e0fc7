"""The study's numbers, read in sentences."""

import math

import numpy as np
import pandas as pd
import torch

from experiments.spectra.sets import SpectraSet
from experiments.spectra.settings import FULL, INDEPENDENT, Settings
from experiments.spectra.study import TRUTH, Found, cells, row_of_smallest, rows_of
from pyrovae.comparison.recommendation import THRESHOLD
from pyrovae.datasets import SimulatedSpectra


def paired(found: Found, first: str, second: str) -> tuple[float, float] | None:
    """Gain of one likelihood over another in nats, each at its best posterior by validation: mean, standard error.

    Paired by test datum, the seeds' log p(x) averaged.
    """
    parts = []
    for likelihood in (first, second):
        runs = cells(found.runs[found.runs["likelihood"] == likelihood]).dropna(subset=["validation_neg_elbo"])
        if runs.empty:
            return None
        posterior = row_of_smallest(runs, "validation_neg_elbo").posterior
        values = [v for key, v in found.log_prob.items() if key[:2] == (posterior, likelihood)]
        parts.append(torch.stack(values).mean(0))
    return mean_and_error(parts[0] - parts[1])


def mean_and_error(values: torch.Tensor) -> tuple[float, float]:
    """Mean and its standard error over data."""
    return values.mean().item(), (values.std() / math.sqrt(len(values))).item()


def independent(found: Found) -> str:
    """The best likelihood of independent noise, by validation; empty if none was compared."""
    runs = cells(found.runs[found.runs["likelihood"].isin(INDEPENDENT)]).dropna(subset=["validation_neg_elbo"])
    return "" if runs.empty else str(row_of_smallest(runs, "validation_neg_elbo").likelihood)


def gains(found: Found) -> list[tuple[str, str, float, float]]:
    """Each correlated likelihood, the best independent one, and its gain over that with standard error."""
    reference = independent(found)
    correlated = [str(name) for name in found.runs["likelihood"].unique() if name not in INDEPENDENT]
    measured = [(name, paired(found, name, reference)) for name in correlated] if reference else []
    return [(name, reference, *gain) for name, gain in measured if gain is not None]


def reading(data: SpectraSet, found: Found, settings: Settings) -> str:
    """What the numbers say."""
    mean = cells(found.runs)
    best = row_of_smallest(mean, "validation_neg_elbo")
    lines = [
        f"- By validation the best cell is {best.posterior}, {best.likelihood}: log p(x) = {best.log_prob:.2f} nats, "
        f"RMSE {best.rmse:.3g}; k̂ is bad for {best.bad_pareto_k:.0%} of the test spectra, whose log p(x) may be higher."
    ]
    of_best = [v for key, v in found.log_prob.items() if key[:2] == (best.posterior, best.likelihood)]
    log_prob = torch.stack(of_best).mean(0)
    known = found.baselines["baseline"] == TRUTH
    with_density = found.baselines[~known].dropna(subset=["log_prob"])
    of_noise = with_density["baseline"].str.startswith("linear, ")
    chosen = with_density["baseline"].str.contains("by validation|Gaussian")
    d = settings.latent_dim
    kinds = {
        f"classical linear model of {d} components": with_density[~of_noise & ~chosen],
        f"linear model of {d} components and correlated noise (a full one shrunk by validation)": with_density[
            of_noise & ~chosen
        ],
        "linear model or plain Gaussian that validation has tuned": with_density[chosen],
    }
    for kind, rows in kinds.items():
        if rows.empty:
            continue
        winner = rows.iloc[int(rows["log_prob"].argmax())]
        difference, error = mean_and_error(log_prob - found.log_prob[winner["baseline"]])
        who = f"It is ahead of every {kind}" if difference > 0 else f"A {kind} wins"
        if abs(difference) < max(2 * error, THRESHOLD):
            who = f"It does not differ measurably from the best {kind}"
        note = f" ({winner['note']})" if winner["note"] else ""
        lines.append(
            f"- {who}: {winner['baseline']}{note} has {winner['log_prob']:.2f} nats, the cell "
            f"{difference:+.2f} ± {error:.2f} (paired by test spectrum)."
        )
    same_noise = f"linear, {best.likelihood}"
    if same_noise in found.log_prob:
        classical = next(iter(kinds.values()))
        reference = classical.iloc[int(classical["log_prob"].argmax())]["baseline"]
        noise, noise_error = mean_and_error(found.log_prob[same_noise] - found.log_prob[reference])
        more, more_error = mean_and_error(log_prob - found.log_prob[same_noise])
        full = best.likelihood in FULL
        what = "its networks and the training of its covariance" if full else "its networks"
        lines.append(
            f"- Of the cell's nats over {reference}, its noise brings {noise:+.2f} ± {noise_error:.2f} to a linear "
            f"model ({same_noise}), and {what} {more:+.2f} ± {more_error:.2f} more."
        )
    if known.any():
        below, error = mean_and_error(found.log_prob[TRUTH] - log_prob)
        lines.append(f"- It is {below:.2f} ± {error:.2f} nats below the truth, which no model beats in the mean.")
    alike = ~known & ~found.baselines["baseline"].str.contains("by validation")  # in their number of components
    least = row_of_smallest(found.baselines[alike], "rmse")
    vae = row_of_smallest(mean, "rmse")
    smaller = f"{vae.posterior}, {vae.likelihood}" if vae.rmse < least.rmse else least.baseline
    line = f"- The smallest reconstruction error at {settings.latent_dim} dimensions is that of {smaller}: "
    line += f"VAE {vae.rmse:.3g}, {least.baseline} {least.rmse:.3g}."
    if known.any():
        line += f" The truth's own is {found.baselines[known]['rmse'].iloc[0]:.3g}: a smaller one fits noise."
    lines.append(line)
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
    lines.append(trained_enough(found.runs, settings))
    return "\n".join(lines)


def trained_enough(runs: pd.DataFrame, settings: Settings) -> str:
    """Where the grid of rates and the epochs may have been too small."""
    good = runs.dropna(subset=["best_epoch"])
    rates, cell_rates = settings.learning_rates, good.groupby(["posterior", "likelihood"])["learning_rate"].first()
    parts = [
        f"the best epoch was the start in {(good['best_epoch'] == 0).sum()} and one of the last tenth in "
        f"{(good['best_epoch'] > 0.9 * settings.epochs).sum()} of {len(good)} runs"
    ]
    if len(rates) > 1:
        parts.append(
            f"the best rate was the smallest of the {len(rates)} for {(cell_rates == min(rates)).sum()} and the "
            f"largest for {(cell_rates == max(rates)).sum()} of {len(cell_rates)} cells"
        )
    return f"- Trained enough? By validation {', and '.join(parts)}."
