"""Test log p(x) of binarised images beside the literature's: one stochastic layer, as in Burda et al. (2016).

python -m experiments.image_likelihood
python -m experiments.image_likelihood --out FOLDER   # again, to resume an interrupted run
"""

import json
import math
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

import pyrovae as pv
from experiments import page
from experiments.estimators.settings import MANY_SAMPLES
from experiments.options import ImageOptions, choice, repeatable
from experiments.pool import in_processes
from pyrovae.commands import console
from pyrovae.comparison.tables import markdown_table
from pyrovae.datasets.images import IMAGES, ImageDataset
from pyrovae.elbo import ESTIMATORS, BetaELBO
from pyrovae.errors import InputError
from pyrovae.files import make_folder, write_json, write_table
from pyrovae.posteriors import POSTERIORS
from pyrovae.randomness import seeded
from pyrovae.training import SCHEDULES, Schedule, check_learning_rate

PUBLISHED = {1: 86.76, 5: 85.54, 50: 84.78}
"""Burda et al. (2016), one stochastic layer of 50, MNIST binarised dynamically: test −log p(x) in nats by K."""
OF_A_TRAINING = (
    *("dataset", "binarization", "latent_dim", "hidden", "activation", "estimator", "epochs", "batch_size"),
    *("learning_rate", "schedule", "all_training_images", "num_train"),
)
"""Settings that a folder's runs share."""


def staged(progress: float) -> float:
    """Burda et al.'s factor of the rate: 10^(−i/7) in stage i = 0 … 7, each three times as long as the one before."""
    passes = progress * (3**8 - 1) / 2  # of theirs, 3,280 in all
    return 10 ** (-min(7, int(math.log(2 * passes + 1, 3) + 1e-9)) / 7)


RATES: dict[str, Schedule] = {**SCHEDULES, "staged": staged}


