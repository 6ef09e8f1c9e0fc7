"""The three inference gaps of every family, on the figure eight and on the digits."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

import pyrovae as pv
from experiments.truth.pool import in_processes
from experiments.truth.settings import Settings
from pyrovae import plotting
from pyrovae.datasets import SYNTHETIC, digits
from pyrovae.posteriors import POSTERIORS
from pyrovae.report import markdown_table
from pyrovae.runs import Cell

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
    return SYNTHETIC[name].sample(10_000, generator), SYNTHETIC[name].sample(1000, generator)


def study(settings: Settings, out: Path) -> pd.DataFrame:
    """One row a set, decoder and family."""
    for name, d in LATENT_DIM.items():
        train, _ = samples(name)
        pv.compare(
            train,
            posteriors={family: POSTERIORS[family] for family in DECODERS},
            estimators={"analytic": pv.AnalyticELBO()},
            latent_dims=(d,),
            epochs=max(1, round(settings.steps * 32 / (0.8 * len(train)))),
            log_marginal_samples=50,
            out=out / name,
            workers=settings.workers,
        )
    jobs = [
        Gaps(out, name, decoder, settings.num_data, settings.refit_steps) for name in LATENT_DIM for decoder in DECODERS
    ]
    return pd.concat(in_processes(jobs, settings.workers, "inference gaps"), ignore_index=True)


@dataclass(frozen=True)
class Gaps:
    """Every family at one trained decoder."""

    out: Path
    name: str
    decoder: str
    num: int
    refit_steps: int

    def __call__(self) -> pd.DataFrame:
        """One row a family."""
        cell = Cell(self.decoder, "analytic", "gaussian", LATENT_DIM[self.name], 0)
        model, guide = pv.load(self.out / self.name / cell.folder / "model.safetensors")
        train, test = samples(self.name)
        families = {family: POSTERIORS[family] for family in FAMILIES}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pv.UnreliableEstimateWarning)  # a column of the table
            found = pv.inference_gaps(
                model, guide, test[: self.num], families, train=train[:1000], max_steps=self.refit_steps
            )
        table = found.to_frame().assign(
            log_p=found.log_p.mean, unreliable=found.log_p.unreliable.double().mean().item()
        )
        table.insert(0, "decoder", self.decoder)
        table.insert(0, "set", self.name)
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
    table["bad k̂ of log p(x)"] = [f"{100 * share:.0f} %" for share in rows["unreliable"]]
    return markdown_table(table)


def picture(rows: pd.DataFrame) -> Figure:
    """Gaps of each family, a panel a set and decoder."""
    panels = {}
    for (name, decoder), group in rows.groupby(["set", "decoder"], sort=False):
        panels[f"{name}, decoder: {decoder}"] = {
            GAPS[gap]: (list(group[gap]), list(group[f"{gap}_stderr_data"]))
            for gap in ("approximation", "amortization_refitted", "generalization_refitted")
        }
    return plotting.grouped_intervals(list(FAMILIES), panels, "nats per datum")


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
