"""The page: everything that its template shows."""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from numpy.typing import NDArray

from pyrovae.comparison._measures import ENCODER_DATA
from pyrovae.comparison._words import ESTIMATORS, LINEAR, NOISES, SHAPES, Words, nats, note_of_baseline
from pyrovae.comparison.report import _pictures as pictures
from pyrovae.comparison.report._answer import answer, meaning, of_many, of_one
from pyrovae.comparison.report._candidates import Candidate, candidates_of
from pyrovae.comparison.report._commands import command_of, uses_of
from pyrovae.comparison.report._computed import computed
from pyrovae.comparison.report._forest import forest_of
from pyrovae.comparison.report._notes import said
from pyrovae.comparison.report._worst import Blamed, Worst, alpha_for, are_counted, p_values_of, worst_of
from pyrovae.comparison.study_result import StudyResult, as_text
from pyrovae.errors import visible
from pyrovae.files import versions, write_text
from pyrovae.trained_model import TrainedModel

HEADINGS = {
    "model": "candidate",
    "gain": "gain over the simplest",
    "between": "95 % interval",
    "approximation": "lost by the posterior’s shape",
    "amortization": "lost by the encoder within that shape",
    "active latents": "latent values in use",
    "seconds": "seconds a training",
}
"""Columns of the table in words."""


