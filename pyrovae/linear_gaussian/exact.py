"""The linear-Gaussian VAE, where log p(x), the posterior and each family's best ELBO are known exactly."""

import copy
import math
from typing import TYPE_CHECKING, overload

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, kl_divergence

from pyrovae.distributions import IsotropicNormal, covariance_of, mean_of
from pyrovae.errors import InputError, InputTypeError
from pyrovae.frames import Arrays, Data, each_datum, tensor_of
from pyrovae.likelihoods import GaussianLikelihood
from pyrovae.linear_gaussian._directions import DENSE, Directions, principal_directions
from pyrovae.linear_gaussian._model import LinearModel
from pyrovae.linear_gaussian._moments import few_rows
from pyrovae.linear_gaussian._posterior import Family, make_head
from pyrovae.posteriors import FullCovariancePosterior
from pyrovae.posteriors.lbfgs import minimise
from pyrovae.vae import AmortizedGuide, GenerativeModel

if TYPE_CHECKING:
    import pandas as pd

LEAST_NOISE = 1e-12
"""Smallest σ² relative to the data's largest variance along any direction."""


class LinearGaussianVAE(LinearModel):
    """x = Az + b + N(0, σ² I), z ~ N(0, I): p(x) = N(b, AAᵀ + σ² I), posterior precision P = I + AᵀA/σ².

    Everything is in float64. :meth:`to_model` and :meth:`to_guide` return ordinary programs, so that everything the
    library computes can be compared with the truth.

    Args:
        loadings: A, shape (n, d).
        noise_scale: σ > 0.
        offset: b, shape (n,); zeros by default.

    Raises:
        InputError: shapes do not fit, or the scale is not positive.

    Example:
        >>> vae = LinearGaussianVAE(torch.tensor([[1.0, 0.5], [0.0, 1.0], [1.0, 1.0]]), noise_scale=0.5)
        >>> x = vae.sample(4)
        >>> gap = vae.log_prob(x) - vae.best_elbo("diagonal", x)  # the same for every x
        >>> torch.allclose(gap, torch.tensor(vae.gap("diagonal")).double())
        True
    """

    def __init__(self, loadings: Tensor, noise_scale: float, offset: Tensor | None = None) -> None:
        self.loadings = torch.as_tensor(loadings, dtype=torch.float64)
        if self.loadings.dim() != 2 or 0 in self.loadings.shape:
            raise InputError(f"loadings must have shape (n, d), not {tuple(self.loadings.shape)}")
        n, _ = self.loadings.shape
        if not self.loadings.isfinite().all():
            raise InputError("loadings hold NaN or infinite values")
        if not 0 < noise_scale < math.inf:
            raise InputError(f"noise_scale must be a positive number, not {noise_scale!r}")
        self.noise_scale = float(noise_scale)
        self.offset = torch.zeros(n).double() if offset is None else torch.as_tensor(offset, dtype=torch.float64)
        if self.offset.shape != (n,):
            raise InputError(f"offset must have shape ({n},), not {tuple(self.offset.shape)}")

    @property
    def noise(self) -> IsotropicNormal:
        """N(0, σ² I)."""
        return IsotropicNormal(torch.zeros_like(self.offset), torch.tensor(self.noise_scale, dtype=torch.float64))

    def __repr__(self) -> str:
        return f"LinearGaussianVAE(n={self.n}, latent_dim={self.latent_dim}, noise_scale={self.noise_scale:.4g})"

    @classmethod
    def fit(cls, x: Data, latent_dim: int, family: Family = "full-covariance") -> "LinearGaussianVAE":
        """Maximise the mean over data x (num, n) of the family's best ELBO, see :meth:`from_moments`."""
        x = few_rows(tensor_of("x", x))
        if x.dim() != 2 or len(x) < 2:
            raise InputError(f"x must have shape (num, n) with num ≥ 2, not {tuple(x.shape)}")
        if not x.isfinite().all():
            raise InputError(
                f"x holds {int((~x.isfinite()).sum())} NaN or infinite values; remove or impute them, or use "
                "FactorModel.fit, which treats NaN as a missing value"
            )
        if x.shape[1] > DENSE and family == "full-covariance":
            return cls.from_directions(principal_directions(x, latent_dim), latent_dim)
        return cls.from_moments(x.mean(0), torch.cov(x.T, correction=0).reshape(x.shape[1], -1), latent_dim, family)

    @classmethod
    def from_directions(cls, found: Directions, latent_dim: int) -> "LinearGaussianVAE":
        """Probabilistic PCA from the directions along which data vary most."""
        values, axes = found.values[:latent_dim], found.axes[:, :latent_dim]
        if len(values) < latent_dim or not (noise := found.noise_variances()[latent_dim - 1]) > LEAST_NOISE * values[0]:
            raise InputError(f"the data span no more than {latent_dim} dimensions, so the noise would be 0")
        return cls(axes * (values - noise).sqrt(), noise.sqrt().item(), found.mean)

    @classmethod
    def from_moments(
        cls, mean: Tensor, covariance: Tensor, latent_dim: int, family: Family = "full-covariance"
    ) -> "LinearGaussianVAE":
        """The decoder with the largest mean of the family's best ELBO over data with these moments.

        By default maximum likelihood, which is probabilistic principal component analysis (Tipping and Bishop 1999):
        with S = U diag(λ) Uᵀ, σ² is the mean of the n − d smallest λ and A = U_d diag(λ_d − σ²)^½. Its axes are the
        posterior's, so a diagonal family, and any family that contains it, loses nothing there. The isotropic family
        has √λ_i (Σ_j √λ_j)/d in place of λ_i and stays d log(AM/GM of the √λ_i) nats below log p(x). For other families
        the exact expected −ELBO is minimised from several starts.

        Args:
            mean: shape (n,).
            covariance: S, shape (n, n).
            latent_dim: dimension d < n.
            family: by name or as a callable of (in_features, latent_dim).

        Raises:
            InputError: there is no room for noise: d ≥ n, or S has no more than d dimensions.
        """
        covariance = torch.as_tensor(covariance, dtype=torch.float64)
        n = len(covariance)
        if n < 2 or covariance.shape != (n, n) or not torch.allclose(covariance, covariance.T):
            raise InputError(
                f"covariance must be a symmetric matrix of two rows or more, not {tuple(covariance.shape)}"
            )
        check_latent_dim(latent_dim, n)
        values, axes = torch.linalg.eigh(covariance)
        noise = values[: n - latent_dim].mean()
        if not noise > LEAST_NOISE * values[-1]:
            raise InputError(f"the data span no more than {latent_dim} dimensions, so the noise would be 0")
        kept, axes = values[n - latent_dim :], axes[:, n - latent_dim :]
        with torch.random.fork_rng(devices=[]):
            explained = make_head(family, n, latent_dim).explained_variances(kept)
        best = cls(axes * ((kept if explained is None else explained) - noise).sqrt(), noise.sqrt().item(), mean)
        if explained is not None or best.gap(family) < 1e-9:
            return best
        loadings, scale = best_decoder(covariance, best.loadings, best.noise_scale, family)
        return cls(loadings, scale, mean)

    @classmethod
    def from_model(cls, model: GenerativeModel) -> "LinearGaussianVAE":
        """The exact form of a model with an affine decoder, one σ and the prior N(0, I).

        Raises:
            InputError: the model has another form.
        """
        model = copy.deepcopy(model).double().eval()
        d = model.latent_dim
        eye = torch.eye(d, dtype=torch.float64)
        with torch.no_grad():
            prior = model.prior_distribution()
            generator = torch.Generator().manual_seed(0)
            z = torch.cat([torch.zeros_like(eye[:1]), eye, 3 * torch.randn(20 * d, d, generator=generator).double()])
            given = model.conditional(z)
            loc, scale = given.mean, given.stddev
        loadings = (loc[1 : d + 1] - loc[0]).T
        affine = torch.allclose(loc, loc[0] + z @ loadings.T)
        if not affine or not is_standard(prior) or not torch.allclose(scale, scale.flatten()[0]):
            raise InputError("the model is not linear-Gaussian: an affine decoder, one σ and the prior N(0, I)")
        return cls(loadings, scale.flatten()[0].item(), loc[0])

    def principal_axes(self) -> "LinearGaussianVAE":
        """The same p(x), with the latent space rotated so that the posterior's covariance is diagonal."""
        turn = torch.linalg.svd(self.loadings, full_matrices=self.latent_dim > self.n).Vh
        return LinearGaussianVAE(self.loadings @ turn.T, self.noise_scale, self.offset)

    def expected_log_prob(self, mean: Tensor, covariance: Tensor) -> float:
        """E[log p(x)] in nats over data with these moments: −½[n log 2π + log det M + tr M⁻¹(S + (m − b)(m − b)ᵀ)]."""
        off = torch.as_tensor(mean, dtype=torch.float64) - self.offset
        spread = torch.as_tensor(covariance, dtype=torch.float64) + torch.outer(off, off)
        marginal: Tensor = self.marginal.covariance_matrix
        fit = torch.linalg.solve(marginal, spread).trace()
        return -0.5 * float(self.n * math.log(2 * math.pi) + torch.logdet(marginal) + fit)

    @overload
    def elbo(self, guide: AmortizedGuide, x: "pd.DataFrame") -> "pd.Series": ...

    @overload
    def elbo(self, guide: AmortizedGuide, x: Arrays) -> Tensor: ...

    @each_datum
    @torch.no_grad()
    def elbo(self, guide: AmortizedGuide, x: Tensor) -> Tensor:
        """The ELBO of any Gaussian guide for this model, log p(x) − KL(q(z|x) ‖ p(z|x)), exactly; shape (num,).

        Raises:
            NotImplementedError: the guide's KL has no closed form.
        """
        q = copy.deepcopy(guide).double().eval().posterior(x.double())
        return self.log_prob(x) - kl_divergence(q, self.posterior(x))

    def sample(self, num: int) -> Tensor:
        """Draw x, shape (num, n)."""
        x: Tensor = self.marginal.sample(torch.Size([num]))
        return x

    def to_model(self) -> GenerativeModel:
        """The generative model as a Pyro program, in float64."""
        likelihood = GaussianLikelihood(self.latent_dim, self.n, scale=self.noise_scale)
        model = GenerativeModel(nn.Identity(), likelihood, self.latent_dim).double()
        with torch.no_grad():
            likelihood.loc_head.weight.copy_(self.loadings)
            likelihood.loc_head.bias.copy_(self.offset)
        return model

    def gaussian_guide(self, gain: Tensor, covariance: Tensor) -> AmortizedGuide:
        """Any q(z|x) = N(gain (x − b), covariance) as a full-covariance guide, in float64.

        Args:
            gain: shape (d, n).
            covariance: shape (d, d).

        Raises:
            InputError: other shapes, or a covariance that is not symmetric and positive definite.
        """
        gain, covariance = (torch.as_tensor(value, dtype=torch.float64) for value in (gain, covariance))
        d = self.latent_dim
        for name, value, shape in (("gain", gain, (d, self.n)), ("covariance", covariance, (d, d))):
            if value.shape != shape:
                raise InputError(f"{name} must have shape {shape}, not {tuple(value.shape)}")
        head = FullCovariancePosterior(self.n, self.latent_dim).double()
        head.set_covariance(head.values_of(covariance))
        head.set_mean(gain, -gain @ self.offset)
        return AmortizedGuide(nn.Identity(), head)


