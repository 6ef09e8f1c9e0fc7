"""Gaussian likelihood with independent noise."""

import math

import torch
from pyro.distributions import Independent, Normal
from torch import Tensor, nn

from pyrovae.distributions import IsotropicNormal
from pyrovae.errors import InputError
from pyrovae.likelihoods._noise import GaussianNoiseLikelihood
from pyrovae.likelihoods.base import gram
from pyrovae.nn import LocHead, StepwiseLocHead

SCALES = ("shared", "per-dimension", "per-datum")
"""Kinds of learned scale."""


class GaussianLikelihood(GaussianNoiseLikelihood):
    """p(x|z) = N(x̂(z), diag σ²): σ is one learned number ("σ-VAE"), one per channel, σ(z) from the decoder, or fixed.

    The loss ½‖x − x̂‖² means σ = 1; a mean of squares over n dimensions with an unscaled KL means σ² = n/2. A learned σ
    has its optimum at σ² = E_q‖x − x̂(z)‖²/n, at samples of z. O(n) per datum.

    Args:
        in_features: width of the decoder's features.
        n: dimension of x.
        scale: ``"shared"`` for one learned σ, ``"per-dimension"`` for n of them, ``"per-datum"`` for n that depend on
            z, or a number, which fixes σ.
        initial_scale: initial value of a learned σ. Far above the noise, the latent space tends to collapse; far below
            it, training is slow. A quarter of the data's standard deviation is a fair guess.
        floor: the smallest σ, as a share of ``initial_scale``; see :meth:`on_floor`.
        num_steps: number of steps of a series, whose mean at each step is the same affine map of that step's features;
            otherwise 1.

    Raises:
        InputError: the scale is none of these, or depends on z in a series.

    Example:
        >>> likelihood = GaussianLikelihood(8, 3, scale="per-dimension", initial_scale=0.25)
        >>> likelihood.noise_scale.tolist(), likelihood.on_floor().tolist()
        ([0.25, 0.25, 0.25], [False, False, False])
    """

    has_tridiagonal_precision = True
    raw_scale: Tensor

    def __init__(
        self,
        in_features: int,
        n: int,
        scale: str | float = "shared",
        initial_scale: float = 1.0,
        floor: float = 1e-4,
        num_steps: int = 1,
    ) -> None:
        super().__init__(in_features, n, initial_scale, floor)
        is_positive = isinstance(scale, int | float) and not isinstance(scale, bool) and 0 < scale < math.inf
        if scale not in SCALES and not is_positive:
            raise InputError(f"scale must be {', '.join(map(repr, SCALES))} or a positive number, not {scale!r}")
        if num_steps != 1 and scale == "per-datum":
            raise InputError("the noise of a series cannot have scale='per-datum'")
        self.scale, self.num_steps = scale, num_steps
        self.loc_head = LocHead(in_features, n) if num_steps == 1 else StepwiseLocHead(in_features, n, num_steps)
        if scale == "per-datum":
            self.scale_head = nn.Linear(in_features, n)
        elif isinstance(scale, str):
            self.raw_scale = nn.Parameter(torch.empty(() if scale == "shared" else n))
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reset a learned σ to its initial value."""
        if self.scale in ("shared", "per-dimension"):
            nn.init.constant_(self.raw_scale, self._raw_initial_scale)

    @property
    def depends_on_z(self) -> bool:
        """Whether the noise is another one for each datum."""
        return self.scale == "per-datum"

    @property
    def noise_scale(self) -> Tensor:
        """σ, a scalar, or shape (n,) for one per channel.

        Raises:
            InputError: it depends on z.
        """
        if self.depends_on_z:
            raise InputError("this σ depends on z; likelihood(features).variance is σ² at the decoder's features")
        return self._noise_scale(self.loc_head.weight)

    def _noise_scale(self, features: Tensor) -> Tensor:
        if self.scale == "per-datum":
            return self._scale(self.scale_head(features) + self._raw_initial_scale)
        return self._scale(self.raw_scale) if isinstance(self.scale, str) else features.new_tensor(self.scale)

    def noise_parameters(self, coordinates: Tensor) -> dict[str, Tensor]:
        """A learned σ, moved by the logarithm of the part above the floor."""
        offset = self._raw_initial_scale if self.depends_on_z else 0.0
        raw = {name: self.get_parameter(name) for name in self.noise_names}
        return {k: self._raw_moved(v + offset, coordinates.reshape(v.shape)) - offset for k, v in raw.items()}

    def _floored_scale(self, features: Tensor) -> Tensor | None:
        return self._noise_scale(features) if isinstance(self.scale, str) else None

    def fisher(self, features: Tensor, jacobian: Tensor, observed: Tensor | None = None) -> Tensor:
        """Σ_c ∂x̂_c ∂x̂_cᵀ/σ_c², and 2 ∂log σ_c ∂log σ_cᵀ where σ depends on z; see :meth:`Likelihood.fisher`."""
        if observed is None or observed.all():
            return super().fisher(features, jacobian)
        scale = self._noise_scale(features)
        mean = gram(
            self.loc_head.matrix @ jacobian, scale.square().reciprocal().expand(*features.shape[:-1], self.n), observed
        )
        return mean + self._noise_fisher(features, jacobian, observed) if self.depends_on_z else mean

    def _precision_gram(self, columns: Tensor, features: Tensor) -> Tensor:
        return gram(columns, self._noise_scale(features).square().reciprocal().expand(columns.shape[:-1]))

    def _noise_fisher(self, features: Tensor, jacobian: Tensor, observed: Tensor | None = None) -> Tensor:
        raw = self.scale_head(features) + self._raw_initial_scale
        change = raw.sigmoid() / self._scale(raw)  # the derivative of log σ
        return gram(self.scale_head.weight @ jacobian, 2 * change.square(), observed)

    def forward(self, features: Tensor) -> Independent:
        """p(x|z) for features (*batch, in_features)."""
        loc, scale = self.loc_head(features), self._noise_scale(features)
        return IsotropicNormal(loc, scale) if scale.dim() == 0 else Normal(loc, scale).to_event(1)