def write_report(result: StudyResult, folder: str | Path) -> Path:
    """Write ``report.html`` into a study's folder: pictures inline, nothing from elsewhere; return its path.

    Args:
        result: what :func:`~pyrovae.comparison.compare_file.compare_file` returned.
        folder: where it wrote.
    """
    folder = Path(folder)
    environment = Environment(
        loader=PackageLoader("pyrovae.comparison"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda found: visible(found) if isinstance(found, str) and type(found) is str else found,
    )
    environment.filters["options"] = _options_whole
    candidates, advice = candidates_of(result), result.recommendation
    names = {one.key: one.name for one in candidates}
    trained = TrainedModel.load(folder / result.model)
    p_values = p_values_of(result, trained)
    worst = worst_of(result, trained, p_values)
    latent = pictures.latent_spaces(result, trained, worst)
    text = environment.get_template("report.html").render(
        name=result.data.name,
        choice=names[advice.choice],
        verdict=str(advice.verdict),
        answer=answer(result, candidates),
        one=of_one(result),
        many=of_many(result),
        level=f"{100 * advice.level:g} %",
        threshold=f"{advice.threshold:g}",
        num_test=len(result.test),
        num_seeds=advice.num_seeds,
        forest=forest_of(advice, candidates),
        meaning=meaning(result, candidates),
        notes=said(result, names),
        rows=_rows(result, candidates),
        encoder_data=ENCODER_DATA,
        gap_data=result.plan.settings.gap_data,
        are_counted=are_counted(result.data),
        worst=[_about_worst(result, one) for one in worst],
        outliers=_outliers(result, p_values),
        examples=pictures.reconstructions(result, trained, worst),
        latent=latent,
        read=_read(result),
        about_data=_about_data(result),
        glossary=_glossary(candidates),
        computed=computed(result, folder, candidates),
        losses=pictures.losses(result, folder, candidates),
        uses=uses_of(result, folder, has_latents=bool(latent)),
        command=command_of(result.study),
        versions=versions(),
    )
    path = folder / "report.html"
    write_text(path, text)
    return path


def _options_whole(text: str) -> Markup:
    """A text whose console options are not broken at the end of a line."""
    return Markup(re.sub(r"(?<![\w-])(--[a-z][\w-]*)", r'<span class="option">\1</span>', str(escape(visible(text)))))


def _rows(result: StudyResult, candidates: list[Candidate]) -> list[dict[str, str]]:
    """The study's table in words, with each candidate's name in files."""
    table = as_text(result).rename(columns=HEADINGS)
    rows = []
    for row, one in zip(table.to_dict("records"), candidates, strict=True):
        note = note_of_baseline(one.baseline) if one.baseline is not None else str(row.get("note", ""))
        words = {
            str(name): str(found).replace("-", "−") for name, found in row.items() if name not in ("candidate", "note")
        }
        rows.append({"candidate": one.name, **words, "note": note, "name in files": one.key})
    return rows


def _about_worst(result: StudyResult, one: Worst) -> dict[str, str]:
    """A datum that fits badly, in words."""
    blamed = [f"{_range(result, found)} ({found.times:.0f} times the usual misfit)" for found in one.blamed]
    if not blamed:
        largest = one.largest
        blamed = [f"none; the largest misfit is at {_range(result, largest)} ({largest.times:.1f} times the usual)"]
    if one.is_far:
        blamed.append("its latent values lie far from all others’")
    return {
        "name": one.name,
        "log_prob": nats(one.log_prob, 0.2),
        "below": nats(one.below, 0.2),
        "p_value": f"{one.p_value:.2g}",
        "blamed": "; ".join(blamed),
    }


def _outliers(result: StudyResult, p_values: NDArray[np.float64]) -> str:
    """How many test data are outliers, and how many are by chance."""
    num, alpha = len(p_values), alpha_for(result.num_validation)
    if alpha is None:
        return f"With {result.num_validation} validation {of_many(result)}, p-values cannot be small."
    found = int((p_values <= alpha).sum())
    return (
        f"A spectrum with a p-value of at most {alpha:g} is an outlier. {found:,} of the {num:,} are outliers. If all "
        f"were good, about {alpha * num:.0f} would be. The other {len(result.data.x) - num:,} were not tested; "
        "pyrovae outliers tests all (see below)."
    )


def _range(result: StudyResult, found: Blamed) -> str:
    """Channels next to each other, by their positions or names."""
    data, several = result.data, found.first != found.last
    if data.unit in ("channel", "pixel"):
        names, numbers = data.headers, (found.first, found.last)
        ends = [names[i] if names else f"{data.unit} {data.axis[i]:.6g}" for i in numbers]
        return f"{ends[0]} to {ends[1]}" if several else ends[0]
    ends = [f"{position:.6g}" for position in (data.axis[found.first], data.axis[found.last])]
    unit = f" {data.unit}" if data.unit else ""
    return f"{ends[0]} to {ends[1]}{unit}" if several else f"{ends[0]}{unit}"


def _read(result: StudyResult) -> list[str]:
    """What was read, and what was guessed."""
    data = result.data
    if data.reading is not None:
        return data.reading.lines(on_console=True)
    unit = f" {data.unit}" if data.unit else ""
    return [f"simulated {len(data)} spectra × {data.x.shape[1]} channels, {data.axis[0]:g} … {data.axis[-1]:g}{unit}"]


def _about_data(result: StudyResult) -> list[str]:
    """What was kept apart and left out, and the split."""
    split, reading, many, said = result.split, result.data.reading, of_many(result), []
    if reading is not None:
        said += [f"Kept apart, not modelled: {', '.join(reading.kept_apart)}."] if len(reading.kept_apart) > 8 else []
        said += [f"Left out: {', '.join(reading.left_out)}."] if reading.left_out else []
        said += [f"Missing: {reading.num_missing:,} values."] if reading.num_missing else []
        said += [f"Found: {found.message.on_console}." for found in reading.findings if not found.guessed]
    return [
        *said,
        f"{len(split.train):,} {many} to train on, {result.num_validation:,} to choose how long to train, and "
        f"{len(result.test):,} to test on, which no candidate saw before. They were split {split.describe()}.",
    ]


def _glossary(candidates: list[Candidate]) -> list[Words]:
    """The words in the candidates' names."""
    models = [one.model for one in candidates if one.model is not None]
    noises = [model.likelihood for model in models]
    noises += [name for name, words in NOISES.items() if any(words.name in one.name for one in candidates)]
    parts: list[tuple[dict[str, Words], Iterable[str]]] = [
        (NOISES, noises),
        (SHAPES, [model.posterior for model in models]),
        (ESTIMATORS, {model.estimator for model in models} if len({model.estimator for model in models}) > 1 else ()),
    ]
    found = [kind[name] for kind, names in parts for name in dict.fromkeys(names) if name in kind]
    linear = {one.baseline.key.kind for one in candidates if one.baseline is not None}
    return found + [words for kind, words in LINEAR.items() if kind in linear]
