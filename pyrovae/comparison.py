"""Comparing posterior families, estimators and likelihoods on one set of data: many runs, one table."""

import itertools
import math
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pyro.infer import ELBO
from torch import Tensor
from tqdm.auto import tqdm

from pyrovae.datasets import SyntheticDataset
from pyrovae.evaluation import active_directions, elbo_terms
from pyrovae.io import describe, make_folder
from pyrovae.likelihoods import GaussianLikelihood, Likelihood
from pyrovae.nn import MLP
from pyrovae.posteriors import Posterior
from pyrovae.report import summarize, write_comparison, write_run
from pyrovae.training import EpochRecord, History, as_schedule, check_learning_rate, fit
from pyrovae.vae import AmortizedGuide, GenerativeModel

PosteriorFactory = Callable[[int, int], Posterior]
LikelihoodFactory = Callable[[int, int], Likelihood]


_ESTIMATOR_SETTINGS = ("beta", "num_particles", "vectorize_particles")


@dataclass(frozen=True)
class Data:
    """Training and test data (num, n), with their distribution where it is known."""

    name: str
    train: Tensor
    test: Tensor
    truth: SyntheticDataset | None = None


@dataclass(frozen=True)
class Cell:
    """One run of a comparison, by the names of its parts."""

    posterior: str
    estimator: str
    likelihood: str
    latent_dim: int
    seed: int

    @property
    def folder(self) -> str:
        """Name of the run's folder."""
        return f"{self.posterior}-{self.estimator}-{self.likelihood}-d{self.latent_dim}-seed{self.seed}"


@dataclass(frozen=True)
class Plan:
    """Everything that the runs of a comparison share."""

    data: Data
    posteriors: Mapping[str, PosteriorFactory]
    estimators: Mapping[str, ELBO]
    likelihoods: Mapping[str, LikelihoodFactory]
    epochs: int
    batch_size: int
    learning_rate: float
    schedule: str
    hidden: tuple[int, ...]
    out: Path | None

    def settings(self, cell: Cell) -> dict[str, Any]:
        """What a run depends on, as plain values."""
        shared = {k: getattr(self, k) for k in ("epochs", "batch_size", "learning_rate", "schedule", "hidden")}
        sizes = {"num_train": len(self.data.train), "num_test": len(self.data.test)}
        return {"dataset": self.data.name, **asdict(cell), **shared, **sizes}


@dataclass
class _Progress:
    """A bar over the epochs of all runs."""

    total: int
    show: bool
    bar: Any = field(init=False)

    def __post_init__(self) -> None:
        self.bar = tqdm(total=self.total, unit="epoch", disable=None if self.show else True)

    def update(self, folder: str, record: EpochRecord) -> None:
        self.bar.set_postfix_str(f"{folder}: {record.loss:.4f} nats/datum")
        self.bar.update()


