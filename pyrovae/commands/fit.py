"""``pyrovae fit DATA --out DIR``."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import tyro

from pyrovae.commands.base import Summary
from pyrovae.comparison.fit_file import Project, fit_project


@dataclass
class Fit:
    """Train one model on a file of data; Ctrl-C stops it, and the same command or `pyrovae resume` goes on."""

    data: tyro.conf.Positional[Path]
    """CSV, TSV (also gzipped), .npy, .npz or .parquet, one datum a row."""
    out: Path
    """Folder for the model, its metrics and its checkpoints."""
    posterior: str = "diagonal"
    """isotropic, diagonal, ar1, ar1-per-dimension, ar1-per-step, low-rank, full-covariance or flow."""
    likelihood: str = "gaussian"
    """gaussian, gaussian-per-dimension, ar1, ar1-per-dimension, low-rank, full-covariance, bernoulli, …"""
    estimator: str = "analytic"
    """analytic, monte-carlo, closed-form-entropy, sticking-the-landing, …"""
    latent_dim: int = 2
    """Dimensions of z."""
    epochs: int = 100
    """Passes over the training data."""
    batch_size: int = 32
    """Data per step."""
    learning_rate: float = Project.learning_rate
    """Adam's rate at the start."""
    hidden: tuple[int, ...] = (128, 128)
    """Widths of the encoder's hidden layers, and in reverse of the decoder's."""
    preprocessing: str = "mean"
    """Standardise by the channels' means and one deviation (mean), by channel, by all values together, or none."""
    channels: str | None = None
    """Prefix of the columns that are channels, where they are not found by themselves."""
    group: str | None = None
    """Column whose equal values the split keeps together, such as the sample that was measured several times."""
    missing: str = "error"
    """What a missing value is: error, or mask for one that was not observed."""
    seed: int = 0
    """Of the split, the initialisation, the batches and the noise."""
    engine: str = "auto"
    """auto, eager or compiled."""
    start: str = Project.start
    """Where training starts: at the linear model of the same noise (linear), at random weights (random), or at the
    first where it can (auto)."""
    checkpoint_seconds: float = 30.0
    """Seconds between checkpoints."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one line of JSON instead of words."""

    def __call__(self) -> Summary:
        """Train, evaluate, write."""
        project = Project(**{field.name: getattr(self, field.name) for field in fields(Project)})
        return train(project, self.out, self.checkpoint_seconds, not self.json)


def train(project: Project, out: Path, checkpoint_seconds: float, progress: bool) -> Summary:
    """Train a project and say what came of it."""
    metrics = fit_project(project, out, checkpoint_seconds=checkpoint_seconds, progress=progress)
    text = (
        f"log p(x) of the test data ≥ {metrics['test_log_marginal']:.4f} ± {metrics['test_log_marginal_stderr']:.4f}, "
        f"ELBO {-metrics['test_neg_elbo']:.4f}, KL {metrics['test_kl']:.4f} nats per datum "
        f"({metrics['steps']} steps, {metrics['seconds']:.1f} s, {metrics['engine']} engine)\nmodel: {out}"
    )
    return {**metrics, "out": str(out), "text": text}
