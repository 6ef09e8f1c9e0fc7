"""The result of a run, and its folder: written by the process that made the run, and read when resuming."""

from __future__ import annotations

import io
import json
import math
import traceback
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from pyrovae.comparison._measures import SCORES
from pyrovae.comparison._plan import Cell, Plan, configuration, make_pair
from pyrovae.comparison.settings import STANDARD
from pyrovae.comparison.tables import write_run_pictures
from pyrovae.descriptions import describe
from pyrovae.errors import InputError, one_line, out_of_memory
from pyrovae.files import make_folder, remove_partial_files, versions, write_bytes, write_json, write_table, write_text
from pyrovae.io import load, save
from pyrovae.programs import Program
from pyrovae.randomness import seeded
from pyrovae.training import History, TrainingSettings, describe_settings
from pyrovae.training.settings import difference, short
from pyrovae.vae import AmortizedGuide, GenerativeModel

if TYPE_CHECKING:
    import pandas as pd

_FAILURE = "failure.json"


class RunStatus(StrEnum):
    """How a run ended."""

    FINISHED = "finished"
    FAILED = "failed"


@dataclass(frozen=True)
class Failure:
    """Why a run failed: the exception's type, message and traceback, and whether the user can fix it."""

    kind: str
    message: str
    traceback: str
    can_be_mended: bool = True

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """The failure that an exception describes; the exception itself is not kept, since it keeps memory alive."""
        message = out_of_memory(error) or one_line(error)
        can_be_mended = isinstance(error, InputError | OSError) or out_of_memory(error) is not None
        return cls(type(error).__name__, message, "".join(traceback.format_exception(error)), can_be_mended)


@dataclass(frozen=True)
class Result:
    """What came of a run.

    Attributes:
        metrics: the run's row of the table: what it is of, and numbers in nats per datum.
        failure: why it failed; None if the run finished.
        samples: data drawn from the model, for pictures.
        scores: ``log_prob`` and ``elbo`` of each test datum in nats, and the errors of ``log_prob``; None if the run
            failed or was not chosen.
    """

    metrics: dict[str, object]
    failure: Failure | None = None
    samples: Tensor | None = None
    scores: pd.DataFrame | None = None

    @property
    def is_scored(self) -> bool:
        """Whether it was scored on the test data."""
        return self.scores is not None


Results = dict[Cell, Result]


def write_run(
    plan: Plan,
    cell: Cell,
    pair: tuple[GenerativeModel, AmortizedGuide] | None,
    history: History,
    result: Result,
) -> None:
    """Write a run's folder: config.json, metrics.json, history.csv, scores.csv, the model, or the traceback."""
    assert plan.out is not None
    folder = make_folder(plan.out / cell.folder)
    remove_partial_files(folder)
    if pair is not None:
        write_json(folder / "config.json", {**configuration(plan, cell, *pair), "versions": versions()})
    write_json(folder / "metrics.json", result.metrics)
    write_table(folder / "history.csv", history.to_frame())
    for name in ("traceback.txt", "scores.csv"):  # of an earlier run here
        (folder / name).unlink(missing_ok=True)
    if result.failure is not None:
        write_text(folder / "traceback.txt", result.failure.traceback)
    if pair is not None:
        save(folder / "model.safetensors", *pair, preprocessing=plan.data.preprocessing)
    if result.scores is not None:
        write_table(folder / "scores.csv", result.scores.rename_axis("row").reset_index())
        if plan.pictures and pair is not None and history.epochs:
            write_run_pictures(folder, history, *pair, plan.data.test, plan.data.truth)


_ONCE_LEFT_OUT = {"prior": STANDARD, "refit_epochs": 0}
"""Settings that a run's config.json may lack, with the value that this means."""


def finished(plan: Plan, cells: Sequence[Cell]) -> Results:
    """Results of the runs with the same settings that finished in the plan's folder, scored or not.

    Warns:
        UserWarning: a finished run has other settings; names the first one.
    """
    found: Results = {}
    others: list[str] = []
    for cell in cells if plan.out is not None else ():
        try:
            result, other = _finished(plan, cell)
        except (OSError, ValueError, TypeError, LookupError, RecursionError):  # it is not there, or damaged
            continue
        if result.metrics.get("status") != RunStatus.FINISHED:
            continue
        if other is None:
            found[cell] = result
        else:
            others.append(other)
    if others:
        runs = "1 run" if len(others) == 1 else f"{len(others)} runs"
        warnings.warn(f"{runs} in {plan.out} will be trained again with the new settings: {others[0]}", stacklevel=2)
    return found


