"""Seconds of a training step under each estimator, interleaved; and of 50 particles against the bare decoder.

python -m experiments.benchmarks.estimators
"""

import itertools
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyro
import torch
from pyro.infer import ELBO
from torch import Tensor
from tqdm.auto import tqdm

import pyrovae as pv
from experiments import page
from pyrovae.commands import console
from pyrovae.comparison.tables import markdown_table
from pyrovae.elbo import ESTIMATORS
from pyrovae.files import make_folder, write_table
from pyrovae.posteriors import POSTERIORS
from pyrovae.programs import unregistered


@dataclass(frozen=True)
class Settings:
    """Time a training step under each estimator, one thread."""

    posteriors: tuple[str, ...] = ("diagonal", "full-covariance")
    """Families of q(z|x)."""
    latent_dim: int = 2
    """Dimension of z."""
    batch_sizes: tuple[int, ...] = (32, 128)
    """Data per step."""
    particles: int = 50
    """Draws K of the importance-weighted pair."""
    repeats: int = 300
    """Steps of each, interleaved; the median ratio to Monte Carlo's is reported."""
    out: Path = Path("runs/benchmark-estimators")
    """Folder for the table."""
    publish: bool = False
    """Also write the study's page, experiments/results/benchmarks-estimators.md."""


Step = Callable[[], None]
NETWORKS = {"2-128-128": (2, (128, 128)), "784-400": (784, (400,))}
"""Width of x and of the hidden layers, of the synthetic sets and of the ρ-VAE paper's images."""


def training_step(family: str, elbo: ELBO, hidden: Sequence[int], d: int, x: Tensor) -> Step:
    """One step as ``fit`` takes it: loss, gradients, Adam."""
    n = x.shape[-1]
    model = pv.GenerativeModel(pv.nn.MLP(d, *reversed(hidden)), pv.GaussianLikelihood(hidden[0], n), d)
    guide = pv.AmortizedGuide(pv.nn.MLP(n, *hidden), POSTERIORS[family](hidden[-1], d))
    parameters = [*model.parameters(), *guide.parameters()]
    optimizer = torch.optim.Adam(parameters, fused=True)

    def step() -> None:
        with unregistered(), pyro.validation_enabled(False):
            elbo.differentiable_loss(model, guide, x).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def bare_decoder(network: str, d: int, rows: int) -> Step:
    """The decoder network and its output layer alone, forward and backward."""
    n, hidden = NETWORKS[network]
    decoder = torch.nn.Sequential(pv.nn.MLP(d, *reversed(hidden)), torch.nn.Linear(hidden[0], n))
    z = torch.randn(rows, d, requires_grad=True)
    target = torch.randn(n)

    def step() -> None:
        (decoder(z) * target).sum().backward()
        decoder.zero_grad()
        z.grad = None

    return step


def interleaved(steps: Mapping[str, Step], repeats: int, label: str) -> dict[str, list[float]]:
    """Seconds of each step, taken in turn and in ever another order."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for repeat in tqdm(range(repeats + 20), desc=label, disable=None):
        random.Random(repeat).shuffle(names)  # a long step leaves the next one a cold cache
        for name in names:
            start = time.perf_counter()
            steps[name]()
            if repeat >= 20:
                times[name].append(time.perf_counter() - start)
    return times


def measure(settings: Settings) -> pd.DataFrame:
    """One row an estimator, family, batch size and network."""
    rows = []
    k = settings.particles
    for (network, (n, hidden)), batch_size, family in itertools.product(
        NETWORKS.items(), settings.batch_sizes, settings.posteriors
    ):
        x = torch.randn(batch_size, n)
        steps = {"bare decoder, K × batch rows": bare_decoder(network, settings.latent_dim, k * batch_size)}
        for name, elbo_class in ESTIMATORS.items():
            elbo = elbo_class(num_particles=k) if issubclass(elbo_class, pv.ImportanceWeightedELBO) else elbo_class()
            steps[name] = training_step(family, elbo, hidden, settings.latent_dim, x)
        repeats = settings.repeats if n < 100 else max(3, settings.repeats // 10)
        times = interleaved(steps, repeats, f"{network}, {batch_size}, {family}")
        bare = times["bare decoder, K × batch rows"]
        for name, values in times.items():
            many = name in ESTIMATORS and issubclass(ESTIMATORS[name], pv.ImportanceWeightedELBO)
            rows.append(
                {
                    "network": network,
                    "batch": batch_size,
                    "posterior": family,
                    "step": f"{name}, K = {k}" if many else name,
                    "milliseconds": 1e3 * statistics.median(values),
                    "ratio to monte-carlo": _ratio(values, times["monte-carlo"]),
                    "ratio to the bare decoder": _ratio(values, bare) if many else None,
                }
            )
    return pd.DataFrame(rows)


def _ratio(values: list[float], reference: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(values, reference, strict=True))


def main(settings: Settings) -> None:
    """Measure, print and write the table."""
    console.pick("--posteriors", settings.posteriors, POSTERIORS)
    torch.set_num_threads(1)
    make_folder(settings.out)
    table = measure(settings)
    write_table(settings.out / "estimators.csv", table)
    text = (
        f"One thread, float32, d = {settings.latent_dim}; loss, gradients and Adam; medians "
        f"of interleaved steps.\n\n{markdown_table(table)}"
    )
    print(text)
    print(f"\nresults: {settings.out}")
    if settings.publish:
        page.publish("benchmarks.estimators", "A step under each estimator", text, {})


if __name__ == "__main__":
    console.run(main, Settings)
