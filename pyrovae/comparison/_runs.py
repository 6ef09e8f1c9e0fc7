"""The runs of a comparison: one cell trained and evaluated."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from pyrovae.comparison._measures import GAPS, gaps, measures_of, score
from pyrovae.comparison._plan import Cell, Plan, description, make_pair
from pyrovae.comparison.tables import write_run, write_run_pictures
from pyrovae.errors import out_of_memory
from pyrovae.evaluation import elbo_terms
from pyrovae.files import write_table
from pyrovae.io import load
from pyrovae.training import EpochRecord, Replica, TrainingSettings, train_replicas
from pyrovae.vae import AmortizedGuide, GenerativeModel

FAILURES = (ArithmeticError, RuntimeError, MemoryError)
"""What may go wrong in one run and must not take the others along: NaN, a program's error, a lack of memory."""

_MEASURES = (
    "steps",
    "seconds",
    "steps_per_second",
    "test_neg_elbo",
    "test_neg_elbo_stderr",
    "test_neg_elbo_stderr_monte_carlo",
    "test_reconstruction",
    "test_kl",
    "test_log_marginal",
    "test_log_marginal_stderr",
    "test_log_marginal_stderr_monte_carlo",
    "test_log_marginal_unreliable_share",
    "test_log_marginal_gain_of_doubling",
    "test_effective_sample_size",
    "active_directions",
)


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


