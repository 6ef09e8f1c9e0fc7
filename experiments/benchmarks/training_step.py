"""What a training step costs: pyrovae's loop against stock Pyro and a hand-written PyTorch loop, interleaved.

python -m experiments.benchmarks.training_step
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyro
import torch
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn
from tqdm.auto import tqdm

import pyrovae as pv
from experiments import page
from pyrovae import cli
from pyrovae.datasets import SYNTHETIC
from pyrovae.elbo import ESTIMATORS
from pyrovae.io import make_folder
from pyrovae.posteriors import POSTERIORS
from pyrovae.report import markdown_table, write_table

BATCH = 32
WIDTH = 128


@dataclass(frozen=True)
class Settings:
    """Time a step (batch 32, 2-128-128-d-128-128-2, one thread) of each family, estimator and loop."""

    dims: tuple[int, ...] = (2, 32)
    """Latent dimensions."""
    posteriors: tuple[str, ...] = ("isotropic", "diagonal", "ar1", "low-rank", "full-covariance")
    """Families of q(z|x)."""
    steps: int = 100
    """Steps in a block; the blocks of all loops are interleaved."""
    repeats: int = 15
    """Blocks; the median is reported, and the median of ratios within a block."""
    out: Path = Path("runs/benchmark-training-step")
    """Folder for the table."""
    publish: bool = False
    """Also write the study's page, experiments/results/benchmarks-training-step.md."""


def programs(family: str, d: int) -> tuple[pv.GenerativeModel, pv.AmortizedGuide]:
    """A fresh model and guide."""
    model = pv.GenerativeModel(pv.nn.MLP(d, WIDTH, WIDTH), pv.GaussianLikelihood(WIDTH, 2), d)
    return model, pv.AmortizedGuide(pv.nn.MLP(2, WIDTH, WIDTH), POSTERIORS[family](WIDTH, d))


def with_fit(family: str, estimator: str, d: int, x: Tensor) -> Callable[[], float]:
    """Seconds of pv.fit over x, its own set-up not counted."""
    model, guide = programs(family, d)
    elbo = ESTIMATORS[estimator]()
    return lambda: pv.fit(model, guide, x, elbo, epochs=1, batch_size=BATCH, progress=False).seconds


def with_svi(family: str, estimator: str, d: int, x: Tensor) -> Callable[[], float]:
    """Seconds of stock Pyro over x: its own SVI, estimators and Adam, validation on as by default."""
    model, guide = programs(family, d)
    elbo = TraceMeanField_ELBO() if estimator == "analytic" else Trace_ELBO()
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), loss=elbo)
    return lambda: _seconds(lambda: [svi.step(batch) for batch in x.split(BATCH)])


def by_hand(estimator: str, d: int, x: Tensor) -> Callable[[], float]:
    """Seconds of a plain PyTorch loop over x: diagonal posterior, fused Adam, the loss read at every step."""

    def mlp(n: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(n, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU())

    encoder, mean_head, scale_head, decoder, out = (
        mlp(2),
        nn.Linear(WIDTH, d),
        nn.Linear(WIDTH, d),
        mlp(d),
        nn.Linear(WIDTH, 2),
    )
    log_sigma = nn.Parameter(torch.zeros(()))
    modules = nn.ModuleList([encoder, mean_head, scale_head, decoder, out])
    optimizer = torch.optim.Adam([*modules.parameters(), log_sigma], lr=1e-3, fused=True)

    def loop() -> None:
        for batch in x.split(BATCH):
            features = encoder(batch)
            mu, log_scale = mean_head(features), scale_head(features)
            noise = torch.randn_like(mu)
            z = mu + log_scale.exp() * noise
            reconstruction = (0.5 * ((batch - out(decoder(z))) / log_sigma.exp()).square() + log_sigma).sum()
            if estimator == "analytic":
                kl = 0.5 * (mu.square() + (2 * log_scale).exp() - 2 * log_scale - 1).sum()
            else:
                kl = 0.5 * (z.square() - noise.square() - 2 * log_scale).sum()
            loss = reconstruction + kl
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()

    return lambda: _seconds(loop)


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure(settings: Settings) -> pd.DataFrame:
    """One row a latent dimension, estimator, loop and family."""
    x = SYNTHETIC["rotated-gaussian"].sample(BATCH * settings.steps, torch.Generator().manual_seed(0))
    rows = []
    for d in settings.dims:
        for estimator in ("analytic", "monte-carlo"):
            loops = {("PyTorch by hand", "diagonal"): by_hand(estimator, d, x)}
            loops |= {("pyrovae fit", family): with_fit(family, estimator, d, x) for family in settings.posteriors}
            loops |= {("stock SVI.step", f): with_svi(f, estimator, d, x) for f in ("diagonal", "full-covariance")}
            times: dict[tuple[str, str], list[float]] = {key: [] for key in loops}
            for repeat in tqdm(range(settings.repeats + 1), desc=f"d = {d}, {estimator}", disable=None):
                for key, loop in loops.items():
                    elapsed = loop()
                    if repeat > 0:
                        times[key].append(elapsed / settings.steps)
            for (name, family), values in times.items():
                hand, diagonal = times["PyTorch by hand", "diagonal"], times["pyrovae fit", "diagonal"]
                rows.append(
                    {
                        "d": d,
                        "estimator": estimator,
                        "loop": name,
                        "posterior": family,
                        "milliseconds": 1e3 * statistics.median(values),
                        "ratio to by hand": statistics.median(a / b for a, b in zip(values, hand, strict=True)),
                        "ratio to fit's diagonal": statistics.median(
                            a / b for a, b in zip(values, diagonal, strict=True)
                        ),
                    }
                )
    return pd.DataFrame(rows)


def main(settings: Settings) -> None:
    """Measure, print and write the table."""
    if "diagonal" not in settings.posteriors:
        raise ValueError("--posteriors must hold diagonal, which the ratios are to")
    cli.pick("--posteriors", settings.posteriors, POSTERIORS)
    torch.set_num_threads(1)
    make_folder(settings.out)
    table = measure(settings)
    write_table(settings.out / "training_step.csv", table)
    blocks = f"{settings.repeats} interleaved blocks of {settings.steps} steps"
    text = f"One thread, float32, batch {BATCH}; medians of {blocks}.\n\n"
    text += markdown_table(table)
    print(text)
    print(f"\nresults: {settings.out}")
    if settings.publish:
        page.publish("benchmarks.training_step", "A training step", text, {})


if __name__ == "__main__":
    cli.run(main, Settings)
