"""Baselines of a VAE on held-out data: PCA, probabilistic PCA, factor analysis, and a Gaussian with no latents."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral

import torch
from pyro.distributions import MultivariateNormal
from torch import Tensor

from pyrovae.errors import InputError, check_finite
from pyrovae.likelihoods import Likelihood
from pyrovae.linear_gaussian._shrinkage import SHARES, best_shrinkage, shrunk
from pyrovae.linear_gaussian.exact import LinearGaussianVAE, LinearModel, most_latent_dims
from pyrovae.linear_gaussian.warm_start import linear_models


@dataclass(frozen=True, repr=False)
class Baseline:
    """A model fitted to training data, on test data.

    Attributes:
        name: ``"PCA"``, ``"probabilistic PCA"``, ``"factor analysis"``, ``"linear, …"`` with a likelihood's name, or
            ``"Gaussian, shrunk covariance"``; with ``", d by validation"`` where that chose the number of components.
        log_prob: log p(x) of each test datum in nats, shape (num,), float64; None of PCA, which has no density.
        reconstruction: x̂, shape (num, n), float64: the projection, or the decoder at the posterior's mean; None of a
            Gaussian, which has no latents.
        noise_scale: σ of each channel, shape (n,), float64; None of PCA and of a Gaussian.
        note: what validation data chose.
    """

    name: str
    log_prob: Tensor | None
    reconstruction: Tensor | None
    noise_scale: Tensor | None
    note: str = ""

    def __repr__(self) -> str:
        name = f"{self.name} ({self.note})" if self.note else self.name
        if self.log_prob is None:
            return f"Baseline({name}: no density)"
        num = len(self.log_prob)
        stderr = self.log_prob.std().item() / math.sqrt(num) if num > 1 else math.inf
        return f"Baseline({name}: log p(x) = {self.log_prob.mean().item():.6g} ± {stderr:.2g} nats per datum)"


def linear_baselines(
    train: Tensor,
    test: Tensor,
    latent_dim: int,
    likelihoods: Mapping[str, Callable[[int, int], Likelihood]] | None = None,
    *,
    validation: Tensor | None = None,
    latent_dims: Sequence[int] = (),
    progress: bool = True,
) -> list[Baseline]:
    """PCA, probabilistic PCA and factor analysis with ``latent_dim`` components, in the data's own units.

    For each likelihood given there is also the linear model with its noise, :class:`~pyrovae.FactorModel`: any gain of
    a VAE over that model comes from its networks.

    Probabilistic PCA is the maximum-likelihood fit :meth:`~pyrovae.exact.LinearGaussianVAE.fit`. Scikit-learn's
    ``PCA.score`` differs in two ways: its covariance divides by num − 1, and where there are more channels than data,
    its noise leaves the eigenvalues that are 0 out of the mean. Factor analysis is scikit-learn's, fitted to
    standardised channels: the likelihood is the same there, and the stopping rule has a scale.

    A VAE uses validation data to choose its best epoch. Given here, they choose the number of components of
    probabilistic PCA, from all that the data allow, and of the linear models, from ``latent_dims``. They also choose
    the shrinkage of a Gaussian without a latent space, N(x̄, (1 − a)S + aT) (Ledoit and Wolf 2004): its share a and
    its target T, the diagonal of the training data's covariance S or the covariance of one of the linear models.

    Args:
        train: shape (num, n).
        test: shape (any, n).
        latent_dim: number of components, below n and the number of training data.
        likelihoods: Gaussian ones by name, callables of (in_features, n).
        validation: shape (any, n); None leaves out the models that need them.
        latent_dims: numbers of components; the validation data choose one of them for each linear model.
        progress: show a bar on a terminal.

    Raises:
        InputTypeError: a likelihood that is not Gaussian.
        InputError: data of another shape, not finite, or too few of them, or a channel that is constant, or numbers of
            components without validation data.

    Example:
        >>> x = torch.randn(400, 4) @ torch.randn(4, 6) + 0.1 * torch.randn(400, 6)
        >>> found = linear_baselines(x[:200], x[300:], 2, validation=x[200:300])
        >>> [baseline.name for baseline in found[:3]]
        ['PCA', 'probabilistic PCA', 'factor analysis']
        >>> [baseline.name for baseline in found[3:]]
        ['probabilistic PCA, d by validation', 'Gaussian, shrunk covariance']
    """
    from sklearn.decomposition import PCA, FactorAnalysis

    if train.dim() != 2:
        raise InputError(f"train must be data of shape (num, n), not {tuple(train.shape)}")
    for name, x in (("train", train), ("test", test), *([] if validation is None else [("validation", validation)])):
        check_finite(name, x, train.shape[1])
    most = most_latent_dims(torch.cov(train.double().T, correction=0)) if len(train) > 1 < train.shape[1] else 0
    for name, dims in (("latent_dim", [latent_dim]), ("every one of latent_dims", latent_dims)):
        for d in dims:
            if not isinstance(d, Integral) or not 0 < d <= most:
                raise InputError(f"{name} must be an integer from 1 to {most} for {len(train)} data, not {d!r}")
    if latent_dims and (validation is None or not likelihoods):
        raise InputError("latent_dims are for likelihoods, and validation data choose from them; give both")
    train, test = train.double().cpu(), test.double().cpu()
    validation = None if validation is None else validation.double().cpu()
    mean, deviation = train.mean(0), train.std(0, correction=0)
    if (deviation == 0).any():
        raise InputError(f"channel {int((deviation == 0).nonzero()[0])} (counted from 0) is constant; leave it out")
    pca = PCA(latent_dim, svd_solver="full").fit(train.numpy())
    projected = torch.as_tensor(pca.inverse_transform(pca.transform(test.numpy())))
    fa = FactorAnalysis(latent_dim, tol=1e-3, max_iter=5000).fit(((train - mean) / deviation).numpy())
    y = ((test - mean) / deviation).numpy()
    common = torch.as_tensor(fa.transform(y) @ fa.components_)
    likelihoods = likelihoods or {}
    models = linear_models(train, likelihoods, sorted({latent_dim, *latent_dims}), validation, progress=progress)
    found = [
        Baseline("PCA", None, projected, None),
        _of_linear("probabilistic PCA", LinearGaussianVAE.fit(train, latent_dim), test),
        Baseline(
            "factor analysis",
            torch.as_tensor(fa.score_samples(y)) - deviation.log().sum(),
            mean + common * deviation,
            torch.as_tensor(fa.noise_variance_).sqrt() * deviation,
        ),
        *(_of_linear(f"linear, {name}", models[name, latent_dim], test) for name in likelihoods),
    ]
    if validation is None:
        return found
    d = _best_num_components(train, validation)
    found.append(_of_linear("probabilistic PCA, d by validation", LinearGaussianVAE.fit(train, d), test, f"d = {d}"))
    for name in likelihoods if latent_dims else ():
        scores = {d: models[name, d].log_prob(validation).mean().item() for d in sorted({latent_dim, *latent_dims})}
        d = max(scores, key=scores.__getitem__)
        found.append(_of_linear(f"linear, {name}, d by validation", models[name, d], test, f"d = {d}"))
    covariances = {
        f"linear, {name}, d = {d}": model.marginal.covariance_matrix
        for (name, d), model in models.items()
        if not model.likelihood.is_unrestricted  # which is shrunk itself
    }
    return [*found, _shrunk_gaussian(train, validation, test, covariances)]


def _of_linear(name: str, model: LinearModel, test: Tensor, note: str = "") -> Baseline:
    sigma = model.noise_covariance.diagonal().sqrt()
    return Baseline(name, model.log_prob(test), model.reconstruct(test), sigma, note)


def _best_num_components(train: Tensor, validation: Tensor) -> int:
    """The d of probabilistic PCA under which validation data are likeliest, of all at once in S's eigenvectors."""
    covariance = torch.cov(train.T, correction=0)
    values, axes = torch.linalg.eigh(covariance)
    values, squares = values.flip(0), ((validation - train.mean(0)) @ axes.flip(1)).square().mean(0)
    n, largest = len(values), most_latent_dims(covariance)
    d = torch.arange(1, largest + 1)
    rest = (values.sum() - values.cumsum(0)[:largest]) / (n - d)  # σ²
    kept = (values[:largest].log() + squares[:largest] / values[:largest]).cumsum(0)
    left = (n - d) * rest.log() + (squares.sum() - squares.cumsum(0)[:largest]) / rest
    return int(d[(kept + left).argmin()])


def _shrunk_gaussian(train: Tensor, validation: Tensor, test: Tensor, targets: Mapping[str, Tensor]) -> Baseline:
    """N(x̄, (1 − a)S + aT), a and T by validation."""
    mean, covariance = train.mean(0), torch.cov(train.T, correction=0)
    named = {"its diagonal": covariance.diagonal().diag(), **targets}
    tried = {name: best_shrinkage(covariance, target, validation - mean) for name, target in named.items()}
    name = max(tried, key=lambda name: tried[name][1])
    share, _ = tried[name]
    p = MultivariateNormal(mean, shrunk(covariance, named[name], share))
    note = f"{share:.2g} of {name}"
    if share == SHARES[0]:
        note += ", the least tried: the data leave some direction empty, where a density may have any value"
    return Baseline("Gaussian, shrunk covariance", p.log_prob(test), None, None, note)
