"""Comparing posterior families, estimators and likelihoods on one set of data: many runs, one table."""

import copy
import itertools
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pyro.infer import ELBO
from torch import Tensor

from pyrovae.atomic import held, make_folder
from pyrovae.datasets import Preprocessing, SyntheticDataset
from pyrovae.exact import LinearGaussianVAE
from pyrovae.likelihoods import GaussianLikelihood
from pyrovae.naming import named_parts
from pyrovae.nn import MLP
from pyrovae.report import summarize, write_comparison, write_table
from pyrovae.runs import (
    Cell,
    Data,
    LikelihoodFactory,
    Plan,
    PosteriorFactory,
    Progress,
    finished,
    make_pair,
)
from pyrovae.training import ENGINES, as_schedule, check_learning_rate
from pyrovae.workers import run_here, run_in_processes


def compare(
    data: SyntheticDataset | Tensor | np.ndarray,
    *,
    posteriors: Mapping[str, PosteriorFactory] | Sequence[PosteriorFactory],
    estimators: Mapping[str, ELBO] | Sequence[ELBO],
    likelihoods: Mapping[str, LikelihoodFactory] | Sequence[LikelihoodFactory] | None = None,
    latent_dims: Sequence[int] = (2,),
    seeds: Sequence[int] = (0,),
    epochs: int | Mapping[str, int] | None = None,
    batch_size: int = 32,
    learning_rate: float | Sequence[float] = 1e-3,
    schedule: str = "cosine",
    hidden: Sequence[int] = (128, 128),
    start: str = "random",
    num_train: int | None = None,
    num_test: int | None = None,
    test: Tensor | np.ndarray | None = None,
    validation: Tensor | np.ndarray | None = None,
    preprocessing: Preprocessing | None = None,
    log_marginal_samples: int = 100,
    engine: str = "auto",
    out: str | Path | None = None,
    pictures: bool = True,
    resume: bool = False,
    workers: int = 1,
    progress: bool = True,
) -> pd.DataFrame:
    """Train every posterior × estimator × likelihood × latent dimension × seed and tabulate them.

    All runs see the same training and test data; a seed sets a run's initialisation, batches and noise. Runs that
    differ in their seed alone are trained together, in one program.

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
        epochs: passes over the training data, for all or by estimator's name; by default the synthetic set's own.
        batch_size: data per step.
        learning_rate: Adam's rate at the start. Of several, every cell is trained with each at the first seed, and goes
            on with the one of the largest ELBO of the validation data.
        schedule: of the learning rate, ``"cosine"`` or ``"constant"``.
        hidden: widths of the encoder's hidden layers, and in reverse of the decoder's.
        start: ``"random"`` weights, or ``"linear"``: networks with a linear part that starts as probabilistic PCA of
            the training data, see :func:`~pyrovae.start_as_linear`. That is where to start where a few directions hold
            nearly all of the variance, as in spectra.
        num_train: size of a synthetic training set, instead of its own.
        num_test: size of a synthetic test set, instead of its own.
        test: data to report of, if ``data`` are training data alone.
        validation: data that choose each run's best epoch, and its learning rate.
        preprocessing: a step that is fitted on the training data and applied to all. Densities are reported of the
            original data; with a step that is no bijection there are none, and the ``note`` says so.
        log_marginal_samples: draws of z per datum for the test log p(x).
        engine: ``"auto"``, ``"eager"`` or ``"compiled"``, see :func:`~pyrovae.fit`.
        out: folder for the runs and the comparison; nothing is written without it.
        pictures: whether each run's folder gets pictures.
        resume: take over the runs in ``out`` that came to their end with the same settings.
        workers: processes, each with one thread. With more than one, call from under
            ``if __name__ == "__main__":``, and give factories that can be pickled.
        progress: whether to show a progress bar (on a terminal).

    Returns:
        One row a run, losses in nats per datum: ``test_neg_elbo`` and its parts ``test_reconstruction``
        and ``test_kl``; ``test_log_marginal``, log p(x) by importance sampling; ``nats_above_truth``, the
        mean over the test data of log p(x) − ELBO(x), with the standard error of that mean, where p is
        known; ``validation_neg_elbo``, of the preprocessed data; ``note`` says what went wrong, if anything did.

    Raises:
        ValueError: settings or data that cannot be run, or ``out`` in use.
    """
    named_posteriors = named_parts("posteriors", posteriors)
    named_estimators = named_parts("estimators", estimators)
    epochs = epochs if epochs is not None else getattr(data, "epochs", None)
    if epochs is None:
        raise ValueError("epochs must be given for data that are not a synthetic set")
    by_estimator = dict(epochs) if isinstance(epochs, Mapping) else dict.fromkeys(named_estimators, epochs)
    if set(by_estimator) != set(named_estimators):
        raise ValueError(
            f"epochs must name the estimators {', '.join(named_estimators)}, not {', '.join(by_estimator)}"
        )
    positive = {"batch_size": batch_size, "workers": workers, "log_marginal_samples": log_marginal_samples}
    for name, value in [*(("epochs", value) for value in by_estimator.values()), *positive.items()]:
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive integer, not {value!r}")
    for kind, values in {"seeds": seeds, "latent_dims": latent_dims}.items():
        if isinstance(values, int):
            raise TypeError(f"{kind} must be a sequence such as ({values},), not the number {values}")
    for estimator in named_estimators.values():
        if not isinstance(estimator, ELBO):
            raise TypeError(f"an estimator must be an instance such as AnalyticELBO(), not {estimator!r}")
    for kind, values in {"seed": seeds, "latent dimension": latent_dims, "hidden width": hidden}.items():
        if not values:
            raise ValueError(f"give at least one {kind}")
    for kind, values in {"seeds": seeds, "latent dimensions": latent_dims}.items():
        if len(set(values)) < len(values):
            raise ValueError(f"the {kind} {tuple(values)} hold one twice")
    if engine not in ENGINES:
        raise ValueError(f"unknown engine {engine!r}; choose one of {', '.join(ENGINES)}")
    rates = [learning_rate] if isinstance(learning_rate, int | float) else list(learning_rate)
    for rate in rates:
        check_learning_rate(rate)
    if not rates or len(set(rates)) < len(rates):
        raise ValueError(f"learning_rate must be one number or several different ones, not {learning_rate!r}")
    if len(rates) > 1 and validation is None:
        raise ValueError("several learning rates are chosen from by validation data; give validation=")
    MLP(1, *hidden)  # widths that cannot be made are found before anything is written
    as_schedule(schedule)
    prepared = _prepare(data, num_train, num_test, test, validation, preprocessing)
    if likelihoods is None:
        spread = prepared.train.var(0).mean().sqrt().item()
        likelihoods = {"gaussian": partial(GaussianLikelihood, initial_scale=max(0.25 * spread, 1e-3))}
    named_likelihoods = named_parts("likelihoods", likelihoods)
    for latent_dim in latent_dims:  # a head that cannot be made is found before anything is written
        _ = [make(1, latent_dim) for make in named_posteriors.values()]
    _ = [make(1, prepared.train.shape[-1]) for make in named_likelihoods.values()]
    if start not in ("random", "linear"):
        raise ValueError(f"start must be 'random' or 'linear', not {start!r}")
    linear = {d: LinearGaussianVAE.fit(prepared.train, d) for d in latent_dims} if start == "linear" else None
    cells = [
        Cell(*parts)
        for parts in itertools.product(named_posteriors, named_estimators, named_likelihoods, latent_dims, seeds)
    ]
    if len({cell.folder for cell in cells}) < len(cells):
        raise ValueError("two parts have names that differ only in signs; their runs would share a folder")
    plan = Plan(
        data=prepared,
        posteriors=named_posteriors,
        estimators=named_estimators,
        likelihoods=named_likelihoods,
        epochs=by_estimator,
        log_marginal_samples=log_marginal_samples,
        engine=engine,
        batch_size=batch_size,
        learning_rate=rates[0],
        schedule=schedule,
        hidden=tuple(hidden),
        out=None,
        pictures=pictures,
        linear=linear,
    )
    if linear is not None:  # programs that cannot start so are found before anything is written
        _ = [make_pair(plan, cell) for cell in cells if cell.seed == seeds[0]]
    plan = replace(plan, out=None if out is None else make_folder(Path(out)))
    first = [cell for cell in cells if cell.seed == seeds[0]] if len(rates) > 1 else []
    tried = [replace(cell, learning_rate=rate) for cell in first for rate in rates]
    bar = Progress(total=sum(by_estimator[cell.estimator] for cell in [*tried, *cells[len(first) :]]), show=progress)
    runs = run_here if workers == 1 else run_in_processes
    outcomes: dict[Cell, tuple[dict[str, Any], Tensor | None]] = {}

    def run(wanted: list[Cell]) -> None:
        outcomes.update(filter(None, (finished(plan, cell) for cell in wanted)) if resume else {})
        left = [cell for cell in wanted if cell not in outcomes]
        if left:
            outcomes.update(runs(plan, left, workers, bar))

    with bar.bar, nullcontext() if plan.out is None else held(plan.out):
        if tried:
            run(tried)
            best = {
                cell: _best(rates, [outcomes[replace(cell, learning_rate=rate)][0] for rate in rates]) for cell in first
            }
            cells = [replace(cell, learning_rate=best[replace(cell, seed=seeds[0])]) for cell in cells]
        run([cell for cell in cells if cell not in outcomes])
    table = pd.DataFrame([outcomes[cell][0] for cell in cells])
    if plan.out is not None:
        samples = {}
        for cell in cells:
            drawn = outcomes[cell][1]
            if drawn is not None and cell.seed == seeds[0] and cell.likelihood == cells[0].likelihood:
                dimension = f", d = {cell.latent_dim}" if len(latent_dims) > 1 else ""
                samples[f"{cell.posterior}, {cell.estimator}{dimension}"] = drawn
        if tried:
            write_table(plan.out / "rates.csv", pd.DataFrame([outcomes[cell][0] for cell in tried]))
        write_comparison(plan.out, table, summarize(table), {"test data": plan.data.test[:3000]} | samples)
    return table