def compare(
    data: SyntheticDataset | Tensor | np.ndarray,
    *,
    posteriors: Mapping[str, PosteriorFactory] | Sequence[PosteriorFactory],
    estimators: Mapping[str, ELBO] | Sequence[ELBO],
    likelihoods: Mapping[str, LikelihoodFactory] | Sequence[LikelihoodFactory] | None = None,
    latent_dims: Sequence[int] = (2,),
    seeds: Sequence[int] = (0,),
    epochs: int | None = None,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    schedule: str = "cosine",
    hidden: Sequence[int] = (128, 128),
    num_train: int | None = None,
    num_test: int | None = None,
    out: str | Path | None = None,
    workers: int = 1,
    progress: bool = True,
) -> pd.DataFrame:
    """Train every posterior × estimator × likelihood × latent dimension × seed and tabulate them.

    All runs see the same training and test data; a seed sets a run's initialisation, batches and noise.

    Args:
        data: a synthetic set, drawn at its own sizes, or data (num, n), of which the last fifth of a
            fixed shuffle is held out for the test.
        posteriors: families, ``Posterior`` classes or other callables of (in_features, latent_dim),
            by name or alone.
        estimators: ELBO estimators, by name or alone.
        likelihoods: ``Likelihood`` classes or other callables of (in_features, n), by name or alone; by
            default a Gaussian of one learned σ that starts at a quarter of the training data's standard
            deviation.
        latent_dims: dimensions of z.
        seeds: one run of every cell for each.
        epochs: passes over the training data; by default the synthetic set's own.
        batch_size: data per step.
        learning_rate: Adam's rate at the start.
        schedule: of the learning rate, ``"cosine"`` or ``"constant"``.
        hidden: widths of the encoder's hidden layers, and in reverse of the decoder's.
        num_train: size of a synthetic training set, instead of its own.
        num_test: size of a synthetic test set, instead of its own.
        out: folder for the runs and the comparison; nothing is written without it.
        workers: processes, each with one thread. With more than one, call from under
            ``if __name__ == "__main__":``, and give factories that can be pickled.
        progress: whether to show a progress bar (on a terminal).

    Returns:
        One row a run, losses in nats per datum: ``test_neg_elbo`` and its parts ``test_reconstruction``
        and ``test_kl``; ``nats_above_truth``, the mean over the test data of log p(x) − ELBO(x), with
        the standard error of that mean, where p is known; ``note`` says what went wrong, if anything did.

    Raises:
        ValueError: settings or data that cannot be run.
    """
    named_posteriors = _named("posteriors", posteriors)
    named_estimators = _named("estimators", estimators)
    epochs = epochs if epochs is not None else getattr(data, "epochs", None)
    if epochs is None:
        raise ValueError("epochs must be given for data that are not a synthetic set")
    for name, value in {"epochs": epochs, "batch_size": batch_size, "workers": workers}.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive integer, not {value!r}")
    for kind, values in {"seed": seeds, "latent dimension": latent_dims, "hidden width": hidden}.items():
        if not values:
            raise ValueError(f"give at least one {kind}")
    for kind, values in {"seeds": seeds, "latent dimensions": latent_dims}.items():
        if len(set(values)) < len(values):
            raise ValueError(f"the {kind} {tuple(values)} hold one twice")
    check_learning_rate(learning_rate)
    MLP(1, *hidden)  # widths that cannot be made are found before anything is written
    as_schedule(schedule)
    prepared = _prepare(data, num_train, num_test)
    if likelihoods is None:
        spread = prepared.train.var(0).mean().sqrt().item()
        likelihoods = {"gaussian": partial(GaussianLikelihood, initial_scale=max(0.25 * spread, 1e-3))}
    named_likelihoods = _named("likelihoods", likelihoods)
    for latent_dim in latent_dims:  # a head that cannot be made is found before anything is written
        _ = [make(1, latent_dim) for make in named_posteriors.values()]
    _ = [make(1, prepared.train.shape[-1]) for make in named_likelihoods.values()]
    plan = Plan(
        data=prepared,
        posteriors=named_posteriors,
        estimators=named_estimators,
        likelihoods=named_likelihoods,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        schedule=schedule,
        hidden=tuple(hidden),
        out=None if out is None else make_folder(Path(out)),
    )
    cells = [
        Cell(*parts)
        for parts in itertools.product(named_posteriors, named_estimators, named_likelihoods, latent_dims, seeds)
    ]
    bar = _Progress(total=epochs * len(cells), show=progress)
    runs = _run_here if workers == 1 else _run_in_processes
    with bar.bar:
        metrics = dict(runs(plan, cells, workers, bar))
    table = pd.DataFrame([metrics[cell] for cell in cells])
    if plan.out is not None:
        models = {
            f"{cell.posterior}, {cell.estimator}": plan.out / cell.folder / "model.safetensors"
            for cell in cells
            if cell.seed == seeds[0] and cell.latent_dim == latent_dims[0] and cell.likelihood == cells[0].likelihood
        }
        write_comparison(plan.out, table, summarize(table), plan.data.test, models)
    return table


def run_cell(plan: Plan, cell: Cell, on_epoch: Callable[[EpochRecord], None] | None = None) -> dict[str, Any]:
    """Train and evaluate one run, and write its folder if the plan has one."""
    train, test, truth = plan.data.train, plan.data.test, plan.data.truth
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cell.seed)
        n = train.shape[-1]
        model = GenerativeModel(
            MLP(cell.latent_dim, *reversed(plan.hidden)),
            plan.likelihoods[cell.likelihood](plan.hidden[0], n),
            cell.latent_dim,
        )
        guide = AmortizedGuide(MLP(n, *plan.hidden), plan.posteriors[cell.posterior](plan.hidden[-1], cell.latent_dim))
    settings = plan.settings(cell)
    described = {"model": describe(model, "model"), "guide": describe(guide, "guide")}
    described["estimator_settings"] = {
        k: v for k, v in vars(plan.estimators[cell.estimator]).items() if k in _ESTIMATOR_SETTINGS
    }
    metrics: dict[str, Any] = {**settings, "engine": "eager", "note": ""}
    history = History()
    try:
        history = fit(
            model,
            guide,
            train,
            plan.estimators[cell.estimator],
            epochs=plan.epochs,
            batch_size=plan.batch_size,
            learning_rate=plan.learning_rate,
            schedule=plan.schedule,
            seed=cell.seed,
            progress=False,
            on_epoch=on_epoch,
        )
    except (ArithmeticError, RuntimeError, MemoryError) as error:  # a part that fails must not take the others along
        metrics["note"] = f"failed: {' '.join(str(error).split())}"
    else:
        metrics |= {
            "steps": history.steps,
            "seconds": history.seconds,
            "steps_per_second": history.steps / history.seconds,
        }
        metrics |= evaluate(model, guide, test, truth)
    if plan.out is not None:
        write_run(plan.out / cell.folder, settings | described, metrics, history, model, guide, test, truth)
    return metrics


