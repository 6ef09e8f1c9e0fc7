"""Which posterior and which likelihood a file of data asks for: trained within a time, compared, recommended."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from pyrovae.comparison._budget import epochs_within, measure
from pyrovae.comparison._data import prepare, warn_of_counts
from pyrovae.comparison._plan import Cell, ModelKey, Plan, models_of, names_of
from pyrovae.comparison._runs import Failure, callers_state_left_alone, finished, run_cells
from pyrovae.comparison.compare import Comparison, conclude, plan_of, with_folder
from pyrovae.comparison.notes import Note, NoteKind, notes_of_split
from pyrovae.comparison.recommendation import Recommendation
from pyrovae.comparison.settings import LikelihoodFactory
from pyrovae.comparison.study import Study, at_scale_of_data, begun_in, check_same
from pyrovae.comparison.tables import markdown_table
from pyrovae.datasets import ChannelAxis, Spectra, SpectraSplit, TrainingRows, split_spectra
from pyrovae.datasets.readers.idx import PIXEL
from pyrovae.errors import InputError
from pyrovae.files import locked_folder, versions, write_json, write_table, write_text
from pyrovae.linear_gaussian.baselines import Baseline, linear_baselines

MAX_HELD_OUT = 2000
"""Validation and test data that are used, at most."""


@dataclass(frozen=True, repr=False)
class StudyResult:
    """What a study found.

    Attributes:
        study: what was compared.
        data: all of it.
        split: into training, validation and test data.
        test: the test data, shape (num, n).
        plan: of the runs.
        comparison: the runs.
        recommendation: which model to take.
        baselines: linear models of the same data.
        seconds: of everything.
    """

    study: Study
    data: Spectra
    split: SpectraSplit
    test: Tensor
    plan: Plan
    comparison: Comparison
    recommendation: Recommendation
    baselines: list[Baseline]
    seconds: float

    @property
    def epochs(self) -> int:
        """Passes over the training data of each run."""
        return self.plan.settings.training.epochs

    @property
    def runs(self) -> pd.DataFrame:
        """One row a run, see :func:`pyrovae.compare`."""
        return self.comparison.table

    @property
    def models(self) -> dict[ModelKey, list[Cell]]:
        """The runs of each model, the simplest model first."""
        return models_of(self.comparison.cells)

    @property
    def names(self) -> dict[ModelKey, str]:
        """Each model's name to read."""
        return names_of(self.models)

    def folder_of(self, model: ModelKey) -> Path | None:
        """Folder of a model's first run that finished, in the study's own; None where all failed."""
        results = self.comparison.results
        return next((Path("runs") / c.folder for c in self.models[model] if results[c].failure is None), None)

    @property
    def model(self) -> Path:
        """Folder of the recommended model, of its first seed that finished, in the study's own."""
        (key,) = (key for key, name in self.names.items() if name == self.recommendation.choice)
        folder = self.folder_of(key)
        assert folder is not None  # a model of which every run failed is not recommended
        return folder

    @property
    def table(self) -> pd.DataFrame:
        """One row a model and linear baseline.

        ``log_prob``, its ``gain`` over the simplest model between ``low`` and ``high``, ``approximation_gap`` and
        ``amortization_gap`` of some test data in the first seed's runs, ``active_directions``, ``bad_pareto_k``,
        ``seconds`` a run, ``note``.
        """
        names = self.names
        by_model = self.runs.assign(model=[names[cell.model] for cell in self.comparison.cells]).groupby("model")
        means = by_model.mean(numeric_only=True).rename(columns={"test_log_marginal_unreliable_share": "bad_pareto_k"})
        measures = ["approximation_gap", "amortization_gap", "active_directions", "bad_pareto_k", "seconds"]
        own = means.reindex(columns=measures)
        own["note"] = by_model["note"].agg(lambda notes: "; ".join(dict.fromkeys(note for note in notes if note)))
        table = pd.DataFrame({"model": [*names.values(), *(b.name for b in self.baselines)]})
        table = table.merge(self.recommendation.gains, on="model", how="left")
        table = table.merge(own.reset_index(), on="model", how="left")
        notes = {baseline.name: baseline.note for baseline in self.baselines}
        return table.assign(note=table["note"].fillna(table["model"].map(notes)).fillna(""))

    @property
    def notes(self) -> list[Note]:
        """What else is to know: of the runs, of the split, and what was left out."""
        found = [*self.comparison.notes, *notes_of_split(self.split, self.recommendation, self.num_validation)]
        if not self.plan.settings.gap_data:
            found.append(Note(NoteKind.GAPS_LEFT_OUT))
        if not self.baselines:
            found.append(Note(NoteKind.NO_LINEAR_MODELS))
        return found

    @property
    def num_validation(self) -> int:
        """Number of validation data that were used."""
        return min(len(self.split.validation), MAX_HELD_OUT)

    @property
    def caution(self) -> str:
        """What makes the numbers doubtful, in a sentence; empty where nothing does."""
        return " ".join(note.text for note in self.notes if note.kind is NoteKind.BAD_WEIGHTS)


