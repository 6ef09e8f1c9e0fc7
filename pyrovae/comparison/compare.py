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
from pyro.infer import ELBO
from torch import Tensor

from pyrovae.comparison._advice import GIVEN, advise, plain
from pyrovae.comparison._data import Data, prepare
from pyrovae.comparison._pairs import LikelihoodFactory, PosteriorFactory
from pyrovae.comparison._plan import Cell, Plan, make_pair
from pyrovae.comparison._runs import Progress, Result, finished
from pyrovae.comparison._workers import run_here, run_in_processes
from pyrovae.comparison.recommendation import THRESHOLD
from pyrovae.comparison.tables import summarize, write_comparison
from pyrovae.datasets import Preprocessing, SyntheticDataset
from pyrovae.errors import InputError, InputTypeError, named_parts
from pyrovae.files import locked_folder, make_folder, write_json, write_table
from pyrovae.io import describe
from pyrovae.likelihoods import GaussianLikelihood
from pyrovae.linear_gaussian.baselines import Baseline
from pyrovae.linear_gaussian.warm_start import linear_models
from pyrovae.nn import MLP
from pyrovae.training import ENGINES, as_schedule, check_learning_rate
from pyrovae.vae import GenerativeModel


def compare(
    data: SyntheticDataset | Tensor | np.ndarray,
    *,
    posteriors: Mapping[str, PosteriorFactory] | Sequence[PosteriorFactory],
    estimators: Mapping[str, ELBO] | Sequence[ELBO],
    likelihoods: Mapping[str, LikelihoodFactory] | Sequence[LikelihoodFactory] | None = None,
    model: GenerativeModel | None = None,
    latent_dims: Sequence[int] | None = None,
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
    missing: str = "error",
    log_marginal_samples: int = 100,
    gap_data: int = 0,
    baselines: Sequence[Baseline] = (),
    threshold: float = THRESHOLD,
    engine: str = "auto",
    out: str | Path | None = None,
    pictures: bool = True,
    resume: bool = False,
    workers: int = 1,
    progress: bool = True,
) -> pd.DataFrame:
    """Train every posterior × estimator × likelihood × latent dimension × seed, tabulate them, and recommend one.

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
        model: one that is trained already, of ``data`` as they are: guides alone are trained, its parameters stay, and
            what is compared is the ELBO. Its likelihood is called ``"given"``.
        latent_dims: dimensions of z; by default 2, or the given model's.
        seeds: one run of every cell for each.
        epochs: passes over the training data, for all or by estimator's name; by default the synthetic set's own.
        batch_size: data per step.
        learning_rate: Adam's rate at the start. Of several, every cell is trained with each at the first seed, and goes
            on with the one of the largest ELBO of the validation data.
        schedule: of the learning rate, ``"cosine"`` or ``"constant"``.
        hidden: widths of the encoder's hidden layers, and in reverse of the decoder's.
        start: ``"random"`` weights, or ``"linear"``: networks with a linear part that starts as the likeliest linear
            model with the likelihood's noise, see :func:`~pyrovae.start_as_linear`. That is where to start where a few
            directions hold nearly all of the variance, as in spectra.
        num_train: size of a synthetic training set, instead of its own.
        num_test: size of a synthetic test set, instead of its own.
        test: data to report of, if ``data`` are training data alone.
        validation: data that choose each run's best epoch, and its learning rate.
        preprocessing: a step that is fitted on the training data and applied to all. Densities are reported of the
            original data; with a step that is no bijection there are none, and the ``note`` says so.
        missing: ``"error"``, or ``"mask"`` to take NaN for values that were not observed.
        log_marginal_samples: draws of z per datum for the test log p(x).
        gap_data: number of test data whose log p(x) − ELBO is split into what the family and what the encoder costs,
            for the runs of the first seed; see :func:`~pyrovae.inference_gaps`.
        baselines: linear models of the same test data, from :func:`~pyrovae.linear_baselines`, to hold the
            recommendation against.
        threshold: nats per datum below which a gain is no difference, see :func:`~pyrovae.recommend`.
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
        known; ``approximation_gap`` and ``amortization_gap`` where they were asked for; ``validation_neg_elbo``, of
        the preprocessed data; ``note`` says what went wrong, if anything did.

        With two seeds or more, ``table.attrs["recommendation"]`` says in plain values which model to take: ``choice``,
        ``verdict``, ``text``, and ``gains`` with their intervals, one entry a model, the simplest first.

    Raises:
        InputError: settings or data that cannot be run, or ``out`` in use.
    """
    if latent_dims is None:
        latent_dims = (getattr(model, "latent_dim", 2),)
    named_posteriors = named_parts("posteriors", posteriors)
    named_estimators = named_parts("estimators", estimators)
    epochs = epochs if epochs is not None else getattr(data, "epochs", None)
    if epochs is None:
        raise InputError("epochs must be given for data that are not a synthetic set")
    by_estimator = dict(epochs) if isinstance(epochs, Mapping) else dict.fromkeys(named_estimators, epochs)
    if set(by_estimator) != set(named_estimators):
        raise InputError(
            f"epochs must name the estimators {', '.join(named_estimators)}, not {', '.join(by_estimator)}"
        )
    positive = {"batch_size": batch_size, "workers": workers, "log_marginal_samples": log_marginal_samples}
    for name, value in [*(("epochs", value) for value in by_estimator.values()), *positive.items()]:
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{name} must be a positive integer, not {value!r}")
    for kind, values in {"seeds": seeds, "latent_dims": latent_dims}.items():
        if isinstance(values, int):
            raise InputTypeError(f"{kind} must be a sequence such as ({values},), not the number {values}")
    for estimator in named_estimators.values():
        if not isinstance(estimator, ELBO):
            raise InputTypeError(f"an estimator must be an instance such as AnalyticELBO(), not {estimator!r}")
    for kind, values in {"seed": seeds, "latent dimension": latent_dims, "hidden width": hidden}.items():
        if not values:
            raise InputError(f"give at least one {kind}")
    for kind, values in {"seeds": seeds, "latent dimensions": latent_dims}.items():
        if len(set(values)) < len(values):
            raise InputError(f"the {kind} {tuple(values)} hold one twice")
    if engine not in ENGINES:
        raise InputError(f"unknown engine {engine!r}; choose one of {', '.join(ENGINES)}")
    rates = [learning_rate] if isinstance(learning_rate, int | float) else list(learning_rate)
    for rate in rates:
        check_learning_rate(rate)
    if not rates or len(set(rates)) < len(rates):
        raise InputError(f"learning_rate must be one number or several different ones, not {learning_rate!r}")
    if len(rates) > 1 and validation is None:
        raise InputError("several learning rates are chosen from by validation data; give validation=")
    MLP(1, *hidden)  # widths that cannot be made are found before anything is written
    as_schedule(schedule)
    if missing not in ("error", "mask"):
        raise InputError(f"missing must be 'error' or 'mask', not {missing!r}")
    prepared = prepare(data, num_train, num_test, test, validation, preprocessing, missing == "mask")
    if model is not None:
        model = _frozen(model, prepared, likelihoods, latent_dims, start, missing)
        _ = None if out is None else describe(model, "model")  # one that cannot be saved is found before it is trained
    elif likelihoods is None:
        train = prepared.train
        spread = (train - train.nanmean(0)).square().nanmean().sqrt().item()
        likelihoods = {"gaussian": partial(GaussianLikelihood, initial_scale=max(0.25 * spread, 1e-3))}
    named_likelihoods = named_parts("likelihoods", likelihoods) if likelihoods is not None else {}
    for latent_dim in latent_dims:  # a head that cannot be made is found before anything is written
        _ = [make(1, latent_dim) for make in named_posteriors.values()]
    _ = [make(1, prepared.train.shape[-1]) for make in named_likelihoods.values()]
    if start not in ("random", "linear"):
        raise InputError(f"start must be 'random' or 'linear', not {start!r}")
    linear = None
    if start == "linear":
        linear = linear_models(prepared.train, named_likelihoods, latent_dims, prepared.validation, progress=progress)
    cells = [
        Cell(*parts)
        for parts in itertools.product(
            named_posteriors, named_estimators, named_likelihoods or (GIVEN,), latent_dims, seeds
        )
    ]
    if len({cell.folder for cell in cells}) < len(cells):
        raise InputError("two parts have names that differ only in signs; their runs would share a folder")
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
        model=model,
        missing=missing == "mask",
        gap_data=gap_data,
        gap_seed=seeds[0],
    )
    if linear is not None:  # programs that cannot start so are found before anything is written
        _ = [make_pair(plan, cell) for cell in cells if cell.seed == seeds[0]]
    plan = replace(plan, out=None if out is None else make_folder(Path(out)))
    first = [cell for cell in cells if cell.seed == seeds[0]] if len(rates) > 1 else []
    tried = [replace(cell, learning_rate=rate) for cell in first for rate in rates]
    bar = Progress(total=sum(by_estimator[cell.estimator] for cell in [*tried, *cells[len(first) :]]), show=progress)
    runs = run_here if workers == 1 else run_in_processes
    outcomes: dict[Cell, Result] = {}

    def run(wanted: list[Cell]) -> None:
        outcomes.update(filter(None, (finished(plan, cell) for cell in wanted)) if resume else {})
        left = [cell for cell in wanted if cell not in outcomes]
        if left:
            outcomes.update(runs(plan, left, workers, bar))

    with bar.bar, nullcontext() if plan.out is None else locked_folder(plan.out):
        if tried:
            run(tried)
            best = {}
            for cell in first:
                found = [outcomes[replace(cell, learning_rate=rate)].metrics for rate in rates]
                best[cell] = _best(rates, found)
            cells = [replace(cell, learning_rate=best[replace(cell, seed=seeds[0])]) for cell in cells]
        run([cell for cell in cells if cell not in outcomes])
    table = pd.DataFrame([outcomes[cell].metrics for cell in cells])
    advice = advise({cell: outcomes[cell] for cell in cells}, baselines, threshold)
    if advice is not None:
        table.attrs["recommendation"] = plain(advice)
    if plan.out is not None:
        samples = {}
        for cell in cells:
            drawn = outcomes[cell].samples
            if drawn is not None and cell.seed == seeds[0] and cell.likelihood == cells[0].likelihood:
                dimension = f", d = {cell.latent_dim}" if len(latent_dims) > 1 else ""
                samples[f"{cell.posterior}, {cell.estimator}{dimension}"] = drawn
        if tried:
            write_table(plan.out / "rates.csv", pd.DataFrame([outcomes[cell].metrics for cell in tried]))
        if advice is not None:
            write_json(plan.out / "recommendation.json", plain(advice))
        write_comparison(plan.out, table, summarize(table), {"test data": plan.data.test[:3000]} | samples)
    return table


