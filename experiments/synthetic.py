"""The seminar slides' experiments: posterior families × ELBO estimators on two-dimensional data of known density.

python -m experiments.synthetic --dataset rotated-gaussian
"""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyrovae as pv
from experiments import page
from pyrovae.commands import console
from pyrovae.datasets import SYNTHETIC
from pyrovae.elbo import ESTIMATORS
from pyrovae.errors import InputError
from pyrovae.posteriors import POSTERIORS


@dataclass(frozen=True)
class Settings:
    """Train posterior families × ELBO estimators on a synthetic set and compare them with the truth."""

    dataset: str = "rotated-gaussian"
    """isotropic-gaussian, rotated-gaussian, figure-eight, three-blobs or mixture."""
    posteriors: tuple[str, ...] = ("isotropic", "diagonal", "ar1", "full-covariance")
    """Families of q(z|x): isotropic, diagonal, ar1, ar1-per-dimension, ar1-per-step, low-rank, full-covariance, flow
    (needs the extra flows)."""
    estimators: tuple[str, ...] = ("monte-carlo", "analytic")
    """ELBO estimators: monte-carlo, analytic, closed-form-entropy, sticking-the-landing."""
    latent_dim: tuple[int, ...] = (2,)
    """Dimensions of z, one or several."""
    seeds: int = 1
    """Number of runs of every cell, with seeds 0, 1, …"""
    epochs: int | None = None
    """Passes over the data; the slides' own by default."""
    schedule: str = "cosine"
    """Learning rate: cosine (to zero) or constant (the slides')."""
    learning_rate: float = 1e-3
    """Adam's rate at the start."""
    batch_size: int = 32
    """Data per step."""
    noise: float | None = None
    """Fix the likelihood's standard deviation σ at this number; by default it is learned."""
    num_train: int | None = None
    """Size of the training set; the slides' own by default."""
    num_test: int | None = None
    """Size of the test set; the slides' own by default."""
    engine: str = "auto"
    """auto, eager or compiled (native code, made once in about 15 s and kept)."""
    out: Path | None = None
    """Folder for the results; by default a new one under runs/."""
    publish: bool = False
    """Also write the table and two pictures to the study's page, experiments/results/synthetic.md."""
    workers: int = min(os.cpu_count() or 1, 8)
    """Processes, one thread each."""


def main(settings: Settings) -> None:
    """Run the study and print its table."""
    (dataset,) = console.pick("--dataset", [settings.dataset], SYNTHETIC).values()
    out = page.new_folder(settings.out, f"synthetic-{dataset.name}")
    if settings.seeds < 1:
        raise InputError(f"--seeds must be at least 1, not {settings.seeds}")
    fixed = None if settings.noise is None else {"gaussian": partial(pv.GaussianLikelihood, scale=settings.noise)}
    table = pv.compare(
        dataset,
        posteriors=console.pick("--posteriors", settings.posteriors, POSTERIORS),
        estimators={name: cls() for name, cls in console.pick("--estimators", settings.estimators, ESTIMATORS).items()},
        likelihoods=fixed,
        latent_dims=settings.latent_dim,
        seeds=range(settings.seeds),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        schedule=settings.schedule,
        num_train=settings.num_train,
        num_test=settings.num_test,
        engine=settings.engine,
        out=out,
        workers=settings.workers,
    )
    print(f"{dataset.name}: the entropy of the data is {dataset.entropy:.4f} nats\n")
    summary = pv.to_markdown(pv.summarize(table))
    print(summary)
    if settings.publish:
        page.publish(
            "synthetic",
            f"{dataset.name}, {settings.schedule} rate",
            f"The entropy of the data is {dataset.entropy:.4f} nats.\n\n{summary}",
            {
                "nats above the truth": out / "comparison.png",
                "data and generated samples": out / "samples.png",
            },
        )
    print(f"\nresults: {out}")
    if table["note"].str.startswith("failed").all():
        raise InputError(f"every run failed; the first: {table['note'][0]}")


if __name__ == "__main__":
    console.run(main, Settings)
