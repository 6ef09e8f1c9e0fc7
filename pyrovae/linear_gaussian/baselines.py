"""Baselines for a VAE on held-out data: PCA, probabilistic PCA, factor analysis, and a Gaussian without latents."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from pyrovae.blocks import blocks, extent, has_gaps
from pyrovae.errors import InputError, Option, check_observed
from pyrovae.frames import Data, tensor_of
from pyrovae.likelihoods import GaussianLikelihood, Likelihood
from pyrovae.linear_gaussian._directions import DENSE, principal_directions
from pyrovae.linear_gaussian._moments import few_rows
from pyrovae.linear_gaussian._shrinkage import SHARES
from pyrovae.linear_gaussian.dimension import GRID
from pyrovae.linear_gaussian.exact import LEAST_NOISE, LinearGaussianVAE, data_covariance, most_latent_dims
from pyrovae.linear_gaussian.factor_model import FactorModel, diagonal_model
from pyrovae.linear_gaussian.keys import (
    FACTOR_ANALYSIS,
    PCA,
    PCA_BY_VALIDATION,
    PROBABILISTIC_PCA,
    SHRUNK_GAUSSIAN,
    Attempt,
    LinearKey,
    linear_with,
    without_limit,
)
from pyrovae.linear_gaussian.shrunk_gaussian import ShrunkGaussian
from pyrovae.linear_gaussian.warm_start import linear_models


@dataclass(frozen=True, repr=False)
class Baseline:
    """A model fitted to training data and evaluated on test data.

    Attributes:
        key: which model it is.
        log_prob: log p(x) of each test datum in nats, shape (num,), float64; None for PCA, which has no density.
        reconstruction: x̂, shape (num, n), float64: the projection, or the decoder at the posterior's mean; None for a
            Gaussian, which has no latents.
        noise_scale: σ of each channel, shape (n,), float64; None for PCA and a Gaussian.
        note: what validation data chose.
        model: the fitted model, which :func:`pyrovae.save` saves; None for PCA.
        name: its name in tables, by default ``"PCA"``, ``"probabilistic PCA"``, ``"factor analysis"``, ``"linear, …"``
            with a likelihood's name, or ``"Gaussian, shrunk covariance"``; with ``", d by validation"`` if validation
            data chose the number of components.
    """

    key: LinearKey
    log_prob: Tensor | None = None
    reconstruction: Tensor | None = None
    noise_scale: Tensor | None = None
    note: str = ""
    model: FactorModel | ShrunkGaussian | None = None
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or str(self.key))

    def __repr__(self) -> str:
        name = f"{self.name} ({self.note})" if self.note else self.name
        if self.log_prob is None:
            return f"Baseline({name}: no density)"
        num = len(self.log_prob)
        stderr = self.log_prob.std().item() / math.sqrt(num) if num > 1 else math.inf
        return f"Baseline({name}: log p(x) = {self.log_prob.mean().item():.6g} ± {stderr:.2g} nats per datum)"


def linear_baselines(
    train: Data,
    test: Data,
    latent_dim: int,
    likelihoods: Mapping[str, Callable[[int, int], Likelihood]] | None = None,
    *,
    validation: Data | None = None,
    latent_dims: Sequence[int] = (),
    progress: bool = True,
) -> list[Baseline]:
    """Fit PCA, probabilistic PCA and factor analysis with ``latent_dim`` components, in the data's units.

    For each given likelihood it also fits the linear model with that noise, :class:`~pyrovae.FactorModel`. Any further
    gain of a VAE comes from its networks.

    Probabilistic PCA is the maximum-likelihood fit :meth:`~pyrovae.exact.LinearGaussianVAE.fit`. Scikit-learn's
    ``PCA.score`` differs in two ways: its covariance divides by num − 1, and with more channels than data, its noise
    ignores the eigenvalues that are 0. Factor analysis is :meth:`~pyrovae.FactorModel.fit` with one σ per channel, on
    standardised channels.

    With missing values, NaN, each model is fitted to log p(x_O), where x_O are the observed values of a datum, and test
    data are scored by log p(x_O) too. Probabilistic PCA's number of components is then chosen from a few, and PCA is
    left out.

    A VAE uses validation data to choose its best epoch. Here they choose the number of components: of probabilistic
    PCA, from all possible numbers, and of the linear models, from ``latent_dims``. They also choose the shrinkage of a
    Gaussian without latents, N(x̄, (1 − a)S + aT) (Ledoit and Wolf 2004): its share a and its target T, which is the
    diagonal of the training data's covariance S or the covariance of a linear model. This Gaussian is left out if the
    data do not vary in some direction, as where a channel is a copy or a sum of others: its density has no limit there.

    Args:
        train: shape (num, n).
        test: shape (any, n).
        latent_dim: number of components, below n and the number of training data.
        likelihoods: Gaussian ones by name, callables of (in_features, n).
        validation: shape (any, n); None leaves out the models that need them.
        latent_dims: numbers of components; the validation data choose one of them for each linear model.
        progress: show a bar on a terminal.

    Raises:
        InputTypeError: a likelihood is not Gaussian.
        InputError: the data have the wrong shape, are not finite or too few, a channel is constant, or there are
            numbers of components but no validation data.

    Example:
        >>> x = torch.randn(400, 4) @ torch.randn(4, 6) + 0.1 * torch.randn(400, 6)
        >>> found = linear_baselines(x[:200], x[300:], 2, validation=x[200:300])
        >>> [baseline.name for baseline in found[:3]]
        ['PCA', 'probabilistic PCA', 'factor analysis']
        >>> [baseline.name for baseline in found[3:]]
        ['probabilistic PCA, d by validation', 'Gaussian, shrunk covariance']
    """
    train, test = tensor_of("train", train), tensor_of("test", test)
    validation = None if validation is None else tensor_of("validation", validation)
    if train.dim() != 2:
        raise InputError(f"train must be data of shape (num, n), not {tuple(train.shape)}")
    for name, x in (("train", train), ("test", test), *([] if validation is None else [("validation", validation)])):
        check_observed(name, x, train.shape[1])
    _check_dims(train, latent_dim, latent_dims)
    if latent_dims and (validation is None or not likelihoods):
        raise InputError("latent_dims are for likelihoods, and validation data choose from them; give both")
    train, test = train.double().cpu(), test.double().cpu()
    validation = None if validation is None else validation.double().cpu()
    check_varying(train)
    likelihoods = likelihoods or {}
    dims = sorted({latent_dim, *latent_dims})
    models = linear_models(train, likelihoods, dims, validation, progress=progress)
    found = simple_candidates(train, latent_dim) + linear_candidates(train, validation, latent_dim, models)
    scored = [_on_test(candidate, test) for candidate in found]
    if has_gaps(train) or has_gaps(test):
        return scored
    directions = principal_directions(train, max(dims))
    axes = directions.axes[:, :latent_dim]
    projected = directions.mean + (test - directions.mean) @ axes @ axes.T
    return [Baseline(PCA, reconstruction=projected), *scored]


def simple_candidates(train: Tensor, latent_dim: int) -> list[Baseline]:
    """Probabilistic PCA and factor analysis of data (num, n), no channel constant, not yet on test data."""
    return [
        Baseline(PROBABILISTIC_PCA, model=_probabilistic_pca(train, latent_dim)),
        Baseline(FACTOR_ANALYSIS, model=FactorModel.fit_in_units(train, latent_dim)),
    ]


def linear_candidates(
    train: Tensor,
    validation: Tensor | None,
    latent_dim: int,
    models: Mapping[tuple[str, int], FactorModel],
    attempt: Attempt = without_limit,
) -> list[Baseline]:
    """The other models of :func:`linear_baselines` that have a density, those of fewest parameters first.

    Args:
        train: shape (num, n), no channel constant.
        validation: what chooses numbers of components and the shrinkage; None leaves out what needs it.
        latent_dim: number of components.
        models: what :func:`~pyrovae.linear_gaussian.warm_start.linear_models` found, of ``latent_dim`` and perhaps
            of other numbers of components.
        attempt: fits each model, or leaves it out.
    """
    train = few_rows(train)
    found = [Baseline(linear_with(name), model=model) for (name, d), model in models.items() if d == latent_dim]
    if validation is None:
        return found
    validation = few_rows(validation)
    of_components = _best_of_all_components
    if has_gaps(train) or has_gaps(validation):
        of_components = _best_of_some_components
    best = attempt(PCA_BY_VALIDATION, lambda: of_components(train, validation))
    if best is not None:
        found.append(Baseline(PCA_BY_VALIDATION, note=f"d = {best.latent_dim}", model=best))
    scores = {key: model.log_prob(validation).mean().item() for key, model in models.items()}
    if len({d for _, d in models}) > 1:
        for name in dict.fromkeys(name for name, _ in models):
            key = max((key for key in models if key[0] == name), key=scores.__getitem__)
            found.append(Baseline(linear_with(name, by_validation=True), note=f"d = {key[1]}", model=models[key]))
    shrunk = attempt(SHRUNK_GAUSSIAN, lambda: _shrunk_gaussian(train, validation, models, scores))
    return found if shrunk is None else [*found, shrunk]


def _shrunk_gaussian(
    train: Tensor,
    validation: Tensor,
    models: Mapping[tuple[str, int], FactorModel],
    scores: Mapping[tuple[str, int], float],
) -> Baseline | None:
    """The Gaussian without latents, its target and its share chosen by validation data, given the models' scores.

    None if they choose the smallest share where S is singular: no datum varies in some direction, where a density may
    have any value.
    """
    simple = [key for key in models if not models[key].likelihood.is_unrestricted]  # the others are shrunk themselves
    if train.shape[1] > DENSE:  # each target costs decompositions
        simple = sorted(simple, key=scores.__getitem__)[-1:] if len(simple) == len(models) else []
    targets = {"its diagonal": diagonal_model(train)} | {f"{linear_with(k[0])}, d = {k[1]}": models[k] for k in simple}
    shrunk, name = ShrunkGaussian.fit(train, validation, targets)
    if shrunk.share == SHARES[0]:
        sizes = torch.linalg.svdvals(shrunk.rows).square()
        if len(sizes) < train.shape[1] or sizes[-1] <= LEAST_NOISE * sizes[0]:
            return None
    return Baseline(SHRUNK_GAUSSIAN, note=f"shrunk by {100 * shrunk.share:.3g} % to {name}", model=shrunk)


def check_varying(train: Tensor, names: Sequence[str] = ()) -> None:
    """Raise an InputError that names the first channel of training data (num, n) that is constant.

    A channel of a file has a name, and an option leaves it out.
    """
    smallest, largest = extent(train)
    constant = largest <= smallest  # of a channel without any value they are ∞ and −∞
    if constant.any() and names:
        name = names[int(constant.nonzero()[0])]
        raise InputError(f"channel {name} is constant in all training data; give ", Option("drop_constant", True))
    if constant.any():
        raise InputError(f"channel {int(constant.nonzero()[0])} (counted from 0) is constant; leave it out")


def varying(train: Tensor) -> Tensor:
    """Which channels of data (num, n) are not constant, or lack values: booleans of shape (n,)."""
    return functools.reduce(torch.logical_or, ((rows != train[0]).any(0) for rows in blocks(train)))


def _check_dims(train: Tensor, latent_dim: int, latent_dims: Sequence[int]) -> None:
    num, n = train.shape
    most = 0 if min(num, n) < 2 else min(num, n) - 1
    if most and n <= DENSE and not has_gaps(train):
        most = most_latent_dims(data_covariance(train))
    for name, dims in (("latent_dim", [latent_dim]), ("every one of latent_dims", latent_dims)):
        for d in dims:
            if not isinstance(d, Integral) or not 0 < d <= most:
                raise InputError(f"{name} must be an integer from 1 to {most} for {num} data, not {d!r}")


def _on_test(candidate: Baseline, test: Tensor) -> Baseline:
    """A candidate's results on test data (num, n)."""
    model = candidate.model
    assert model is not None
    if model.latent_dim == 0:
        return replace(candidate, log_prob=model.log_prob(test))
    reconstruction, sigma = model.reconstruct(test), model.noise.stddev
    return replace(candidate, log_prob=model.log_prob(test), reconstruction=reconstruction, noise_scale=sigma)


