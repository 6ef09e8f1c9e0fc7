"""Which posterior and which likelihood a file of data asks for: trained within a time, compared, recommended."""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from pyrovae.comparison._advice import models_of
from pyrovae.comparison._budget import Needs, measure
from pyrovae.comparison._study import Study, cells_of, read_config
from pyrovae.comparison.compare import compare
from pyrovae.comparison.recommendation import Recommendation
from pyrovae.comparison.tables import markdown_table
from pyrovae.datasets import Spectra, Standardize, split_spectra
from pyrovae.datasets.readers.data import PIXEL
from pyrovae.errors import InputError
from pyrovae.files import locked_folder, versions, write_json, write_table, write_text
from pyrovae.linear_gaussian.baselines import Baseline, linear_baselines

MAX_EPOCHS = 500
MAX_HELD_OUT = 2000
"""Validation and test data that are looked at, at most."""

GAP_DATA = 32
"""Test data whose log p(x) − ELBO is split."""

_TRAINING_SHARE = 0.65
"""Of the time that is left for it: the rest is for steps that take longer than those that were timed."""

_SHARE_FOR_GAPS = 0.2
_SHARE_OF_BAD = 0.1


@dataclass(frozen=True, repr=False)
class StudyResult:
    """What a study found.

    Attributes:
        study: what was compared.
        epochs: passes over the training data of each run.
        data: all of it.
        test: the part that log p(x) is of, shape (num, n).
        split: how the data were split, in words.
        runs: one row a run, see :func:`pyrovae.compare`.
        table: one row a model and linear baseline: ``log_prob``, its ``gain`` over the simplest model between ``low``
            and ``high``, ``approximation_gap`` and ``amortization_gap`` of some test data in the first seed's runs,
            ``active_directions``, ``bad_pareto_k``, ``seconds`` a run, ``note``.
        recommendation: what to take.
        left_out: what was not done, and what to know of the split, in sentences.
        seconds: of everything.
    """

    study: Study
    epochs: int
    data: Spectra
    test: Tensor
    split: str
    runs: pd.DataFrame
    table: pd.DataFrame
    recommendation: Recommendation
    left_out: str
    seconds: float

    @property
    def model(self) -> Path:
        """Folder of the recommended model, of its first seed that did not fail, in the study's own."""
        (cell,) = models_of(cells_of(self.study))[self.recommendation.choice]
        own = self.runs[["posterior", "estimator", "likelihood"]] == [cell.posterior, cell.estimator, cell.likelihood]
        good = own.all(axis=1) & ~self.runs["note"].str.startswith("failed")
        return Path("runs") / dataclasses.replace(cell, seed=int(self.runs.loc[good, "seed"].iloc[0])).folder

    @property
    def caution(self) -> str:
        """What makes the numbers doubtful, in a sentence; empty where nothing does."""
        worst = self.table.set_index("model")["bad_pareto_k"].dropna()
        if worst.empty or worst.max() <= _SHARE_OF_BAD:
            return ""
        return (
            f"Importance weights cannot be trusted for up to {worst.max():.0%} of the test data ({worst.idxmax()}): "
            "their log p(x) may be higher than it says; train longer, or take more samples."
        )


