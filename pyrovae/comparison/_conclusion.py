"""What runs show together: the recommendation, the notes, the tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from pyrovae.comparison._measures import MEASURES, marginal_of
from pyrovae.comparison._plan import Cell, Plan, models_of, names_of, num_parameters
from pyrovae.comparison._result import Results
from pyrovae.comparison.notes import (
    Note,
    notes_of_data,
    notes_of_dimensions,
    notes_of_networks,
    notes_of_runs,
    notes_of_weights,
)
from pyrovae.comparison.recommendation import Measure, Recommendation, recommend
from pyrovae.comparison.tables import summarize, write_comparison
from pyrovae.evaluation import LogMarginal
from pyrovae.files import write_json, write_table
from pyrovae.linear_gaussian.baselines import Baseline

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
        cells: the runs.
        results: results of each run.
        recommendation: which model to take; None if no values can be compared.
        tried: runs among which validation data chose a learning rate.
        notes: further remarks about them.
    """

    cells: list[Cell]
    results: Results
    recommendation: Recommendation | None
    tried: list[Cell]
    notes: list[Note]

    @property
    def advice(self) -> dict[str, object] | None:
        """The recommendation and the notes as plain values."""
        if self.recommendation is None:
            return None
        return self.recommendation.to_dict() | {"notes": [note.to_dict() for note in self.notes]}

    @property
    def table(self) -> pd.DataFrame:
        """One row per run, as :func:`compare` returns it."""
        table = self.rows_of(self.cells)
        if self.advice is not None:
            table.attrs["recommendation"] = self.advice
        return table

    def rows_of(self, cells: Sequence[Cell]) -> pd.DataFrame:
        """One row for each of these runs."""
        import pandas as pd

        rows = [self.results[cell].metrics for cell in cells]
        return pd.DataFrame(rows, columns=None if rows else [*MEASURES, "note"])


def conclude(
    plan: Plan,
    cells: list[Cell],
    results: Results,
    baselines: Sequence[Baseline],
    tried: Sequence[Cell] = (),
) -> Comparison:
    """The outcome of the runs; writes its tables and pictures if the plan has a folder."""
    own = {cell: results[cell] for cell in cells}
    advice, names = advise(plan, own, baselines), names_of(models_of(cells))
    notes = [*notes_of_data(plan.data), *notes_of_runs(plan, own, names), *notes_of_weights(own, names)]
    if advice is not None:
        models = {name: model for model, name in names.items()} | {b.name: b for b in baselines}
        too_small = []
        of_vaes = advise(plan, own, baselines, linear_too=False) if cells else None
        if of_vaes is not None:
            notes += notes_of_networks(of_vaes)
            too_small = notes_of_dimensions(plan, of_vaes, models[of_vaes.choice], baselines)
        notes += too_small or notes_of_dimensions(plan, advice, models[advice.choice], baselines)
    found = Comparison(cells, results, advice, list(tried), notes)
    if plan.out is not None and cells:
        _write(plan, found)
    return found


def advise(
    plan: Plan,
    results: Results,
    baselines: Sequence[Baseline],
    *,
    linear_too: bool = True,
) -> Recommendation | None:
    """The recommendation from log p(x) of the test data, or from their ELBO for a given model; None if there is none.

    The simpler of two models is the one whose p(x) has fewer parameters; if equal, the first one given. Linear models
    are candidates, unless only the VAEs are requested; then they are compared with these.
    """
    models = models_of(results)
    scores = {model: [results[cell].scores for cell in cells] for model, cells in models.items()}
    failed = LogMarginal.exact(torch.full((len(plan.data.test),), torch.nan))

    def estimate(table: pd.DataFrame | None) -> LogMarginal:
        if table is None:
            return failed
        if plan.model is not None:
            return LogMarginal.exact(torch.as_tensor(table["elbo"].to_numpy(copy=True)))
        return marginal_of(table, plan.settings.log_marginal_samples)

    names = names_of(models)
    values = {name: [estimate(table) for table in scores[model]] for model, name in names.items()}
    trained = [name for name, seeds in values.items() if all(one.per_datum.isfinite().all() for one in seeds)]
    if models and not trained:
        return None
    sizes = {name: num_parameters(plan, models[model][0]) for model, name in names.items() if name in trained}
    if plan.model is None and linear_too:
        candidates = {b.name: b.log_prob for b in baselines if b.model is not None and b.log_prob is not None}
        num_seeds = min(map(len, models.values()), default=len(plan.settings.seeds))
        values = {name: [LogMarginal.exact(value)] * num_seeds for name, value in candidates.items()} | values
        sizes |= {b.name: b.model.num_parameters for b in baselines if b.model is not None}
        baselines = [b for b in baselines if b.model is None]
    values = dict(sorted(values.items(), key=lambda item: sizes.get(item[0], math.inf)))
    known = {b.name: b.log_prob for b in baselines if b.log_prob is not None}
    measure = Measure.LOG_PROB if plan.model is None else Measure.ELBO
    return recommend(
        values, baselines=known, groups=plan.data.test_groups, threshold=plan.settings.threshold, measure=measure
    )


def _write(plan: Plan, found: Comparison) -> None:
    """Write the tables, the recommendation and the pictures of a comparison."""
    assert plan.out is not None
    several_dims, first = len(plan.settings.dims) > 1, found.cells[0]
    samples = {"test data": plan.data.test[:3000]}
    for cell in found.cells:
        drawn = found.results[cell].samples
        if drawn is not None and (cell.seed, cell.likelihood) == (plan.settings.seeds[0], first.likelihood):
            dimension = f", d = {cell.latent_dim}" if several_dims else ""
            samples[f"{cell.posterior}, {cell.estimator}{dimension}"] = drawn
    if found.tried:
        write_table(plan.out / "rates.csv", found.rows_of(found.tried))
    if found.recommendation is not None:
        write_json(plan.out / "recommendation.json", found.advice)
    table = found.table
    write_comparison(plan.out, table, summarize(table), samples)
