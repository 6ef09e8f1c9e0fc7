"""``pyrovae compare DATA``."""

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from pyrovae.commands.base import Summary
from pyrovae.comparison._study import Study
from pyrovae.comparison.compare_file import compare_file, shown
from pyrovae.comparison.report import write_report
from pyrovae.comparison.tables import markdown_table
from pyrovae.errors import InputError


@dataclass
class Compare:
    """Which posterior and likelihood should a VAE of these data use? Trains them all and recommends one."""

    data: Annotated[Path | None, tyro.conf.Positional] = None
    """CSV, TSV (also gzipped), .npy, .npz or .parquet, one datum a row; or images in an IDX file such as MNIST's."""
    demo: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Take simulated spectra with correlated noise, and at most two minutes."""
    posteriors: tuple[str, ...] = Study.posteriors
    """Families of q(z|x), the simplest first: isotropic, diagonal, ar1, ar1-per-dimension, ar1-per-step, low-rank,
    full-covariance, flow."""
    likelihoods: tuple[str, ...] = Study.likelihoods
    """Noise p(x|z), the simplest first: gaussian, gaussian-per-dimension, ar1, ar1-per-dimension, low-rank,
    full-covariance, bernoulli, …"""
    estimators: tuple[str, ...] = Study.estimators
    """Of the ELBO: analytic, monte-carlo, closed-form-entropy, sticking-the-landing, …"""
    latent_dim: int | None = None
    """Dimensions of z; 2 if not given, and 6 of the demo's spectra, which have as many."""
    seeds: int = Study.seeds
    """Runs of each model."""
    budget: str = "10m"
    """Time for everything, such as 90s, 10m or 2h: it becomes a number of epochs before training starts."""
    epochs: int | None = None
    """Passes over the training data, instead of what the budget allows."""
    threshold: float = Study.threshold
    """Nats per datum below which there is no difference."""
    channels: str | None = None
    """Prefix of the columns that are channels, where they are not found by themselves."""
    group: str | None = None
    """Column whose equal values the split keeps together, such as the sample that was measured several times."""
    missing: str = Study.missing
    """What a missing value is: error, or mask for one that was not observed."""
    out: Path | None = None
    """Folder for the results; by default a new one under runs/."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one line of JSON instead of words."""

    def __call__(self) -> Summary:
        """Compare."""
        if self.demo == (self.data is not None):
            raise InputError("give either a file of data or --demo")
        study = Study(
            data=self.data,
            posteriors=self.posteriors,
            likelihoods=self.likelihoods,
            estimators=self.estimators,
            latent_dim=(6 if self.demo else Study.latent_dim) if self.latent_dim is None else self.latent_dim,
            seeds=self.seeds,
            epochs=self.epochs,
            budget=min(seconds_of(self.budget), 120.0 if self.demo else float("inf")),
            threshold=self.threshold,
            channels=self.channels,
            group=self.group,
            missing=self.missing,
        )
        name = "demo" if self.data is None else self.data.stem
        return run(study, self.out or Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}", not self.json)


def run(study: Study, out: Path, progress: bool) -> Summary:
    """Run a study and say what came of it."""
    torch.set_num_threads(1)  # of networks this small more are slower, and much so on a machine that is busy
    found = compare_file(study, out, progress=progress)
    advice, report = found.recommendation, write_report(found, out)
    said = " ".join(filter(None, [advice.text, found.caution, found.left_out]))
    return {
        "choice": advice.choice,
        "verdict": advice.verdict,
        "recommendation": advice.text,
        "beaten_by": advice.beaten_by,
        "caution": found.caution,
        "epochs": found.epochs,
        "seconds": round(found.seconds, 1),
        "model": str(out / found.model),
        "report": str(report),
        "text": f"{markdown_table(shown(found.table))}\n\n{said}\n\nmodel: {out / found.model}\nreport: {report}",
    }


def seconds_of(duration: str) -> float:
    """Seconds of a duration such as ``90``, ``90s``, ``10m`` or ``2h``.

    Raises:
        InputError: it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", duration.strip())
    if not match or float(match[1]) <= 0:
        raise InputError(f"--budget must be a time such as 90s, 10m or 2h, not {duration!r}")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]