def _best(rates: Sequence[float], tried: Sequence[Mapping[str, Any]]) -> float:
    """The rate of the smallest −ELBO of the validation data; the first where all failed."""
    losses = [metrics["validation_neg_elbo"] for metrics in tried]
    return rates[int(np.nanargmin(losses))] if np.isfinite(losses).any() else rates[0]


def _frozen(
    model: GenerativeModel,
    data: Data,
    likelihoods: object,
    latent_dims: Sequence[int],
    start: str,
    missing: str,
) -> GenerativeModel:
    """A copy of a given model, in the data's dtype, that is not trained."""
    if not isinstance(model, GenerativeModel):
        raise InputTypeError(f"model must be a GenerativeModel, not {type(model).__name__}")
    if likelihoods is not None or start != "random" or missing != "error" or data.preprocessing is not None:
        raise InputError("a model that is given has its likelihood, start and preprocessing: give none of them")
    if tuple(latent_dims) != (model.latent_dim,):
        raise InputError(f"the model has {model.latent_dim} latent dimensions, and latent_dims are {latent_dims}")
    n = data.train.shape[1]
    if model.likelihood.n != n:
        raise InputError(f"the model is of data with {model.likelihood.n} columns, and the data have {n}")
    model = copy.deepcopy(model).to(data.train.dtype).eval().requires_grad_(False)
    for name, x in (("data", data.train), ("test", data.test)):
        model.check_support(name, x)
    return model