def compare_file(
    study: Study, out: str | Path, *, progress: bool = True, on_read: Callable[[Spectra], object] | None = None
) -> StudyResult:
    """Train every posterior × likelihood × estimator over the same seeds on 70 % of the data, and recommend one.

    The number of epochs is fixed first: a step of each model is timed, and the budget divided. It is written to
    ``config.json``, so that the same call resumes an interrupted study; runs that finished are kept. The validation
    data, 15 %, choose each run's best epoch; log p(x) of the other 15 % is what is compared, in the original units.
    Also writes ``runs/``, ``runs.csv``, ``comparison.csv``, ``comparison.md`` and ``recommendation.json``.

    Args:
        study: what to compare.
        out: folder for the results.
        progress: whether to show progress bars (on a terminal).
        on_read: called with the data as soon as they are read.

    Raises:
        InputError: data or settings that cannot be used, or a folder of another study, or one in use.
    """
    begin, folder = time.perf_counter(), Path(out)
    with callers_state_left_alone():
        data, split, (train, validation, test) = _read(study, on_read)
        baselines = _baselines(study, train, validation, test, progress)
        with locked_folder(folder):
            plan = _plan(study, train, validation, test, folder, begin, progress)
            groups = None if split.test_groups is None else split.test_groups[:MAX_HELD_OUT]
            plan = replace(plan, data=replace(plan.data, test_groups=groups))
            cells, results = plan.cells, finished(plan, plan.cells)
            run_cells(plan, cells, results, workers=1, progress=progress)
            comparison = conclude(plan, cells, results, baselines)
            if comparison.recommendation is None:
                raise _every_run_failed(next(r.failure for r in results.values() if r.failure), folder)
            seconds = time.perf_counter() - begin
            found = StudyResult(
                study, data, split, test, plan, comparison, comparison.recommendation, baselines, seconds
            )
            _write(found, folder, train)
    return found


def _every_run_failed(first: Failure, folder: Path) -> Exception:
    """What to raise where no run finished: bad input in one line, or a bug with its traceback."""
    said = f"every run failed, so there is nothing to recommend; the first: {first.message}"
    if first.can_be_mended:
        return InputError(said)
    return RuntimeError(f"{said} ({first.kind}); tracebacks are in {folder / 'runs'}\n{first.traceback}")


def _read(
    study: Study, on_read: Callable[[Spectra], object] | None
) -> tuple[Spectra, SpectraSplit, tuple[Tensor, Tensor, Tensor]]:
    """All data, how they are split, and the three parts; pixels that never change are left out of images."""
    data = study.read()
    if on_read is not None:
        on_read(data)
    warn_of_counts(data, study.settings.named_likelihoods)
    split = split_spectra(data, group=study.group, allow_replicates=study.allow_replicates)
    train, validation, test = (part.x for part in split.parts)
    validation, test = validation[:MAX_HELD_OUT], test[:MAX_HELD_OUT]
    if data.unit == PIXEL:  # noise alone would tell the models of such a pixel apart
        kept = (train != train[0]).any(0)
        data = data.of_channels(kept)
        train, validation, test = (part[:, kept] for part in (train, validation, test))
    return data, split, (train, validation, test)


