"""Linear baselines of a VAE with d latent dimensions: PCA, probabilistic PCA, factor analysis, on held-out data."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from sklearn.decomposition import PCA, FactorAnalysis
from torch import Tensor

from pyrovae.exact import LinearGaussianVAE
from pyrovae.likelihoods import Likelihood
from pyrovae.linear_start import linear_models


@dataclass(frozen=True, repr=False)
class Baseline:
    """A linear model, fitted to training data, on test data.

    Attributes:
        name: ``"PCA"``, ``"probabilistic PCA"``, ``"factor analysis"`` or ``"linear, …"`` with a likelihood's name.
        log_prob: log p(x) of each test datum in nats, shape (num,), float64; None of PCA, which has no density.
        reconstruction: x̂, shape (num, n), float64: the projection, or the decoder at the posterior's mean.
        noise_scale: σ of each channel, shape (n,), float64; None of PCA.
    """

    name: str
    log_prob: Tensor | None
    reconstruction: Tensor
    noise_scale: Tensor | None

    def __repr__(self) -> str:
        if self.log_prob is None:
            return f"Baseline({self.name}: no density)"
        stderr = self.log_prob.std().item() / math.sqrt(len(self.log_prob))
        return f"Baseline({self.name}: log p(x) = {self.log_prob.mean().item():.6g} ± {stderr:.2g} nats per datum)"


def linear_baselines(
    train: Tensor,
    test: Tensor,
    latent_dim: int,
    likelihoods: Mapping[str, Callable[[int, int], Likelihood]] | None = None,
) -> list[Baseline]:
    """PCA, probabilistic PCA and factor analysis with ``latent_dim`` components, in the data's own units.

    And the linear model with the noise of each likelihood given, :class:`~pyrovae.FactorModel`: what a VAE has beyond
    that, its networks have found.

    Probabilistic PCA is maximum likelihood, :meth:`~pyrovae.exact.LinearGaussianVAE.fit`: what scikit-learn's
    ``PCA.score`` is, but for its covariance over num − 1 and, where channels outnumber the data, its noise, which
    leaves the eigenvalues that are 0 out of the mean. Factor analysis is scikit-learn's, fitted to standardised
    channels (in which its likelihood is the same, and its stopping rule has a scale).

    Args:
        train: shape (num, n).
        test: shape (any, n).
        latent_dim: number of components, below n and the number of training data.
        likelihoods: Gaussian ones by name, callables of (in_features, n).

    Raises:
        TypeError: a likelihood that is not Gaussian.
        ValueError: data of another shape, not finite, or too few of them, or a channel that is constant.

    Example:
        >>> x = torch.randn(300, 4) @ torch.randn(4, 6)
        >>> [baseline.name for baseline in linear_baselines(x[:200], x[200:], 2)]
        ['PCA', 'probabilistic PCA', 'factor analysis']
    """
    for name, x in (("train", train), ("test", test)):
        if x.dim() != 2 or x.shape[1] != train.shape[-1] or not x.isfinite().all():
            raise ValueError(f"{name} must be finite data of shape (num, {train.shape[-1]}), not {tuple(x.shape)}")
    least = min(len(train), train.shape[1])
    if not isinstance(latent_dim, int) or not 0 < latent_dim < least:
        raise ValueError(
            f"latent_dim must be an integer from 1 to {least - 1} for {len(train)} data, not {latent_dim!r}"
        )
    train, test = train.double().cpu(), test.double().cpu()
    mean, deviation = train.mean(0), train.std(0, correction=0)
    if (deviation == 0).any():
        raise ValueError(f"channel {int((deviation == 0).nonzero()[0])} (counted from 0) is constant; leave it out")
    pca = PCA(latent_dim, svd_solver="full").fit(train.numpy())
    projected = torch.as_tensor(pca.inverse_transform(pca.transform(test.numpy())))
    ppca = LinearGaussianVAE.fit(train, latent_dim)
    reconstruction = ppca.posterior(test).mean @ ppca.loadings.T + ppca.offset
    noise_scale = torch.full_like(mean, ppca.noise_scale)
    fa = FactorAnalysis(latent_dim, tol=1e-3, max_iter=5000).fit(((train - mean) / deviation).numpy())
    y = ((test - mean) / deviation).numpy()
    common = torch.as_tensor(fa.transform(y) @ fa.components_)
    linear = [
        Baseline(
            f"linear, {name}",
            model.log_prob(test),
            model.reconstruct(test),
            model.noise_covariance.diagonal().sqrt(),
        )
        for (name, _), model in linear_models(train, likelihoods or {}, [latent_dim]).items()
    ]
    return [
        Baseline("PCA", None, projected, None),
        Baseline("probabilistic PCA", ppca.log_prob(test), reconstruction, noise_scale),
        Baseline(
            "factor analysis",
            torch.as_tensor(fa.score_samples(y)) - deviation.log().sum(),
            mean + common * deviation,
            torch.as_tensor(fa.noise_variance_).sqrt() * deviation,
        ),
        *linear,
    ]
