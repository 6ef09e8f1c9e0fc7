"""Compare posterior families, estimators and likelihoods on one data set: many runs, one table."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from pyrovae.blocks import nanmean
from pyrovae.comparison._conclusion import conclude
from pyrovae.comparison._data import PreparedData, check_can_be_sent, draw_synthetic, prepare
from pyrovae.comparison._given import frozen
from pyrovae.comparison._linear import models_to_start_as, with_latent_dims, write_linear
from pyrovae.comparison._pairs import at_mean_of
from pyrovae.comparison._plan import Cell, Plan, make_pair
from pyrovae.comparison._result import Results
from pyrovae.comparison._runs import callers_state_left_alone, choose_rates, left_to_run, run_pieces
from pyrovae.comparison.settings import OF_EACH_RUN, ComparisonKeywords, ComparisonSettings, Execution
from pyrovae.datasets import SyntheticDataset
from pyrovae.descriptions import describe
from pyrovae.errors import InputError
from pyrovae.files import locked_folder, make_folder
from pyrovae.frames import Data
from pyrovae.keywords import accepts
from pyrovae.likelihoods import GaussianLikelihood
from pyrovae.linear_gaussian.baselines import Baseline
from pyrovae.programs import FixedParameters, Program, takes_missing
from pyrovae.training import TrainingSettings, processes
from pyrovae.vae import GenerativeModel

if TYPE_CHECKING:
    import pandas as pd


@accepts(ComparisonSettings, TrainingSettings, omit=OF_EACH_RUN, optional=["epochs"])
def compare(
    data: SyntheticDataset | Data,
    *,
    model: Program | None = None,
    test: Data | None = None,
    validation: Data | None = None,
    baselines: Sequence[Baseline] = (),
    out: str | Path | None = None,
    pictures: bool = True,
    resume: bool = False,
    workers: int = 1,
    scheduler: str | None = None,
    progress: bool = True,
    **settings: Unpack[ComparisonKeywords],
) -> pd.DataFrame:
    """Train every posterior × estimator × likelihood × latent dimension × seed, tabulate them, and recommend one.

    All runs use the same training and test data. A seed sets a run's initialisation, batches and noise. Runs that
    differ only in their seed are trained together, in one program. The caller's random state and Pyro's parameter store
    do not change.

    Args:
        data: a synthetic set, drawn with its own sizes, or data (num, n). The last fifth of a fixed shuffle is held out
            as test data; copies (:func:`~pyrovae.datasets.find_copies`) stay in one part. Of data that lie in a file,
            mapped or as a Dataset of more than 256 MiB, at most 2,000 are held out.
        model: a trained model of the unprocessed ``data``. Then only guides are trained, its parameters do not change,
            and the ELBO is compared. Its likelihood is called ``"given"``. A Pyro model written by hand needs one
            latent site, ``"z"`` with event shape (d,), in the data's plate; it cannot be saved, so leave out ``out``.
        test: test data, if ``data`` are only training data.
        validation: data that choose each run's best epoch and its learning rate, by ``measure``. By default that is
            :class:`~pyrovae.evaluation.RefinedELBO` at a few epochs, which does not depend on the encoder's
            overfitting; for a given model it is the ELBO.
        baselines: linear models of the same test data, from :func:`~pyrovae.linear_baselines`. They are candidates like
            the VAEs, and simpler, and are saved in ``out/linear``. A baseline without a model is only compared with the
            recommendation.
        out: folder for the runs and the comparison; nothing is written without it.
        pictures: whether each run's folder gets pictures.
        resume: keep the runs in ``out`` that finished with the same settings.
        workers: processes, each with one thread. With more than one, call from under
            ``if __name__ == "__main__":`` and give factories that can be pickled.
        scheduler: address of a Dask cluster that runs them instead, such as ``"tcp://10.0.0.5:8786"``; needs the extra
            ``cluster``. Each run goes to one of its workers, and its folder comes back as data.
        progress: whether to show a progress bar (on a terminal).
        **settings: the fields of :class:`~pyrovae.ComparisonSettings` and of :class:`~pyrovae.TrainingSettings`.
            ``posteriors``, ``estimators`` and ``likelihoods`` are sequences of names, such as ``"diagonal"``, or of
            classes or other callables, or mappings with names. By default the likelihood is Gaussian with one learned
            σ that starts at a quarter of the training data's standard deviation; a synthetic set has its own
            ``epochs``; a given model has its own ``latent_dims``.

    Returns:
        One row per run, losses in nats per datum: ``test_neg_elbo`` and its parts ``test_reconstruction`` and
        ``test_kl``; ``test_log_marginal``, an estimate of log p(x); ``nats_above_truth``, the mean over the test data
        of log p(x) − ELBO(x), with its standard error, if the true p is known; ``lost_by_encoder``, the rise of the
        ELBO of some test data with :func:`~pyrovae.refine`; ``approximation_gap`` and ``amortization_gap``, if
        requested; ``validation_neg_elbo`` and ``validation_loss``, which choose epochs and learning rates, and
        ``encoder_gain`` of ``refit_epochs``, all for the preprocessed data; ``status``, ``"finished"`` or ``"failed"``;
        ``error``, the type of the exception; ``note``, what went wrong; ``folder``, the run's folder in ``out``.

        ``table.attrs["recommendation"]`` says in plain values which model to take: ``choice``, ``verdict``, ``text``,
        ``gains`` with their intervals, one entry per model, the simplest first, and ``notes``. The verdict is ``"too
        few"`` with fewer than 20 test data or 2 seeds.

    Raises:
        InputError: settings or data are invalid, or ``out`` is in use.
    """
    execution = Execution(workers, scheduler)
    if callable(model) and not isinstance(model, GenerativeModel):
        if out is not None:
            raise InputError("a model written by hand cannot be saved: compare its guides without out=")
        masks, model = takes_missing(model), FixedParameters()(model)
        vars(model)["missing"] = masks
    processes.check_alone("a comparison")
    with callers_state_left_alone():
        plan = _plan_of(_settings_of(settings, data, model), data, test, validation, model, pictures, progress)
        check_can_be_sent(plan.data, execution)
        if baselines and not plan.is_of_densities:
            raise InputError("baselines have densities and these models do not: give no baselines")
        plan = with_folder(plan, out)
        results: Results = {}
        tried: list[Cell] = []
        cells = plan.cells
        with nullcontext() if plan.out is None else locked_folder(plan.out):
            if plan.settings.learning_rates:
                cells, tried = choose_rates(plan, results, execution, resume=resume, progress=progress)
            pieces = left_to_run(plan, cells, results, execution, resume=resume)
            run_pieces(plan, pieces, results, execution, progress=progress)
            if plan.out is not None:
                write_linear(plan.out, baselines, None)
            return conclude(plan, cells, results, baselines, tried).table


def with_folder(plan: Plan, out: str | Path | None) -> Plan:
    """The plan with a folder for its runs, after all checks: heads, start, the given model."""
    if len({cell.folder for cell in plan.cells}) < len(plan.cells):
        raise InputError("two parts have names that differ only in punctuation; their runs would share a folder")
    settings = plan.settings
    for asked, why in (
        (settings.learning_rates, "validation data choose among several learning rates"),
        (settings.refit_epochs, "refit_epochs: validation data decide whether the new encoder is kept"),
        (settings.training.measure, "a measure chooses the best epoch by validation data"),
    ):
        if asked and plan.data.validation is None:
            raise InputError(f"{why}; give validation=")
    for latent_dim in settings.dims:
        _ = [make(1, latent_dim) for make in settings.named_posteriors.values()]
    check_likelihoods(settings, plan.data)
    if plan.linear is not None:
        _ = [make_pair(plan, cell) for cell in plan.cells if cell.seed == settings.seeds[0]]
    if out is None:
        return plan
    if plan.model is not None:
        describe(plan.model, "model")  # a model that cannot be saved is refused before it is trained
    return replace(plan, out=make_folder(Path(out)))


def check_likelihoods(settings: ComparisonSettings, data: PreparedData) -> None:
    """Raise an InputError unless the likelihoods can be compared, and are of data like these."""
    heads = {name: make(1, data.train.shape[-1]) for name, make in settings.named_likelihoods.items()}
    kinds: dict[str, str] = {}
    for name, head in heads.items():
        kinds.setdefault("densities" if head.is_continuous else "probabilities" if head.is_density else "neither", name)
    if len(kinds) > 1:
        said = " and ".join(f"{name} gives {kind}" for kind, name in kinds.items())
        raise InputError(
            f"{said}, which cannot be compared: compare likelihoods of one kind (one of your own says by is_continuous "
            "= True that it is a density)"
        )
    for name, x in (("data", data.train), ("test", data.test), ("validation", data.validation)):
        for likelihood in heads.values():
            if x is not None:
                likelihood.check_support(name, x)


def plan_of(settings: ComparisonSettings, data: PreparedData, *, pictures: bool = True, progress: bool = True) -> Plan:
    """The plan of a comparison of data, with the linear models that its runs start as."""
    if settings.likelihoods is not None:
        at_mean = {name: at_mean_of(make, data.train) for name, make in settings.named_likelihoods.items()}
        settings = replace(settings, likelihoods=at_mean)
    settings = with_latent_dims(settings, data, progress)
    return Plan(settings, data, linear=models_to_start_as(settings, data, progress), pictures=pictures)


def _settings_of(
    keywords: ComparisonKeywords, data: SyntheticDataset | Data, model: Program | None
) -> ComparisonSettings:
    """The settings of a call's keywords, with defaults from the data and the given model."""
    given: dict[str, Any] = {**keywords}
    for old, new, kind in (
        ("epochs", "epochs_by_estimator", Mapping),
        ("learning_rate", "learning_rates", (Sequence, np.ndarray)),
    ):
        if isinstance(given.get(old), kind):
            warnings.warn(f"several values of {old} are {new}=", DeprecationWarning, stacklevel=4)
            if not len(given[old]) or new in given:
                raise InputError(f"{old} must be one value, and {new} several different ones: give one of the two")
            given[new] = given.pop(old)
    by_estimator = given.get("epochs_by_estimator")
    if given.get("epochs") is None:
        given["epochs"] = next(iter(by_estimator.values()), 1) if by_estimator else getattr(data, "epochs", None)
    if given["epochs"] is None:
        raise InputError("epochs must be given for data that are not a synthetic set")
    if given.get("latent_dims") is None:
        given["latent_dims"] = (getattr(model, "latent_dim", 2),)
    training = {field.name: given.pop(field.name) for field in fields(TrainingSettings) if field.name in given}
    return ComparisonSettings(training=TrainingSettings(**training), **given)


def _plan_of(
    settings: ComparisonSettings,
    data: SyntheticDataset | Data,
    test: Data | None,
    validation: Data | None,
    model: Program | None,
    pictures: bool,
    progress: bool,
) -> Plan:
    if isinstance(data, SyntheticDataset):
        if test is not None or validation is not None or settings.preprocessing is not None:
            raise InputError("test, validation and preprocessing belong to your own data, not to a synthetic set")
        prepared = draw_synthetic(data, settings.num_train, settings.num_test)
    else:
        prepared = prepare(data, test, validation, settings)
    if model is not None:
        return Plan(settings, prepared, model=frozen(model, prepared, settings), pictures=pictures)
    if settings.likelihoods is None:
        mean = nanmean(prepared.train)
        spread = nanmean(prepared.train, lambda rows: (rows - mean).square()).nanmean().sqrt().item()
        gaussian = partial(GaussianLikelihood, initial_scale=max(0.25 * spread, 1e-3))
        settings = replace(settings, likelihoods={"gaussian": gaussian})
    return plan_of(settings, prepared, pictures=pictures, progress=progress)
