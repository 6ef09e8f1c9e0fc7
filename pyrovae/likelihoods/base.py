"""What every likelihood is: a head on the decoder's features that returns p(x|z)."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyrovae.distributions import covariance_of
from pyrovae.errors import InputError, check_integer, check_positive
from pyrovae.nn import ConfigurableModule, LocHead, positive, softplus_inverse


class Likelihood(ConfigurableModule, ABC):
    """Head that turns features (*batch, in_features) into p(x|z) with batch shape *batch, event shape (n,).

    To add a likelihood, write a subclass in a file of its own:

    1. ``__init__(self, in_features, n, …)`` calls ``super().__init__(in_features, n)``, stores each further argument
       under its own name (:meth:`config` reads them, so that the likelihood can be saved), and makes the linear heads
       on the features and the parameters that all data share. A mean is a :class:`~pyrovae.nn.LocHead`.
    2. ``reset_parameters(self)`` sets the parameters that are its own, not a submodule's, to where they start: replicas
       start anew with it. A likelihood without such parameters needs none.
    3. :meth:`forward` returns a distribution with ``log_prob``, ``sample`` and ``mean``. Scales come from
       :func:`pyrovae.nn.positive`.
    4. Where not every real number can be scored, set ``support`` and override :meth:`in_support`.

    Everything else has a default. The one export is a row of :data:`pyrovae.likelihoods.LIKELIHOODS`, from which the
    command line and the tests take it. :func:`pyrovae.testing.check_likelihood` checks a likelihood.

    A subclass of :class:`GaussianNoiseLikelihood`, or of :class:`CovarianceLikelihood` for correlated channels, can
    also start as a linear model. Data with missing values need a p(x|z) that
    :class:`~pyrovae.distributions.PartiallyObserved` knows: independent channels, or a Gaussian.

    Args:
        in_features: width of the decoder's features.
        n: dimension of x.

    Attributes:
        support: what data must be, and how to mend others, in the words of an error.
        is_density: whether log p(x|z) is a log-probability or a log-density of x, so that bounds of log p(x) can be
            compared; a cross-entropy with soft targets is not.
        is_gaussian: whether p(x|z) = N(x̂(z), Σ), so that a model may start as a linear-Gaussian one.
        is_correlated: whether the channels' noise is correlated.
        takes_initial_scale: whether the constructor takes ``initial_scale``, where learned scales start, in units of x.
    """

    support: tuple[str, str] = "real numbers", "give others as NaN to a model with missing=True"
    is_density: bool = True
    is_gaussian: ClassVar[bool] = False
    is_correlated: ClassVar[bool] = False
    takes_initial_scale: ClassVar[bool] = False

    def __init__(self, in_features: int, n: int) -> None:
        super().__init__()
        check_integer("in_features", in_features)
        check_integer("n", n)
        self.in_features = in_features
        self.n = n

    @abstractmethod
    def forward(self, features: Tensor) -> TorchDistribution:
        """p(x|z) for features (*batch, in_features)."""

    def in_support(self, x: Tensor) -> Tensor:
        """Which values of x (num, n) p(x|z) can score, booleans of that shape."""
        return torch.ones_like(x, dtype=torch.bool)

    def check_support(self, name: str, x: Tensor) -> None:
        """Raise an InputError that names the first value of x (num, n), NaN apart, that p(x|z) cannot score."""
        outside = ~(self.in_support(x) | x.isnan())
        if outside.any():
            row, column = outside.nonzero()[0].tolist()
            what, remedy = self.support
            raise InputError(
                f"{name} holds {x[row, column].item():.4g} at row {row}, column {column} (counted from 0), the first "
                f"of {int(outside.sum())} that a {type(self).__name__} cannot score: they must be {what}; {remedy}"
            )


class GaussianNoiseLikelihood(Likelihood):
    """Base of the Gaussian likelihoods p(x|z) = N(x̂(z), Σ): scales that start at a value and stay above a floor.

    A subclass names the head of x̂ ``loc_head``. Its names of parameters decide which are the noise at features 0, see
    :attr:`noise_names`: all but those of ``loc_head`` and the weights of modules named ``…_head``.

    A learned σ is softplus(raw) + floor · initial_scale: where x̂ fits a channel ever better, its variance
    stops at the floor instead of running to 0 and the density to infinity.

    Args:
        in_features: width of the decoder's features.
        n: dimension of x.
        initial_scale: where learned scales start, in units of x.
        floor: their smallest value, as a share of ``initial_scale``.

    Attributes:
        is_unrestricted: whether Σ may be any covariance, so that the likeliest one is the data's own.
    """

    is_gaussian = True
    takes_initial_scale = True
    is_unrestricted: ClassVar[bool] = False
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
        """Whether the noise is another one for each datum."""

    @abstractmethod
    def _floored_scale(self, features: Tensor) -> Tensor | None:
        """The learned scales that the floor bounds, (1 or n,) or (*batch, 1 or n); None where none is learned."""

    @abstractmethod
    def reset_parameters(self) -> None:
        """Put noise that all data share back to where it starts."""

    @property
    def num_noise_parameters(self) -> int:
        """How many numbers make the noise at features 0."""
        return sum(self.get_parameter(name).numel() for name in self.noise_names)

    @abstractmethod
    def noise_parameters(self, coordinates: Tensor) -> dict[str, Tensor]:
        """The parameters of the noise at features 0, moved from where they are, by name.

        Args:
            coordinates: shape (num_noise_parameters,), chosen to suit an optimiser: the logarithms of σ rather than
                raw numbers; 0 leaves the noise as it is.
        """

    def simpler_form(self) -> "tuple[GaussianNoiseLikelihood, int] | None":
        """A simpler noise to fit a linear model with, and how many more latent dimensions that needs; else None.

        :meth:`set_fitted_noise` then takes what was fitted. The caller's random state is left as it was.
        """
        return None

    def set_fitted_noise(self, covariance: Tensor, factors: Tensor, initial_scale: float) -> None:
        """Make the noise FFᵀ + Σ, as near as this form comes to it: what was fitted with the simpler form.

        Args:
            covariance: Σ of the noise, shape (n, n).
            factors: F, the loadings of the additional latent dimensions, shape (n, any).
            initial_scale: where learned scales started.
        """
        raise NotImplementedError(f"{type(self).__name__}.simpler_form needs set_fitted_noise")

    @property
    def noise_names(self) -> list[str]:
        """Names of the parameters of the noise at features 0."""
        names = (name for name, _ in self.named_parameters() if not name.startswith("loc_head."))
        return [name for name in names if not name.endswith("_head.weight")]

    @torch.no_grad()
    def start_at(self, initial_scale: float) -> None:
        """Put learned noise back to its start, at another scale; noise that depends on z starts the same for all."""
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
        # what _scale turns into initial_scale, in floats of Python: every fit starts from its last bit
        self._raw_initial_scale = above + math.log(-math.expm1(-above))

    def _scale(self, raw: Tensor) -> Tensor:
        return positive(raw, self.smallest_scale)

    def _raw(self, scale: Tensor) -> Tensor:
        """What :meth:`_scale` turns into ``scale``, or into a little more than the floor if it is below."""
        return softplus_inverse((scale - self.smallest_scale).clamp_min(1e-3 * self.smallest_scale))

    def _raw_moved(self, raw: Tensor, log_factor: Tensor) -> Tensor:
        """``raw`` such that what σ has above the floor is multiplied by exp(log_factor)."""
        return softplus_inverse((F.softplus(raw) * log_factor.exp()).clamp_min(torch.finfo(raw.dtype).tiny))

    @torch.no_grad()
    def on_floor(self, features: Tensor | None = None) -> Tensor:
        """Which channels' learned scale sits on the floor, below twice its smallest value: booleans of shape (n,).

        Args:
            features: (*batch, in_features), needed where the noise depends on z: a channel then counts if it sits
                there for any of them.
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
    """Base of the likelihoods with correlated channels, whose Σ is made of k numbers, learned or from the decoder.

    Args:
        in_features: width of the decoder's features.
        n: dimension of x.
        num_scales: how many of the k are scales, the first.
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
        if covariance == "shared":  # first, as replicas start anew: a module before the modules inside it
            self.raw_noise = nn.Parameter(torch.empty(num_noise))
            self.reset_parameters()
        self.loc_head = LocHead(in_features, n)
        if covariance == "per-datum":
            self.covariance_head = nn.Linear(in_features, num_noise)

    def reset_parameters(self) -> None:
        """Put a shared covariance back to where it starts."""
        if self.covariance == "shared":
            nn.init.zeros_(self.raw_noise)

    @property
    def depends_on_z(self) -> bool:
        """Whether the noise is another one for each datum."""
        return self.covariance == "per-datum"

    def noise_parameters(self, coordinates: Tensor) -> dict[str, Tensor]:
        """Shared noise moved, the scales (the first of the k numbers) by the logarithm of what is above the floor."""
        (name,) = self.noise_names
        raw, offset = self.get_parameter(name), self._raw_initial_scale
        scales, others = raw.tensor_split([self._num_scales])
        log_factors, more = coordinates.tensor_split([self._num_scales])
        moved = self._raw_moved(scales + offset, self._log_factors(log_factors)) - offset
        return {name: torch.cat([moved, others + more])}

    def _floored_scale(self, features: Tensor) -> Tensor:
        return self._scale(self._raw_noise(features)[..., : self._num_scales] + self._raw_initial_scale)

    def _log_factors(self, coordinates: Tensor) -> Tensor:
        """By which the scales are moved at their coordinates."""
        return coordinates

    def _raw_noise(self, features: Tensor) -> Tensor:
        """The k numbers, shape (k,) or (*batch, k)."""
        return self.raw_noise if self.covariance == "shared" else self.covariance_head(features)
