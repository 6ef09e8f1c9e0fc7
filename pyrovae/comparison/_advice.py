"""What a comparison's runs say about which model to take."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pyrovae.comparison._plan import Cell
from pyrovae.comparison._runs import Result
from pyrovae.comparison.recommendation import Recommendation, recommend
from pyrovae.linear_gaussian.baselines import Baseline

GIVEN = "given"
"""What the likelihood of a model is called that is given to a comparison, and not trained."""


def models_of(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """The runs of each model over the seeds, by a name to read: the simplest first, as the parts were given in.

    Likelihoods come first, then posteriors: of two models that differ in both, that of the simpler noise is simpler.
    """
    parts = ("likelihood", "posterior", "estimator", "latent_dim")
    given = {part: list(dict.fromkeys(getattr(cell, part) for cell in cells)) for part in parts}
    ordered = sorted(cells, key=lambda cell: [given[part].index(getattr(cell, part)) for part in parts])
    models: dict[str, list[Cell]] = {}
    for cell in ordered:
        name = f"{cell.posterior} posterior"
        name += f", {cell.likelihood} likelihood" if cell.likelihood != GIVEN else ""
        name += f", {cell.estimator}" if len(given["estimator"]) > 1 else ""
        name += f", d = {cell.latent_dim}" if len(given["latent_dim"]) > 1 else ""
        models.setdefault(name, []).append(cell)
    return models


def advise(results: Mapping[Cell, Result], baselines: Sequence[Baseline], threshold: float) -> Recommendation | None:
    """The recommendation on log p(x) of the test data, or on their ELBO at a given model; None where there is none.

    There is none of fewer than two seeds, or where no run came to an end with values that can be compared.
    """
    models = models_of(list(results))
    scores = {name: [results[cell].scores for cell in cells] for name, cells in models.items()}
    lengths = {len(table) for tables in scores.values() for table in tables if table is not None}
    if len(lengths) != 1 or min(map(len, models.values())) < 2:
        return None
    frozen = next(iter(results)).likelihood == GIVEN
    column, nothing = "elbo" if frozen else "log_prob", torch.full((lengths.pop(),), torch.nan).double()
    values: dict[str, Tensor] = {}
    for name, tables in scores.items():
        of_seeds = [nothing if t is None else torch.as_tensor(t[column].to_numpy(copy=True)) for t in tables]
        values[name] = torch.stack(of_seeds)
    if not any(value.isfinite().all() for value in values.values()):
        return None
    known = {b.name: b.log_prob for b in baselines if b.log_prob is not None}
    found = recommend(values, baselines=known, threshold=threshold)
    if not frozen:
        return found
    text = f"{found.text} Gains are in the ELBO: log p(x) is the same for every guide of one model."
    return dataclasses.replace(found, text=text)


def plain(advice: Recommendation) -> dict[str, Any]:
    """A recommendation as values that JSON has."""
    return {**vars(advice), "gains": advice.gains.to_dict("records")}
