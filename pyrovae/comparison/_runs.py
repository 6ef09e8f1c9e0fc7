"""The runs of a comparison: each cell trained and evaluated, here or in processes of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pyro
import torch
from torch import Tensor

from pyrovae.comparison._cluster import run_on_cluster
from pyrovae.comparison._measures import GAPS, MEASURES, gaps, loss_of_encoder, measures_of, score, scores_of
from pyrovae.comparison._plan import Cell, Plan, groups, make_pair
from pyrovae.comparison._result import (
    Failure,
    Result,
    Results,
    RunStatus,
    draw_samples,
    finished,
    pack,
    unpack,
    write_run,
)
from pyrovae.comparison.settings import Execution
from pyrovae.comparison.workers import run_in_processes
from pyrovae.errors import InputError
from pyrovae.evaluation import elbo_terms, refit_encoder
from pyrovae.programs import Program
from pyrovae.progress import progress_bar
from pyrovae.training import CannotVectorizeError, EpochRecord, History, Trainer
from pyrovae.vae import AmortizedGuide, GenerativeModel

OnEpoch = Callable[[str, EpochRecord], None]
"""A function that is called with the run's folder and the epoch's record."""


def left_to_run(
    plan: Plan, cells: Sequence[Cell], results: Results, execution: Execution, *, resume: bool
) -> list[list[Cell]]:
    """Pieces of work with the cells that have no result; if ``resume``, results in the plan's folder are added."""
    if resume:
        found = finished(plan, [cell for cell in cells if cell not in results])
        results.update((cell, result) for cell, result in found.items() if result.is_scored)
    return groups(plan, [cell for cell in cells if cell not in results], execution.workers)


def run_pieces(
    plan: Plan, pieces: Sequence[list[Cell]], results: Results, execution: Execution, *, progress: bool
) -> None:
    """Run each piece as :func:`run_group` does, and add its results as they come."""
    if not pieces:
        return
    epochs = {cell: plan.training_of(cell).epochs for piece in pieces for cell in piece}
    with progress_bar(total=sum(epochs.values()), unit="epoch", show=progress) as bar:

        def on_epoch(folder: str, record: EpochRecord) -> None:
            bar.set_postfix_str(f"{folder}: {record.loss:.4f} nats per datum", refresh=False)
            bar.update()

        if execution.scheduler is not None:
            run = partial(_run_packed, replace(plan, out=None, pictures=plan.pictures and plan.out is not None))
            for piece, packed in run_on_cluster(run, pieces, execution.scheduler, announce=progress):
                results.update(_lost(plan, piece) if packed is None else _unpacked(plan, piece, packed))
                bar.update(sum(epochs[cell] for cell in piece))
        elif execution.workers > 1:
            run_and_report, lost = partial(run_group, plan), partial(_lost, plan)
            results.update(run_in_processes(run_and_report, lost, pieces, execution.workers, on_epoch))
        else:
            for piece in pieces:
                results.update(run_group(plan, piece, on_epoch))


def _run_packed(plan: Plan, cells: list[Cell]) -> bytes:
    """On a cluster: make runs in a folder that is sent back; no shared file system is needed."""
    with TemporaryDirectory(prefix="pyrovae-") as out, callers_state_left_alone():
        return pack(run_group(replace(plan, out=Path(out)), cells, lambda *_: None), Path(out))


def _unpacked(plan: Plan, cells: list[Cell], packed: bytes) -> Results:
    if plan.out is not None:
        return unpack(plan, cells, packed, plan.out)
    with TemporaryDirectory(prefix="pyrovae-") as out:
        return unpack(plan, cells, packed, Path(out))


def run_group(plan: Plan, cells: list[Cell], on_epoch: OnEpoch) -> Results:
    """Train runs of one model, evaluate and write them; test data are scored at one learning rate only.

    Runs that differ only in their seeds are trained in one program if possible. Validation data choose among several
    learning rates, at the first seed.
    """
    rates = list(dict.fromkeys(cell.learning_rate for cell in cells))
    alike = [[cell for cell in cells if cell.learning_rate == rate] for rate in rates]
    trained: list[_Trained] = []
    for members in alike:
        trained += _train(plan, members, on_epoch)
    best = min(trained, key=lambda one: one.loss).cell.learning_rate
    return {one.cell: _finish(plan, one, is_scored=one.cell.learning_rate == best) for one in trained}


