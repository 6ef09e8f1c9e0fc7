"""Priors of binary digits: N(0, I), a mixture of Normals and the VampPrior, in the same networks and steps.

python -m experiments.priors
python -m experiments.priors --out FOLDER   # again, to resume an interrupted run
"""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

import pyrovae as pv
from experiments import page
from experiments.options import StudyOptions, choice
from pyrovae.commands import console
from pyrovae.comparison.tables import markdown_table
from pyrovae.datasets.images import IMAGES
from pyrovae.files import write_table


@dataclass(frozen=True)
class Settings(StudyOptions):
    """Train VAEs of images that are binarised once, with several priors, and compare log p(x)."""

    dataset: str = choice("mnist", IMAGES)
    """mnist, fashion-mnist or digits."""
    latent_dim: int = 40
    """Dimension of z."""
    hidden: int = 300
    """Width of the two hidden layers."""
    components: int = 100
    """Components of a mixture, and pseudo-inputs."""
    seeds: int = 3
    """Runs of each prior, with seeds 0 to N − 1."""
    epochs: int = 50
    """Passes over the training images."""
    num_train: int | None = None
    """Training images; by default all."""
    num_test: int = 300
    """Test images."""
    samples: int = 500
    """Draws of z per test image."""


def main(settings: Settings) -> None:
    """Train what is missing, compare, and print the table."""
    images = IMAGES[settings.dataset]("static")  # first: a missing file is an error at once
    begin, out = time.perf_counter(), page.run_folder(settings.out, "priors", resumable=True)
    torch.set_num_threads(1)
    train, test = images.train[: settings.num_train], images.test[: settings.num_test]
    table = pv.compare(
        train,
        test=test,
        validation=images.validation,
        posteriors=["diagonal"],
        estimators=["monte-carlo"],
        likelihoods=["bernoulli"],
        priors={
            "standard-normal": pv.priors.StandardNormalPrior,
            "mixture": partial(pv.priors.MixturePrior, num_components=settings.components),
            "vamp": partial(vamp_prior, hidden=settings.hidden, images=train[: settings.components]),
        },
        latent_dims=(settings.latent_dim,),
        hidden=(settings.hidden, settings.hidden),
        seeds=range(settings.seeds),
        epochs=settings.epochs,
        batch_size=100,
        schedule="cosine",
        together=False,  # which would draw new pseudo-inputs for each seed
        log_marginal_samples=settings.samples,
        out=out,
        pictures=False,
        resume=True,
        workers=settings.workers,
    )
    table["aggregate_kl"] = [aggregate_kl(out / folder, test) for folder in table["folder"]]
    write_table(out / "priors.csv", table)
    text = (
        f"{len(train)} training and {len(test)} test images, binarised once, {settings.epochs} epochs, batch 100, "
        f"{settings.seeds} seeds; d = {settings.latent_dim}, two hidden layers of {settings.hidden}, "
        f"{settings.components} components, diagonal posterior. Nats per image, means over the seeds.\n\n"
        f"{summary(table)}\n\n{table.attrs['recommendation']['text']}\n\n{page.took(begin, settings.workers)}"
    )
    page.show("priors", settings.dataset, text, {}, settings.publish)
    print(f"results: {out}")


def vamp_prior(latent_dim: int, hidden: int, images: Tensor) -> pv.priors.VampPrior:
    """A VampPrior whose encoder is as wide as the guide's and whose pseudo-inputs start at images."""
    encoder, head = pv.nn.MLP(images.shape[1], hidden, hidden), pv.DiagonalPosterior(hidden, latent_dim)
    return pv.priors.VampPrior.like(encoder, head, images)


def aggregate_kl(folder: Path, x: Tensor) -> float:
    """KL(q(z) ‖ p(z)) of the mixture q(z) of the images' posteriors."""
    return pv.collapse_report(*pv.load(folder / "model.safetensors"), x).aggregate_kl.mean


def summary(table: pd.DataFrame) -> str:
    """One row per prior: means over seeds, and their standard error."""
    rows = []
    for prior, runs in table.groupby("prior", sort=False):
        mean, spread = runs.mean(numeric_only=True), runs["test_log_marginal"].std() / len(runs) ** 0.5
        rows.append(
            {
                "prior": prior,
                "log p(x) (± images)": f"{mean['test_log_marginal']:.2f} ± {mean['test_log_marginal_stderr']:.2f}",
                "± seeds": f"{spread:.2f}",
                "untrusted": f"{100 * mean['test_log_marginal_unreliable_share']:.1f} %",
                "ELBO": f"{-mean['test_neg_elbo']:.2f}",
                "KL": f"{mean['test_kl']:.2f}",
                "KL of the aggregate posterior": f"{mean['aggregate_kl']:.2f}",
                "active latents": f"{mean['active_directions']:.0f}",
                "minutes": f"{mean['seconds'] / 60:.1f}",
            }
        )
    return markdown_table(pd.DataFrame(rows))


if __name__ == "__main__":
    console.run(main, Settings)