def _finished(plan: Plan, cell: Cell) -> tuple[Result, str | None]:
    """A run in the plan's folder, and the first setting in which it differs from the plan's, if one does.

    A setting that a run of an older version lacks had its default.
    """
    assert plan.out is not None
    result, (model, guide) = _read(plan, cell, plan.out)
    config = json.loads((plan.out / cell.folder / "config.json").read_text(encoding="utf-8"))
    found = _ONCE_LEFT_OUT | config | {"model": describe(model, "model"), "guide": describe(guide, "guide")}
    found["training"] = describe_settings(TrainingSettings(epochs=1)) | config["training"]
    wanted = json.loads(json.dumps(configuration(plan, cell, *make_pair(plan, cell))))
    for name, value in {**wanted, "refit_epochs": plan.settings.refit_epochs}.items():
        if (other := difference(name, found.get(name), value)) is not None:
            where, old, new = other
            return result, f"{cell.folder} has {where} = {short(old)}, not {short(new)}"
    return result, None


def _read(plan: Plan, cell: Cell, out: Path) -> tuple[Result, tuple[GenerativeModel, AmortizedGuide]]:
    """The result of a run that finished, and its model and guide, from its folder.

    Raises:
        ValueError: a file is damaged.
        OSError: a file is missing.
    """
    import pandas as pd

    folder = out / cell.folder
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    scores = pd.read_csv(folder / "scores.csv") if (folder / "scores.csv").exists() else None
    pair = load(folder / "model.safetensors")
    if not isinstance(metrics, dict) or not (scores is None or set(SCORES) <= set(scores)):
        raise InputError(f"the files of the run in {folder} are damaged")
    return Result(_metrics(plan, metrics), None, None if scores is None else draw_samples(pair[0], cell), scores), pair


def _metrics(plan: Plan, content: dict[str, object]) -> dict[str, object]:
    """Restore metrics from JSON, which has neither NaN nor tuples."""
    content = content | {"prior": content.get("prior", STANDARD)}
    return {k: math.nan if v is None else v for k, v in content.items()} | {"hidden": plan.settings.hidden}


def draw_samples(model: Program, cell: Cell) -> Tensor | None:
    """Data drawn from a trained model, for pictures; None for a model written by hand."""
    if not isinstance(model, GenerativeModel):
        return None
    with seeded(cell.seed):
        return model.sample(max(100, min(3000, 2**22 // model.likelihood.n)))


def pack(results: Results, out: Path) -> bytes:
    """The folders of runs in ``out`` in one archive, to be sent to another machine."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for cell, result in results.items():
            for path in sorted((out / cell.folder).iterdir()):
                archive.write(path, f"{cell.folder}/{path.name}")
            if result.failure is not None:
                archive.writestr(f"{cell.folder}/{_FAILURE}", json.dumps(asdict(result.failure)))
    return buffer.getvalue()


def unpack(plan: Plan, cells: Sequence[Cell], packed: bytes, out: Path) -> Results:
    """The results in an archive; writes its folders to ``out``. It is read as data, never executed.

    Raises:
        ValueError: the archive is damaged.
        OSError: a folder cannot be written, or a file is missing.
    """
    results = {}
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        for cell in cells:
            names = [name for name in archive.namelist() if name.startswith(f"{cell.folder}/")]
            if any(Path(name).parts != (cell.folder, Path(name).name) for name in names):
                raise InputError(f"the archive of the run {cell.folder} names a file outside of its folder")
            folder, failure = make_folder(out / cell.folder), f"{cell.folder}/{_FAILURE}"
            write_bytes(*((folder / Path(name).name, archive.read(name)) for name in names if name != failure))
            if failure in names:
                metrics = json.loads(archive.read(f"{cell.folder}/metrics.json"))
                results[cell] = Result(_metrics(plan, metrics), Failure(**json.loads(archive.read(failure))))
            else:
                results[cell], _ = _read(plan, cell, out)
    return results
