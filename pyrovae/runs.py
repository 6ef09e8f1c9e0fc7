"""The runs of a comparison: one cell trained and evaluated, here or in processes of their own."""

import math
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from pyro.infer import ELBO
from torch import Tensor
from tqdm.auto import tqdm

from pyrovae.datasets import SyntheticDataset
from pyrovae.evaluation import active_directions, elbo_terms
from pyrovae.io import describe
from pyrovae.likelihoods import Likelihood
from pyrovae.nn import MLP
from pyrovae.posteriors import Posterior
from pyrovae.report import write_run
from pyrovae.training import EpochRecord, History, fit
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
class Progress:
    """A bar over the epochs of all runs."""

    total: int
    show: bool
    bar: Any = field(init=False)

    def __post_init__(self) -> None:
        self.bar = tqdm(total=self.total, unit="epoch", disable=None if self.show else True)

    def update(self, folder: str, record: EpochRecord) -> None:
        """One more epoch of a run."""
        self.bar.set_postfix_str(f"{folder}: {record.loss:.4f} nats/datum")
        self.bar.update()


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


def run_here(plan: Plan, cells: list[Cell], workers: int, bar: Progress) -> Iterator[tuple[Cell, dict]]:
    """Run cells one after the other in this process."""
    for cell in cells:
        yield cell, run_cell(plan, cell, lambda record, cell=cell: bar.update(cell.folder, record))  # type: ignore[misc]


def run_in_processes(plan: Plan, cells: list[Cell], workers: int, bar: Progress) -> Iterator[tuple[Cell, dict]]:
    """Run cells in fresh processes of one thread each, as they come."""
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