def compare_file(study: Study, out: str | Path, *, progress: bool = True) -> StudyResult:
    """Train every posterior × likelihood × estimator over the same seeds on 70 % of the data, and recommend one.

    The number of epochs is fixed first: what a step of each model takes is measured, and the budget divided. It is
    written to ``config.json``, so that the same call goes on with an interrupted study; runs that came to their end
    are taken over. The validation data, 15 %, choose each run's best epoch; log p(x) of the other 15 % is what is
    compared, in the original units. Also writes ``runs/``, ``runs.csv``, ``comparison.csv`` and ``comparison.md``.

    Args:
        study: what to compare.
        out: folder for the results.
        progress: whether to show progress bars (on a terminal).

    Raises:
        InputError: data or settings that cannot be used, or a folder of another study, or one in use.
    """
    begin = time.perf_counter()
    spectra = study.read()
    split = split_spectra(spectra, group=study.group)
    train, validation, test = (part.x for part in split.parts)
    validation, test = validation[:MAX_HELD_OUT], test[:MAX_HELD_OUT]
    if spectra.unit == PIXEL:  # one that never changes would tell the models apart by nothing but its noise
        kept = (train != train[0]).any(0)
        spectra = dataclasses.replace(spectra, x=spectra.x[:, kept], axis=spectra.axis[kept])
        train, validation, test = (part[:, kept] for part in (train, validation, test))
    baselines: list[Baseline] = []
    if study.missing == "error":
        found = linear_baselines(
            train, test, study.latent_dim, study.correlated_noise, validation=validation, progress=progress
        )
        baselines = [baseline for baseline in found if baseline.log_prob is not None]
    folder = Path(out)
    with locked_folder(folder):
        parts = {**study.parts, "start": study.start, "preprocessing": Standardize("mean")}
        epochs, gap_data = _plan(study, parts, (train, validation, test), folder, time.perf_counter() - begin)
        runs = compare(
            train,
            validation=validation,
            test=test,
            **parts,
            latent_dims=(study.latent_dim,),
            seeds=tuple(range(0, 2 * study.seeds, 2)),  # not one after the other: such would train in one program
            epochs=epochs,
            missing=study.missing,
            log_marginal_samples=study.samples,
            gap_data=gap_data,
            baselines=baselines,
            threshold=study.threshold,
            out=folder / "runs",
            pictures=False,
            resume=True,
            progress=progress,
        )
        if "recommendation" not in runs.attrs:
            raise InputError(f"every run failed, so there is nothing to recommend; the first: {runs['note'].iloc[0]}")
        found = runs.attrs["recommendation"]
        advice = Recommendation(**{**found, "gains": pd.DataFrame(found["gains"])})
        table = _tabulate(study, runs, advice, baselines)
        write_table(folder / "runs.csv", runs)
        write_table(folder / "comparison.csv", table)
        write_text(folder / "comparison.md", f"{markdown_table(shown(table))}\n\n{advice.text}\n")
    left_out = [
        "The split of log p(x) − ELBO was left out: the budget is too short for it." if not gap_data else "",
        "There are no linear baselines of data with missing values." if not baselines else "",
    ]
    seconds = time.perf_counter() - begin
    left_out += [f"{note[0].upper()}{note[1:]}." for note in split.notes()]
    said = " ".join(filter(None, left_out))
    return StudyResult(study, epochs, spectra, test, split.describe(), runs, table, advice, said, seconds)


def shown(table: pd.DataFrame) -> pd.DataFrame:
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
        "gain": pd.Series(number("gain", "+.2f")).mask(itself, ""),
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


def _plan(
    study: Study, parts: dict[str, Any], data: tuple[Tensor, Tensor, Tensor], folder: Path, spent: float
) -> tuple[int, int]:
    """Epochs, and number of data whose gap is split: of a study begun in the folder, or of a new one, written there."""
    settings = {**asdict(study), "data": None if study.data is None else str(study.data.resolve())}
    settings = {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
    begun = read_config(folder)
    if begun is not None:
        for name, value in settings.items():
            if begun["study"].get(name) != value:
                raise InputError(
                    f"{folder} holds a study with {name} {begun['study'].get(name)}, not {value}; give another folder"
                )
        return int(begun["epochs"]), int(begun["gap_data"])
    needs = measure(parts, *data, study.latent_dim, study.samples, missing=study.missing == "mask")
    epochs, gap_data = within(study, needs, study.budget - spent)
    write_json(
        folder / "config.json", {"study": settings, "epochs": epochs, "gap_data": gap_data, "versions": versions()}
    )
    return epochs, gap_data


def within(study: Study, needs: Needs, seconds: float) -> tuple[int, int]:
    """Epochs of each run, and number of test data whose gap is split, that these seconds allow."""
    gaps = needs.gap * GAP_DATA
    gap_data = GAP_DATA if gaps < _SHARE_FOR_GAPS * seconds else 0
    left = seconds - study.seeds * needs.evaluation - (gaps if gap_data else 0.0)
    epochs = int(_TRAINING_SHARE * left / (study.seeds * needs.epoch))
    return study.epochs or max(1, min(MAX_EPOCHS, epochs)), gap_data


def _tabulate(study: Study, runs: pd.DataFrame, advice: Recommendation, baselines: Sequence[Baseline]) -> pd.DataFrame:
    models = models_of(cells_of(study))
    names = {(cell.posterior, cell.estimator, cell.likelihood): name for name, (cell,) in models.items()}
    keys = [names[key] for key in zip(runs["posterior"], runs["estimator"], runs["likelihood"], strict=True)]
    by_model = runs.assign(model=keys).groupby("model")
    measures = ["approximation_gap", "amortization_gap", "active_directions", "bad_pareto_k", "seconds"]
    means = by_model.mean(numeric_only=True).rename(columns={"test_log_marginal_unreliable_share": "bad_pareto_k"})
    own = means.reindex(columns=measures)
    own["note"] = by_model["note"].agg(lambda notes: "; ".join(dict.fromkeys(note for note in notes if note)))
    table = pd.DataFrame({"model": [*models, *(b.name for b in baselines)]})
    table = table.merge(advice.gains, on="model", how="left").merge(own.reset_index(), on="model", how="left")
    chosen = {baseline.name: baseline.note for baseline in baselines}
    return table.assign(note=table["note"].fillna(table["model"].map(chosen)).fillna(""))
