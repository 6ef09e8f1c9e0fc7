"""Seconds of a training step under each estimator, interleaved; and of 50 particles against the bare decoder.

python -m experiments.benchmarks.estimators
"""

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyro
import torch
from pyro.infer import ELBO
from torch import Tensor

import pyrovae as pv
from experiments import page
from experiments.benchmarks.timing import Step, interleaved, median_ratio
from experiments.options import Options, choice
from pyrovae.commands import console
from pyrovae.comparison.tables import markdown_table
from pyrovae.elbo import ESTIMATORS
from pyrovae.files import make_folder, write_table
from pyrovae.likelihoods import LIKELIHOODS
from pyrovae.posteriors import POSTERIORS
from pyrovae.programs import unregistered


@dataclass(frozen=True)
class Settings(Options):
    """Time a training step under each estimator, one thread."""

    out: Path = Path("runs/benchmark-estimators")
    """Folder for the table."""

    posteriors: tuple[str, ...] = choice(("diagonal", "full-covariance"), POSTERIORS)
    """Families of q(z|x)."""
    latent_dim: int = 2
    """Dimension of z."""
    batch_sizes: tuple[int, ...] = (32, 128)
    """Data per step."""
    particles: int = 50
    """Draws K of the importance-weighted pair."""
    repeats: int = 300
    """Interleaved steps of each. The median ratio to Monte Carlo is reported."""


NETWORKS = {"2-128-128": (2, (128, 128)), "784-400": (784, (400,))}
"""Width of x and of the hidden layers, of the synthetic sets and of the ρ-VAE paper's images."""


def make_pair(
    posterior: str, likelihood: str, hidden: Sequence[int], d: int, n: int
) -> tuple[pv.GenerativeModel, pv.AmortizedGuide]:
    """A fresh model and guide of multilayer perceptrons, by the names of their parts."""
    model = pv.GenerativeModel(pv.nn.MLP(d, *reversed(hidden)), LIKELIHOODS[likelihood](hidden[0], n), d)
    return model, pv.AmortizedGuide(pv.nn.MLP(n, *hidden), POSTERIORS[posterior](hidden[-1], d))


def training_step(
    posterior: str, elbo: ELBO, hidden: Sequence[int], d: int, x: Tensor, likelihood: str = "gaussian"
) -> Step:
    """One step as ``fit`` takes it: loss, gradients, Adam."""
    model, guide = make_pair(posterior, likelihood, hidden, d, x.shape[-1])
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
                    "ratio to monte-carlo": median_ratio(values, times["monte-carlo"]),
                    "ratio to the bare decoder": median_ratio(values, bare) if many else None,
                }
            )
    return pd.DataFrame(rows)


def main(settings: Settings) -> None:
    """Measure, print and write the table."""
    torch.set_num_threads(1)
    make_folder(settings.out)
    table = measure(settings)
    write_table(settings.out / "estimators.csv", table)
    text = (
        f"One thread, float32, d = {settings.latent_dim}; loss, gradients and Adam; medians "
        f"of interleaved steps.\n\n{markdown_table(table)}"
    )
    page.show("benchmarks.estimators", "A step under each estimator", text, {}, settings.publish)
    print(f"results: {settings.out}")


if __name__ == "__main__":
    console.run(main, Settings)
