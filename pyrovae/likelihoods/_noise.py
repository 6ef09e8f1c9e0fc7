"""Gaussian noise: scales with an initial value and a floor, shared or from the decoder, and its Fisher information."""

import math
from abc import abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrovae.distributions import covariance_of
from pyrovae.errors import InputError, check_positive
from pyrovae.likelihoods.base import Likelihood
from pyrovae.nn import LocHead, positive, softplus_inverse


class GaussianNoiseLikelihood(Likelihood):
    """Base of the Gaussian likelihoods p(x|z) = N(x̂(z), Σ), whose scales have an initial value and a floor.

    A subclass calls the head of x̂ ``loc_head``. All parameters are the noise at features 0 (:attr:`noise_names`),
    except those of ``loc_head`` and the weights of modules named ``…_head``.

    A learned σ is softplus(raw) + floor · initial_scale. Where x̂ fits a channel ever better, the variance stops at the
    floor. Without it the variance would go to 0 and the density to infinity.

    Args:
        in_features: width of the decoder's features.
        n: dimension of x.
        initial_scale: where learned scales start, in units of x.
        floor: their smallest value, as a share of ``initial_scale``.

    Attributes:
        is_unrestricted: whether Σ may be any covariance, so that the maximum-likelihood one is the data's.
        has_tridiagonal_precision: whether Σ⁻¹ is tridiagonal, so that linear models of many channels are fitted fast.
    """

    is_gaussian = True
    is_continuous = True
    takes_initial_scale = True
    is_unrestricted: ClassVar[bool] = False
    has_tridiagonal_precision: ClassVar[bool] = False
    loc_head: LocHead

    def __init__(self, in_features: int, n: int, initial_scale: float, floor: float) -> None:
        super().__init__(in_features, n)
        check_positive("initial_scale", initial_scale)
        if not isinstance(floor, float) or not 0 < floor < 1:
            raise InputError(f"floor must be a share of initial_scale between 0 and 1, not {floor!r}")
        self.floor = floor
        self._set_initial_scale(initial_scale)

    @property
    @abstractmethod
    def depends_on_z(self) -> bool:
        """Whether the noise differs between data."""

    @abstractmethod
    def _floored_scale(self, features: Tensor) -> Tensor | None:
        """The learned scales that the floor bounds, (1 or n,) or (*batch, 1 or n); None where none is learned."""

    @abstractmethod
    def reset_parameters(self) -> None:
        """Reset noise that all data share to its initial value."""

    @property
    def num_noise_parameters(self) -> int:
        """Number of parameters of the noise at features 0."""
        return sum(self.get_parameter(name).numel() for name in self.noise_names)

    @abstractmethod
    def noise_parameters(self, coordinates: Tensor) -> dict[str, Tensor]:
        """The parameters of the noise at features 0, moved from where they are, by name.

        Args:
            coordinates: shape (num_noise_parameters,), chosen to suit an optimiser: the logarithms of σ rather than
                raw numbers; 0 leaves the noise as it is.
        """

    def fisher(self, features: Tensor, jacobian: Tensor, observed: Tensor | None = None) -> Tensor:
        """(∂x̂)ᵀ Σ⁻¹ ∂x̂, and ½ tr(Σ⁻¹ ∂Σ Σ⁻¹ ∂Σ) where Σ depends on z; see :meth:`Likelihood.fisher`.

        With shared noise, W_outᵀ Σ⁻¹ W_out is computed once for all data, and no derivative of x̂ is formed.
        """
        if observed is not None and not observed.all():
            return self._dense_fisher(features, jacobian, observed)
        if not self.depends_on_z:
            return jacobian.mT @ self._precision_gram(self.loc_head.matrix, self._features(None)) @ jacobian
        mean = self._precision_gram(self.loc_head.matrix @ jacobian, features)
        return mean + self._noise_fisher(features, jacobian)

    def _precision_gram(self, columns: Tensor, features: Tensor) -> Tensor:
        """CᵀΣ⁻¹C, shape (*batch, d, d), for C of shape (*batch, n, d)."""
        factor = torch.linalg.cholesky(covariance_of(self(features)))
        white = torch.linalg.solve_triangular(factor, columns, upper=False)
        return white.mT @ white

    def _noise_fisher(self, features: Tensor, jacobian: Tensor) -> Tensor:
        """The part from noise that depends on z, shape (*batch, d, d), densely unless a subclass has a formula."""
        return self._dense_noise_fisher(torch.linalg.cholesky(covariance_of(self(features))), features, jacobian)

    def _dense_fisher(self, features: Tensor, jacobian: Tensor, observed: Tensor) -> Tensor:
        """For the observed channels alone: the others become independent and constant. O(n³) per datum."""
        seen = observed.to(features)
        noise_at = features if self.depends_on_z else self._features(None)  # else Σ is the same for all data
        covariance = covariance_of(self(noise_at)) * seen.unsqueeze(-1) * seen.unsqueeze(-2) + (1 - seen).diag_embed()
        factor = torch.linalg.cholesky(covariance)
        columns = seen.unsqueeze(-1) * (self.loc_head.matrix @ jacobian)
        white = torch.linalg.solve_triangular(factor, columns, upper=False)
        noise = self._dense_noise_fisher(factor, features, jacobian, seen) if self.depends_on_z else 0.0
        return white.mT @ white + noise

    def _dense_noise_fisher(
        self, factor: Tensor, features: Tensor, jacobian: Tensor, seen: Tensor | None = None
    ) -> Tensor:
        """½ tr(Σ⁻¹ ∂_iΣ Σ⁻¹ ∂_jΣ) of Σ's Cholesky factor: one derivative of Σ a direction."""
        moved = []
        for direction in jacobian.unbind(-1):
            _, change = torch.autograd.functional.jvp(lambda f: covariance_of(self(f)), features, direction)
            if seen is not None:
                change = change * seen.unsqueeze(-1) * seen.unsqueeze(-2)
            half = torch.linalg.solve_triangular(factor, change, upper=False)
            moved.append(torch.linalg.solve_triangular(factor, half.mT, upper=False).flatten(-2))
        white = torch.stack(moved, dim=-1)
        return 0.5 * white.mT @ white

    def simpler_form(self) -> "tuple[GaussianNoiseLikelihood, int] | None":
        """A simpler noise for fitting a linear model and the number of latent dimensions that it adds; else None.

        :meth:`set_fitted_noise` then takes the fitted noise. The caller's random state does not change.
        """
        return None

    def set_fitted_noise(self, covariance: Tensor, factors: Tensor, initial_scale: float) -> None:
        """Set the noise to FFᵀ + Σ, fitted with the simpler form, as closely as this form allows.

        Args:
            covariance: Σ of the noise, shape (n, n).
            factors: F, the loadings of the additional latent dimensions, shape (n, any).
            initial_scale: initial value of learned scales.
        """
        raise NotImplementedError(f"{type(self).__name__}.simpler_form needs set_fitted_noise")

    @property
    def noise_names(self) -> list[str]:
        """Names of the parameters of the noise at features 0."""
        names = (name for name, _ in self.named_parameters() if not name.startswith("loc_head."))
        return [name for name in names if not name.endswith("_head.weight")]

    @torch.no_grad()
    def start_at(self, initial_scale: float) -> None:
        """Reset learned noise, with another initial scale; noise that depends on z starts equal for all data."""
        self._set_initial_scale(initial_scale)
        for name, parameter in self.named_parameters():
            if "_head." in name and not name.startswith("loc_head."):
                parameter.mul_(0.0 if name.endswith("weight") else 0.1)  # no column of W is exactly 0
        self.reset_parameters()

    @property
    def smallest_scale(self) -> float:
        """The floor of learned scales, in units of x."""
        return self.floor * self.initial_scale

    def _set_initial_scale(self, initial_scale: float) -> None:
        self.initial_scale = initial_scale
        above = initial_scale - self.smallest_scale
        # inverse of _scale, in Python floats: every fit depends on its last bit
        self._raw_initial_scale = above + math.log(-math.expm1(-above))

    def _scale(self, raw: Tensor) -> Tensor:
        return positive(raw, self.smallest_scale)

    def _raw(self, scale: Tensor) -> Tensor:
        """Inverse of :meth:`_scale`; a scale below the floor becomes slightly more than the floor."""
        return softplus_inverse((scale - self.smallest_scale).clamp_min(1e-3 * self.smallest_scale))

    def _raw_moved(self, raw: Tensor, log_factor: Tensor) -> Tensor:
        """``raw`` such that the part of σ above the floor is multiplied by exp(log_factor)."""
        return softplus_inverse((F.softplus(raw) * log_factor.exp()).clamp_min(torch.finfo(raw.dtype).tiny))

    @torch.no_grad()
    def on_floor(self, features: Tensor | None = None) -> Tensor:
        """Which channels' learned scale is at the floor, below twice its smallest value: booleans of shape (n,).

        Args:
            features: (*batch, in_features), needed where the noise depends on z. A channel counts if it is at the floor
                for any of them.
        """
        scale = self._floored_scale(self._features(features))
        if scale is None:
            return torch.zeros(self.n, dtype=torch.bool)
        low = (scale < 2 * self.smallest_scale).reshape(-1, scale.shape[-1] if scale.dim() else 1)
        return low.any(0).expand(self.n)

    @torch.no_grad()
    def noise_covariance(self, features: Tensor | None = None) -> Tensor:
        """Dense Σ, shape (n, n), or (*batch, n, n) for features (*batch, in_features) where it depends on z."""
        return covariance_of(self(self._features(features)))

    def _features(self, features: Tensor | None) -> Tensor:
        if features is None:
            if self.depends_on_z:
                raise InputError(f"the noise of this {type(self).__name__} depends on z; give the decoder's features")
            like = next(self.parameters())
            return torch.zeros(self.in_features, dtype=like.dtype, device=like.device)
        return features