@dataclass(frozen=True)
class Settings(ImageOptions):
    """Train VAEs on binarised images and estimate test log p(x) as the literature does."""

    dataset: str = choice("mnist", IMAGES)
    """mnist, fashion-mnist or digits."""
    binarization: str = choice("dynamic", ("dynamic", "static"))
    """dynamic (pixels drawn anew each epoch) or static."""
    latent_dim: int = 50
    """Dimension of z."""
    hidden: tuple[int, ...] = repeatable(200, 200)
    """Widths of the encoder's hidden layers, and in reverse of the decoder's."""
    posteriors: tuple[str, ...] = choice(("diagonal", "ar1-per-dimension", "full-covariance"), POSTERIORS)
    """Families of q(z|x)."""
    activation: str = choice("relu", pv.nn.ACTIVATIONS)
    """Of the hidden layers: relu, or tanh with Glorot and Bengio's initial weights (the literature's)."""
    particles: tuple[int, ...] = (1, 5)
    """Draws K of the training bound; 1 is the ELBO with the KL in closed form (sampled for a flow)."""
    estimator: str = choice("importance-weighted", MANY_SAMPLES)
    """Estimator for K > 1: importance-weighted (the literature's) or doubly-reparameterized."""
    seeds: int = 1
    """Trainings of each cell, with seeds 0 to N − 1."""
    epochs: int = 60
    """Passes over the training images; the literature uses 3280."""
    batch_size: int = 100
    """Images per step; the literature uses 20."""
    learning_rate: float = 1e-3
    """Adam's learning rate at the start."""
    schedule: str = choice("cosine", RATES)
    """Learning rate: cosine, constant, or staged (the literature's eight stages, down to a tenth)."""
    all_training_images: bool = False
    """Train on the validation images too, as the literature does, and keep the last epoch."""
    samples: int = 5000
    """Draws of z per test image."""
    checkpoint_seconds: float = 60.0
    """Seconds between checkpoints."""
    out: Path | None = None
    """Folder for the results, new or of an interrupted run to resume; by default a new one under runs/."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_learning_rate(self.learning_rate)
        if not self.checkpoint_seconds >= 0:
            raise InputError(f"--checkpoint-seconds must be a number ≥ 0, not {self.checkpoint_seconds}")

    @property
    def as_published(self) -> bool:
        """Whether the published numbers have the same data and sizes."""
        found = (self.dataset, self.binarization, self.latent_dim, self.hidden, self.num_train, self.num_test)
        return found == ("mnist", "dynamic", 50, (200, 200), None, None)


@dataclass(frozen=True)
class Run:
    """One cell and seed. Calling it trains, from its checkpoint if there is one, and evaluates."""

    settings: Settings
    out: Path
    posterior: str
    particles: int
    seed: int

    def __call__(self) -> dict[str, Any]:
        """One row of the table."""
        s, images = self.settings, IMAGES[self.settings.dataset](self.settings.binarization)
        model, guide, history = self.trained(images)
        pv.save(self.folder / "model.safetensors", model, guide)
        x = images.test[: s.num_test].to(s.device)
        row: dict[str, Any] = {
            "posterior": self.posterior,
            "particles": self.particles,
            "seed": self.seed,
            "epochs": len(history.epochs),
            "best_epoch": history.best_epoch,
            "seconds": history.seconds,
            "samples": s.samples,
            "test_images": len(x),
        }
        return self.evaluated(row, model, guide, x, self.folder / "metrics.json")

    @property
    def folder(self) -> Path:
        """Of the run."""
        return make_folder(self.out / f"{self.posterior}-k{self.particles}-seed{self.seed}")

    def trained(self, images: ImageDataset) -> tuple[pv.GenerativeModel, pv.AmortizedGuide, pv.History]:
        """Model and guide, from the run's checkpoint if there is one."""
        s = self.settings
        model, guide = self.make_pair(images.train.shape[-1])
        history = pv.fit(
            model,
            guide,
            self.training_images(images)[: s.num_train],
            self.elbo(),
            validation=None if s.all_training_images else images.validation,
            progress=s.workers == 1 and sys.stderr.isatty(),
            checkpoint=self.folder / "checkpoints",
            checkpoint_seconds=s.checkpoint_seconds,
            epochs=s.epochs,
            batch_size=s.batch_size,
            learning_rate=s.learning_rate,
            schedule=s.schedule if s.schedule in SCHEDULES else RATES[s.schedule],
            seed=self.seed,
            transform=images.transform,
            engine=s.engine,
            device=s.device,
        )
        return model, guide, history

    def training_images(self, images: ImageDataset) -> Tensor:
        """The images to train with, with those of the validation set if asked for."""
        s = self.settings
        if not s.all_training_images:
            return images.train
        drawn_later = IMAGES[s.dataset](None) if images.transform is not None else images
        return torch.cat([drawn_later.train, drawn_later.validation])

    def make_pair(self, n: int) -> tuple[pv.GenerativeModel, pv.AmortizedGuide]:
        """Model and guide for n pixels, initialised under the seed."""
        d, hidden, activation = self.settings.latent_dim, self.settings.hidden, self.settings.activation
        with seeded(self.seed):
            likelihood = pv.BernoulliLikelihood(hidden[0], n)
            decoder, encoder = (
                pv.nn.MLP(*sizes, activation=activation) for sizes in ((d, *reversed(hidden)), (n, *hidden))
            )
            for layer in (*decoder, *encoder) if activation == "tanh" else ():
                if isinstance(layer, torch.nn.Linear):
                    torch.nn.init.xavier_uniform_(layer.weight)
                    torch.nn.init.zeros_(layer.bias)
            model = pv.GenerativeModel(decoder, likelihood, d)
            return model, pv.AmortizedGuide(encoder, POSTERIORS[self.posterior](hidden[-1], d))

    def elbo(self) -> BetaELBO:
        """The bound to train with."""
        if self.particles > 1:
            return ESTIMATORS[self.settings.estimator](num_particles=self.particles)
        return pv.MonteCarloELBO() if self.posterior == "flow" else pv.AnalyticELBO()

    def evaluated(
        self, row: dict[str, Any], model: pv.GenerativeModel, guide: pv.AmortizedGuide, x: Tensor, path: Path
    ) -> dict[str, Any]:
        """The row with test log p(x) by importance sampling, read from ``path`` if an earlier run wrote it."""
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            if {key: found.get(key) for key in row} == row:
                return found
        with warnings.catch_warnings(action="ignore", category=pv.UnreliableEstimateWarning):  # its share is a column
            marginal = pv.log_marginal(model, guide, x, num_samples=row["samples"], progress=self.settings.workers == 1)
        row |= {
            "test_nll": -marginal.mean,
            "test_nll_stderr": marginal.stderr_data,
            "test_nll_stderr_monte_carlo": marginal.stderr_monte_carlo,
            "gain_of_doubling": marginal.gain_of_doubling.mean().item(),
            "unreliable": marginal.unreliable.double().mean().item(),
            "test_neg_elbo": -pv.elbo_terms(model, guide, x).elbo.mean().item(),
            "active_directions": pv.active_directions(guide, x),
        }
        write_json(path, row)
        return row


