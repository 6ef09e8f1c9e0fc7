"""Base class of the likelihoods: a head on the decoder's features that returns p(x|z)."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyrovae.blocks import first_where
from pyrovae.errors import InputError, check_integer
from pyrovae.nn import ConfigurableModule


class Likelihood(ConfigurableModule, ABC):
    """Head from features (*batch, in_features) to p(x|z) with batch shape *batch and event shape (n,).

    To add a likelihood, write a subclass in a file of its own:

    1. ``__init__(self, in_features, n, …)`` calls ``super().__init__(in_features, n)``, stores each further argument
       under its own name (:meth:`config` reads them to save the likelihood), and makes the linear heads on the features
       and the parameters shared by all data. A mean is a :class:`~pyrovae.nn.LocHead`.
    2. ``reset_parameters(self)`` sets its own parameters, not a submodule's, to their initial values; replicas start
       with it. A likelihood without such parameters needs no such method.
    3. :meth:`forward` returns a distribution with ``log_prob``, ``sample`` and ``mean``. Scales come from
       :func:`pyrovae.nn.positive`.
    4. If not every real number has a density, set ``support`` and override :meth:`in_support`.
    5. :meth:`fisher`, if it has a closed form, makes :func:`~pyrovae.refine` and :func:`~pyrovae.log_marginal` fast;
       without it they use gradient steps, which take longer. :func:`gram` is the formula for independent channels.

    Everything else has a default. Export the likelihood as a row of :data:`pyrovae.likelihoods.LIKELIHOODS`; the
    command line and the tests read that table. :func:`pyrovae.testing.check_likelihood` checks a likelihood.

    A subclass of :class:`GaussianNoiseLikelihood`, or of :class:`CovarianceLikelihood` for correlated channels, can
    also start as a linear model. Data with missing values need a p(x|z) that
    :class:`~pyrovae.distributions.PartiallyObserved` knows: independent channels, or a Gaussian.

    Args:
        in_features: width of the decoder's features.
        n: dimension of x.

    Attributes:
        support: what data must be, and how to correct other data, in the words of an error.
        is_density: whether log p(x|z) is a log-probability or a log-density of x, so that bounds on log p(x) can be
            compared. A cross-entropy with soft targets is neither.
        is_gaussian: whether p(x|z) = N(x̂(z), Σ), so that a model may start as a linear-Gaussian one.
        is_correlated: whether the channels' noise is correlated.
        is_count: whether x are counts, which are not standardised. p(x|z) is then a probability and cannot be compared
            with a density.
        is_continuous: whether p(x|z) is a density of real numbers, which can be compared with a Gaussian's.
        takes_initial_scale: whether the constructor takes ``initial_scale``, the initial value of learned scales, in
            units of x.
    """

    support: tuple[str, str] = "real numbers", "give others as NaN to a model with missing=True"
    is_density: bool = True
    is_gaussian: ClassVar[bool] = False
    is_correlated: ClassVar[bool] = False
    is_count: ClassVar[bool] = False
    is_continuous: ClassVar[bool] = False
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

    def fisher(self, features: Tensor, jacobian: Tensor, observed: Tensor | None = None) -> Tensor:
        """JᵀIJ with I = −E[∇² log p(x|f)] over x ~ p(x|f), the Fisher information of the features f.

        With J = ∂f/∂z this is the expected curvature of −log p(x|z) in z, positive semidefinite. It adds to the prior's
        precision. Noise that depends on the features is part of it.

        Args:
            features: f, shape (*batch, in_features).
            jacobian: J, shape (*batch, in_features, d).
            observed: which values of x are observed, booleans that broadcast to (*batch, n); all by default.

        Returns:
            Shape (*batch, d, d).

        Raises:
            NotImplementedError: this likelihood has no closed form.
        """
        raise NotImplementedError(f"{type(self).__name__} has no fisher")

    def in_support(self, x: Tensor) -> Tensor:
        """Which values of x (num, n) p(x|z) can score, booleans of that shape."""
        return torch.ones_like(x, dtype=torch.bool)

    def check_support(self, name: str, x: Tensor) -> None:
        """Raise an InputError that names the first value of x (num, n), NaN apart, that p(x|z) cannot score."""

        def outside(rows: Tensor) -> Tensor:
            return ~(self.in_support(rows) | rows.isnan())

        if (found := first_where(outside, x)) is not None:
            row, column, num = found
            what, remedy = self.support
            raise InputError(
                f"{name} holds {x[row, column].item():.4g} at row {row}, column {column} (counted from 0), the first "
                f"of {num} that a {type(self).__name__} cannot score: they must be {what}; {remedy}"
            )


def gram(columns: Tensor, weights: Tensor, observed: Tensor | None = None) -> Tensor:
    """CᵀWC with a diagonal W, for independent channels: shape (*batch, d, d).

    Args:
        columns: C, the derivative of each channel's parameter, shape (*batch, n, d).
        weights: the diagonal of W, shape (*batch, n), each channel's Fisher information.
        observed: which channels count, booleans that broadcast to (*batch, n); all by default.
    """
    if observed is not None:
        weights = torch.where(observed, weights, 0.0)
    white = weights.sqrt().unsqueeze(-1) * columns
    return white.mT @ white
