"""Tables of comparisons, as text and on disk, and the pictures of runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pyrovae import plotting
from pyrovae.datasets import SyntheticDataset
from pyrovae.errors import one_line
from pyrovae.files import write_table, write_text
from pyrovae.plotting import write_picture
from pyrovae.randomness import seeded
from pyrovae.training import History
from pyrovae.vae import AmortizedGuide, GenerativeModel

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

CELL_COLUMNS = ["dataset", "posterior", "estimator", "likelihood", "latent_dim", "prior"]
MEASURES = [
    "test_neg_elbo",
    "test_reconstruction",
    "test_kl",
    "test_log_marginal",
    "nats_above_truth",
    "active_directions",
    "seconds",
    "steps_per_second",
]
_WIDTHS, _WIDEST_HEADING = {"model": 32, "note": 24}, 13
"""Characters of a column and of a heading on a terminal."""


def summarize(table: pd.DataFrame) -> pd.DataFrame:
    """One row per cell: mean and standard error over seeds of each measure, and the seeds' notes.

    ``nats_above_truth_stderr`` is the standard error from the test data (the mean over the runs); ``…_stderr_seeds`` is
    that from the seeds, NaN for one seed.
    """
    import pandas as pd

    rows = []
    for key, group in table.groupby(CELL_COLUMNS, sort=False):
        row: dict[str, object] = dict(zip(CELL_COLUMNS, key, strict=True))
        row["seeds"] = len(group)
        for measure in (m for m in MEASURES if m in group):
            row[measure] = group[measure].mean()
            row[f"{measure}_stderr_seeds"] = group[measure].std() / np.sqrt(group[measure].count())
        for name in ("test_neg_elbo_stderr", "test_log_marginal_stderr", "nats_above_truth_stderr"):
            if name in group:
                row[name] = group[name].mean()
        notes = [f"seed {seed}: {note}" for seed, note in zip(group["seed"], group["note"], strict=True) if note]
        row["note"] = "; ".join(notes)
        rows.append(row)
    return pd.DataFrame(rows)


def to_markdown(summary: pd.DataFrame) -> str:
    """The summary as a table to read: nats per datum; ± is one standard error."""
    varying = [c for c in CELL_COLUMNS if c in ("posterior", "estimator") or summary[c].nunique() > 1]
    table = summary[[*varying, "seeds"]].copy()
    for heading, measure in (
        ("test −ELBO", "test_neg_elbo"),
        ("reconstruction", "test_reconstruction"),
        ("KL", "test_kl"),
        ("log p(x)", "test_log_marginal"),
    ):
        table[heading] = summary.get(measure)
    measure = "test_neg_elbo"
    if "nats_above_truth" in summary:
        measure = "nats_above_truth"
        table["nats above truth (± data)"] = [
            f"{_text(mean)} ± {_text(stderr)}" if stderr == stderr else ""
            for mean, stderr in zip(summary[measure], summary[f"{measure}_stderr"], strict=True)
        ]
    table["± seeds"] = summary.get(f"{measure}_stderr_seeds")
    if "active_directions" in summary:
        table["active latents"] = summary["active_directions"]
    table["seconds"] = ["" if seconds != seconds else f"{seconds:.1f}" for seconds in summary["seconds"]]
    if (summary["note"] != "").any():
        table["note"] = [note if len(note) < 100 else f"{note[:97]}…" for note in summary["note"]]
    return markdown_table(table)


def markdown_table(table: pd.DataFrame) -> str:
    """A data frame as an aligned Markdown table, numbers with four significant digits or decimals."""
    text = table.map(_text).map(lambda cell: cell.replace("|", "\\|"))
    return text.to_markdown(index=False, disable_numparse=True)


def terminal_table(table: pd.DataFrame) -> str:
    """A data frame of text for a terminal: long words and notes continue on the next line."""
    return table.to_markdown(
        index=False,
        tablefmt="simple",
        disable_numparse=True,
        maxcolwidths=[_WIDTHS.get(str(column)) for column in table.columns],
        maxheadercolwidths=_WIDEST_HEADING,
        colalign=["left" if column in _WIDTHS else "right" for column in table.columns],
    )


def _text(value: object) -> str:
    if not isinstance(value, float | np.floating):
        return "" if value is None else one_line(value)
    number = float(value)
    if math.isnan(number):
        return ""
    return f"{number:.0f}" if number.is_integer() else f"{number:.4f}" if abs(number) < 10 else f"{number:.4g}"


@torch.no_grad()
def write_run_pictures(
    folder: Path,
    history: History,
    model: GenerativeModel,
    guide: AmortizedGuide,
    test: Tensor,
    truth: SyntheticDataset | None,
) -> None:
    """Write the slides' pictures of a run, drawn with fixed noise."""
    x, floor = test[:4000], truth.entropy if truth is not None else None

    def latent_space() -> Figure:
        angle = torch.atan2(x[:, min(1, x.shape[-1] - 1)], x[:, 0])
        return plotting.latent_space(guide.posterior(x), angle)

    def conditional() -> Figure:
        axis = torch.linspace(-2, 2, 7)
        z = torch.cartesian_prod(axis, axis)
        return plotting.conditional_draws(z, model.conditional(z).sample(torch.Size([20])), x)

    pictures: dict[str, Callable[[], Figure]] = {
        "loss": lambda: plotting.losses([record.loss for record in history.epochs], history.batch_loss, floor),
        "samples": lambda: plotting.scatter_panels({"test data": x, "generated samples": model.sample(len(x))}),
        "reconstructions": lambda: plotting.reconstructions(x, model.conditional(guide.posterior(x).sample()).mean),
        "latent": latent_space,
    }
    if model.latent_dim == 2 and x.shape[-1] >= 2:
        pictures["conditional"] = conditional
    with seeded(0):
        for name, draw in pictures.items():
            write_picture(folder / f"{name}.png", draw)


def write_comparison(folder: Path, table: pd.DataFrame, summary: pd.DataFrame, samples: Mapping[str, Tensor]) -> None:
    """Write ``runs.csv`` (one row per run), ``comparison.csv`` and ``comparison.md`` (one row per cell), and pictures.

    Args:
        folder: where to write.
        table: one row per run.
        summary: one row per cell.
        samples: points (num, n) to show side by side, the test data first, by caption.
    """
    write_table(folder / "runs.csv", table)
    write_table(folder / "comparison.csv", summary)
    text = to_markdown(summary) + "\n"
    write_text(folder / "comparison.md", text)
    measure = "nats_above_truth" if "nats_above_truth" in summary else "test_neg_elbo"
    if summary[measure].notna().any():
        labels = [
            f"{row.posterior}, {row.estimator}" + (f", d = {row.latent_dim}" if table.latent_dim.nunique() > 1 else "")
            for row in summary.itertuples()
        ]
        stderr = np.hypot(summary[f"{measure}_stderr"], summary[f"{measure}_stderr_seeds"].fillna(0))
        meaning, reference = ("test −ELBO, nats per datum", None)
        if measure == "nats_above_truth":
            meaning, reference = "nats above the truth", 0.0
        values = list(summary[measure]), list(stderr)
        write_picture(folder / "comparison.png", lambda: plotting.intervals(labels, *values, meaning, reference))
    write_picture(folder / "samples.png", lambda: plotting.scatter_panels(samples, columns=min(5, len(samples))))
