"""A study's report: one self-contained HTML file."""

import base64
import io
import shlex
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pyrovae import plotting
from pyrovae.comparison.compare_file import StudyResult, as_text
from pyrovae.comparison.study import Study
from pyrovae.elbo import audit
from pyrovae.files import versions, write_text
from pyrovae.io import load
from pyrovae.trained_model import TrainedModel


def write_report(result: StudyResult, folder: str | Path) -> Path:
    """Write ``report.html`` into a study's folder: pictures inline, nothing from elsewhere; return its path.

    Args:
        result: what :func:`~pyrovae.comparison.compare_file.compare_file` returned.
        folder: where it wrote.
    """
    folder = Path(folder)
    study, advice = result.study, result.recommendation
    loader = Environment(loader=PackageLoader("pyrovae.comparison"), autoescape=True, undefined=StrictUndefined)
    text = loader.get_template("report.html").render(
        title=f"Which VAE for {result.data.name}?",
        choice=advice.choice,
        verdict=str(advice.verdict),
        text=advice.text,
        notes=[note.text for note in result.notes],
        data=_about(result),
        rows=as_text(result.table).to_dict("records"),
        gap_data=result.plan.settings.gap_data,
        pictures=_pictures(result, folder),
        audits=_audits(result, folder),
        settings=[(name, _said(value)) for name, value in _settings(result).items()],
        versions=versions().items(),
        command=command_of(study, result.epochs),
        model=folder / result.model,
    )
    path = folder / "report.html"
    write_text(path, text)
    return path


def command_of(study: Study, epochs: int) -> str:
    """The command line that makes a study again: every setting that is not the usual one."""
    given, usual = study.to_dict(), Study(data=None).to_dict()
    parts = ["pyrovae", "compare", "--demo" if study.data is None else str(study.data)]
    for name, value in given.items():
        if value == usual[name] or name in ("data", "epochs"):
            continue
        option = f"--{name.replace('_', '-')}"
        if name == "budget":
            parts += [option, f"{value:g}s"]
        elif name == "seeds":
            parts += [option, str(len(study.settings.seeds))]
        elif name == "latent_dims":
            parts += ["--latent-dim", str(study.settings.latent_dims[0])]
        elif isinstance(value, bool):
            parts.append(option if value else f"--no-{option[2:]}")
        elif value is not None:
            parts += [option, *map(str, value if isinstance(value, list) else [value])]
    return shlex.join([*parts, "--epochs", str(epochs)])


def _settings(result: StudyResult) -> dict[str, object]:
    """Every setting that was used; each run has a seed of its own."""
    plan, study = result.plan.settings, result.study
    used = study.to_dict() | {"epochs": result.epochs, "gap_data": plan.gap_data, "budget": f"{study.budget:g} s"}
    return {name: value for name, value in used.items() if name != "seed" and value is not None and value != []}


