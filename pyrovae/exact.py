"""The linear-Gaussian VAE, where log p(x), the posterior and each family's best ELBO are known exactly."""

import math
from collections.abc import Callable

import torch
from pyro.distributions import MultivariateNormal
from scipy.optimize import minimize
from torch import Tensor, nn

from pyrovae.distributions import covariance_of
from pyrovae.likelihoods import GaussianLikelihood
from pyrovae.nn import positive
from pyrovae.posteriors import POSTERIORS, FullCovariancePosterior, Posterior
from pyrovae.vae import AmortizedGuide, GenerativeModel


class LinearGaussianVAE:
    """x = Az + b + N(0, σ² I), z ~ N(0, I): p(x) = N(b, AAᵀ + σ² I), posterior precision P = I + AᵀA/σ².

    Everything is in float64. The programs that :meth:`to_model` and :meth:`to_guide` make are ordinary ones,
    so whatever the library computes can be held against the truth.

    Args:
        loadings: A, shape (n, d).
        noise_scale: σ > 0.
        offset: b, shape (n,); zeros by default.

    Raises:
        ValueError: shapes that do not fit, or a scale that is not positive.

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
            raise ValueError(f"loadings must have shape (n, d), not {tuple(self.loadings.shape)}")
        n, d = self.loadings.shape
        if not 0 < noise_scale < math.inf:
            raise ValueError(f"noise_scale must be a positive number, not {noise_scale!r}")
        self.noise_scale = float(noise_scale)
        self.offset = torch.zeros(n).double() if offset is None else torch.as_tensor(offset, dtype=torch.float64)
        if self.offset.shape != (n,):
            raise ValueError(f"offset must have shape ({n},), not {tuple(self.offset.shape)}")
        eye = torch.eye(d, dtype=torch.float64)
        self.precision = eye + self.loadings.T @ self.loadings / self.noise_scale**2
        """P, shape (d, d), the same for every x."""
        self.covariance = torch.linalg.inv(self.precision)
        """C = P⁻¹, shape (d, d)."""
        self.gain = self.covariance @ self.loadings.T / self.noise_scale**2
        """CAᵀ/σ², shape (d, n): the posterior mean is gain (x − b)."""

    @property
    def n(self) -> int:
        """Dimension of x."""
        return self.loadings.shape[0]

    @property
    def latent_dim(self) -> int:
        """Dimension d of z."""
        return self.loadings.shape[1]

    @property
    def marginal(self) -> MultivariateNormal:
        """p(x)."""
        covariance = self.loadings @ self.loadings.T + self.noise_scale**2 * torch.eye(self.n, dtype=torch.float64)
        return MultivariateNormal(self.offset, covariance)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log p(x) in nats, shape (*batch)."""
        return self.marginal.log_prob(x.double())

    def sample(self, num: int) -> Tensor:
        """Draw x, shape (num, n)."""
        return self.marginal.sample(torch.Size([num]))

    def posterior(self, x: Tensor) -> MultivariateNormal:
        """p(z|x) for x (*batch, n)."""
        return MultivariateNormal((x.double() - self.offset) @ self.gain.T, self.covariance)

    def gap(self, family: str | Callable[[int, int], Posterior]) -> float:
        """Nats between log p(x) and the family's best ELBO, min KL(q ‖ p(z|x)), the same for every x.

        ½(Σ log P_ii − log det P) for the diagonal family, ½(−log det P − d log(d/tr P)) for the isotropic one,
        0 for full covariance; other Gaussian families by numerical minimisation.
        """
        covariance = self.best_covariance(family)
        trace = (self.precision * covariance).sum().item() - self.latent_dim
        return 0.5 * (trace - torch.logdet(self.precision).item() - torch.logdet(covariance).item())

    def best_elbo(self, family: str | Callable[[int, int], Posterior], x: Tensor) -> Tensor:
        """The largest ELBO that the family reaches at this decoder, in nats, shape (*batch)."""
        return self.log_prob(x) - self.gap(family)

    def best_covariance(self, family: str | Callable[[int, int], Posterior]) -> Tensor:
        """Covariance of the family's member nearest to the posterior in KL(q ‖ p(z|x)), shape (d, d)."""
        if family == "full-covariance":
            return self.covariance
        if family == "diagonal":
            return self.precision.diagonal().reciprocal().diag()
        if family == "isotropic":
            return torch.eye(self.latent_dim, dtype=torch.float64) * self.latent_dim / self.precision.trace()
        return covariance_of(self._fitted_head(family)(torch.zeros(self.n, dtype=torch.float64))).detach()

    def to_model(self) -> GenerativeModel:
        """The generative model as a Pyro program, in float64."""
        likelihood = GaussianLikelihood(self.latent_dim, self.n, scale=self.noise_scale)
        model = GenerativeModel(nn.Identity(), likelihood, self.latent_dim).double()
        with torch.no_grad():
            likelihood.loc_head.weight.copy_(self.loadings)
            likelihood.loc_head.bias.copy_(self.offset)
        return model

    def to_guide(self, family: str | Callable[[int, int], Posterior] = "full-covariance") -> AmortizedGuide:
        """The family's best guide at this decoder as a Pyro program, in float64: by default the exact posterior."""
        if family == "full-covariance":
            return self.gaussian_guide(self.gain, self.covariance)
        if family in ("diagonal", "isotropic"):
            head = _make(family)(self.n, self.latent_dim).double()
            linear = head.get_submodule("covariance_head")
            raw = _raw(self.best_covariance(family).diagonal().sqrt())
            _set(linear, torch.zeros(1, dtype=torch.float64), raw[: len(linear.get_parameter("bias"))])
        else:
            head = self._fitted_head(family)
        _set(head.get_submodule("loc_head"), self.gain, -self.gain @ self.offset)
        return AmortizedGuide(nn.Identity(), head)

    def gaussian_guide(self, gain: Tensor, covariance: Tensor) -> AmortizedGuide:
        """Any q(z|x) = N(gain (x − b), covariance) as a full-covariance guide, in float64.

        Args:
            gain: shape (d, n).
            covariance: shape (d, d).
        """
        factor = torch.linalg.cholesky(covariance)
        head = FullCovariancePosterior(self.n, self.latent_dim).double()
        below = factor[torch.tril_indices(self.latent_dim, self.latent_dim, -1).unbind()]
        bias = torch.cat([_raw(factor.diagonal()), below])
        _set(head.covariance_head, torch.zeros(1, dtype=torch.float64), bias)
        _set(head.loc_head, gain, -gain @ self.offset)
        return AmortizedGuide(nn.Identity(), head)

    def _fitted_head(self, family: str | Callable[[int, int], Posterior], num_starts: int = 4) -> Posterior:
        """A head of the family whose covariance, one for all x, minimises KL(q ‖ p(z|x)): best of several starts."""
        head = _make(family)(self.n, self.latent_dim).double()
        try:
            bias = head.get_parameter("covariance_head.bias")
        except AttributeError:
            raise ValueError(f"{type(head).__name__} has no covariance_head, so its best member is not known") from None
        _set(head.get_submodule("covariance_head"), torch.zeros(1, dtype=torch.float64), bias)
        nothing = torch.zeros(self.n, dtype=torch.float64)

        def objective(values: object) -> tuple[float, object]:
            with torch.no_grad():
                bias.copy_(torch.as_tensor(values))
            with torch.enable_grad():
                q = head(nothing)
                kl = 0.5 * (self.precision * covariance_of(q)).sum() - q.entropy()
                (gradient,) = torch.autograd.grad(kl, bias)
            return kl.item(), gradient.numpy()

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            starts = [torch.zeros_like(bias), *(torch.randn_like(bias) for _ in range(num_starts - 1))]
        options = {"maxiter": 1000, "ftol": 1e-15, "gtol": 1e-10}
        fits = [minimize(objective, s.detach().numpy(), jac=True, method="L-BFGS-B", options=options) for s in starts]
        objective(min(fits, key=lambda fit: fit.fun).x)
        return head


def _make(family: str | Callable[[int, int], Posterior]) -> Callable[[int, int], Posterior]:
    if not isinstance(family, str):
        return family
    if family not in POSTERIORS:
        raise ValueError(f"unknown family {family!r}; choose one of {', '.join(POSTERIORS)}")
    return POSTERIORS[family]


def _raw(scale: Tensor) -> Tensor:
    """What :func:`pyrovae.nn.positive` turns into ``scale``."""
    floor = positive(torch.tensor(-math.inf, dtype=scale.dtype))
    return torch.log(torch.expm1(scale - floor))


@torch.no_grad()
def _set(linear: nn.Module, weight: Tensor, bias: Tensor) -> None:
    linear.get_parameter("weight").copy_(weight.expand_as(linear.get_parameter("weight")))
    linear.get_parameter("bias").copy_(bias)