@torch.random.fork_rng(devices=[])
def _baselines(study: Study, train: Tensor, validation: Tensor, test: Tensor, progress: bool) -> list[Baseline]:
    """Linear models of complete data, those with correlated noise among them."""
    likelihoods = study.settings.named_likelihoods
    if study.settings.missing == "mask" or any(make(1, 2).is_count for make in likelihoods.values()):
        return []
    (latent_dim,) = study.settings.latent_dims
    correlated: dict[str, LikelihoodFactory] = {
        name: make for name, make in study.settings.named_likelihoods.items() if make(1, 2).is_correlated
    }
    found = linear_baselines(train, test, latent_dim, correlated, validation=validation, progress=progress)
    return [baseline for baseline in found if baseline.log_prob is not None]


def _plan(
    study: Study, train: Tensor, validation: Tensor, test: Tensor, folder: Path, begin: float, progress: bool
) -> Plan:
    """The plan of a study begun in the folder, or of a new one, which is written there."""
    begun = begun_in(folder)
    if begun is not None:
        check_same(folder, study, begun)
    scaled = {name: at_scale_of_data(make) for name, make in study.settings.named_likelihoods.items()}
    settings = replace(study.settings, likelihoods=scaled)
    plan = plan_of(settings, prepare(train, test, validation, settings), pictures=False, progress=progress)
    if begun is None:
        needed = measure(plan, (cell for cell in plan.cells if cell.seed == settings.seeds[0]))
        left = study.budget - (time.perf_counter() - begin)
        epochs, gap_data = epochs_within(needed, len(settings.seeds), left, settings.training.epochs)
        epochs = study.epochs or epochs
    else:
        epochs, gap_data = (_whole(begun.config, name, folder) for name in ("epochs", "gap_data"))
    training = replace(settings.training, epochs=epochs)
    plan = with_folder(replace(plan, settings=replace(settings, training=training, gap_data=gap_data)), folder / "runs")
    if begun is None:
        config = {"study": study.to_dict(), "epochs": epochs, "gap_data": gap_data, "versions": versions()}
        write_json(folder / "config.json", config)
    return plan


def _whole(config: dict[str, object], name: str, folder: Path) -> int:
    value = config.get(name)
    if not isinstance(value, int) or value < 0:
        raise InputError(f"cannot read {folder / 'config.json'} as a study: its {name} is {value!r}")
    return value


def _write(found: StudyResult, folder: Path, train: Tensor) -> None:
    table = found.table
    write_table(folder / "runs.csv", found.runs)
    write_table(folder / "comparison.csv", table)
    write_text(folder / "comparison.md", f"{markdown_table(as_text(table))}\n\n{said(found)}\n")
    advice = found.recommendation.to_dict() | {"notes": [note.to_dict() for note in found.notes]}
    write_json(folder / "recommendation.json", advice)
    axis, rows = ChannelAxis.of(found.data), TrainingRows.of(train)
    for model in (folder / "runs").glob("*/model.safetensors"):
        axis.write(model.parent)
        rows.write(model.parent)


def said(found: StudyResult) -> str:
    """The recommendation, and one line a note."""
    return "\n".join([found.recommendation.text, "", *(f"- {note.text}" for note in found.notes)])


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """A study's table as text to read, nats per datum: empty where there is nothing to say."""

    def number(column: str, form: str) -> list[str]:
        values = table[column].to_numpy(dtype=float)
        return ["" if value != value else format(value, form) for value in values]

    low, high = number("low", "+.2f"), number("high", "+.2f")
    itself = (table["low"] == 0) & (table["high"] == 0)
    between = [f"{a} … {b}" if a else "" for a, b in zip(low, high, strict=True)]
    columns = {
        "model": table["model"],
        "log p(x)": number("log_prob", ".2f"),
        "gain": pd.Series(number("gain", "+.2f")).mask(itself | table["low"].isna(), ""),
        "between": pd.Series(between).mask(itself, ""),
        "approximation": number("approximation_gap", ".2f"),
        "amortization": number("amortization_gap", ".2f"),
        "active latents": number("active_directions", ".1f"),
        "bad k̂": number("bad_pareto_k", ".0%"),
        "seconds": number("seconds", ".1f"),
        "note": table["note"],
    }
    text = pd.DataFrame(columns)
    return text.loc[:, (text != "").any()]
