"""What every likelihood is: a head on the decoder's features that returns p(x|z)."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyrovae.errors import InputError, check_integer
from pyrovae.nn import ConfigurableModule


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
    5. :meth:`fisher`, if it has a closed form, lets :func:`~pyrovae.refine` and :func:`~pyrovae.log_marginal` correct
       an encoder's q fast; without it they do so by gradient, which takes longer. :func:`gram` is that of independent
       channels.

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
        is_count: whether x are counts, which are not standardised: p(x|z) is then a probability, and cannot be compared
            with a density.
        is_continuous: whether p(x|z) is a density of real numbers, which can be compared with a Gaussian's.
        takes_initial_scale: whether the constructor takes ``initial_scale``, where learned scales start, in units of x.
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

        With J = ∂f/∂z this is the curvature that p(x|z) is expected to have in z, positive semidefinite: it adds to
        the prior's precision. Noise that depends on the features is part of it.

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
        outside = ~(self.in_support(x) | x.isnan())
        if outside.any():
            row, column = outside.nonzero()[0].tolist()
            what, remedy = self.support
            raise InputError(
                f"{name} holds {x[row, column].item():.4g} at row {row}, column {column} (counted from 0), the first "
                f"of {int(outside.sum())} that a {type(self).__name__} cannot score: they must be {what}; {remedy}"
            )


def gram(columns: Tensor, weights: Tensor, observed: Tensor | None = None) -> Tensor:
    """CᵀWC with a diagonal W, that of independent channels: shape (*batch, d, d).

    Args:
        columns: C, how each channel's parameter moves, shape (*batch, n, d).
        weights: the diagonal of W, shape (*batch, n), each channel's Fisher information.
        observed: which channels count, booleans that broadcast to (*batch, n); all by default.
    """
    if observed is not None:
        weights = torch.where(observed, weights, 0.0)
    white = weights.sqrt().unsqueeze(-1) * columns
    return white.mT @ white