def _best(rates: Sequence[float], tried: Sequence[Mapping[str, Any]]) -> float:
    """The rate of the smallest −ELBO of the validation data; the first where all failed."""
    losses = [metrics["validation_neg_elbo"] for metrics in tried]
    return rates[int(np.nanargmin(losses))] if np.isfinite(losses).any() else rates[0]


def _prepare(
    data: SyntheticDataset | Tensor | np.ndarray,
    num_train: int | None,
    num_test: int | None,
    test: Tensor | np.ndarray | None,
    validation: Tensor | np.ndarray | None,
    preprocessing: Preprocessing | None,
) -> Data:
    generator = torch.Generator().manual_seed(0)
    if isinstance(data, SyntheticDataset):
        if test is not None or validation is not None or preprocessing is not None:
            raise ValueError("test, validation and preprocessing belong to data of one's own, not to a synthetic set")
        sizes = [data.num_train if num_train is None else num_train, data.num_test if num_test is None else num_test]
        for name, size in zip(("num_train", "num_test"), sizes, strict=True):
            if not isinstance(size, int) or size < 2:
                raise ValueError(f"{name} must be an integer of at least 2, not {size!r}")
        return Data(data.name, data.sample(sizes[0], generator), data.sample(sizes[1], generator), data)
    train = _as_tensor("data", data)
    if test is None:
        shuffled = train[torch.randperm(len(train), generator=generator)]
        held_out = max(2, len(train) // 5)
        train, test = shuffled[:-held_out], shuffled[-held_out:]
    parts = {"test": _as_tensor("test", test)}
    if validation is not None:
        parts["validation"] = _as_tensor("validation", validation)
    for name, part in parts.items():
        if part.shape[1] != train.shape[1]:
            raise ValueError(f"{name} has {part.shape[1]} columns and the training data {train.shape[1]}")
    jacobian = None
    if preprocessing is not None:
        preprocessing = copy.deepcopy(preprocessing).fit(train)
        jacobian = preprocessing.log_abs_det_jacobian(parts["test"]) if preprocessing.comparable else None
        train = preprocessing.transform(train)
        parts = {name: preprocessing.transform(part) for name, part in parts.items()}
    return Data("data", train, parts["test"], None, parts.get("validation"), preprocessing, jacobian)


def _as_tensor(name: str, data: Tensor | np.ndarray) -> Tensor:
    data = torch.as_tensor(data).to(torch.get_default_dtype())
    if data.dim() != 2 or len(data) < (4 if name == "data" else 2):
        least = 4 if name == "data" else 2
        raise ValueError(f"{name} must have shape (num, n) with num ≥ {least}, not {tuple(data.shape)}")
    if not torch.isfinite(data).all():
        row, column = (~torch.isfinite(data)).nonzero()[0].tolist()
        raise ValueError(f"{name} hold NaN or infinity at row {row}, column {column} (counted from 0)")
    return data
