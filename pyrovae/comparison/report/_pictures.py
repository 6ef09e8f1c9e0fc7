"""The content and choice of the report's pictures; their captions are in the page."""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pyrovae import plotting
from pyrovae.comparison.report._candidates import Candidate
from pyrovae.comparison.report._figures import MARKERS, colored_plane, curves_by_epoch, spectrum_with_band
from pyrovae.comparison.report._worst import Worst, latent_means, log_prob_of_choice, names_of_test
from pyrovae.comparison.study_result import StudyResult
from pyrovae.trained_model import TrainedModel

MOST_CLASSES = 8
"""Values of a column that have a colour each."""

_MOST_COLUMNS = 12
_OF_A_SERIES = 3
_MOST_POINTS = 3000


@dataclass(frozen=True)
class Legend:
    """One entry of a legend.

    Attributes:
        name: what it is.
        color: its colour.
        marker: its marker; empty for a line.
        dashes: dashes of the line, as SVG has them.
    """

    name: str
    color: str
    marker: str = ""
    dashes: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture of the report.

    Attributes:
        title: what it shows, short.
        caption: how it is read.
        content: the PNG, in base 64.
        legend: legend of colours, as text of the page.
    """

    title: str
    caption: str
    content: str
    legend: tuple[Legend, ...] = ()


def drawn(title: str, caption: str, draw: Callable[[], Figure], legend: tuple[Legend, ...] = ()) -> list[Picture]:
    """The picture, or none if it cannot be drawn."""
    with plotting.may_fail(f"the picture {title!r} of the report"):
        return [Picture(title, caption, _inline(draw()), legend)]
    return []


def _inline(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200, metadata={"Software": None})
    return base64.b64encode(buffer.getvalue()).decode()


def axis_label(result: StudyResult) -> str:
    """What the axis is, for a picture."""
    unit = result.data.unit
    return {"": "position", "channel": "channel", "pixel": "pixel"}.get(unit, unit)


def reconstructions(result: StudyResult, trained: TrainedModel, worst: list[Worst]) -> list[Picture]:
    """A usual test datum, one of the lower quarter, and those that fit worst, with their reconstructions and bands."""
    order = np.argsort(log_prob_of_choice(result), kind="stable")
    names = names_of_test(result.data, result.test)
    places = {int(order[len(order) // 2]): "fits as usual", int(order[len(order) // 4]): "fits less well"}
    places |= {one.place: f"fits worst ({k})" for k, one in enumerate(worst[:4], 1)}
    chosen = list(places)
    x = result.test[chosen]
    centre = trained.reconstructions(x).drop(columns="row").to_numpy(dtype=float)
    low, high = (end.double().numpy() for end in trained.bands(x))
    axis, label, found = result.data.axis.numpy(), axis_label(result), []
    blamed = {one.place: [(axis[b.first], axis[b.last]) for b in one.blamed] for one in worst}
    for k, place in enumerate(chosen):
        row, band, marked = x[k].double().numpy(), (low[k], high[k]), blamed.get(place, [])
        draw = partial(spectrum_with_band, axis, row, centre[k], band, label, marked)
        found += drawn(names[place], places[place], draw)
    return found


def latent_spaces(result: StudyResult, trained: TrainedModel, worst: list[Worst]) -> list[Picture]:
    """The latent space, once for each column that can colour it; none of a model without one."""
    data = result.data
    if len(data) > _MOST_POINTS:
        data = data.take(torch.linspace(0, len(data) - 1, _MOST_POINTS).long())
    z, of_test = latent_means(data.x, trained), latent_means(result.test, trained)
    if z is None or of_test is None:
        return []
    plane, labels = _plane_of(z)
    marked = {str(k): plane(of_test[one.place]) for k, one in enumerate(worst, 1)}
    points, found = plane(z), []
    for column in [None, *_columns(list(map(str, data.targets.columns)))]:
        colors = None if column is None else _colors(data.targets[column])
        if column is not None and colors is None:
            continue
        values, legend = (None, ()) if colors is None else colors
        title = "no colour" if column is None else str(column)
        caption = "" if column is None else f"coloured by {column}"
        found += drawn(title, caption, partial(colored_plane, points, values, marked, labels, bool(legend)), legend)
    return found[1:] + found[:1]


def _plane_of(z: NDArray[np.float64]) -> tuple[Callable[[NDArray[np.float64]], NDArray[np.float64]], tuple[str, str]]:
    """How latents (…, d) become points (…, 2): as they are, or along their two directions of largest spread."""
    d = z.shape[1]
    if d == 1:
        return lambda z: np.concatenate([z, np.zeros_like(z)], -1), ("latent value", "")
    if d == 2:
        return lambda z: z, ("latent value 1", "latent value 2")
    centre = z.mean(0)
    axes = np.linalg.svd(z - centre, full_matrices=False)[2][:2].T
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), [0, 1]])
    return lambda z: (z - centre) @ axes, (f"main direction of {d} latent values", "second direction")


def _columns(names: list[str]) -> list[str]:
    """Columns to colour by, at most so many; of numbered ones, such as ``pc_1`` to ``pc_20``, the first few."""
    counts: dict[str, int] = {}
    chosen = []
    for name in names:
        stem = name.rstrip("0123456789")
        counts[stem] = counts.get(stem, 0) + 1
        if counts[stem] <= _OF_A_SERIES:
            chosen.append(name)
    return chosen[:_MOST_COLUMNS]


def _colors(column: "pd.Series[str]") -> tuple[NDArray[np.float64], tuple[Legend, ...]] | None:
    """Numbers or classes of a column, and the classes' legend; None where it has as good as a value a datum."""
    numbers = pd.to_numeric(column, errors="coerce")
    is_numeric = numbers.notna().sum() > 0.5 * column.notna().sum()
    if is_numeric and numbers.nunique() > MOST_CLASSES:
        return numbers.to_numpy(dtype=float), ()
    codes, found = pd.factorize(numbers if is_numeric else column.astype("string"), sort=True)
    classes = [f"{value:g}" if is_numeric else str(value) for value in found]
    if not classes or (len(classes) > MOST_CLASSES and len(classes) > 0.5 * len(column)):
        return None
    usual = pd.Series(codes[codes >= 0]).value_counts().index.tolist()[:MOST_CLASSES]
    places = {code: k for k, code in enumerate(sorted(usual))}
    legend = [
        Legend(classes[code], plotting.COLORS[k % len(plotting.COLORS)], MARKERS[k]) for code, k in places.items()
    ]
    if len(classes) > MOST_CLASSES or (codes < 0).any():
        legend.append(Legend("others, or unknown", "#b3b3b3", "o"))
    return np.array([places.get(code, -1) for code in codes], dtype=float), tuple(legend)