@torch.random.fork_rng(devices=[])
def best_decoder(covariance: Tensor, loadings: Tensor, noise_scale: float, family: Family) -> tuple[Tensor, float]:
    """Loadings and noise scale with the largest expected ELBO, the best of several starts.

    With the best mean, 2 · −ELBO = n log 2πσ² + (tr S − tr(P⁻¹AᵀSA)/σ²)/σ² + tr PΣ_q − d − log det Σ_q.

    Args:
        covariance: the data's, S, shape (n, n).
        loadings: A of maximum likelihood, shape (n, d), from whose rotations to start.
        noise_scale: its σ.
        family: by name or as a callable of (in_features, latent_dim).
    """
    n, d = loadings.shape
    head = make_head(family, n, d).requires_grad_(False)
    bias, eye = head.covariance_head.bias, torch.eye(d, dtype=torch.float64)

    def neg_elbo(values: Tensor) -> Tensor:
        flat, log_scale, raw = values.split([n * d, 1, len(bias)])
        a, variance = flat.reshape(n, d), (2 * log_scale).exp()
        q = head.constant(raw)
        precision = eye + a.T @ a / variance
        explained = torch.linalg.solve(precision, a.T @ covariance @ a).trace() / variance
        fit = 2 * n * log_scale + (covariance.trace() - explained) / variance
        value: Tensor = 0.5 * (fit + (precision * covariance_of(q)).sum()) - q.entropy()
        return value.squeeze()

    torch.manual_seed(0)
    turns = [eye, *(torch.linalg.qr(torch.randn_like(eye)).Q for _ in range(3))]
    log_scale = torch.tensor([math.log(noise_scale)], dtype=torch.float64)
    starts = [torch.cat([(loadings @ turn).flatten(), log_scale, 0.1 * torch.randn_like(bias)]) for turn in turns]
    best = torch.from_numpy(minimise(neg_elbo, starts, max_steps=5000).x)
    return best[: n * d].reshape(n, d), best[n * d].exp().item()


