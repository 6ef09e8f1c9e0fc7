"""The seminar slides' experiments: posterior families × ELBO estimators on two-dimensional data of known density.

python -m experiments.synthetic --dataset rotated-gaussian
"""

from dataclasses import dataclass
from functools import partial

import pyrovae as pv
from experiments import page
from experiments.options import SyntheticOptions, choice
from pyrovae.commands import console
from pyrovae.comparison import RunStatus
from pyrovae.datasets import SYNTHETIC
from pyrovae.elbo import ESTIMATORS
from pyrovae.errors import InputError
from pyrovae.posteriors import POSTERIORS
from pyrovae.training import check_learning_rate


@dataclass(frozen=True)
class Settings(SyntheticOptions):
    """Train posterior families × ELBO estimators on a synthetic set and compare them with the truth."""

    dataset: str = choice("rotated-gaussian", SYNTHETIC)
    """isotropic-gaussian, rotated-gaussian, figure-eight, three-blobs or mixture."""
    posteriors: tuple[str, ...] = choice(("isotropic", "diagonal", "ar1", "full-covariance"), POSTERIORS)
    """Families of q(z|x): isotropic, diagonal, ar1, ar1-per-dimension, ar1-per-step, low-rank, full-covariance, flow
    (needs the extra flows)."""
    estimators: tuple[str, ...] = choice(("monte-carlo", "analytic"), ESTIMATORS)
    """ELBO estimators: monte-carlo, analytic, closed-form-entropy, sticking-the-landing, importance-weighted,
    doubly-reparameterized."""
    latent_dim: tuple[int, ...] = (2,)
    """Dimensions of z, one or several."""
    learning_rate: float = 1e-3
    """Adam's learning rate at the start."""
    batch_size: int = 32
    """Data per step."""
    noise: float | None = None
    """Fixed standard deviation σ of the likelihood; by default it is learned."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_learning_rate(self.learning_rate)


def main(settings: Settings) -> None:
    """Run the study and print its table."""
    dataset = SYNTHETIC[settings.dataset]
    out = page.run_folder(settings.out, f"synthetic-{dataset.name}")
    fixed = None if settings.noise is None else {"gaussian": partial(pv.GaussianLikelihood, scale=settings.noise)}
    table = settings.compare(
        dataset,
        out,
        likelihoods=fixed,
        latent_dims=settings.latent_dim,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
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
    if (table["status"] == RunStatus.FAILED).all():
        raise InputError(f"every run failed; the first: {table['note'][0]}")


if __name__ == "__main__":
    console.run(main, Settings)
