"""The Gaussian without latents, its covariance shrunk to a simpler one (Ledoit and Wolf 2004)."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Never, Self

import torch
from pyro.distributions import MultivariateNormal, TorchDistribution, TransformedDistribution
from pyro.distributions.transforms import AffineTransform
from torch import Tensor

from pyrovae.blocks import has_gaps
from pyrovae.errors import InputError
from pyrovae.frames import Data, each_datum, each_value, tensor_of
from pyrovae.linear_gaussian._intervals import RefittedModel
from pyrovae.linear_gaussian._model import LinearModel, PartOfModel
from pyrovae.linear_gaussian._moments import few_rows
from pyrovae.linear_gaussian._shrinkage import shrinkage
from pyrovae.linear_gaussian.factor_model import FactorModel
from pyrovae.nn import ConfigurableModule


class ShrunkGaussian(RefittedModel, ConfigurableModule):
    """p(x) = N(b, (1 − a)S + aT), with the data's covariance S = RᵀR and the covariance T of a simpler model.

    It has no latents: x = b + ε. If R has fewer rows m than columns, it is stored as a model with m + d factors,
    without an n × n matrix.

    Args:
        rows: R, shape (m, n).
        target: the model with covariance T, and b its offset.
        share: a in (0, 1].

    Example:
        >>> x = torch.randn(60, 4) @ torch.randn(4, 4)
        >>> from pyrovae.linear_gaussian.factor_model import diagonal_model
        >>> model = ShrunkGaussian.fit(x[:40], x[40:], {"its diagonal": diagonal_model(x[:40])})[0]
        >>> model.log_prob(x).shape, model.latent_dim
        (torch.Size([60]), 0)
    """

    rows: Tensor

    def __init__(self, rows: Tensor, target: FactorModel, share: float) -> None:
        super().__init__()
        if rows.dim() != 2 or rows.shape[1] != target.n:
            raise InputError(f"rows must have shape (m, {target.n}) as the target has, not {tuple(rows.shape)}")
        if not isinstance(share, float) or not 0 < share <= 1:
            raise InputError(f"share must be a number in (0, 1], not {share!r}")
        self.register_buffer("rows", torch.as_tensor(rows, dtype=torch.float64))
        self.target = target
        self.share = share

    @classmethod
    def fit(cls, x: Data, validation: Data, targets: Mapping[str, FactorModel]) -> "tuple[ShrunkGaussian, str]":
        """Choose the share and the target with the largest log p(x) of validation data; also returns the target's name.

        Args:
            x: data, shape (num, n). With missing values, NaN, S is the data's expected covariance, by expectation
                maximisation from the target.
            validation: shape (any, n).
            targets: models with the data's mean as offset, by name.
        """
        x, validation = (few_rows(tensor_of(name, part)) for name, part in (("x", x), ("validation", validation)))
        tried = {name: shrinkage(x, target, validation, rounds=0) for name, target in targets.items()}
        name = max(tried, key=lambda name: tried[name].log_prob)
        found = tried[name] if tried[name].covariance is None else shrinkage(x, targets[name], validation)
        return cls(_root(x, found.covariance), targets[name], found.share), name

    def refit(self, x: Data) -> Self:
        """The model of other data x (num, n), with the same share and the same form of the target."""
        x = few_rows(tensor_of("x", x))
        target, covariance = self.target.refit(x), None
        if has_gaps(x):
            covariance = shrinkage(x, target, x, shares=torch.tensor([self.share], dtype=torch.float64)).covariance
        return type(self)(_root(x, covariance), target, self.share)

    @classmethod
    def from_config(cls, num_rows: int, target: FactorModel, share: float) -> Self:
        """A model of these sizes, whose parameters will be loaded."""
        return cls(torch.zeros(num_rows, target.n, dtype=torch.float64), target, share)

    def config(self) -> dict[str, Any]:
        """The arguments of :meth:`from_config`."""
        return {"num_rows": len(self.rows), "target": self.target, "share": self.share}

    def __repr__(self) -> str:
        return f"ShrunkGaussian(n={self.n}, {self.share:.2g} of {self.target!r})"

    @property
    def n(self) -> int:
        """Dimension of x."""
        return self.target.n

    @property
    def latent_dim(self) -> int:
        """0."""
        return 0

    @property
    def num_parameters(self) -> int:
        """Number of parameters of p(x): b and a covariance."""
        return self.n * (self.n + 3) // 2

    @cached_property
    def offset(self) -> Tensor:  # type: ignore[override]
        """b, shape (n,)."""
        return self.target.offset

    @cached_property
    def loadings(self) -> Tensor:  # type: ignore[override]
        """√(1 − a) Rᵀ beside √a A of the target, shape (n, m + d)."""
        return torch.cat([(1 - self.share) ** 0.5 * self.rows.T, self.share**0.5 * self.target.loadings], dim=1)

    @property
    def noise(self) -> TorchDistribution:
        """N(0, aΣ) with the target's Σ."""
        return TransformedDistribution(self.target.noise, [AffineTransform(0.0, self.share**0.5, event_dim=1)])

    @cached_property
    def noise_covariance(self) -> Tensor:
        """AΣ, shape (n, n)."""
        return self.share * self.target.noise_covariance

    @cached_property
    def _dense(self) -> MultivariateNormal | None:
        """p(x) with its factor, where that is smaller than the loadings."""
        return self.marginal if len(self.rows) >= self.n else None

    @each_datum
    def log_prob(self, x: Tensor) -> Tensor:
        """Log p(x) in nats, shape (*batch)."""
        if self._dense is None or x.isnan().any():
            return super().log_prob(x)
        log_prob: Tensor = self._dense.log_prob(x.double())
        return log_prob

    def solve(self, rows: Tensor) -> Tensor:
        """Each row, shape (num, n), times the inverse of p(x)'s covariance."""
        if self._dense is None:
            return super().solve(rows)
        return torch.cholesky_solve(rows.T, self._dense.scale_tril).T

    @cached_property
    def _precisions(self) -> Tensor:
        if self._dense is None:
            return super()._precisions
        return torch.cholesky_inverse(self._dense.scale_tril).diagonal()

    @each_value
    def reconstruct(self, x: Tensor) -> Tensor:
        """Each channel's mean given all others, shape (*batch, n): the reconstruction of a model without latents."""
        return self.conditional_means(x)

    @each_value
    def spread(self, x: Tensor | None = None) -> Tensor:
        """Standard deviation of each channel given all others, of data with missing values all observed others.

        Args:
            x: shape (*batch, n); None stands for complete data.

        Returns:
            Shape (n,), or (*batch, n) of data with missing values.
        """
        if x is None or not x.isnan().any():
            return self._precisions.rsqrt()
        of_observed = self._where_observed(x, lambda part, seen: part._precisions.rsqrt().expand_as(seen))
        return torch.where(x.isnan(), self.complete(x)[1], of_observed)

    def observing(self, channels: Tensor) -> LinearModel:
        """The model of some channels alone, booleans of shape (n,)."""
        return super().observing(channels) if self._dense is None else self._dense_part(channels)

    def given(self, channels: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`LinearModel.given`."""
        if self._dense is None:
            return super().given(channels)
        return self._dense_part(torch.ones_like(channels)).given(channels)

    def _dense_part(self, channels: Tensor) -> PartOfModel:
        """The model of some channels, with all of their covariance as noise."""
        assert self._dense is not None
        noise = MultivariateNormal(torch.zeros_like(self.offset), scale_tril=self._dense.scale_tril)
        return PartOfModel(self.loadings[:, :0], self.offset, noise, channels)

    @each_datum
    def kl(self, x: Tensor) -> Tensor:
        """0, shape (*batch)."""
        return torch.zeros(x.shape[:-1], dtype=torch.float64)

    def posterior(self, x: Data) -> Never:
        """There is none.

        Raises:
            InputError: always.
        """
        raise InputError(
            "this model is a Gaussian without latents and cannot encode; it scores, reconstructs and samples"
        )

    def to_model(self) -> Never:
        """There is none: a generative model has latents.

        Raises:
            InputError: always.
        """
        raise InputError("this model is a Gaussian without latents: pyrovae.load_linear reads it, not pyrovae.load")


def _root(x: Tensor, covariance: Tensor | None) -> Tensor:
    """R with RᵀR this covariance, by default that of data x (num, n)."""
    if covariance is None:
        rows = (x - x.mean(0)) / len(x) ** 0.5
    else:
        values, axes = torch.linalg.eigh(covariance)
        rows = (axes * values.clamp_min(0).sqrt()).T
    root: Tensor = torch.linalg.qr(rows, mode="r").R if len(rows) > rows.shape[1] else rows
    return root
