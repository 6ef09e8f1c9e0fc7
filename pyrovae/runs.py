"""The runs of a comparison: one cell trained and evaluated, here or in processes of their own."""

import math
import multiprocessing
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pyro.infer import ELBO
from torch import Tensor
from tqdm.auto import tqdm

from pyrovae.datasets import SyntheticDataset
from pyrovae.evaluation import active_directions, elbo_terms, log_marginal
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
_MEASURES = (
    "steps",
    "seconds",
    "steps_per_second",
    "test_neg_elbo",
    "test_neg_elbo_stderr",
    "test_reconstruction",
    "test_kl",
    "test_log_marginal",
    "test_log_marginal_stderr",
    "test_log_marginal_gain_of_doubling",
    "test_effective_sample_size",
    "active_directions",
)


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
        names = (self.posterior, self.estimator, self.likelihood)
        plain = "-".join(re.sub(r"[^\w.+]+", "-", name).strip("-") for name in names)
        return f"{plain}-d{self.latent_dim}-seed{self.seed}"


@dataclass(frozen=True)
class Plan:
    """Everything that the runs of a comparison share."""

    data: Data
    posteriors: Mapping[str, PosteriorFactory]
    estimators: Mapping[str, ELBO]
    likelihoods: Mapping[str, LikelihoodFactory]
    epochs: Mapping[str, int]
    batch_size: int
    learning_rate: float
    schedule: str
    hidden: tuple[int, ...]
    log_marginal_samples: int
    out: Path | None

    def settings(self, cell: Cell) -> dict[str, Any]:
        """What a run depends on, as plain values."""
        shared = {k: getattr(self, k) for k in ("batch_size", "learning_rate", "schedule", "hidden")}
        shared["epochs"] = self.epochs[cell.estimator]
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


def run_cell(
    plan: Plan, cell: Cell, on_epoch: Callable[[EpochRecord], None] | None = None
) -> tuple[dict[str, Any], Tensor | None]:
    """Train and evaluate one run, and write its folder if the plan has one; return metrics and drawn data."""
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
    measures = _MEASURES if truth is None else (*_MEASURES, "nats_above_truth", "nats_above_truth_stderr")
    metrics: dict[str, Any] = {**settings, "engine": "eager", "note": "", **dict.fromkeys(measures, math.nan)}
    history, samples = History(), None
    try:
        history = fit(
            model,
            guide,
            train,
            plan.estimators[cell.estimator],
            epochs=plan.epochs[cell.estimator],
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
        metrics |= evaluate(model, guide, test, truth, plan.log_marginal_samples)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(cell.seed)
            samples = model.sample(3000)
    if plan.out is not None:
        write_run(plan.out / cell.folder, settings | described, metrics, history, model, guide, test, truth)
    return metrics, samples


def evaluate(
    model: GenerativeModel,
    guide: AmortizedGuide,
    test: Tensor,
    truth: SyntheticDataset | None,
    log_marginal_samples: int = 100,
) -> dict[str, Any]:
    """Metrics of a trained pair on the test data, nats per datum."""
    terms = elbo_terms(model, guide, test)
    marginal = log_marginal(model, guide, test, num_samples=log_marginal_samples)
    metrics: dict[str, Any] = {
        "test_neg_elbo": -terms.elbo.mean().item(),
        "test_neg_elbo_stderr": _stderr(terms.elbo),
        "test_reconstruction": terms.reconstruction.mean().item(),
        "test_kl": terms.kl.mean().item(),
        "test_log_marginal": marginal.mean,
        "test_log_marginal_stderr": marginal.stderr_data,
        "test_log_marginal_gain_of_doubling": marginal.gain_of_doubling.mean().item(),
        "test_effective_sample_size": marginal.effective_sample_size.median().item(),
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


Outcome = tuple[Cell, tuple[dict[str, Any], Tensor | None]]


def run_here(plan: Plan, cells: list[Cell], workers: int, bar: Progress) -> Iterator[Outcome]:
    """Run cells one after the other in this process."""
    for cell in cells:
        yield cell, run_cell(plan, cell, partial(bar.update, cell.folder))


def run_in_processes(plan: Plan, cells: list[Cell], workers: int, bar: Progress) -> Iterator[Outcome]:
    """Run cells in fresh processes of one thread each, as they come; an interrupt ends them at once."""
    context = multiprocessing.get_context("spawn")
    # One pipe for all: a record is far shorter than what the system writes in one piece.
    reader, writer = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        min(workers, len(cells)), mp_context=context, initializer=_start_worker, initargs=(plan, writer)
    )
    try:
        with _as_children_should_start():
            pending = {pool.submit(_run_in_worker, cell): cell for cell in cells}
        while pending:
            done, _ = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
            while reader.poll():
                bar.update(*reader.recv())
            for future in done:
                yield pending.pop(future), future.result()
    except BaseException:
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _as_children_should_start() -> Iterator[None]:
    """Start processes with one thread each that leave Ctrl-C, sent to all of a terminal's processes, to this one."""
    threads_before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the children's libraries as they start
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if in_main_thread else None
    try:
        yield
    finally:
        if in_main_thread:
            signal.signal(signal.SIGINT, handler)
        if threads_before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = threads_before


_worker: dict[str, Any] = {}


def _start_worker(plan: Plan, writer: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop_worker)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker.update(plan=plan, writer=writer)


def _end_with_parent() -> None:
    """A parent that was killed could not stop its workers, which would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_in_worker(cell: Cell) -> tuple[dict[str, Any], Tensor | None]:
    if _worker.get("stopped"):
        sys.exit(1)
    return run_cell(_worker["plan"], cell, lambda record: _worker["writer"].send((cell.folder, record)))


def _stop_worker(*_: object) -> None:
    """End the current run, temporary files removed, and those that the pool still hands out."""
    _worker["stopped"] = True
    sys.exit(1)