class CovarianceLikelihood(GaussianNoiseLikelihood):
    """Base of the likelihoods with correlated channels. Σ has k numbers, learned or from the decoder.

    Args:
        in_features: width of the decoder's features.
        n: dimension of x.
        num_scales: how many of the k numbers, the first ones, are scales.
        num_noise: k.
        covariance: ``"shared"``: the k numbers are parameters; ``"per-datum"``: linear in the features, Σ(z).
        initial_scale: where learned scales start, in units of x.
        floor: their smallest value, as a share of ``initial_scale``.
    """

    is_correlated = True

    def __init__(
        self,
        in_features: int,
        n: int,
        num_scales: int,
        num_noise: int,
        covariance: str,
        initial_scale: float,
        floor: float,
    ) -> None:
        super().__init__(in_features, n, initial_scale, floor)
        if covariance not in ("shared", "per-datum"):
            raise InputError(f"covariance must be 'shared' or 'per-datum', not {covariance!r}")
        self.covariance = covariance
        self._num_scales = num_scales
        if covariance == "shared":  # first, as replicas are reset: a module before its submodules
            self.raw_noise = nn.Parameter(torch.empty(num_noise))
            self.reset_parameters()
        self.loc_head = LocHead(in_features, n)
        if covariance == "per-datum":
            self.covariance_head = nn.Linear(in_features, num_noise)

    def reset_parameters(self) -> None:
        """Reset a shared covariance to its initial value."""
        if self.covariance == "shared":
            nn.init.zeros_(self.raw_noise)

    @property
    def depends_on_z(self) -> bool:
        """Whether the noise differs between data."""
        return self.covariance == "per-datum"

    def noise_parameters(self, coordinates: Tensor) -> dict[str, Tensor]:
        """Move shared noise; the scales (the first of the k numbers) by the logarithm of the part above the floor."""
        (name,) = self.noise_names
        raw, offset = self.get_parameter(name), self._raw_initial_scale
        scales, others = raw.tensor_split([self._num_scales])
        log_factors, more = coordinates.tensor_split([self._num_scales])
        moved = self._raw_moved(scales + offset, self._log_factors(log_factors)) - offset
        return {name: torch.cat([moved, others + more])}

    def _floored_scale(self, features: Tensor) -> Tensor:
        return self._scale(self._raw_noise(features)[..., : self._num_scales] + self._raw_initial_scale)

    def _log_factors(self, coordinates: Tensor) -> Tensor:
        """Factors that move the scales at the given coordinates."""
        return coordinates

    def _raw_noise(self, features: Tensor) -> Tensor:
        """The k numbers, shape (k,) or (*batch, k)."""
        return self.raw_noise if self.covariance == "shared" else self.covariance_head(features)
