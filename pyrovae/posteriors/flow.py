"""Normalising-flow posterior, for what no Gaussian reaches (extra ``flows``)."""

from types import ModuleType

import torch
from pyro.contrib.zuko import ZukoToPyro
from torch import Tensor
from torch.distributions import Distribution

from pyrovae.errors import MissingExtraError
from pyrovae.posteriors.base import Posterior


class FlowDistribution(ZukoToPyro):
    """A zuko flow as a reparameterised Pyro distribution whose log-density is always computed, never cached."""

    name = "FlowPosterior"
    """What messages call it: the distribution has no parameters to tell it by."""

    def __call__(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008 (torch's signature)
        """Draw z, differentiable in the parameters."""
        return self.dist.rsample(torch.Size(sample_shape))

    rsample = __call__

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Draw z."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> "FlowDistribution":
        """The same flow with its batch shape broadcast to ``batch_shape``."""
        return FlowDistribution(self.dist.expand(torch.Size(batch_shape)))


class FlowPosterior(Posterior):
    """q(z|x) from z = f_x(ε), f_x a masked affine coupling flow conditioned on the features (zuko).

    Its Kullback–Leibler divergence has no closed form: ``AnalyticELBO`` refuses it.

    Args:
        in_features: width of the encoder's features.
        latent_dim: dimension d of z.
        transforms: number of couplings.
        hidden: width of each coupling's two hidden layers.

    Raises:
        MissingExtraError: zuko is not installed.
    """

    def __init__(self, in_features: int, latent_dim: int, transforms: int = 3, hidden: int = 32) -> None:
        super().__init__(in_features, latent_dim)
        self.transforms = transforms
        self.hidden = hidden
        self.flow = _import_zuko().flows.MAF(
            latent_dim,
            context=in_features,
            transforms=transforms,
            hidden_features=(hidden, hidden),
            passes=min(2, latent_dim),
            randperm=False,
        )

    def forward(self, features: Tensor) -> FlowDistribution:
        """q(z|x) for features (*batch, in_features)."""
        return FlowDistribution(self.flow(features))


def _import_zuko() -> ModuleType:
    """Zuko, without the change that its import makes to all of torch's distributions."""
    before = {name: Distribution.__dict__[name] for name in ("_validate_args", "arg_constraints")}
    try:
        import zuko
    except ImportError:
        raise MissingExtraError("FlowPosterior needs zuko: pip install 'pyrovae[flows]'") from None
    for name in zuko.distributions.__all__:
        own = getattr(zuko.distributions, name)
        own._validate_args = False
        if "arg_constraints" not in vars(own):
            own.arg_constraints = {}
    for name, value in before.items():
        setattr(Distribution, name, value)
    return zuko
