"""The forum post's three questions, and its loss's sign, answered by what this run measures."""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.distributions import Normal

import pyrovae as pv
from experiments.benchmarks.spectra import density_step, fill_step, identity_log_prob
from experiments.benchmarks.timing import interleaved, median_ratio
from experiments.pool import in_processes
from experiments.spectra.settings import Settings
from pyrovae import plotting
from pyrovae.comparison.tables import markdown_table
from pyrovae.datasets import Standardize, simulated
from pyrovae.distributions import fill_scale_tril, tril_position
from pyrovae.randomness import seeded

DIAGONALS: dict[str, Callable[[Tensor], Tensor]] = {
    "ReLU": F.relu,
    "1 + ELU": lambda raw: 1 + F.elu(raw),
    "exp": torch.exp,
    "softplus": F.softplus,
    "softplus + 1e-6 (pyrovae)": pv.nn.positive,
}
"""What makes a Cholesky diagonal positive, or does not."""

RATES = (1e-3, 1e-2, 5e-2)
STEPS, LATENT_DIM, BATCH_SIZE = 200, 8, 64


def short_training(diagonal: str, rate: float, seed: int, sign: float = -1.0) -> dict[str, Any]:
    """A short training; with ``sign`` −1 it minimises −log p(x|z) + KL, with +1 log p(x|z) + KL, as the post does.

    Returns:
        ``broke_at``, the first step with a loss or parameters that are not finite, None without one, and
        ``log_likelihood``, log p(x|z) in nats per datum at its last finite step.
    """
    x, run = spectra(), {"diagonal": diagonal, "rate": rate, "seed": seed}
    n, d = x.shape[1], LATENT_DIM
    with seeded(seed):
        encoder, head = pv.nn.MLP(n, 64), nn.Linear(64, d + d * (d + 1) // 2)
        decoder = nn.Sequential(pv.nn.MLP(d, 64), nn.Linear(64, n))
        modules = nn.ModuleList([encoder, head, decoder])
        optimizer = torch.optim.Adam(modules.parameters(), lr=rate)
        position, last = tril_position(d), math.nan
        for step in range(STEPS):
            batch = x[torch.randint(len(x), (BATCH_SIZE,))]
            loc, raw, below = head(encoder(batch)).split([d, d, d * (d - 1) // 2], dim=-1)
            scale = DIAGONALS[diagonal](raw)
            factor = fill_scale_tril(scale, below, position)
            z = loc + (factor @ torch.randn(BATCH_SIZE, d, 1)).squeeze(-1)
            kl = 0.5 * (factor.square().sum((-1, -2)) + loc.square().sum(-1) - d) - scale.log().sum(-1)
            log_likelihood = Normal(decoder(z), 0.1).log_prob(batch).sum(-1)
            loss = (sign * log_likelihood + kl).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if not loss.isfinite() or not all(p.isfinite().all() for p in modules.parameters()):
                return run | {"broke_at": step + 1, "log_likelihood": last}
            last = log_likelihood.mean().item()
    return run | {"broke_at": None, "log_likelihood": last}


def spectra() -> Tensor:
    """Standardised simulated spectra."""
    x = simulated(512, 64, seed=0).x
    return Standardize("mean").fit(x).transform(x)


@dataclass(frozen=True)
class Answers:
    """What was measured.

    Attributes:
        trainings: one row a short training.
        density_difference: largest difference of the two log-densities, relative, in float64.
        density_ratio: cost of the identity-covariance multivariate Normal over the univariate one.
        fill_ratio: cost of the per-datum fill over the vectorised one.
        signs: log p(x|z) after a short training with either sign.
    """

    trainings: pd.DataFrame
    density_difference: float
    density_ratio: float
    fill_ratio: float
    signs: tuple[float, float]


def study(settings: Settings) -> Answers:
    """Measure."""
    seeds = range(settings.trainings)
    jobs = [partial(short_training, name, rate, seed) for name in DIAGONALS for rate in RATES for seed in seeds]
    both = [partial(short_training, "softplus", 1e-3, seed, sign) for sign in (-1.0, 1.0) for seed in seeds[:5]]
    found = in_processes([*jobs, *both], settings.workers, "short trainings")
    trainings = pd.DataFrame(found[: len(jobs)])
    ends = [short["log_likelihood"] for short in found[len(jobs) :]]
    right, wrong = (statistics.mean(part) for part in (ends[: len(ends) // 2], ends[len(ends) // 2 :]))
    x, x_hat = torch.randn(2, 16, 235, dtype=torch.float64)
    multivariate, univariate = (identity_log_prob(x_hat, x, m) for m in (True, False))
    difference = ((multivariate - univariate) / univariate).abs().max().item()
    x = torch.randn(128, 235)
    density = interleaved(
        {"multivariate": density_step(x, True), "univariate": density_step(x, False)}, settings.repeats, "densities"
    )
    fill = interleaved(
        {"datum by datum": fill_step(128, 64, True), "at once": fill_step(128, 64, False)}, settings.repeats, "fills"
    )
    return Answers(
        trainings,
        difference,
        median_ratio(density["multivariate"], density["univariate"]),
        median_ratio(fill["datum by datum"], fill["at once"]),
        (right, wrong),
    )


def counts(trainings: pd.DataFrame) -> pd.DataFrame:
    """How many trainings diverged, one row a diagonal, one column a rate."""
    broke = trainings.assign(broke=trainings["broke_at"].notna())
    rows = []
    for name, group in broke.groupby("diagonal", sort=False):
        by_rate = group.groupby("rate")["broke"]
        row = {"diagonal": name} | {f"rate {rate:g}": f"{int(b.sum())} of {len(b)}" for rate, b in by_rate}
        steps = group["broke_at"].dropna()
        rows.append(row | {"median step of divergence": f"{steps.median():.0f}" if len(steps) else ""})
    return pd.DataFrame(rows)


def table(answers: Answers) -> str:
    """The counts, to read."""
    return markdown_table(counts(answers.trainings))


def reading(answers: Answers, noise: list[str]) -> str:
    """The questions and their answers in numbers; ``noise``: what correlated noise gained in this run, in sentences."""
    broke = answers.trainings.assign(broke=answers.trainings["broke_at"].notna())
    by_diagonal = broke.groupby("diagonal", sort=False)["broke"]
    shares = "; ".join(f"{name} {int(b.sum())} of {len(b)}" for name, b in by_diagonal)
    gained = " ".join(noise) or "This run compared no likelihoods; see the part `spectra`."
    return "\n\n".join(
        [
            "**Is it wrong to expect a multivariate distribution to reconstruct spectra better?** With an identity "
            f"covariance it is the univariate one: the log-densities differ by {answers.density_difference:.0e} "
            f"(relative, float64), and it costs {answers.density_ratio:.2g} × as much (B = 128, 235 channels). A noise "
            f"covariance that is learned and not diagonal is another model. {gained}",
            f"**Must the Cholesky diagonal be made positive?** A factor has a positive diagonal. Trainings of {STEPS} "
            f"steps that diverged (a loss or parameters not finite): {shares}.",
            f"**Why is it slow?** Filling factors datum by datum costs {answers.fill_ratio:.2g} × as much as at once "
            "(B = 128, d = 64, forward and backward); python -m experiments.benchmarks.spectra has the whole step.",
            "**The sign of the loss.** Minimising KL + log p(x|z), as posted, instead of KL − log p(x|z): after "
            f"{STEPS} steps log p(x|z) is {answers.signs[1]:.3g} nats per datum instead of {answers.signs[0]:.3g}.",
        ]
    )


def picture(answers: Answers) -> Figure:
    """Share of trainings that diverge, by diagonal and rate."""
    fig, axes = plotting.figure(1, size=4.6)
    ax = axes[0, 0]
    broke = answers.trainings.assign(broke=answers.trainings["broke_at"].notna())
    for k, (rate, group) in enumerate(broke.groupby("rate")):
        share = group.groupby("diagonal", sort=False)["broke"].mean()
        ax.bar(
            [i + 0.27 * (k - 1) for i in range(len(share))],
            share,
            width=0.25,
            color=plotting.COLORS[k],
            label=f"rate {rate:g}",
        )
    ax.set_xticks(range(len(DIAGONALS)), DIAGONALS, rotation=20, fontsize=8, ha="right")
    ax.set(ylabel=f"share of trainings that diverge within {STEPS} steps", ylim=(0, 1))
    ax.legend(fontsize=8)
    return fig
