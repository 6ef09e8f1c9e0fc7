"""What a posterior family is worth: exact gaps, log p(x) by every method, the three inference gaps, failures.

python -m experiments.truth
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure

from experiments import page
from experiments.truth import failures, gaps, linear, synthetic
from experiments.truth.settings import Settings
from pyrovae.commands import console
from pyrovae.comparison.tables import write_figure
from pyrovae.errors import InputError
from pyrovae.files import make_folder, write_table

tell = partial(page.tell, "truth")


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
PARTS: dict[str, tuple[str, Part]] = {
    "linear": ("Linear-Gaussian data, nats above the truth", run_linear),
    "synthetic": ("The synthetic sets, split", run_synthetic),
    "gaps": ("The three inference gaps", run_gaps),
    "failures": ("How often training fails", run_failures),
}


def main(settings: Settings) -> None:
    """Run the parts; print their tables, write them and the pictures."""
    parts = console.pick("--parts", settings.parts, PARTS)
    for option in ("steps", "seeds", "epochs", "num_data", "num_test", "refit_steps", "workers"):
        if getattr(settings, option) < 1:
            raise InputError(f"--{option.replace('_', '-')} must be at least 1, not {getattr(settings, option)}")
    if not settings.dims or min(settings.dims) < 1:
        raise InputError(f"--dims must be positive, not {settings.dims}")
    out = page.new_folder(settings.out, "truth")
    make_folder(out)
    torch.set_num_threads(1)
    for name, (title, run) in parts.items():
        start = time.perf_counter()
        table, text, picture = run(settings, out)
        write_table(out / f"{name}.csv", table)
        write_figure(out / f"{name}.png", picture)
        text += f"\n\nThis part took {(time.perf_counter() - start) / 60:.1f} minutes on {settings.workers} worker(s)."
        tell(title, text, {title: out / f"{name}.png"}, settings.publish)
    print(f"results: {out}")


if __name__ == "__main__":
    console.run(main, Settings)