def losses(result: StudyResult, folder: Path, candidates: list[Candidate]) -> list[Picture]:
    """Validation losses by epoch, the seeds' mean, of every candidate that was trained."""
    curves: dict[str, NDArray[np.float64]] = {}
    for one in candidates:
        cells = [] if one.model is None else result.models[one.model]
        paths = [folder / "runs" / cell.folder / "history.csv" for cell in cells]
        frames = [pd.read_csv(path) for path in paths if path.is_file() and path.stat().st_size > 2]
        whole = [frame["validation_loss"].to_numpy() for frame in frames if len(frame) == result.epochs]
        if whole:
            curves[one.name] = np.mean(whole, axis=0)
    if not curves or result.epochs < 2:
        return []
    lowest = min((float(np.nanmin(c)) for c in curves.values() if np.isfinite(c).any()), default=0.0)
    legend = tuple(
        Legend(name, plotting.COLORS[k % len(plotting.COLORS)], dashes="6 3" if k >= len(plotting.COLORS) else "")
        for k, name in enumerate(curves)
    )
    return drawn(
        "Training",
        "Loss on the validation data by epoch, the seeds’ mean, in nats above the lowest of all candidates.",
        lambda: curves_by_epoch([curve - lowest for curve in curves.values()], "nats above the lowest"),
        legend,
    )
