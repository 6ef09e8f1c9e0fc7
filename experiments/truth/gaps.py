"""The three inference gaps of every family, on the figure eight and on the digits."""

from functools import partial
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

import pyrovae as pv
from experiments.pictures import grouped_intervals
from experiments.pool import in_processes
from experiments.truth.settings import Settings
from pyrovae.comparison.tables import markdown_table
from pyrovae.datasets import SYNTHETIC, digits
from pyrovae.evaluation.quadrature import MAX_LATENT_DIM
from pyrovae.posteriors import POSTERIORS
from pyrovae.randomness import seeded

FAMILIES = ("isotropic", "diagonal", "ar1", "ar1-per-dimension", "low-rank", "full-covariance")
DECODERS = ("diagonal", "full-covariance")
LATENT_DIM = {"figure-eight": 2, "digits": 8}
GAPS = {
    "approximation": "approximation",
    "amortization": "amortisation, its own encoder",
    "amortization_refitted": "amortisation, encoder refitted",
    "generalization": "generalisation, its own encoder",
    "generalization_refitted": "generalisation, encoder refitted",
}


def samples(name: str) -> tuple[Tensor, Tensor]:
    """Training and test data."""
    if name == "digits":
        x = digits()[0]
        x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
        return x[:1400], x[1400:]
    generator = torch.Generator().manual_seed(0)
    return SYNTHETIC[name].sample(4000, generator), SYNTHETIC[name].sample(1000, generator)


def study(settings: Settings) -> pd.DataFrame:
    """One row a set, decoder and family."""
    jobs = [
        partial(measure_gaps, name, decoder, settings.steps, settings.num_data, settings.refit_steps)
        for name in LATENT_DIM
        for decoder in DECODERS
    ]
    return pd.concat(in_processes(jobs, settings.workers, "inference gaps"), ignore_index=True)


def measure_gaps(name: str, decoder: str, steps: int, num: int, refit_steps: int) -> pd.DataFrame:
    """Every family at one decoder, trained with a family of its own."""
    train, test = samples(name)
    n, d = train.shape[1], LATENT_DIM[name]
    with seeded(0):
        likelihood = pv.GaussianLikelihood(128, n, initial_scale=0.25 * train.var(0).mean().sqrt().item())
        model = pv.GenerativeModel(pv.nn.MLP(d, 128, 128), likelihood, d)
        guide = pv.AmortizedGuide(pv.nn.MLP(n, 128, 128), POSTERIORS[decoder](128, d))
    epochs = max(1, round(steps * 32 / len(train)))
    pv.fit(model, guide, train, pv.AnalyticELBO(), epochs=epochs, engine="eager", progress=False)
    families = {family: POSTERIORS[family] for family in FAMILIES}
    again = max(1, round(steps / 5 * 64 / len(train)))
    x = test[:num]
    if d <= MAX_LATENT_DIM:
        log_p, width = pv.log_marginal(model, guide, x, "quadrature", num_points=256), 0.0
    else:
        log_p = pv.log_marginal(model, guide, x, "annealed", num_temperatures=250)
        width = pv.sandwich(model, guide, num, num_temperatures=250).width
    settings: dict[str, Any] = {"epochs": again, "max_steps": refit_steps}
    found = pv.inference_gaps(model, guide, x, families, train=train, log_p=log_p, **settings)
    table = found.to_frame().assign(log_p=log_p.mean, width=width)
    table.insert(0, "decoder", decoder)
    table.insert(0, "set", name)
    return table


def tables(rows: pd.DataFrame) -> str:
    """Gaps ± standard error over data (Monte Carlo's in brackets)."""
    table = rows[["set", "decoder", "family"]].rename(columns={"decoder": "decoder trained with"}).copy()
    for gap, heading in GAPS.items():
        table[heading] = [
            ""
            if row[gap] != row[gap]
            else f"{row[gap]:.3f} ± {row[f'{gap}_stderr_data']:.3f} ({row[f'{gap}_stderr_monte_carlo']:.3f})"
            for _, row in rows.iterrows()
        ]
    table["log p(x)"] = [
        f"{value:.3f} by annealing, bounds {width:.3f} apart" if width else f"{value:.3f} by quadrature"
        for value, width in zip(rows["log_p"], rows["width"], strict=True)
    ]
    return markdown_table(table)


def picture(rows: pd.DataFrame) -> Figure:
    """Gaps of each family, a panel a set and decoder."""
    panels = {}
    for (name, decoder), group in rows.groupby(["set", "decoder"], sort=False):
        panels[f"{name}, decoder: {decoder}"] = {
            GAPS[gap]: (list(group[gap]), list(group[f"{gap}_stderr_data"]))
            for gap in ("approximation", "amortization_refitted", "generalization_refitted")
        }
    return grouped_intervals(list(FAMILIES), panels, "nats per datum")


def reading(rows: pd.DataFrame) -> str:
    """What the gaps say."""
    lines = []
    for (name, decoder), group in rows.groupby(["set", "decoder"], sort=False):
        by = group.set_index("family")
        full, diagonal = by.loc["full-covariance"], by.loc["diagonal"]
        lines.append(
            f"- {name}, decoder trained with {decoder}: of the nats that a diagonal posterior costs, the family itself "
            f"is {diagonal['approximation']:.3f} and the encoder {diagonal['amortization_refitted']:.3f}; full "
            f"covariance {full['approximation']:.3f} and {full['amortization_refitted']:.3f}."
        )
    return "\n".join(lines)