@dataclass(frozen=True)
class _Trained:
    """A run after its training.

    Attributes:
        cell: which run.
        pair: the trained model and guide; None if they could not be made.
        history: its record.
        failure: why it failed; None of a run that finished.
        together: number of runs that were trained in its program and share its seconds.
    """

    cell: Cell
    pair: tuple[GenerativeModel, AmortizedGuide] | None
    history: History
    failure: Failure | None
    together: int

    @property
    def loss(self) -> float:
        """Its loss on the validation data, infinite if there is none."""
        loss = self.history.best_loss
        return math.inf if self.failure is not None or loss is None or not math.isfinite(loss) else loss


def _train(plan: Plan, cells: list[Cell], on_epoch: OnEpoch) -> list[_Trained]:
    """Train runs that differ only in their seeds."""
    folders = {cell.seed: cell.folder for cell in cells}
    pairs: list[tuple[GenerativeModel, AmortizedGuide]] = []
    trainer = failure = None
    try:
        pairs = [make_pair(plan, cell) for cell in cells]
        with pyro.get_param_store().scope():  # copies of a PyroModule have the same names in it
            trainer = Trainer(
                [(_as_trained(plan, model), guide) for model, guide in pairs],
                plan.data.train,
                plan.settings.named_estimators[cells[0].estimator],
                plan.training_of(cells[0]),
                validation=plan.data.validation,
                progress=False,
                on_epoch=lambda record: on_epoch(folders[record.seed], record),
            )
            trainer.run()
    except CannotVectorizeError:
        return [one for cell in cells for one in _train(plan, [cell], on_epoch)]
    except Exception as error:  # a failing run must not stop the others
        failure = Failure.of(error)
    found = []
    for r, cell in enumerate(cells):
        history = History() if trainer is None else trainer.histories[r]
        stopped = None if trainer is None else trainer.errors.get(r)
        why = failure if stopped is None else Failure.of(stopped)
        found.append(_Trained(cell, pairs[r] if pairs else None, history, why, len(cells)))
    return found


def _lost(plan: Plan, cells: Sequence[Cell]) -> Results:
    """Results of runs whose process the system ended."""
    failure = Failure("BrokenProcessPool", "the system ended its process, perhaps out of memory", "")
    return {cell: Result(_blank(plan, cell, "", failure), failure) for cell in cells}


def _as_trained(plan: Plan, model: GenerativeModel) -> Program:
    """The model. A given model is called as a function, so that training does not change its mode."""
    if plan.model is None:
        return model

    def program(x: Tensor) -> None:
        model(x)

    vars(program)["missing"] = model.missing
    return program


def _blank(plan: Plan, cell: Cell, engine: str, failure: Failure | None = None) -> dict[str, object]:
    """A run's row before it is evaluated."""
    measures = [*MEASURES]
    measures += ["nats_above_truth", "nats_above_truth_stderr"] if plan.data.truth is not None else []
    of_validation = ("validation_neg_elbo", "validation_loss", "validation_rise", "best_epoch")
    measures += of_validation if plan.data.validation is not None else ()
    measures += ["encoder_gain"] if plan.settings.refit_epochs else []
    measures += GAPS if plan.settings.gap_data else []
    return {
        **plan.columns(cell),
        "folder": cell.folder,
        "engine": engine,
        "status": str(RunStatus.FINISHED if failure is None else RunStatus.FAILED),
        "error": "" if failure is None else failure.kind,
        "note": "" if failure is None else f"failed: {failure.message}",
        **dict.fromkeys(measures, math.nan),
    }