def table(settings: Settings, runs: pd.DataFrame) -> str:
    """Means over seeds, a row for each cell, beside the published values."""
    rows = []
    for (posterior, particles), group in runs.groupby(["posterior", "particles"], sort=False):
        mean, seeds = group.mean(numeric_only=True), group["test_nll"].std() / math.sqrt(len(group))
        row: dict[str, Any] = {
            "posterior": posterior,
            "K": particles,
            "test −log p(x) (± which images)": f"{mean['test_nll']:.2f} ± {mean['test_nll_stderr']:.2f}",
            "± seeds": f"{seeds:.2f}" if len(group) > 1 else "",
            "gain of doubling the draws": f"{mean['gain_of_doubling']:.3f}",
            "bad k̂": f"{100 * mean['unreliable']:.0f} %",
            "test −ELBO": f"{mean['test_neg_elbo']:.2f}",
            "active latents": f"{mean['active_directions']:.0f}",
            "minutes of training": f"{mean['seconds'] / 60:.1f}",
        }
        if settings.as_published:
            published = PUBLISHED.get(int(mean["particles"])) if posterior == "diagonal" else None
            row["published"] = "" if published is None else f"{published:.2f}"
            row["ours less published"] = "" if published is None else f"{mean['test_nll'] - published:+.2f}"
        rows.append(row)
    return markdown_table(pd.DataFrame(rows))


def keep_config(settings: Settings, out: Path) -> None:
    """Write the settings of the folder's runs, or raise an InputError if it holds runs of other settings."""
    path = out / "config.json"
    config = {name: getattr(settings, name) for name in OF_A_TRAINING} | {"hidden": list(settings.hidden)}
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else config
    for name, value in config.items():
        if found.get(name) != value:
            raise InputError(f"--out {out} holds runs with {name} {found.get(name)}, not {value}; give another folder")
    write_json(path, config)


def main(settings: Settings) -> None:
    """Train and evaluate what is missing, print the table and write it."""
    images = IMAGES[settings.dataset](settings.binarization)  # first: a missing or damaged file is an error at once
    out = page.run_folder(settings.out, "image-likelihood", resumable=True)
    keep_config(settings, out)
    torch.set_num_threads(1)
    jobs = [
        Run(settings, out, posterior, particles, seed)
        for posterior in settings.posteriors
        for particles in settings.particles
        for seed in range(settings.seeds)
    ]
    runs = pd.DataFrame(in_processes(jobs, settings.workers, "runs"))
    write_table(out / "runs.csv", runs)
    num_train = len(images.train) + settings.all_training_images * len(images.validation)
    num_train, num_test = min(num_train, settings.num_train or num_train), runs["test_images"].iloc[0]
    text = (
        f"{num_train} training and {num_test} test images, {settings.epochs} epochs, batch {settings.batch_size}, "
        f"{settings.schedule} rate from {settings.learning_rate:g}, {settings.seeds} seed(s); d = "
        f"{settings.latent_dim}, hidden {settings.hidden}. −log p(x) in nats per image from {settings.samples} draws, "
        f"an upper bound in expectation.\n\n{table(settings, runs)}"
    )
    if settings.as_published:
        text += (
            "\n\nPublished: Burda et al. (2016), diagonal posterior, tanh units, 3,280 epochs, batch 20, all 60,000 "
            "training images, 5,000 draws; reproductions differ by up to a nat."
        )
    units = f"{settings.activation} units, batches of {settings.batch_size}"
    section = f"{settings.dataset}, {settings.binarization}, {settings.epochs} epochs, {units}"
    page.show("image_likelihood", section, text, {}, settings.publish)
    print(f"results: {out}")


if __name__ == "__main__":
    console.run(main, Settings)