def groups(cells: Sequence[Cell], workers: int) -> list[list[Cell]]:
    """Runs to train in one program: those that differ in their seed alone, in seeds that follow one another.

    There are at least as many groups as workers, where there are as many runs.
    """
    alike: dict[Cell, list[Cell]] = {}
    for cell in cells:
        alike.setdefault(replace(cell, seed=0), []).append(cell)
    pieces = -(-workers // len(alike))
    found = []
    for members in alike.values():
        size = -(-len(members) // pieces)
        group: list[Cell] = []
        for cell in sorted(members, key=lambda cell: cell.seed):
            if group and (cell.seed != group[-1].seed + 1 or len(group) == size):
                found.append(group)
                group = []
            group.append(cell)
        found.append(group)
    return found


@dataclass(frozen=True)
class Result:
    """What came of a run.

    Attributes:
        metrics: in nats per datum.
        samples: data drawn from the model, for pictures; None of a run that failed.
        scores: ``log_prob`` and ``elbo`` of each test datum in nats; None where there are none.
    """

    metrics: dict[str, Any]
    samples: Tensor | None = None
    scores: pd.DataFrame | None = None


Outcome = tuple[Cell, Result]
OnEpoch = Callable[[str, EpochRecord], None]
"""Told the run's folder and the epoch's record."""


def run_or_fail(plan: Plan, cells: list[Cell], on_epoch: OnEpoch) -> list[Outcome]:
    """What :func:`run_group` does; of runs that cannot be made or evaluated, why they failed."""
    try:
        return run_group(plan, cells, on_epoch)
    except FAILURES as error:
        return failed(plan, cells, reason(error))


def reason(error: Exception) -> str:
    """Why a run failed, in one line."""
    return out_of_memory(error) or " ".join(str(error).split())


def failed(plan: Plan, cells: Sequence[Cell], why: str) -> list[Outcome]:
    """Runs of which nothing came."""
    return [(cell, Result(blank(plan, cell) | {"note": f"failed: {why}"})) for cell in cells]


def blank(plan: Plan, cell: Cell) -> dict[str, Any]:
    """A run's metrics before it is evaluated."""
    measures = _MEASURES if plan.data.truth is None else (*_MEASURES, "nats_above_truth", "nats_above_truth_stderr")
    measures = measures if plan.data.validation is None else (*measures, "validation_neg_elbo", "best_epoch")
    measures = (*measures, *GAPS) if plan.gap_data else measures
    return {**plan.settings(cell), "engine": "", "note": "", **dict.fromkeys(measures, math.nan)}


def run_group(plan: Plan, cells: list[Cell], on_epoch: OnEpoch) -> list[Outcome]:
    """Train and evaluate runs that differ in their seeds alone, and write their folders if the plan has one."""
    folders = {cell.seed: cell.folder for cell in cells}
    settings = TrainingSettings(
        epochs=plan.epochs[cells[0].estimator],
        batch_size=plan.batch_size,
        learning_rate=plan.rate(cells[0]),
        schedule=plan.schedule,
        seed=cells[0].seed,
        engine=plan.engine,
    )
    elbo = plan.estimators[cells[0].estimator]
    failure = None
    replicas = [Replica(*make_pair(plan, cell), cell.seed) for cell in cells]
    # a model that is not to change is called as a function: training does not put it into training mode
    trained = replicas if plan.model is None else [replace(r, model=_called(r.model)) for r in replicas]
    try:
        train_replicas(
            trained,
            plan.data.train,
            elbo,
            settings,
            validation=plan.data.validation,
            progress=False,
            on_epoch=lambda record: on_epoch(folders[record.seed], record),
        )
    except FAILURES as error:
        failure = error.with_traceback(None)  # it would hold on to the memory
    return [
        (cell, finish(plan, cell, replace(run, model=replica.model), failure or run.error, len(cells)))
        for cell, replica, run in zip(cells, replicas, trained, strict=True)
    ]


def _called(model: Any) -> Any:
    return lambda x: model(x)


def finished(plan: Plan, cell: Cell) -> Outcome | None:
    """What a run of the same settings left in its folder, if one came to its end."""
    if plan.out is None:
        return None
    folder = plan.out / cell.folder
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        scores = pd.read_csv(folder / "scores.csv")
        model, _ = load(folder / "model.safetensors")
    except (OSError, ValueError):
        return None
    wanted = json.loads(json.dumps(description(plan, cell, *make_pair(plan, cell))))
    if {key: config.get(key) for key in wanted} != wanted or metrics["note"].startswith("failed"):
        return None
    metrics = {k: math.nan if v is None else v for k, v in metrics.items()}
    return cell, Result(metrics, draw_samples(model, cell), scores)


def draw_samples(model: GenerativeModel, cell: Cell) -> Tensor:
    """Data drawn from a trained model, for pictures."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cell.seed)
        return model.sample(3000)


def finish(plan: Plan, cell: Cell, replica: Replica, failure: Exception | None, together: int) -> Result:
    """Evaluate a trained run, and write its folder if the plan has one.

    Of the seconds of runs trained ``together`` in one program, each has its share.
    """
    data, test, truth = plan.data, plan.data.test, plan.data.truth
    model, guide, history = replica.model, replica.guide, replica.history
    assert isinstance(model, GenerativeModel)
    assert isinstance(guide, AmortizedGuide)
    metrics = blank(plan, cell) | {"engine": history.engine}
    samples, scores = None, None
    if failure is not None:
        metrics["note"] = f"failed: {reason(failure)}"
    else:
        seconds = history.seconds / (1 if history.engine == "eager" else together)
        metrics |= {"steps": history.steps, "seconds": seconds, "steps_per_second": history.steps / seconds}
        terms, marginal = score(model, guide, test, plan.log_marginal_samples, data.log_jacobian)
        metrics |= measures_of(model, guide, test, truth, terms, marginal)
        scores = pd.DataFrame({"log_prob": marginal.per_datum.numpy(), "elbo": terms.elbo.numpy()})
        if plan.gap_data and cell.seed == plan.gap_seed:
            metrics |= gaps(model, guide, test[: plan.gap_data], plan.posteriors[cell.posterior], cell.seed)
        if data.validation is not None:
            metrics["best_epoch"] = history.best_epoch
            metrics["validation_neg_elbo"] = -elbo_terms(model, guide, data.validation).elbo.mean().item()
        if data.preprocessing is not None and not data.preprocessing.comparable:
            of_x = ("test_neg_elbo", "test_reconstruction", "test_log_marginal")
            metrics |= {name: math.nan for name in metrics if name.startswith(of_x)}
            metrics["note"] = ", ".join(
                filter(None, ["not comparable: preprocessing loses dimensions", metrics["note"]])
            )
            scores *= math.nan
        samples = draw_samples(model, cell)
    if plan.out is not None:
        config = description(plan, cell, model, guide)
        folder = plan.out / cell.folder
        write_run(folder, config, metrics, history, model, guide, data.preprocessing)
        if scores is not None:
            write_table(folder / "scores.csv", scores.rename_axis("row").reset_index())
        if plan.pictures and failure is None:
            write_run_pictures(folder, history, model, guide, test, truth)
    return Result(metrics, samples, scores)