def _said(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _about(result: StudyResult) -> list[tuple[str, str]]:
    data, settings = result.data, result.plan.settings
    unit = f" {data.unit}" if data.unit else ""
    start = "from random weights" if result.plan.linear is None else "from the linear models of the same noise"
    seconds, split = result.runs["seconds"].sum(), result.split.describe()
    sizes = [len(result.split.train), result.num_validation, len(result.test)]
    return [
        ("name", data.name),
        ("size", f"{len(data)} data of {data.x.shape[1]} channels, {data.axis[0]:g} to {data.axis[-1]:g}{unit}"),
        ("split", "{:,} for training, {:,} to choose epochs, {:,} for what is reported, {}".format(*sizes, split)),
        ("training", f"{result.epochs} epochs of each of {len(settings.seeds)} seeds, {start}: {seconds:.0f} s in all"),
    ]


def _pictures(result: StudyResult, folder: Path) -> list[dict[str, str]]:
    """The pictures that can be drawn."""
    rows = result.table.dropna(subset=["gain", "low"])  # none of too few data
    draw: dict[str, Callable[[], Figure]] = {
        "Gain in log p(x) over the first model, nats per datum, with its interval.": lambda: _gains(rows),
        "Validation loss (−ELBO) by epoch, the seeds' mean, above the lowest of all.": lambda: _losses(result, folder),
        "Test data, and what the recommended model makes of them.": lambda: _examples(result, folder),
    }
    drawn = []
    for caption, make in list(draw.items())[0 if len(rows) else 1 :]:
        with plotting.may_fail(f"the picture {caption!r} of the report"):
            drawn.append({"caption": caption, "content": _inline(make())})
    return drawn


def _axes(height: float) -> tuple[Figure, Axes]:
    """A picture whose letters are still read on a telephone."""
    fig, axes = plotting.figure(1)
    fig.set_size_inches(5.4, height)
    axes[0, 0].spines[["top", "right"]].set_visible(False)
    return fig, axes[0, 0]


def _gains(table: pd.DataFrame) -> Figure:
    rows = table.iloc[::-1]
    fig, ax = _axes(1 + 0.4 * len(rows))
    places = np.arange(len(rows))
    errors = np.stack([rows["gain"] - rows["low"], rows["high"] - rows["gain"]]).clip(min=0)
    ax.errorbar(rows["gain"], places, xerr=errors, fmt="o", color=plotting.COLORS[0], capsize=3)
    ax.axvline(0, color=plotting.COLORS[6], linewidth=0.8, linestyle="--")
    labels = [plotting.label(name).replace(", ", ",\n", 1) for name in rows["model"]]
    ax.set(xlabel="gain, nats per datum", yticks=places, yticklabels=labels)
    ax.tick_params(axis="y", labelsize=9)
    return fig


def _losses(result: StudyResult, folder: Path) -> Figure:
    fig, ax = _axes(3.6)
    curves: dict[str, NDArray[np.float64]] = {}
    for model, cells in result.models.items():
        paths = [folder / "runs" / cell.folder / "history.csv" for cell in cells]
        frames = [pd.read_csv(path) for path in paths if path.is_file() and path.stat().st_size > 2]
        whole = [frame["validation_loss"].to_numpy() for frame in frames if len(frame) == result.epochs]
        if whole:
            curves[result.names[model]] = np.mean(whole, axis=0)
    lowest = min((curve.min() for curve in curves.values()), default=0.0)
    for (name, curve), color, style in zip(curves.items(), cycle(plotting.COLORS), cycle(("-", "--", ":", "-."))):
        ax.plot(np.arange(1, len(curve) + 1), curve - lowest, style, color=color, label=plotting.label(name))
    ax.set(xlabel="epoch", ylabel="nats above the lowest")
    ax.set_yscale("symlog", linthresh=1.0)
    if curves:
        fig.legend(*ax.get_legend_handles_labels(), loc="outside upper left", fontsize=9, frameon=False)
    return fig


def _examples(result: StudyResult, folder: Path, num: int = 3) -> Figure:
    fig, ax = _axes(3.2)
    x = result.test[:num]
    made = TrainedModel.load(folder / result.model).reconstructions(x).drop(columns="row").to_numpy()
    for i in range(len(x)):
        color = plotting.COLORS[i]
        ax.plot(result.data.axis, x[i], ".", markersize=3, color=color, label="data" if i == 0 else None)
        ax.plot(result.data.axis, made[i], color=color, label="reconstruction" if i == 0 else None)
    ax.set(xlabel=plotting.label(result.data.unit or "channel"))
    ax.legend(loc="upper right", fontsize=9, frameon=False)
    return fig


@torch.random.fork_rng(devices=[])
def _audits(result: StudyResult, folder: Path) -> list[str]:
    lines = []
    for model, name in result.names.items():
        path = result.folder_of(model)
        if path is not None:
            vae = load(folder / path / "model.safetensors")
            torch.manual_seed(0)
            estimator = result.plan.settings.named_estimators[model.estimator]
            found = audit(*vae, estimator, result.plan.data.test[:32])
            lines.append(f"{name}: {found.line}")
    return lines


def _inline(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200, metadata={"Software": None})
    return base64.b64encode(buffer.getvalue()).decode()