def _probabilistic_pca(train: Tensor, latent_dim: int) -> FactorModel:
    """The likeliest model with one σ."""
    if has_gaps(train):
        return FactorModel.fit(train, GaussianLikelihood(1, train.shape[1]), latent_dim)
    return FactorModel.of(LinearGaussianVAE.fit(train, latent_dim))


def _best_of_some_components(train: Tensor, validation: Tensor) -> FactorModel:
    """Probabilistic PCA with the d of a grid under which validation data are likeliest, until two d in a row lose."""
    models: dict[int, FactorModel] = {}
    scores: list[float] = []
    for d in (d for d in GRID if d < min(train.shape)):
        models[d] = _probabilistic_pca(train, d)
        scores.append(models[d].log_prob(validation).mean().item())
        if max(scores[-2:]) < max(scores):
            break
    return list(models.values())[int(np.argmax(scores))]


def _best_of_all_components(train: Tensor, validation: Tensor) -> FactorModel:
    """Probabilistic PCA with the d under which validation data are likeliest, of all at once in S's eigenvectors."""
    found = principal_directions(train)
    n, values, rest = found.n, found.values, found.noise_variances()
    d = torch.arange(1, len(values) + 1)
    possible = (d < n) & (rest > LEAST_NOISE * values[0])
    centred = validation - found.mean
    squares = (centred @ found.axes).square().mean(0)
    kept = (values.log() + squares / values).cumsum(0)
    left = (n - d) * rest.log() + (centred.square().sum(-1).mean() - squares.cumsum(0)) / rest
    best = torch.where(possible, kept + left, math.inf).argmin()
    return FactorModel.of(LinearGaussianVAE.from_directions(found, int(d[best])))
