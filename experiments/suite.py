"""All five synthetic sets at the slides' sizes: posterior families × ELBO estimators × seeds, and one report.

python -m experiments.suite
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

import pyrovae as pv
from experiments import page
from experiments.options import SyntheticOptions, choice
from experiments.pictures import grouped_intervals
from pyrovae.commands import console
from pyrovae.comparison.tables import markdown_table
from pyrovae.datasets import SYNTHETIC
from pyrovae.files import write_table, write_text
from pyrovae.plotting import write_figure
from pyrovae.progress import progress_bar


@dataclass(frozen=True)
class Settings(SyntheticOptions):
    """Train posterior families × ELBO estimators on all synthetic sets; --out FOLDER resumes an interrupted run."""

    datasets: tuple[str, ...] = choice(tuple(SYNTHETIC), SYNTHETIC)
    """isotropic-gaussian, rotated-gaussian, figure-eight, three-blobs and mixture."""
    out: Path | None = None
    """Folder for the results, new or of an interrupted run to resume; by default a new one under runs/."""


def spread(summary: pd.DataFrame) -> pd.Series:
    """Standard error of the nats above the truth: the test data's, with the seeds' where there are several."""
    seeds = summary["nats_above_truth_stderr_seeds"].fillna(0)
    return pd.Series(np.hypot(summary["nats_above_truth_stderr"], seeds), index=summary.index)


def report(summary: pd.DataFrame) -> str:
    """Nats above the truth, one row a set and one column a cell."""
    summary = summary.assign(
        cell=summary["posterior"] + ", " + summary["estimator"],
        text=[
            f"{mean:.4f} ± {stderr:.4f}" + ("\\*" if note else "")
            for mean, stderr, note in zip(summary["nats_above_truth"], spread(summary), summary["note"], strict=True)
        ],
    )
    table = summary.pivot(index="dataset", columns="cell", values="text")
    table = table.loc[summary["dataset"].unique(), summary["cell"].unique()]
    table.insert(0, "steps", summary.groupby("dataset")["steps"].max().astype(int).map("{:,}".format))
    return markdown_table(table.reset_index())


def over_seeds(table: pd.DataFrame) -> str:
    """Median and range over the seeds, and how often a run of a family beats one of the first family."""
    rows = []
    for (dataset, estimator), runs in table.groupby(["dataset", "estimator"], sort=False):
        values = {
            str(name): group["nats_above_truth"].to_numpy() for name, group in runs.groupby("posterior", sort=False)
        }
        first = next(iter(values))
        for name, nats in values.items():
            wins = (
                ""
                if name == first
                else f"{int((nats[:, None] < values[first]).sum())} of {nats.size * values[first].size}"
            )
            row = {"dataset": dataset, "posterior": name, "estimator": estimator, "seeds": len(nats)}
            row |= {"median": f"{np.median(nats):.4f}", "smallest": f"{nats.min():.4f}", "largest": f"{nats.max():.4f}"}
            rows.append(row | {f"pairs of runs in which it is nearer the truth than {first}": wins})
    return markdown_table(pd.DataFrame(rows))


def picture(summary: pd.DataFrame, path: Path) -> None:
    """Nats above the truth with intervals, a panel a set."""
    summary = summary.assign(spread=spread(summary))
    panels = {
        str(dataset): {
            str(name): (list(cells["nats_above_truth"]), list(cells["spread"]))
            for name, cells in group.groupby("estimator", sort=False)
        }
        for dataset, group in summary.groupby("dataset", sort=False)
    }
    write_figure(path, grouped_intervals(list(summary["posterior"].unique()), panels, "nats above the truth"))


def main(settings: Settings) -> None:
    """Run what is missing, then write the report."""
    out = page.run_folder(settings.out, "suite", resumable=True)
    start = time.perf_counter()
    sets = progress_bar(settings.datasets, desc="sets")
    tables = [settings.compare(SYNTHETIC[name], out / name, resume=True) for name in sets]
    table = pd.concat(tables, ignore_index=True)
    summary = pv.summarize(table).merge(table.groupby("dataset", sort=False)["steps"].max(), on="dataset")
    write_table(out / "runs.csv", table)
    write_table(out / "suite.csv", summary)
    text = f"Nats above the truth on the test data, mean over {settings.seeds} seed(s) ± one standard error"
    text += " (paired: of log p(x) − ELBO(x), with the seeds' where there are several).\n\n" + report(summary)
    if settings.seeds > 1:
        text += "\n\nThe same over the seeds, in nats above the truth:\n\n" + over_seeds(table)
    for _, row in summary[summary["note"] != ""].iterrows():
        text += f"\n\n\\* {row['dataset']}, {row['posterior']}, {row['estimator']}: {row['note']}"
    minutes = (time.perf_counter() - start) / 60
    trained = table["seconds"].sum() / 60
    place = f"{settings.workers} worker(s) of one thread each" if settings.scheduler is None else "a Dask cluster"
    text += f"\n\nTraining took {trained:.1f} minutes in all, on {place}"
    text += f"; this command took {minutes:.1f} minutes, with compilation, evaluation and pictures.\n"
    write_text(out / "suite.md", text)
    picture(summary, out / "suite.png")
    print(text)
    if settings.publish:
        section = f"{settings.schedule} rate" + (f", {settings.seeds} seeds" if settings.seeds > 1 else "")
        page.publish("suite", section, text, {"nats above the truth": out / "suite.png"})
    print(f"results: {out}")


if __name__ == "__main__":
    console.run(main, Settings)
