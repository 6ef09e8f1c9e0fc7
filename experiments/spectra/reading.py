"""The study's numbers, read in sentences."""

import math
from typing import Any

import numpy as np
import pandas as pd

import pyrovae as pv
from experiments.spectra.sets import SpectraSet
from experiments.spectra.settings import INDEPENDENT, Settings
from experiments.spectra.study import TRUTH, Found, cell_name, cells, row_of_smallest, rows_of
from pyrovae.comparison.recommendation import Gain, Recommendation
from pyrovae.datasets import SimulatedSpectra
from pyrovae.linear_gaussian.keys import FACTOR_ANALYSIS, PROBABILISTIC_PCA, SHRUNK_GAUSSIAN, linear_with

LINEAR_OF = {"gaussian": PROBABILISTIC_PCA, "gaussian-per-dimension": FACTOR_ANALYSIS}
"""The linear models of independent noise, by the likelihoods' names."""


def gain(found: Found, name: str, over: str) -> Gain:
    """Of one model over another in nats per test spectrum, with its interval over spectra and seeds."""
    advice = pv.recommend({n: found.estimates[n] for n in (over, name)}, groups=found.test_groups)
    return next((row for row in advice.by_model if row.model == name), Gain(math.nan, math.nan, math.nan))


def say(g: Gain) -> str:
    """The gain and its interval, as text."""
    bounds = "no interval" if math.isnan(g.low) else f"{g.low:+.2f} to {g.high:+.2f}"
    return f"{g.gain:+.2f} nats ({bounds})"


def best_cell(runs: pd.DataFrame) -> Any:
    """The cell that validation prefers, its numbers means over seeds; None if every run failed."""
    mean = cells(runs).dropna(subset=["validation_loss"])
    return None if mean.empty else row_of_smallest(mean, "validation_loss")


def independent(found: Found) -> Any:
    """The best cell of independent noise, by validation; None if none was compared."""
    return best_cell(found.runs[found.runs["likelihood"].isin(INDEPENDENT)])


def gains(found: Found) -> list[tuple[str, str, Gain]]:
    """Each correlated likelihood, the best independent one, and its gain over that, each at its best posterior."""
    reference = independent(found)
    correlated = [str(name) for name in found.runs["likelihood"].unique() if name not in INDEPENDENT]
    best = [] if reference is None else [best_cell(found.runs[found.runs["likelihood"] == n]) for n in correlated]
    return [
        (cell.likelihood, reference.likelihood, gain(found, name_of(cell), name_of(reference)))
        for cell in best
        if cell is not None
    ]


def name_of(cell: Any) -> str:
    """The name of a cell."""
    return cell_name(cell.posterior, cell.likelihood)


def chosen(advice: Recommendation) -> Gain:
    """The choice's gain over the simplest model."""
    return next(row for row in advice.by_model if row.model == advice.choice)


def advice_of(found: Found) -> Recommendation:
    """Which model to take, of the linear models and the VAEs."""
    candidates = {name: values for name, values in found.estimates.items() if name != TRUTH}
    return pv.recommend(candidates, groups=found.test_groups)


def reading(data: SpectraSet, found: Found, settings: Settings) -> str:
    """What the numbers say."""
    mean = cells(found.runs)
    best = best_cell(found.runs)
    advice = advice_of(found)
    untrusted, num = int(found.runs["num_untrusted"].sum()), len(data.test) * int(found.runs["log_prob"].notna().sum())
    lost = mean["lost_by_encoder"]
    lines = [
        f"- **{str(advice.verdict).capitalize()}: {advice.choice}** ({advice.level:.0%} intervals that hold together, "
        f"{settings.seeds} seeds, {advice.num_groups} independent test spectra): {say(chosen(advice))} over "
        f"{advice.simplest}, the simplest; the largest mean is that of {advice.best}, "
        f"{say(advice.best_over_choice)} beside the choice.",
        f"- By validation the best VAE is {name_of(best)}: log p(x) = {best.log_prob:.2f} nats, RMSE {best.rmse:.3g}.",
        f"- Log p(x) of {untrusted} of {num} spectra and runs cannot be trusted ({untrusted / num:.1%}). Encoders lose "
        f"{lost.min():.2f} to {lost.max():.2f} nats of it.",
    ]
    known = found.baselines["baseline"] == TRUTH
    with_density = found.baselines[~known].dropna(subset=["log_prob"])
    linear = [found.linear[name] for name in with_density["baseline"]]
    of_noise = np.array([key.noise is not None for key in linear])
    tuned = np.array([key.by_validation or key == SHRUNK_GAUSSIAN for key in linear])
    d = settings.latent_dim
    kinds = {
        f"classical linear model of {d} components": with_density[~of_noise & ~tuned],
        f"linear model of {d} components and correlated noise": with_density[of_noise & ~tuned],
        "linear model or plain Gaussian that validation has tuned": with_density[tuned],
    }
    for kind, rows in kinds.items():
        if rows.empty:
            continue
        winner = rows.iloc[int(rows["log_prob"].argmax())]
        note = f" ({winner['note']})" if winner["note"] else ""
        lines.append(
            f"- Over the best {kind}, {winner['baseline']}{note}, of {winner['log_prob']:.2f} nats, it gains "
            f"{say(gain(found, name_of(best), winner['baseline']))}."
        )
    of_independent = independent(found)
    if of_independent is not None and str(FACTOR_ANALYSIS) in found.estimates:
        lines.append(
            f"- The best VAE of independent noise, {name_of(of_independent)}, has {of_independent.log_prob:.2f} nats: "
            f"{say(gain(found, name_of(of_independent), str(FACTOR_ANALYSIS)))} over factor analysis."
        )
    for cell in rows_of(mean):
        same_noise = str(LINEAR_OF.get(cell.likelihood, linear_with(cell.likelihood)))
        if same_noise in found.estimates and cell.posterior == settings.posteriors[0]:
            lines.append(
                f"- Networks, and what training does to the noise, gain {say(gain(found, name_of(cell), same_noise))} "
                f"over {same_noise} ({cell.posterior} posterior)."
            )
    for likelihood, group in mean.groupby("likelihood", sort=False):
        if len(group) > 1:
            first, *others = (cell_name(str(p), str(likelihood)) for p in group["posterior"])
            said = ", ".join(f"{say(gain(found, other, first))} for {other.split(',')[0]}" for other in others)
            lines.append(f"- Posterior, with {likelihood} noise: {said} over {first.split(',')[0]}.")
    if known.any():
        lines.append(f"- The truth is {say(gain(found, TRUTH, name_of(best)))} above the best VAE.")
    by_validation = [name for name, key in found.linear.items() if key.by_validation]
    alike = ~known & ~found.baselines["baseline"].isin(by_validation)  # in their number of components
    least = row_of_smallest(found.baselines[alike], "rmse")
    vae = row_of_smallest(mean, "rmse")
    smaller = f"{vae.posterior}, {vae.likelihood}" if vae.rmse < least.rmse else least.baseline
    line = f"- The smallest reconstruction error at {settings.latent_dim} dimensions is that of {smaller}: "
    line += f"VAE {vae.rmse:.3g}, {least.baseline} {least.rmse:.3g}."
    if known.any():
        line += f" The truth's own is {found.baselines[known]['rmse'].iloc[0]:.3g}: a smaller one fits noise."
    lines.append(line)
    for name, reference, g in gains(found):
        lines.append(f"- {name} noise over the best independent noise ({reference}): {say(g)}.")
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
