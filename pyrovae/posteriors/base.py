"""Base class of the posterior families: a head on the encoder's features that returns q(z|x)."""

import copy
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.func import functional_call

from pyrovae.distributions import covariance_of, trace_with
from pyrovae.errors import InputTypeError, check_integer
from pyrovae.nn import ConfigurableModule, LocHead
from pyrovae.posteriors.lbfgs import minimise
from pyrovae.randomness import seeded


class Posterior(ConfigurableModule, ABC):
    """Head from features (*batch, in_features) to q(z|x) with batch shape *batch and event shape (latent_dim,).

    To add a family, write a subclass in a file of its own:

    1. ``__init__(self, in_features, latent_dim, …)`` calls ``super().__init__(in_features, latent_dim)``, stores each
       further argument under its own name (:meth:`config` reads them to save the family), and makes the linear heads. A
       Gaussian family has ``loc_head``, a :class:`~pyrovae.nn.LocHead` for the mean, and ``covariance_head``, an
       ``nn.Linear`` for the numbers of the covariance. Parameters outside these heads need a method
       ``reset_parameters(self)`` that sets them to their initial values.
    2. :meth:`forward` returns a reparameterised distribution. Scales come from :func:`pyrovae.nn.positive`.
    3. A family that is not Gaussian sets ``is_gaussian = False``.

    Everything else has a default. A family whose closest covariance has a closed form overrides
    :meth:`closest_covariance` and :meth:`closest_values`. Export the family as a row of
    :data:`pyrovae.posteriors.POSTERIORS`; the command line and the tests read that table.
    :func:`pyrovae.testing.check_posterior` checks a family.

    Args:
        in_features: width of the encoder's features.
        latent_dim: dimension d of z.

    Attributes:
        is_gaussian: whether q(z|x) is Gaussian, with a mean from ``loc_head`` and a covariance from
            ``covariance_head``. It can then start as a linear model's posterior; see :func:`~pyrovae.start_as_linear`.
    """

    is_gaussian: ClassVar[bool] = True
    loc_head: LocHead
    covariance_head: nn.Linear

    def __init__(self, in_features: int, latent_dim: int) -> None:
        super().__init__()
        check_integer("in_features", in_features)
        check_integer("latent_dim", latent_dim)
        self.in_features = in_features
        self.latent_dim = latent_dim

    @abstractmethod
    def forward(self, features: Tensor) -> TorchDistribution:
        """q(z|x) for features (*batch, in_features)."""

    @property
    def can_start_as_linear(self) -> bool:
        """Whether it has the heads of a Gaussian family, so that it can be a linear model's posterior."""
        heads = (("loc_head", LocHead), ("covariance_head", nn.Linear))
        return self.is_gaussian and all(isinstance(getattr(self, name, None), kind) for name, kind in heads)

    def constant(self, values: Tensor) -> TorchDistribution:
        """q(z|x) at features 0, of batch shape (), where ``values`` are the bias of ``covariance_head``."""
        return functional_call(self, {"covariance_head.bias": values}, values.new_zeros(self.in_features))

    def closest_covariance(self, precision: Tensor) -> Tensor:
        """The family's Σ that minimises KL(N(0, Σ) ‖ N(0, P⁻¹)), found numerically unless a family has a formula.

        Args:
            precision: P, shape (latent_dim, latent_dim), float64.

        Returns:
            Shape (latent_dim, latent_dim), float64.

        Raises:
            InputTypeError: a family without ``covariance_head``.
        """
        return covariance_of(copy.deepcopy(self).double().constant(self.closest_values(precision))).detach()

    def closest_values(self, precision: Tensor) -> Tensor:
        """The bias of ``covariance_head`` that gives :meth:`closest_covariance`, float64."""
        if not self.can_start_as_linear:
            raise InputTypeError(f"a {type(self).__name__} has no covariance_head, so its best member is not known")
        head = copy.deepcopy(self).double().requires_grad_(False)

        def kl(values: Tensor) -> Tensor:
            q = head.constant(values)
            return 0.5 * trace_with(precision, q) - q.entropy()

        zeros = torch.zeros_like(head.covariance_head.bias)
        with seeded(0):
            starts = [zeros, *(torch.randn_like(zeros) for _ in range(3))]
        return torch.from_numpy(minimise(kl, starts).x)

    @staticmethod
    def explained_variances(eigenvalues: Tensor) -> Tensor | None:
        """Variance that the best linear decoder for the family explains along the data's d main axes; None if unknown.

        For a linear-Gaussian VAE with a free decoder; ``eigenvalues`` λ are the data's largest variances, shape (d,):
        the loadings along axis i are then √(explained_i − σ²). Probabilistic PCA has λ itself.
        """
        return None

    @torch.no_grad()
    def set_covariance(self, values: Tensor) -> None:
        """Give q(z|x) the same covariance for all x, that of :meth:`constant`. The mean does not change."""
        self.covariance_head.weight.zero_()
        self.covariance_head.bias.copy_(values)

    def set_mean(self, weight: Tensor, bias: Tensor, units: Tensor | None = None) -> None:
        """Make the mean Wf + b of features f, W of shape (d, at most in_features), the other weights 0.

        Args:
            weight: W.
            bias: b, shape (d,).
            units: the mean's new units; see :meth:`~pyrovae.nn.LocHead.set_units`.
        """
        if units is not None:
            self.loc_head.set_units(units)
        self.loc_head.set_affine(weight, bias)
