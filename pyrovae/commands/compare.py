"""``pyrovae compare DATA``."""

import math
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro

from pyrovae.commands._options import chosen, with_options
from pyrovae.commands._read import ReadLine, Summary, dry_run, resuming
from pyrovae.comparison.settings import Execution
from pyrovae.comparison.study import COMPARED_BY_DEFAULT, Study
from pyrovae.datasets import ReadingSettings
from pyrovae.errors import InputError

if TYPE_CHECKING:
    from pyrovae.comparison.study_result import StudyResult

_DEMO_LATENT_DIM, _DEMO_SECONDS = 6, 120.0


@with_options(
    Study(data=None),
    COMPARED_BY_DEFAULT,
    COMPARED_BY_DEFAULT.training,
    ReadingSettings(),
    Execution(),
    omit=(
        "latent_dims", "learning_rates", "epochs_by_estimator", "num_train", "num_test", "together", "seed", "device",
        "strict",
    ),
)  # fmt: skip
@dataclass
class Compare:
    """Which posterior and likelihood should a VAE for these data use? Train all of them and recommend one."""

    COMMON: ClassVar = (
        "demo", "budget", "out", "latent_dim", "seeds", "posteriors", "likelihoods", "missing",
        "group", "channels", "samples", "axis", "label", "dry_run", "json",
    )  # fmt: skip
    """Options of the brief help."""

    data: Annotated[Path | None, tyro.conf.Positional] = None
    """File of data: text (also gzipped), Excel, .npy, .npz, .mat, HDF5, parquet, IDX, an instrument's; or a folder."""
    demo: bool = False
    """Use simulated spectra with correlated noise and at most two minutes."""
    latent_dim: int | Literal["auto"] | None = None
    """Dimensions of z; auto: what suits linear models best on validation data. By default 2, for the demo 6."""
    seeds: int = len(COMPARED_BY_DEFAULT.seeds)
    """Runs of each model."""
    budget: str = "10m"
    """Time for everything, such as 90s, 10m or 2h. It sets the number of epochs before training starts."""
    out: Path | None = None
    """Folder for the results; by default a new one under runs/."""
    dry_run: bool = False
    """Say what was read from the file, then stop."""
    json: bool = False
    """Print one line of JSON instead of words."""

    def __call__(self) -> Summary:
        """Compare."""
        import torch

        from pyrovae.comparison.compare_file import compare_file

        study, out = self.study(), self.out
        if self.dry_run:
            return dry_run(study, self.json)
        if out is None:
            name = "demo" if self.data is None else self.data.stem
            out = Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
        if not self.json and (self.data is None or self.data.exists()):
            print(self._plan(study, out), flush=True)
        torch.set_num_threads(1)  # small networks are slower with more threads, much slower on a busy machine
        said = ReadLine(self.json)
        with resuming(out):
            found = compare_file(study, out, execution=chosen(self, Execution()), progress=not self.json, on_read=said)
        return {**summary_of(found, out), **said.said}

    def _plan(self, study: Study, out: Path) -> str:
        """One line about what happens next."""
        settings = study.settings
        parts = settings.named_posteriors, settings.named_likelihoods, settings.named_estimators
        num, seeds = math.prod(map(len, parts)), len(settings.seeds)
        limit = f"within {study.budget / 60:.3g} min" if study.epochs is None else f"for {study.epochs} epochs"
        begun = ", which has been begun: finished runs are kept" if (out / "config.json").exists() else ""
        return f"comparing linear models, then {num} VAEs of {seeds} seeds, {limit}; results go to {out}{begun}"

    def study(self) -> Study:
        """The study that the options describe."""
        if self.demo == (self.data is not None):
            raise InputError("give either a file of data or --demo")
        latent_dim = (_DEMO_LATENT_DIM if self.demo else 2) if self.latent_dim is None else self.latent_dim
        training = chosen(self, COMPARED_BY_DEFAULT.training, epochs=COMPARED_BY_DEFAULT.training.epochs)
        settings = chosen(
            self,
            COMPARED_BY_DEFAULT,
            training=training,
            latent_dims=latent_dim if latent_dim == "auto" else (latent_dim,),
            seeds=tuple(range(0, 2 * self.seeds, 2)),  # the seeds of earlier versions
            gap_data=0,
        )
        seconds = seconds_of(self.budget)
        budget = min(seconds, _DEMO_SECONDS) if self.demo else seconds
        return chosen(self, Study(data=None), settings=settings, reading=chosen(self, ReadingSettings()), budget=budget)


def summary_of(found: "StudyResult", out: Path) -> Summary:
    """Write the report of a study and summarise it."""
    from pyrovae.comparison.report import write_report
    from pyrovae.comparison.study_result import as_text, said
    from pyrovae.comparison.tables import terminal_table

    advice, report = found.recommendation, write_report(found, out)
    table = terminal_table(as_text(found))
    return {
        "choice": advice.choice,
        "verdict": str(advice.verdict),
        "recommendation": advice.text,
        "beaten_by": advice.beaten_by,
        "caution": found.caution,
        "notes": [note.to_dict() for note in found.notes],
        "epochs": found.epochs,
        "seconds": round(found.seconds, 1),
        "model": str(out / found.model),
        "report": str(report),
        "text": f"{table}\n\n{said(found)}\n\nmodel: {out / found.model}\nreport: {report}",
    }


def seconds_of(duration: str) -> float:
    """Seconds of a duration such as ``90``, ``90s``, ``10m`` or ``2h``.

    Raises:
        InputError: it is not a duration.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", duration.strip())
    if not match or float(match[1]) <= 0:
        raise InputError(f"--budget must be a time such as 90s, 10m or 2h, not {duration!r}")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]