def _finish(plan: Plan, trained: _Trained, *, is_scored: bool) -> Result:
    """Evaluate a trained run, on test data if it is scored, and write its folder if the plan has one."""
    cell, history, failure, pair = trained.cell, trained.history, trained.failure, trained.pair
    result = None
    if pair is not None and failure is None:
        try:
            gain: dict[str, object] = {}
            if is_scored and plan.settings.refit_epochs and plan.data.validation is not None:
                better = refit_encoder(
                    *pair,
                    plan.data.train,
                    validation=plan.data.validation,
                    epochs=plan.settings.refit_epochs,
                    seed=cell.seed,
                    engine=plan.settings.training.engine,
                    progress=False,
                )
                pair, gain = (pair[0], better.guide), {"encoder_gain": better.gain.mean}
            result = _evaluate(plan, replace(trained, pair=pair), is_scored=is_scored)
            result.metrics.update(gain)
        except Exception as error:
            failure = Failure.of(error)
    if result is None:
        result = Result(_blank(plan, cell, history.engine, failure), failure)
    if plan.out is not None:
        try:
            write_run(plan, cell, pair, history, result)
        except (OSError, InputError):  # of the folder, and so of every run
            raise
        except Exception as error:  # a picture, for one
            failure = Failure.of(error)
            result = Result(_blank(plan, cell, history.engine, failure), failure)
            write_run(plan, cell, pair, history, result)
    return result


def _evaluate(plan: Plan, trained: _Trained, *, is_scored: bool) -> Result:
    data, settings, cell, history = plan.data, plan.settings, trained.cell, trained.history
    assert trained.pair is not None
    model, guide = trained.pair
    seconds = history.seconds / (1 if history.engine == "eager" else trained.together)
    metrics = _blank(plan, cell, history.engine) | {
        "steps": history.steps,
        "seconds": seconds,
        "steps_per_second": history.steps / seconds,
    }
    if data.validation is not None:
        metrics["best_epoch"], metrics["validation_loss"] = history.best_epoch, history.best_loss
        metrics["validation_neg_elbo"] = -elbo_terms(model, guide, data.validation).elbo.mean().item()
        by_epoch = [r.validation_loss for r in history.epochs if not math.isnan(r.validation_loss)]
        metrics["validation_rise"] = by_epoch[-1] - min(by_epoch) if by_epoch else math.nan
    if not is_scored:
        return Result(metrics)
    terms, marginal = score(model, guide, data.test, settings.log_marginal_samples, data.log_jacobian)
    metrics |= measures_of(model, guide, data.test, data.truth, terms, marginal)
    metrics |= loss_of_encoder(model, guide, data.test)
    scores = scores_of(terms, marginal)
    if settings.gap_data and cell.seed == settings.seeds[0]:
        family = settings.named_posteriors[cell.posterior]
        metrics |= gaps(model, guide, data.test[: settings.gap_data], family, cell.seed)
    if not data.is_comparable:
        of_x = ("test_neg_elbo", "test_reconstruction", "test_log_marginal")
        metrics |= {name: math.nan for name in metrics if name.startswith(of_x)}
        notes = ["not comparable: preprocessing loses dimensions", metrics["note"]]
        metrics["note"] = ", ".join(str(note) for note in notes if note)
        scores *= math.nan
    return Result(metrics, None, draw_samples(model, cell), scores)


def choose_rates(
    plan: Plan, results: Results, execution: Execution, *, resume: bool, progress: bool
) -> tuple[list[Cell], list[Cell]]:
    """The cells at the learning rate that validation data choose at the first seed, and the cells that were tried."""
    settings, cells = plan.settings, plan.cells
    first = [cell for cell in cells if cell.seed == settings.seeds[0]]
    tried = {c.model: [replace(c, learning_rate=rate) for rate in settings.learning_rates] for c in first}
    for pieces in tried.values() if resume else ():
        found = finished(plan, pieces)
        if len(found) == len(pieces) and any(result.is_scored for result in found.values()):
            results.update(found)
    left = [pieces for pieces in tried.values() if pieces[0] not in results]
    run_pieces(plan, left, results, execution, progress=progress)

    def is_not_chosen(cell: Cell) -> tuple[bool, bool]:
        return not results[cell].is_scored, results[cell].failure is None  # the chosen one may have failed since

    best = {model: min(pieces, key=is_not_chosen).learning_rate for model, pieces in tried.items()}
    return [replace(cell, learning_rate=best[cell.model]) for cell in cells], [
        cell for pieces in tried.values() for cell in pieces
    ]


@contextmanager
def callers_state_left_alone() -> Iterator[None]:
    """Restore the caller's random state and Pyro's parameter store at the end."""
    with torch.random.fork_rng(devices=[]), pyro.get_param_store().scope():
        yield
