"""Which posterior and which likelihood a file of data asks for: trained within a time, compared, recommended."""

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from pyrovae.atomic import held, write_json, write_text
from pyrovae.comparison import compare
from pyrovae.datasets import Spectra, Standardize, read_spectra, split_randomly
from pyrovae.datasets.spectra import simulated
from pyrovae.elbo import ESTIMATORS
from pyrovae.evaluation import Baseline, Recommendation, linear_baselines, recommend
from pyrovae.likelihoods import LIKELIHOODS
from pyrovae.posteriors import POSTERIORS
from pyrovae.projects import likelihood_of_own_data
from pyrovae.report import markdown_table, versions, write_table
from pyrovae.runs import FAILURES, Cell, Data, Plan, make_pair
from pyrovae.scores import TrainedModel
from pyrovae.training import Settings, Trainer

MAX_EPOCHS = 500
_TRAINING_SHARE = 0.6
"""Of a time budget: the rest is for evaluation, and for steps that take longer than those that were timed."""

_SHARE_OF_BAD = 0.1


@dataclass(frozen=True)
class Study:
    """What is compared on a file of data: posteriors, likelihoods and estimators by their names.

    Attributes:
        data: the file; None for simulated spectra.
        epochs: passes over the training data; None to make the most of the budget.
        budget: seconds for everything.
        threshold: nats per datum below which there is no difference.
    """

    data: Path | None
    posteriors: tuple[str, ...] = ("diagonal", "full-covariance")
    likelihoods: tuple[str, ...] = ("gaussian", "ar1")
    estimators: tuple[str, ...] = ("analytic",)
    latent_dim: int = 2
    seeds: int = 3
    epochs: int | None = None
    budget: float = 600.0
    batch_size: int = 32
    learning_rate: float = 8e-3
    hidden: tuple[int, ...] = (64, 64)
    samples: int = 200
    threshold: float = 0.1
    channels: str | None = None

    def __post_init__(self) -> None:
        for option, names, choices in (
            ("posteriors", self.posteriors, POSTERIORS),
            ("likelihoods", self.likelihoods, LIKELIHOODS),
            ("estimators", self.estimators, ESTIMATORS),
        ):
            unknown = [name for name in names if name not in choices]
            if unknown or not names:
                what = f"unknown {unknown[0]!r}" if unknown else "none given"
                raise ValueError(f"{option}: {what}; choose from {', '.join(choices)}")
        if self.seeds < 2:
            raise ValueError(f"seeds must be at least 2, not {self.seeds}: one shows no spread to judge a gain by")
        if not self.budget > 0:
            raise ValueError(f"the budget must be a positive time, not {self.budget!r}")
        Settings(1 if self.epochs is None else self.epochs, self.batch_size, self.learning_rate)

    def read(self) -> Spectra:
        """The data."""
        return simulated(400, 60) if self.data is None else read_spectra(self.data, self.channels)


