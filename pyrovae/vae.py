"""The generative model and the guide: plain Pyro programs."""

from collections.abc import Callable

import pyro
import torch
from pyro.distributions import Normal, TorchDistribution
from torch import Tensor, nn
from torch.distributions import Distribution

from pyrovae.distributions import PartiallyObserved
from pyrovae.errors import InputError, check_integer
from pyrovae.likelihoods import Likelihood
from pyrovae.nn import on_rows
from pyrovae.posteriors import Posterior
from pyrovae.programs import ProgramModule, unregistered


class GenerativeModel(ProgramModule):
    """p(z) p(x|z) as a Pyro model: ``model(x)`` conditions on data, ``model(num=100)`` draws data.

    Sample sites are ``"z"`` and ``"x"``, the plate is ``"data"``.

    Args:
        decoder: module from z (*batch, latent_dim) to the likelihood's features.
        likelihood: head from those features to p(x|z).
        latent_dim: dimension d of z.
        prior: p(z), N(0, I) by default. One of :mod:`pyrovae.priors`, a distribution with batch shape () and event
            shape (latent_dim,), or a callable that returns one (a module, if it has parameters). Only modules can be
            saved, and the tensors of a distribution stay on their device.
        missing: whether NaN in x is a missing value. p(x|z) is then the density of the other values, in training and
            evaluation (:class:`~pyrovae.distributions.PartiallyObserved`). The guide's encoder needs
            :class:`~pyrovae.nn.ImputeMissing`. Otherwise NaN is an error. ``x.masked_fill(~observed, math.nan)`` turns
            a mask of observed values into NaN.

    Raises:
        InputError: the prior's shape does not fit, or data have the wrong width.
        InputTypeError: with ``missing``, the likelihood has no density of a subset of x.

    Example:
        >>> import pyrovae as pv
        >>> model = GenerativeModel(pv.nn.MLP(2, 16), pv.GaussianLikelihood(16, 5), latent_dim=2)
        >>> model.sample(3).shape
        torch.Size([3, 5])
    """

    def __init__(
        self,
        decoder: nn.Module,
        likelihood: Likelihood,
        latent_dim: int,
        prior: TorchDistribution | Callable[[], TorchDistribution] | None = None,
        missing: bool = False,
    ) -> None:
        super().__init__()
        check_integer("latent_dim", latent_dim)
        self.decoder = decoder
        self.likelihood = likelihood
        self.latent_dim = latent_dim
        self.prior = prior
        self.missing = missing
        self.register_buffer("_standard_loc", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("_standard_scale", torch.ones(latent_dim), persistent=False)
        p_z = self.prior_distribution()
        if tuple(p_z.event_shape) != (latent_dim,) or p_z.batch_shape:
            raise InputError(
                f"the prior must have batch shape () and event shape ({latent_dim},), "
                f"not {tuple(p_z.batch_shape)} and {tuple(p_z.event_shape)}; use .to_event(1)?"
            )

    @property
    def network(self) -> nn.Module:
        """The decoder."""
        return self.decoder

    def prior_distribution(self) -> TorchDistribution:
        """p(z)."""
        if self.prior is None:
            return Normal(self.get_buffer("_standard_loc"), self.get_buffer("_standard_scale")).to_event(1)
        return self.prior if isinstance(self.prior, Distribution) else self.prior()

    def conditional(self, z: Tensor) -> TorchDistribution:
        """p(x|z) for z (*batch, latent_dim); the decoder sees its elements as rows."""
        p = self.likelihood(on_rows(self.decoder, z))
        return PartiallyObserved(p) if self.missing else p

    def check_support(self, name: str, x: Tensor) -> None:
        """Raise an InputError that names the first value of x (num, n) that the likelihood cannot score."""
        if x.dim() == 2 and x.shape[1] == self.likelihood.n:  # forward refuses another shape
            self.likelihood.check_support(name, x)

    def forward(self, x: Tensor | None = None, num: int | None = None) -> Tensor:
        """The Pyro program: conditioned on x (num, n), or drawing ``num`` data."""
        if (x is None) == (num is None):
            raise InputError("a generative model takes either the data x or the number num of data to draw")
        if x is not None:
            n = self.likelihood.n
            if x.dim() < 2 or x.shape[-1] != n:
                raise InputError(f"x must have shape (num, {n}) to fit the likelihood, not {tuple(x.shape)}")
            num = x.shape[0]
        self.register_parameters()
        with pyro.plate("data", num):
            z = pyro.sample("z", self.prior_distribution())
            drawn: Tensor = pyro.sample("x", self.conditional(z), obs=x)
        return drawn

    @torch.no_grad()
    def sample(self, num: int) -> Tensor:
        """Draw ``num`` data x (num, n) from p(x)."""
        with unregistered():
            drawn: Tensor = self(num=num)
        return drawn

    @torch.no_grad()
    def simulate(self, num: int) -> tuple[Tensor, Tensor]:
        """Draw ``num`` pairs of z (num, d) and x (num, n); each z is an exact draw from p(z|x)."""
        z = self.prior_distribution().sample(torch.Size([num])).to(self.get_buffer("_standard_loc"))
        return z, self.conditional(z).sample()


class AmortizedGuide(ProgramModule):
    """q(z|x) as a Pyro guide; an encoder computes its parameters from x.

    Args:
        encoder: module from x (*batch, n) to features.
        posterior: head from those features to q(z|x); swap it to change the posterior family.

    Example:
        >>> import pyrovae as pv
        >>> guide = AmortizedGuide(pv.nn.MLP(5, 16), pv.FullCovariancePosterior(16, 2))
        >>> guide.posterior(torch.zeros(3, 5)).event_shape
        torch.Size([2])
    """

    def __init__(self, encoder: nn.Module, posterior: Posterior) -> None:
        super().__init__()
        self.encoder = encoder
        self.posterior_head = posterior

    @property
    def network(self) -> nn.Module:
        """The encoder."""
        return self.encoder

    def config(self) -> dict[str, object]:
        """Constructor arguments by name."""
        return {"encoder": self.encoder, "posterior": self.posterior_head}

    def posterior(self, x: Tensor) -> TorchDistribution:
        """q(z|x) for x (*batch, n)."""
        return self.posterior_head(self.encoder(x))

    def forward(self, x: Tensor, num: int | None = None) -> Tensor:
        """The Pyro program for data x (num, n)."""
        self.register_parameters()
        with pyro.plate("data", x.shape[0]):
            drawn: Tensor = pyro.sample("z", self.posterior(x))
        return drawn
