"""The linear-Gaussian candidates of a comparison: fitted to the VAEs' data, scored, and saved."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from pyrovae.comparison._data import PreparedData
from pyrovae.comparison._pairs import can_start_as_linear
from pyrovae.comparison.recommendation import THRESHOLD
from pyrovae.comparison.settings import STANDARD, ComparisonSettings, LikelihoodFactory
from pyrovae.datasets import Preprocessing
from pyrovae.errors import InputError
from pyrovae.files import make_folder, write_json
from pyrovae.io import save
from pyrovae.likelihoods import GaussianNoiseLikelihood
from pyrovae.linear_gaussian.baselines import Baseline, linear_candidates, simple_candidates
from pyrovae.linear_gaussian.dimension import latent_dim_by_validation
from pyrovae.linear_gaussian.factor_model import FactorModel
from pyrovae.linear_gaussian.keys import Attempt, without_limit
from pyrovae.linear_gaussian.warm_start import linear_models

LinearModels = dict[tuple[str, int], FactorModel]
"""By the likelihood's name and the latent dimension."""


def with_latent_dims(settings: ComparisonSettings, data: PreparedData, progress: bool) -> ComparisonSettings:
    """The settings, with 'auto' replaced by the latent dimension that validation data choose.

    Raises:
        InputError: no validation data.
    """
    if settings.latent_dims != "auto":
        return settings
    d = best_latent_dim(settings.named_likelihoods.values(), data.train, data.validation, settings.threshold, progress)
    return replace(settings, latent_dims=(d,))


def best_latent_dim(
    likelihoods: Iterable[LikelihoodFactory],
    train: Tensor,
    validation: Tensor | None,
    threshold: float = THRESHOLD,
    progress: bool = False,
) -> int:
    """The latent dimension that validation data choose for linear models, with the Gaussian ones of these noises.

    Raises:
        InputError: no validation data.
    """
    if validation is None:
        raise InputError("a latent dimension 'auto' is chosen by linear models on validation data; give a number")
    noises = [make(1, train.shape[1]) for make in likelihoods]
    gaussian = [noise for noise in noises if isinstance(noise, GaussianNoiseLikelihood)]
    return latent_dim_by_validation(train, validation, gaussian, threshold=threshold, progress=progress)


@torch.random.fork_rng(devices=[])
def models_to_start_as(
    settings: ComparisonSettings,
    data: PreparedData,
    progress: bool,
    attempt: Attempt = without_limit,
) -> LinearModels | None:
    """The linear model of each Gaussian likelihood and dimension; None if training starts from random weights."""
    posteriors, likelihoods = settings.named_posteriors, settings.named_likelihoods
    possible = can_start_as_linear(posteriors.values(), likelihoods.values(), settings)
    possible &= list(settings.named_priors) == [STANDARD]
    possible |= settings.start == "linear"
    if settings.start == "random" or not possible:
        return None
    return linear_models(data.train, likelihoods, settings.dims, data.validation, attempt=attempt, progress=progress)


def may_be_linear(settings: ComparisonSettings, data: PreparedData) -> bool:
    """Whether linear models can be compared with the VAEs: if the likelihoods are densities of the data too."""
    made = [make(1, data.train.shape[1]) for make in settings.named_likelihoods.values()]
    return data.is_comparable and all(p.is_continuous for p in made)


def simple_baselines(settings: ComparisonSettings, data: PreparedData) -> list[Baseline]:
    """Probabilistic PCA and factor analysis on the test data, in the original units."""
    (latent_dim,) = settings.dims
    return _on_test(simple_candidates(data.train, latent_dim), data)


@torch.random.fork_rng(devices=[])
def other_baselines(
    settings: ComparisonSettings,
    data: PreparedData,
    models: LinearModels | None,
    progress: bool,
    attempt: Attempt = without_limit,
) -> list[Baseline]:
    """The linear models with correlated noise, fitted here if necessary, and those chosen by validation.

    Args:
        settings: of the comparison.
        data: prepared.
        models: those that have been fitted, if VAEs start as them.
        progress: whether to show a progress bar (on a terminal).
        attempt: fits each model, or leaves it out.
    """
    (latent_dim,) = settings.dims
    made = {name: make for name, make in settings.named_likelihoods.items() if make(1, 2).is_correlated}
    if models is None:
        models = linear_models(data.train, made, [latent_dim], data.validation, attempt=attempt, progress=progress)
    models = {(name, d): model for (name, d), model in models.items() if name in made}
    return _on_test(linear_candidates(data.train, data.validation, latent_dim, models, attempt), data)


def _on_test(candidates: list[Baseline], data: PreparedData) -> list[Baseline]:
    jacobian, test = 0.0 if data.log_jacobian is None else data.log_jacobian, data.test.double()
    return [replace(c, log_prob=c.model.log_prob(test) + jacobian) for c in candidates if c.model is not None]


def folder_of(baseline: Baseline) -> Path:
    """Where a linear candidate is saved, in the comparison's folder."""
    return Path("linear") / re.sub(r"[^\w.+]+", "-", baseline.name).strip("-")


def write_linear(folder: Path, baselines: Sequence[Baseline], preprocessing: Preprocessing | None) -> None:
    """Save each linear candidate's model in its own folder, with its log p(x) of the test data."""
    for baseline in baselines:
        if baseline.model is None or baseline.log_prob is None:
            continue
        own = make_folder(folder / folder_of(baseline))
        save(own / "model.safetensors", baseline.model, preprocessing=preprocessing)
        num, spread = len(baseline.log_prob), baseline.log_prob.std().item()
        metrics = {
            "model": baseline.name,
            "note": baseline.note,
            "latent_dim": baseline.model.latent_dim,
            "test_log_marginal": baseline.log_prob.mean().item(),
            "test_log_marginal_stderr": spread / num**0.5,
            "num_test": num,
        }
        write_json(own / "metrics.json", metrics)
