"""What a study found, as values, as a table and in words."""

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from torch import Tensor

from pyrovae.comparison._conclusion import Comparison
from pyrovae.comparison._linear import folder_of
from pyrovae.comparison._plan import Cell, ModelKey, Plan, models_of, names_of
from pyrovae.comparison._words import NOISES, in_words, name_of_baseline, name_of_linear, name_of_model, spoken
from pyrovae.comparison.notes import Note, NoteKind, notes_of_split
from pyrovae.comparison.recommendation import Recommendation
from pyrovae.comparison.study import Study
from pyrovae.datasets import Spectra, SpectraSplit
from pyrovae.linear_gaussian.baselines import Baseline

MAX_VALIDATION = 2000
"""Largest number of validation data."""


@dataclass(frozen=True, repr=False)
class StudyResult:
    """The outcome of a study.

    Attributes:
        study: what was compared, with the counts from its budget.
        data: all of it.
        split: into training, validation and test data.
        test: the test data, shape (num, n).
        plan: plan of the runs.
        comparison: the runs.
        recommendation: which model to take.
        baselines: linear models of the same data, which are candidates like the VAEs.
        seconds: total time.
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
        """One row per run; see :func:`pyrovae.compare`."""
        return self.comparison.table

    @property
    def models(self) -> dict[ModelKey, list[Cell]]:
        """The runs of each model, the simplest model first."""
        return models_of(self.comparison.cells)

    @property
    def names(self) -> dict[ModelKey, str]:
        """Each model's readable name."""
        return names_of(self.models)

    @property
    def words(self) -> dict[str, str]:
        """Each candidate's name in words, by its name in files, in the order of the table."""
        models = list(self.models)
        linear = {b.name: name_of_baseline(b) for b in self.baselines}
        return linear | {name: name_of_model(model, models) for model, name in self.names.items()}

    def folder_of(self, model: ModelKey) -> Path | None:
        """Folder of a model's first finished run, inside the study's folder; None if all failed."""
        results = self.comparison.results
        return next((Path("runs") / c.folder for c in self.models[model] if results[c].failure is None), None)

    @property
    def model(self) -> Path:
        """Folder of the recommended model (a VAE's first finished seed), inside the study's folder."""
        folders = {name: self.folder_of(key) for key, name in self.names.items()}
        folders |= {baseline.name: folder_of(baseline) for baseline in self.baselines}
        folder = folders[self.recommendation.choice]
        assert folder is not None  # a model of which every run failed is not recommended
        return folder

    @property
    def table(self) -> pd.DataFrame:
        """One row per model, the linear ones first.

        ``log_prob``, its ``gain`` over the simplest model between ``low`` and ``high``, ``lost_by_encoder``,
        ``approximation_gap`` and ``amortization_gap`` of some test data in the first seed's runs,
        ``active_directions``, ``bad_pareto_k``, ``seconds`` a run, ``note``.
        """
        names = self.names
        by_model = self.runs.assign(model=[names[cell.model] for cell in self.comparison.cells]).groupby("model")
        means = by_model.mean(numeric_only=True).rename(columns={"test_log_marginal_unreliable_share": "bad_pareto_k"})
        gaps = ["lost_by_encoder", "approximation_gap", "amortization_gap"]
        own = means.reindex(columns=[*gaps, "active_directions", "bad_pareto_k", "seconds"])
        own["note"] = by_model["note"].agg(lambda notes: "; ".join(dict.fromkeys(note for note in notes if note)))
        table = pd.DataFrame({"model": [*(b.name for b in self.baselines), *names.values()]})
        table = table.merge(self.recommendation.gains, on="model", how="left")
        table = table.merge(own.reset_index(), on="model", how="left")
        notes = {baseline.name: baseline.note for baseline in self.baselines}
        return table.assign(note=table["note"].fillna(table["model"].map(notes)).fillna(""))

    @property
    def notes(self) -> list[Note]:
        """Notes about the runs, the split and what was left out."""
        found = [*self.comparison.notes, *notes_of_split(self.split, self.recommendation, self.num_validation)]
        if self.models and not self.plan.settings.gap_data:
            found.append(Note(NoteKind.GAPS_LEFT_OUT))
        if self.study.linear_only:
            found.append(Note(NoteKind.LINEAR_ONLY, self.study.linear_only))
        if self.study.linear_left_out:
            found.append(Note(NoteKind.LINEAR_LEFT_OUT, self.study.linear_left_out))
        if not self.baselines:
            found.append(Note(NoteKind.NO_LINEAR_MODELS))
        return found

    @property
    def num_validation(self) -> int:
        """Number of validation data used."""
        return min(len(self.split.validation), MAX_VALIDATION)

    @property
    def caution(self) -> str:
        """What makes the numbers doubtful, in a sentence; empty if nothing does."""
        return " ".join(note.text for note in self.notes if note.kind is NoteKind.BAD_WEIGHTS)


def said(found: StudyResult) -> str:
    """The recommendation, and one line a note, in words."""
    texts = [found.recommendation.text, "", *(f"- {in_words_of(note, found.study).text}" for note in found.notes)]
    return spoken("\n".join(texts), found.words)


def in_words_of(note: Note, study: Study) -> Note:
    """A study's note with names of noises or of linear models in words, if these are what it names."""
    if note.kind is NoteKind.LINEAR_ONLY:
        return replace(note, names=tuple(in_words(NOISES, name) for name in note.names))
    if note.kind is NoteKind.LINEAR_LEFT_OUT:
        return replace(note, names=tuple(name_of_linear(study.linear_keys[name]) for name in note.names))
    return note


def as_text(found: StudyResult) -> pd.DataFrame:
    """A study's table as text, in words and nats per datum."""
    table, words = found.table, found.words

    def number(column: str, form: str) -> list[str]:
        values = table[column].to_numpy(dtype=float)
        return ["" if value != value else format(value, form) for value in values]

    low, high = number("low", "+.2f"), number("high", "+.2f")
    itself = (table["low"] == 0) & (table["high"] == 0)
    between = [f"{a} … {b}" if a else "" for a, b in zip(low, high, strict=True)]
    columns = {
        "model": table["model"].map(words),
        "log p(x)": number("log_prob", ".2f"),
        "gain": pd.Series(number("gain", "+.2f")).mask(itself | table["low"].isna(), ""),
        "between": pd.Series(between).mask(itself, ""),
        "lost by the encoder": number("lost_by_encoder", ".2f"),
        "approximation": number("approximation_gap", ".2f"),
        "amortization": number("amortization_gap", ".2f"),
        "active latents": number("active_directions", ".1f"),
        "doubtful scores": [share.replace("%", " %") for share in number("bad_pareto_k", ".0%")],
        "seconds": number("seconds", ".1f"),
        "note": [spoken(note, words) for note in table["note"]],
    }
    text = pd.DataFrame(columns)
    return text.loc[:, (text != "").any()]
