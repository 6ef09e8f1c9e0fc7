"""The runs of a comparison: each cell trained and evaluated, here or in processes of their own."""

from __future__ import annotations

import json
import math
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, cast

import pyro
import torch
from torch import Tensor

from pyrovae.comparison._encoder import with_better_encoder
from pyrovae.comparison._measures import GAPS, MEASURES, SCORES, gaps, measures_of, score, scores_of
from pyrovae.comparison._plan import Cell, Plan, configuration, groups, make_pair
from pyrovae.comparison._workers import run_in_processes
from pyrovae.comparison.tables import write_run_pictures
from pyrovae.errors import InputError, one_line, out_of_memory
from pyrovae.evaluation import elbo_terms
from pyrovae.files import make_folder, remove_partial_files, versions, write_json, write_table, write_text
from pyrovae.io import load, save
from pyrovae.programs import Program
from pyrovae.progress import progress_bar
from pyrovae.training import CannotVectorizeError, EpochRecord, History, Trainer
from pyrovae.vae import AmortizedGuide, GenerativeModel

if TYPE_CHECKING:
    import pandas as pd


class RunStatus(StrEnum):
    """How a run ended."""

    FINISHED = "finished"
    FAILED = "failed"


@dataclass(frozen=True)
class Failure:
    """Why a run failed: the exception's type, its message, its traceback, and whether the user can mend it."""

    kind: str
    message: str
    traceback: str
    can_be_mended: bool = True

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """The failure that an exception is; the exception is not kept, for it holds on to memory."""
        message = out_of_memory(error) or one_line(error)
        can_be_mended = isinstance(error, InputError | OSError) or out_of_memory(error) is not None
        return cls(type(error).__name__, message, "".join(traceback.format_exception(error)), can_be_mended)


@dataclass(frozen=True)
class Result:
    """What came of a run.

    Attributes:
        metrics: the run's row of the table: what it is of, and numbers in nats per datum.
        failure: why it failed; None of a run that finished.
        samples: data drawn from the model, for pictures.
        scores: ``log_prob`` and ``elbo`` of each test datum in nats, and the errors of ``log_prob``.
    """

    metrics: dict[str, object]
    failure: Failure | None = None
    samples: Tensor | None = None
    scores: pd.DataFrame | None = None


Results = dict[Cell, Result]
OnEpoch = Callable[[str, EpochRecord], None]
"""Called with the run's folder and the epoch's record."""


def run_cells(plan: Plan, cells: Sequence[Cell], results: Results, *, workers: int, progress: bool) -> None:
    """Run the cells that have no result yet, and add their results."""
    left = [cell for cell in cells if cell not in results]
    if not left:
        return
    epochs = sum(plan.training_of(cell).epochs for cell in left)
    with progress_bar(total=epochs, unit="epoch", show=progress) as bar:

        def on_epoch(folder: str, record: EpochRecord) -> None:
            bar.set_postfix_str(f"{folder}: {record.loss:.4f} nats/datum", refresh=False)
            bar.update()

        pieces = groups(plan, left, workers)
        if workers > 1:
            results.update(run_in_processes(partial(run_group, plan), partial(_lost, plan), pieces, workers, on_epoch))
            return
        for group in pieces:
            results.update(run_group(plan, group, on_epoch))


def run_group(plan: Plan, cells: list[Cell], on_epoch: OnEpoch) -> Results:
    """Train runs that differ in their seeds alone, in one program where they can be one; evaluate and write them."""
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
        return {cell: run_group(plan, [cell], on_epoch)[cell] for cell in cells}
    except Exception as error:  # one run must not take the others along
        failure = Failure.of(error)
    results = {}
    for r, cell in enumerate(cells):
        history = History() if trainer is None else trainer.histories[r]
        stopped = None if trainer is None else trainer.errors.get(r)
        why = failure if stopped is None else Failure.of(stopped)
        results[cell] = _finish(plan, cell, pairs[r] if pairs else None, history, why, len(cells))
    return results


