"""``pyrovae fit DATA --out DIR``."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import tyro

from pyrovae.commands._options import chosen, with_options
from pyrovae.commands._read import ReadLine, Summary, dry_run, resuming
from pyrovae.comparison.study import HOW_BY_DEFAULT, TRAINED_BY_DEFAULT, Project
from pyrovae.datasets import ReadingSettings
from pyrovae.errors import InputError


@with_options(Project(data=None), TRAINED_BY_DEFAULT, HOW_BY_DEFAULT, ReadingSettings())
@dataclass
class Fit:
    """Train one model on a file of data. After Ctrl-C, `pyrovae resume` continues."""

    COMMON: ClassVar = (
        "out", "posterior", "likelihood", "latent_dim", "epochs", "hidden", "seed",
        "missing", "group", "channels", "samples", "axis", "label", "dry_run",
        "json",
    )  # fmt: skip
    """Options of the brief help."""

    data: tyro.conf.Positional[Path]
    """File of data: text (also gzipped), Excel, .npy, .npz, .mat, HDF5, parquet, an instrument's; or a folder."""
    out: Path | None = None
    """Folder for the model, its metrics and its checkpoints."""
    checkpoint_seconds: float = 30.0
    """Seconds between checkpoints."""
    dry_run: bool = False
    """Say what was read from the file, then stop."""
    json: bool = False
    """Print one line of JSON instead of words."""

    def __call__(self) -> Summary:
        """Train, evaluate, write."""
        from pyrovae.comparison.fit_file import fit_file

        model, training, reading = (
            chosen(self, part) for part in (TRAINED_BY_DEFAULT, HOW_BY_DEFAULT, ReadingSettings())
        )
        project = chosen(self, Project(data=None), model=model, training=training, reading=reading)
        if self.dry_run:
            return dry_run(project, self.json)
        if self.out is None:
            raise InputError("give --out FOLDER for the model (or --dry-run to see what is read)")
        said = ReadLine(self.json)
        with resuming(self.out):
            metrics = fit_file(
                project, self.out, checkpoint_seconds=self.checkpoint_seconds, progress=not self.json, on_read=said
            )
        return {**summary_of(metrics, self.out), **said.said}


def summary_of(metrics: dict[str, object], out: Path) -> Summary:
    """The outcome of a training run."""
    if not metrics:  # in another process than the first
        return {"text": ""}
    m = metrics
    text = (
        f"log p(x) of the test data ≥ {m['test_log_marginal']:.2f} ± {m['test_log_marginal_stderr']:.2f}, "
        f"ELBO {-m['test_neg_elbo']:.2f}, KL {m['test_kl']:.2f} nats per datum "  # type: ignore[operator]
        f"(d = {m['latent_dim']}, {m['steps']} steps, {m['seconds']:.1f} s, {m['engine']} engine)\nmodel: {out}"
    )
    text += "".join(f"\nnote: {note['text']}" for note in m["notes"])  # type: ignore[attr-defined]
    return {**metrics, "out": str(out), "text": text}
