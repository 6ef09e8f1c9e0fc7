"""What a posterior family is worth: exact gaps, log p(x) by every method, the three inference gaps, failures.

python -m experiments.truth
"""

import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure

from experiments import page
from experiments.truth import failures, gaps, linear, synthetic
from experiments.truth.settings import Settings
from pyrovae.commands import console
from pyrovae.files import write_table
from pyrovae.plotting import write_figure


def run_linear(settings: Settings, out: Path) -> tuple[pd.DataFrame, str, Figure]:
    """Part (a)."""
    rows = linear.study(settings)
    text = "".join(f"**{title}**\n\n{table}\n\n" for title, table in linear.tables(rows))
    return linear.to_frame(rows), text + linear.reading(rows), linear.picture(rows)


def run_synthetic(settings: Settings, out: Path) -> tuple[pd.DataFrame, str, Figure]:
    """Part (b)."""
    rows = synthetic.study(settings, out / "synthetic")
    text = "".join(f"**{title}**\n\n{table}\n\n" for title, table in synthetic.tables(rows))
    return rows, text + synthetic.reading(rows), synthetic.picture(rows)


def run_gaps(settings: Settings, out: Path) -> tuple[pd.DataFrame, str, Figure]:
    """Part (c)."""
    rows = gaps.study(settings)
    return rows, f"{gaps.tables(rows)}\n\n{gaps.reading(rows)}", gaps.picture(rows)


def run_failures(settings: Settings, out: Path) -> tuple[pd.DataFrame, str, Figure]:
    """Part (d)."""
    runs = failures.study(settings)
    return runs, f"{failures.tables(runs)}\n\n{failures.reading(runs)}", failures.picture(runs)


Part = Callable[[Settings, Path], tuple[pd.DataFrame, str, Figure]]
RUNS: dict[str, tuple[str, Part]] = {
    "linear": ("Linear-Gaussian data, nats above the truth", run_linear),
    "synthetic": ("The synthetic sets, split", run_synthetic),
    "gaps": ("The three inference gaps", run_gaps),
    "failures": ("How often training fails", run_failures),
}


def main(settings: Settings) -> None:
    """Run the parts; print their tables, write them and the pictures."""
    out = page.run_folder(settings.out, "truth")
    torch.set_num_threads(1)
    for name in settings.parts:
        title, run = RUNS[name]
        start = time.perf_counter()
        table, text, picture = run(settings, out)
        write_table(out / f"{name}.csv", table)
        text += f"\n\n{page.took(start, settings.workers)}"
        page.show("truth", title, text, {title: write_figure(out / f"{name}.png", picture)}, settings.publish)
    print(f"results: {out}")


if __name__ == "__main__":
    console.run(main, Settings)