def check_latent_dim(latent_dim: object, n: int) -> None:
    """Raise an InputError unless the latent dimension is an integer from 1 to n − 1."""
    if not isinstance(latent_dim, int) or not 0 < latent_dim < n:
        raise InputError(f"latent_dim must be an integer from 1 to {n - 1}, below the data's {n}, not {latent_dim!r}")


def is_standard(prior: Distribution) -> bool:
    """Whether a prior's mean is 0 and its covariance I."""
    try:
        mean, covariance = mean_of(prior), covariance_of(prior)
    except InputTypeError:  # a flow's moments are not known
        return False
    return torch.equal(mean, torch.zeros_like(mean)) and torch.equal(covariance, torch.eye(len(mean)).to(mean))


def data_covariance(x: Tensor) -> Tensor:
    """The covariance (n, n) of complete data (num, n), in float64; that of a mapped file from one pass."""
    found: Tensor = torch.atleast_2d(few_rows(x).T.cov(correction=0))
    return found


def most_latent_dims(covariance: Tensor) -> int:
    """The largest d with which :meth:`LinearGaussianVAE.from_moments` leaves data of this covariance some noise."""
    values = torch.linalg.eigvalsh(covariance).clamp_min(0)
    n = len(values)
    noise = values.cumsum(0)[:-1] / torch.arange(1, n)  # the mean of the smallest n − d, for n − d = 1, 2, …
    return n - 1 - int((noise <= LEAST_NOISE * values[-1]).sum())
