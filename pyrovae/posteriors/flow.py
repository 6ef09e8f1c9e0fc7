"""Normalising-flow posterior, for posteriors that are not Gaussian (extra ``flows``)."""

from types import ModuleType

import torch
from pyro.distributions import Normal, TorchDistribution, constraints
from torch import Tensor
from torch.distributions import Distribution, Transform

from pyrovae.errors import needing_extra
from pyrovae.posteriors.base import Posterior


class FlowDistribution(TorchDistribution):
    """z = f⁻¹(ε), ε ~ N(0, I), for one of zuko's transforms f: log q(z) = log N(f(z); 0, I) + log |det ∂f/∂z|.

    Zuko's own distributions turn torch's validation off for the whole process; this class does not.

    Args:
        transform: f, from z to ε, on vectors.
        base: the distribution of ε, with event_dim 1.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own convention)
    support = constraints.real_vector
    has_rsample = True
    name = "FlowPosterior"
    """The name in messages, because the distribution has no parameters to describe it."""

    def __init__(self, transform: Transform, base: TorchDistribution) -> None:
        self.transform = transform
        self.base = base
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008 (torch's signature)
        """Draw z, differentiable in the parameters."""
        return self.transform.inv(self.base.rsample(torch.Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density in nats, shape (*sample, *batch); always computed, never reused from a draw."""
        noise, log_abs_det_jacobian = self.transform.call_and_ladj(value)  # type: ignore[attr-defined]  # zuko's
        return self.base.log_prob(noise) + log_abs_det_jacobian

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> "FlowDistribution":
        """The same flow with its batch shape broadcast to ``batch_shape``."""
        return FlowDistribution(self.transform, self.base.expand(torch.Size(batch_shape)))


class FlowPosterior(Posterior):
    """q(z|x) from z = f_x(ε), f_x a masked affine coupling flow conditioned on the features (zuko).

    Its Kullback–Leibler divergence has no closed form: ``AnalyticELBO`` refuses it.

    Args:
        in_features: width of the encoder's features.
        latent_dim: dimension d of z.
        transforms: number of couplings.
        hidden: width of each coupling's two hidden layers.

    Raises:
        needing_extra: zuko is not installed.
    """

    is_gaussian = False

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
        base = Normal(features.new_zeros(self.latent_dim), features.new_ones(self.latent_dim)).to_event(1)
        return FlowDistribution(self.flow.transform(features), base.expand(features.shape[:-1]))


def _import_zuko() -> ModuleType:
    """Import zuko without the change that this makes to all of torch's distributions."""
    before = {name: Distribution.__dict__[name] for name in ("_validate_args", "arg_constraints")}
    try:
        with needing_extra("FlowPosterior needs zuko: pip install 'pyrovae[flows]'"):
            import zuko
    finally:
        for name, value in before.items():
            setattr(Distribution, name, value)
    return zuko
