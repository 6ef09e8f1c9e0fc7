"""Base of the models with an exact Gaussian posterior N(G(x − b), P⁻¹), and the families that approximate it."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, overload

import torch
from torch import Tensor, nn

from pyrovae.errors import check_choice
from pyrovae.frames import Arrays, each_datum
from pyrovae.posteriors import POSTERIORS, Posterior
from pyrovae.vae import AmortizedGuide, GenerativeModel

if TYPE_CHECKING:
    import pandas as pd

Family = str | Callable[[int, int], Posterior]
"""A posterior family: its name, or a callable of (in_features, latent_dim)."""


class GaussianPosterior(ABC):
    """A model whose posterior is N(G(x − b), P⁻¹), with the same P for every x.

    Attributes:
        offset: b, shape (n,).
    """

    offset: Tensor

    @property
    @abstractmethod
    def n(self) -> int:
        """Dimension of x."""

    @property
    @abstractmethod
    def latent_dim(self) -> int:
        """Dimension d of z."""

    @property
    @abstractmethod
    def precision(self) -> Tensor:
        """P, shape (d, d), the same for every x."""

    @cached_property
    def covariance(self) -> Tensor:
        """P⁻¹, shape (d, d)."""
        covariance: Tensor = torch.linalg.inv(self.precision)
        return covariance

    @property
    @abstractmethod
    def gain(self) -> Tensor:
        """G, shape (d, n): the posterior mean is G(x − b)."""

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Log p(x) in nats, shape (*batch)."""

    @abstractmethod
    def to_model(self) -> GenerativeModel:
        """The generative model as a Pyro program, in float64."""

    def gap(self, family: Family) -> float:
        """Log p(x) − the family's best ELBO = min KL(q ‖ p(z|x)) in nats, the same for every x.

        ½(Σ log P_ii − log det P) for the diagonal family, ½(−log det P − d log(d/tr P)) for the isotropic one,
        0 for full covariance; found numerically for other Gaussian families.
        """
        covariance = self.best_covariance(family)
        trace = (self.precision * covariance).sum().item() - self.latent_dim
        return 0.5 * (trace - torch.logdet(self.precision).item() - torch.logdet(covariance).item())

    @overload
    def best_elbo(self, family: Family, x: "pd.DataFrame") -> "pd.Series": ...

    @overload
    def best_elbo(self, family: Family, x: Arrays) -> Tensor: ...

    @each_datum
    def best_elbo(self, family: Family, x: Tensor) -> Tensor:
        """The largest ELBO of the family at this decoder, in nats, shape (*batch)."""
        return self.log_prob(x) - self.gap(family)

    def best_covariance(self, family: Family) -> Tensor:
        """Covariance of the family's member nearest to the posterior in KL(q ‖ p(z|x)), shape (d, d)."""
        with torch.random.fork_rng(devices=[]):
            return make_head(family, 1, self.latent_dim).closest_covariance(self.precision)

    def to_guide(self, family: Family = "full-covariance") -> AmortizedGuide:
        """The family's best guide at this decoder as a Pyro program, in float64; by default the exact posterior."""
        head = make_head(family, self.n, self.latent_dim)
        head.set_covariance(head.closest_values(self.precision))
        head.set_mean(self.gain, -self.gain @ self.offset)
        return AmortizedGuide(nn.Identity(), head)


def make_head(family: Family, in_features: int, latent_dim: int) -> Posterior:
    """A head of the family in float64.

    Raises:
        InputError: an unknown name.
    """
    if isinstance(family, str):
        check_choice("family", family, POSTERIORS)
        family = POSTERIORS[family]
    return family(in_features, latent_dim).double()