@dataclass(frozen=True, repr=False)
class StudyResult:
    """What a study found.

    Attributes:
        study: what was compared.
        epochs: passes over the training data of each run.
        data: all of it.
        test: the part that log p(x) is of, shape (num, n).
        runs: one row a run, see :func:`pyrovae.compare`.
        table: one row a model and linear baseline: ``log_prob``, its ``gain`` over the simplest model between ``low``
            and ``high``, ``active_directions``, ``bad_pareto_k``, ``seconds`` a run, ``note``.
        recommendation: what to take.
        seconds: of everything.
    """

    study: Study
    epochs: int
    data: Spectra
    test: Tensor
    runs: pd.DataFrame
    table: pd.DataFrame
    recommendation: Recommendation
    seconds: float

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
        ValueError: data or settings that cannot be used, or a folder of another study, or one in use.
    """
    start = time.perf_counter()
    spectra = study.read()
    train, validation, test = (spectra.take(part).x for part in split_randomly(len(spectra)))
    baselines = [b for b in linear_baselines(train, test, study.latent_dim) if b.log_prob is not None]
    folder = Path(out)
    with held(folder):
        epochs = _epochs(study, train, validation, folder)
        seeds = tuple(range(0, 2 * study.seeds, 2))  # not one after the other: such would train in one program
        runs = compare(
            train,
            validation=validation,
            test=test,
            preprocessing=Standardize("mean"),
            posteriors={name: POSTERIORS[name] for name in study.posteriors},
            estimators={name: ESTIMATORS[name]() for name in study.estimators},
            likelihoods={name: likelihood_of_own_data(name) for name in study.likelihoods},
            latent_dims=(study.latent_dim,),
            seeds=seeds,
            epochs=epochs,
            batch_size=study.batch_size,
            learning_rate=study.learning_rate,
            hidden=study.hidden,
            log_marginal_samples=1,
            out=folder / "runs",
            pictures=False,
            resume=True,
            progress=progress,
        )
        log_prob, bad = _evaluate(study, runs, test, folder / "runs", progress)
        advice = recommend(
            log_prob,
            baselines={b.name: b.log_prob for b in baselines if b.log_prob is not None},
            threshold=study.threshold,
        )
        table = _tabulate(study, runs, advice, bad, baselines)
        write_table(folder / "runs.csv", runs)
        write_table(folder / "comparison.csv", table)
        write_text(folder / "comparison.md", f"{markdown_table(table)}\n\n{advice.text}\n")
    return StudyResult(study, epochs, spectra, test, runs, table, advice, time.perf_counter() - start)


def _epochs(study: Study, train: Tensor, validation: Tensor, folder: Path) -> int:
    """The epochs of a study that was begun in the folder, or of a new one, which is written there."""
    settings = {**asdict(study), "data": None if study.data is None else str(study.data.resolve())}
    settings = {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
    begun = read_config(folder)
    if begun is not None:
        for name, value in settings.items():
            if begun["study"].get(name) != value:
                raise ValueError(
                    f"{folder} holds a study with {name} {begun['study'].get(name)}, not {value}; give another folder"
                )
        return int(begun["epochs"])
    epochs = study.epochs
    if epochs is None:
        wanted = _TRAINING_SHARE * study.budget / (study.seeds * _seconds_per_epoch(study, train, validation))
        epochs = max(1, min(MAX_EPOCHS, int(wanted)))
    write_json(folder / "config.json", {"study": settings, "epochs": epochs, "versions": versions()})
    return epochs


def read_config(folder: Path) -> dict[str, Any] | None:
    """What a study was begun with; None where none was.

    Raises:
        ValueError: the file is damaged.
    """
    path = folder / "config.json"
    if not path.exists():
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config["study"], dict) or not int(config["epochs"]) > 0:
            raise ValueError("it holds no study")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"cannot read {path} as a study: {' '.join(str(error).split())}") from None
    return config


def load_study(folder: str | Path) -> Study:
    """The study that a folder was begun with.

    Raises:
        ValueError: it holds none.
    """
    config = read_config(Path(folder))
    if config is None:
        raise ValueError(f"{folder} holds no study to go on with; give what pyrovae compare wrote")
    settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config["study"].items()}
    try:
        data = settings.pop("data")
        return Study(data=None if data is None else Path(data), **settings)
    except (KeyError, TypeError) as error:
        raise ValueError(f"cannot read the study in {folder}: {error}") from None


def cells_of(study: Study, seed: int = 0) -> list[Cell]:
    """One cell a model, the simplest first, in the order that they are given in."""
    return [
        Cell(posterior, estimator, likelihood, study.latent_dim, seed)
        for likelihood in study.likelihoods
        for posterior in study.posteriors
        for estimator in study.estimators
    ]


def name_of(study: Study, cell: Cell) -> str:
    """What a cell is called in tables."""
    estimator = f", {cell.estimator}" if len(study.estimators) > 1 else ""
    return f"{cell.posterior} posterior, {cell.likelihood} likelihood{estimator}"


def _seconds_per_epoch(study: Study, train: Tensor, validation: Tensor) -> float:
    """What one epoch takes, for one run of every model."""
    step = Standardize("mean").fit(train)
    y, transformed = step.transform(train), step.transform(validation)
    plan = Plan(
        data=Data("data", y, y),
        posteriors={name: POSTERIORS[name] for name in study.posteriors},
        estimators={name: ESTIMATORS[name]() for name in study.estimators},
        likelihoods={name: likelihood_of_own_data(name) for name in study.likelihoods},
        epochs=dict.fromkeys(study.estimators, 1),
        batch_size=study.batch_size,
        learning_rate=study.learning_rate,
        schedule="cosine",
        hidden=study.hidden,
        log_marginal_samples=1,
        engine="eager",
        out=None,
    )
    total = 0.0
    for cell in cells_of(study):
        with suppress(*FAILURES):  # its run will say so
            trainer = Trainer(
                [make_pair(plan, cell)],
                y,
                plan.estimators[cell.estimator],
                Settings(3, study.batch_size),
                validation=transformed,
                engine="eager",
                progress=False,
            )
            trainer.run(max_steps=trainer.steps_per_epoch)
            begin = time.perf_counter()
            trainer.run()
            total += (time.perf_counter() - begin) / 2
    return total


def _evaluate(
    study: Study, runs: pd.DataFrame, test: Tensor, folder: Path, progress: bool
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Log p(x) of each model, shape (seeds, num), NaN of runs that failed, and its share of bad k̂."""
    log_prob: dict[str, Tensor] = {}
    bad: dict[str, float] = {}
    seeds = sorted(runs["seed"].unique())
    failed = set(runs[runs["note"].str.startswith("failed")].index)
    rows = {(r.posterior, r.estimator, r.likelihood, r.seed): r.Index for r in runs.itertuples()}
    bar = tqdm(total=len(runs), desc="log p(x) of the test data", unit="run", disable=None if progress else True)
    with bar:
        for cell in cells_of(study):
            found, shares = [], []
            for seed in seeds:
                bar.update()
                if rows[cell.posterior, cell.estimator, cell.likelihood, seed] in failed:
                    found.append(torch.full((len(test),), torch.nan, dtype=torch.float64))
                    continue
                name = Cell(cell.posterior, cell.estimator, cell.likelihood, cell.latent_dim, int(seed)).folder
                scores = TrainedModel.load(folder / name).scores(test, num_samples=study.samples, seed=int(seed))
                found.append(torch.as_tensor(scores["log_prob"].to_numpy(copy=True)))
                shares.append(1 - scores["reliable"].mean())
            log_prob[name_of(study, cell)] = torch.stack(found)
            bad[name_of(study, cell)] = float(np.mean(shares)) if shares else float("nan")
    return log_prob, bad


def _tabulate(
    study: Study, runs: pd.DataFrame, advice: Recommendation, bad: dict[str, float], baselines: Sequence[Baseline]
) -> pd.DataFrame:
    names = {(c.posterior, c.estimator, c.likelihood): name_of(study, c) for c in cells_of(study)}
    keys = [names[key] for key in zip(runs["posterior"], runs["estimator"], runs["likelihood"], strict=True)]
    by_model = runs.assign(model=keys).groupby("model")
    own = by_model[["active_directions", "seconds"]].mean()
    own["bad_pareto_k"] = pd.Series(bad)
    own["note"] = by_model["note"].agg(lambda notes: "; ".join(dict.fromkeys(note for note in notes if note)))
    table = pd.DataFrame({"model": [*names.values(), *(b.name for b in baselines)]})
    table = table.merge(advice.gains, on="model", how="left").merge(own.reset_index(), on="model", how="left")
    return table.assign(note=table["note"].fillna(""))