def evaluate(model: GenerativeModel, guide: AmortizedGuide, test: Tensor, truth: SyntheticDataset | None) -> dict:
    """Metrics of a trained pair on the test data, nats per datum."""
    terms = elbo_terms(model, guide, test)
    metrics: dict[str, Any] = {
        "test_neg_elbo": -terms.elbo.mean().item(),
        "test_neg_elbo_stderr": _stderr(terms.elbo),
        "test_reconstruction": terms.reconstruction.mean().item(),
        "test_kl": terms.kl.mean().item(),
        "active_directions": active_directions(guide, test),
    }
    notes = ["posterior collapsed"] if metrics["active_directions"] == 0 else []
    if truth is not None:
        gap = truth.log_density(test) - terms.elbo
        metrics |= {"nats_above_truth": gap.mean().item(), "nats_above_truth_stderr": _stderr(gap)}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            shares = truth.mode_log_densities(model.sample(len(test))).softmax(-1).mean(0)
        found = int((shares > 0.5 * truth.mode_weights).sum())
        metrics["modes_found"] = found
        if found < len(shares):
            notes.append(f"{len(shares) - found} of {len(shares)} modes dropped")
    return metrics | {"note": ", ".join(notes)}


def _stderr(values: Tensor) -> float:
    return (values.std() / math.sqrt(len(values))).item()


def _prepare(data: SyntheticDataset | Tensor | np.ndarray, num_train: int | None, num_test: int | None) -> Data:
    generator = torch.Generator().manual_seed(0)
    if isinstance(data, SyntheticDataset):
        sizes = [data.num_train if num_train is None else num_train, data.num_test if num_test is None else num_test]
        for name, size in zip(("num_train", "num_test"), sizes, strict=True):
            if not isinstance(size, int) or size < 2:
                raise ValueError(f"{name} must be an integer of at least 2, not {size!r}")
        return Data(data.name, data.sample(sizes[0], generator), data.sample(sizes[1], generator), data)
    data = torch.as_tensor(data).to(torch.get_default_dtype())
    if data.dim() != 2 or len(data) < 4:
        raise ValueError(f"data must have shape (num, n) with num ≥ 4, not {tuple(data.shape)}")
    if not torch.isfinite(data).all():
        row, column = (~torch.isfinite(data)).nonzero()[0].tolist()
        raise ValueError(f"data hold NaN or infinity at row {row}, column {column} (counted from 0)")
    shuffled = data[torch.randperm(len(data), generator=generator)]
    held_out = max(2, len(data) // 5)
    return Data("data", shuffled[:-held_out], shuffled[-held_out:])


def _named(kind: str, parts: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    """Parts by name; those given alone are named after their class."""
    if not isinstance(parts, Mapping):
        names = [getattr(part, "__name__", type(part).__name__) for part in parts]
        if len(set(names)) < len(names):
            raise ValueError(f"two of the {kind} are called alike ({', '.join(names)}); give a mapping with names")
        parts = dict(zip(names, parts, strict=True))
    if not parts:
        raise ValueError(f"give at least one of the {kind}")
    return dict(parts)


def _run_here(plan: Plan, cells: list[Cell], workers: int, bar: _Progress) -> Iterator[tuple[Cell, dict]]:
    for cell in cells:
        yield cell, run_cell(plan, cell, lambda record, cell=cell: bar.update(cell.folder, record))  # type: ignore[misc]


def _run_in_processes(plan: Plan, cells: list[Cell], workers: int, bar: _Progress) -> Iterator[tuple[Cell, dict]]:
    context = multiprocessing.get_context("spawn")
    records = context.SimpleQueue()
    pending: dict[Future, Cell] = {}
    threads_before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the children's libraries as they start
    try:
        with ProcessPoolExecutor(
            min(workers, len(cells)), mp_context=context, initializer=_start_worker, initargs=(plan, records)
        ) as pool:
            pending = {pool.submit(_run_in_worker, cell): cell for cell in cells}
            try:
                while pending:
                    done, _ = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
                    while not records.empty():
                        bar.update(*records.get())
                    for future in done:
                        yield pending.pop(future), future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        if threads_before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = threads_before


_worker: dict[str, Any] = {}


def _start_worker(plan: Plan, records: Any) -> None:
    torch.set_num_threads(1)
    _worker.update(plan=plan, records=records)


def _run_in_worker(cell: Cell) -> dict[str, Any]:
    return run_cell(_worker["plan"], cell, lambda record: _worker["records"].put((cell.folder, record)))