def _lost(plan: Plan, cells: Sequence[Cell]) -> Results:
    """Results of runs whose process the system ended."""
    failure = Failure("BrokenProcessPool", "its process was ended by the system, perhaps out of memory", "")
    return {cell: Result(_blank(plan, cell, failure), failure) for cell in cells}


def _as_trained(plan: Plan, model: GenerativeModel) -> Program:
    """The model; one that is not to change is called as a function: training does not put it into training mode."""
    return model if plan.model is None else lambda x: model(x)


def _blank(plan: Plan, cell: Cell, failure: Failure | None) -> dict[str, object]:
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
        "engine": "",
        "status": str(RunStatus.FINISHED if failure is None else RunStatus.FAILED),
        "error": "" if failure is None else failure.kind,
        "note": "" if failure is None else f"failed: {failure.message}",
        **dict.fromkeys(measures, math.nan),
    }


def _finish(
    plan: Plan,
    cell: Cell,
    pair: tuple[GenerativeModel, AmortizedGuide] | None,
    history: History,
    failure: Failure | None,
    together: int,
) -> Result:
    """Evaluate a trained run, and write its folder if the plan has one.

    Of the seconds of runs trained ``together`` in one program, each has its share.
    """
    result = None
    if pair is not None and failure is None:
        try:
            (model, guide), data, epochs = pair, plan.data, plan.settings.refit_epochs
            training = plan.training_of(cell)
            guide, gain = with_better_encoder(model, guide, data.train, data.validation, epochs, training)
            pair = model, guide
            result = _evaluate(plan, cell, *pair, history, together)
            result.metrics.update(gain)
        except Exception as error:
            failure = Failure.of(error)
    if result is None:
        result = Result({**_blank(plan, cell, failure), "engine": history.engine}, failure)
    if plan.out is not None:
        try:
            _write(plan, cell, pair, history, result)
        except (OSError, InputError):  # of the folder, and so of every run
            raise
        except Exception as error:  # a picture, for one
            failure = Failure.of(error)
            result = Result({**_blank(plan, cell, failure), "engine": history.engine}, failure)
            _write(plan, cell, pair, history, result)
    return result


def _evaluate(
    plan: Plan, cell: Cell, model: GenerativeModel, guide: AmortizedGuide, history: History, together: int
) -> Result:
    data, settings = plan.data, plan.settings
    seconds = history.seconds / (1 if history.engine == "eager" else together)
    metrics = _blank(plan, cell, None) | {
        "engine": history.engine,
        "steps": history.steps,
        "seconds": seconds,
        "steps_per_second": history.steps / seconds,
    }
    terms, marginal = score(model, guide, data.test, settings.log_marginal_samples, data.log_jacobian)
    metrics |= measures_of(model, guide, data.test, data.truth, terms, marginal)
    scores = scores_of(terms, marginal)
    if settings.gap_data and cell.seed == settings.seeds[0]:
        family = settings.named_posteriors[cell.posterior]
        metrics |= gaps(model, guide, data.test[: settings.gap_data], family, cell.seed)
    if data.validation is not None:
        metrics["best_epoch"], metrics["validation_loss"] = history.best_epoch, history.best_loss
        metrics["validation_neg_elbo"] = -elbo_terms(model, guide, data.validation).elbo.mean().item()
        by_epoch = [r.validation_loss for r in history.epochs if not math.isnan(r.validation_loss)]
        metrics["validation_rise"] = by_epoch[-1] - min(by_epoch) if by_epoch else math.nan
    if not data.is_comparable:
        of_x = ("test_neg_elbo", "test_reconstruction", "test_log_marginal")
        metrics |= {name: math.nan for name in metrics if name.startswith(of_x)}
        notes = ["not comparable: preprocessing loses dimensions", metrics["note"]]
        metrics["note"] = ", ".join(str(note) for note in notes if note)
        scores *= math.nan
    return Result(metrics, None, _draw_samples(model, cell), scores)


