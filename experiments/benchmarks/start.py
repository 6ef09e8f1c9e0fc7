"""How long a start takes: ``pyrovae.fit`` and ``pyrovae --help`` against ``import pyro``, processes in turn.

python -m experiments.benchmarks.start
"""

import os
import random
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from experiments import page
from experiments.benchmarks.timing import median_ratio
from experiments.options import Options
from pyrovae.commands import console
from pyrovae.comparison.tables import markdown_table
from pyrovae.files import make_folder, write_table

STARTS = {
    "import pyro": (["-c", "import pyro"], None),
    "pyrovae.fit": (["-c", "import pyrovae; pyrovae.fit"], 1.3),
    "pyrovae --help": (["-m", "pyrovae", "--help"], 1.5),
}
"""What Python is started with, and the largest ratio to the first that is allowed."""


@dataclass(frozen=True)
class Settings(Options):
    """Time how long Python processes take to start."""

    out: Path = Path("runs/benchmark-start")
    """Folder for the table."""

    repeats: int = 15
    """Interleaved starts of each. The median ratio to import pyro is reported."""


def seconds(arguments: list[str]) -> tuple[float, float]:
    """Wall-clock seconds of a process of Python, and the processor's seconds."""
    before, start = os.times(), time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    elapsed, after = time.perf_counter() - start, os.times()
    return elapsed, after.children_user + after.children_system - before.children_user - before.children_system


def measure(repeats: int) -> pd.DataFrame:
    """One row a start; the first round, which fills the disk's cache, does not count."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in STARTS}
    names = list(STARTS)
    for repeat in tqdm(range(repeats + 1), unit="round", disable=None):
        random.Random(repeat).shuffle(names)
        for name in names:
            found = seconds(STARTS[name][0])
            if repeat > 0:
                times[name].append(found)
    rows = []
    of_wall, of_processor = zip(*times["import pyro"], strict=True)
    for name, (_, bar) in STARTS.items():
        wall, processor = zip(*times[name], strict=True)
        rows.append(
            {
                "start": name,
                "seconds": statistics.median(wall),
                "ratio": median_ratio(wall, of_wall),
                "processor's seconds": statistics.median(processor),
                "ratio of these": median_ratio(processor, of_processor),
                "bar": "" if bar is None else f"≤ {bar}",
            }
        )
    return pd.DataFrame(rows)


def main(settings: Settings) -> None:
    """Measure, print and write the table."""
    make_folder(settings.out)
    table = measure(settings.repeats)
    write_table(settings.out / "start.csv", table)
    text = f"Medians of {settings.repeats} interleaved starts and of their ratios.\n\n{markdown_table(table)}"
    page.show("benchmarks.start", "Start", text, {}, settings.publish)
    print(f"results: {settings.out}")


if __name__ == "__main__":
    console.run(main, Settings)