def _write(
    plan: Plan,
    cell: Cell,
    pair: tuple[GenerativeModel, AmortizedGuide] | None,
    history: History,
    result: Result,
) -> None:
    """Write a run's folder: config.json, metrics.json, history.csv, scores.csv, the model, or the traceback."""
    assert plan.out is not None
    folder = make_folder(plan.out / cell.folder)
    remove_partial_files(folder)
    if pair is not None:
        write_json(folder / "config.json", {**configuration(plan, cell, *pair), "versions": versions()})
    write_json(folder / "metrics.json", result.metrics)
    write_table(folder / "history.csv", history.to_frame())
    (folder / "traceback.txt").unlink(missing_ok=True)
    if result.failure is not None:
        write_text(folder / "traceback.txt", result.failure.traceback)
    if pair is not None:
        save(folder / "model.safetensors", *pair, preprocessing=plan.data.preprocessing)
    if result.scores is not None:
        write_table(folder / "scores.csv", result.scores.rename_axis("row").reset_index())
        if plan.pictures and pair is not None and history.epochs:
            write_run_pictures(folder, history, *pair, plan.data.test, plan.data.truth)


def finished(plan: Plan, cells: Sequence[Cell]) -> Results:
    """Results of the runs with the same settings that finished in the plan's folder."""
    found = ((cell, _finished(plan, cell)) for cell in cells)
    return {cell: result for cell, result in found if result is not None}


def _finished(plan: Plan, cell: Cell) -> Result | None:
    import pandas as pd

    if plan.out is None:
        return None
    folder = plan.out / cell.folder
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        scores = pd.read_csv(folder / "scores.csv")
        model, _ = load(folder / "model.safetensors")
        if not isinstance(config, dict) or not isinstance(metrics, dict) or not set(SCORES) <= set(scores):
            return None
    except (OSError, ValueError, RecursionError):
        return None
    wanted = json.loads(json.dumps(configuration(plan, cell, *make_pair(plan, cell))))
    same = {key: config.get(key) for key in wanted} == wanted
    if not same or config.get("refit_epochs", 0) != plan.settings.refit_epochs:  # which 0 leaves out
        return None
    if metrics.get("status") != RunStatus.FINISHED:
        return None
    metrics = {k: math.nan if v is None else v for k, v in metrics.items()}
    metrics["hidden"] = plan.settings.hidden  # which JSON turned into a list
    return Result(metrics, None, _draw_samples(model, cell), scores)


def _draw_samples(model: GenerativeModel, cell: Cell) -> Tensor:
    """Data drawn from a trained model, for pictures."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cell.seed)
        return model.sample(max(100, min(3000, 2**22 // model.likelihood.n)))


def choose_rates(
    plan: Plan, results: Results, *, workers: int, resume: bool, progress: bool
) -> tuple[list[Cell], list[Cell]]:
    """The cells at the learning rate that validation data choose at the first seed, and the cells that were tried."""
    settings, cells = plan.settings, plan.cells
    rates = settings.learning_rates
    first = [cell for cell in cells if cell.seed == settings.seeds[0]]
    tried = [replace(cell, learning_rate=rate) for cell in first for rate in rates]
    if resume:
        results.update(finished(plan, tried))
    run_cells(plan, tried, results, workers=workers, progress=progress)

    def loss(cell: Cell) -> float:
        value = cast(float, results[cell].metrics["validation_loss"])
        return value if math.isfinite(value) else math.inf

    best = {cell.model: min((replace(cell, learning_rate=rate) for rate in rates), key=loss) for cell in first}
    return [replace(cell, learning_rate=best[cell.model].learning_rate) for cell in cells], tried


@contextmanager
def callers_state_left_alone() -> Iterator[None]:
    """Put the caller's random state and Pyro's parameter store back on the way out."""
    with torch.random.fork_rng(devices=[]), pyro.get_param_store().scope():
        yield
