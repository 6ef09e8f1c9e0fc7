"""WRONG on purpose: objective and sampler of the code that the ρ-VAE's authors released, kept for the audit.

Declared is q(z|x) = AR(1). Drawn is a random walk, in which ρ never appears; and in the loss what penalises the
covariance is divided by the batch size once more than the rest.
"""

import torch
from torch import Tensor, nn

import pyrovae as pv
from pyrovae.distributions import AR1Normal, CholeskyNormal
from pyrovae.distributions.ar1 import log_sech
from pyrovae.programs import Program, TracedPair


class RandomWalkNormal(CholeskyNormal):
    """WRONG on purpose: the released sampler, z = μ + y with y_0 = √s ε_0 and y_j = y_{j−1} + √s ε_j.

    It is the Gaussian N(μ, s M) with M_ij = min(i, j) + 1, dimensions numbered from 0, whose Cholesky factor is √s
    times a lower triangle of ones: its density and its KL to the prior are exact.

    Args:
        declared: the AR(1) Gaussian, with one scale √s, that it claims to be.
    """

    def __init__(self, declared: AR1Normal) -> None:
        self.declared = declared
        d = declared.event_shape[0]
        ones = torch.ones(d, d, dtype=declared.loc.dtype, device=declared.loc.device).tril()
        scale = declared.scale.expand(declared.mean.shape)
        super().__init__(declared.mean, scale_tril=scale.unsqueeze(-1) * ones, diagonal=scale)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008 (torch's signature)
        """Draw as the released code does."""
        noise = torch.randn(self._extended_shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + (self.declared.scale * noise).cumsum(-1)

    def expand(self, batch_shape: torch.Size, _instance: CholeskyNormal | None = None) -> "RandomWalkNormal":
        """The same distribution with its batch shape broadcast to ``batch_shape``."""
        return RandomWalkNormal(self.declared.expand(batch_shape))


class ReleasedPosterior(pv.Posterior):
    """WRONG on purpose: a head that declares the ρ-VAE's AR(1) Gaussian and draws from a random walk.

    Log s and arctanh ρ come from linear heads.
    """

    def __init__(self, in_features: int, latent_dim: int) -> None:
        super().__init__(in_features, latent_dim)
        self.loc_head = pv.nn.LocHead(in_features, latent_dim)
        self.covariance_head = nn.Linear(in_features, 2)

    def forward(self, features: Tensor) -> RandomWalkNormal:
        """What is drawn from, with what is declared as its attribute."""
        log_s, fisher_z = self.covariance_head(features).split(1, dim=-1)
        return RandomWalkNormal(AR1Normal(self.loc_head(features), (0.5 * log_s).exp(), fisher_z=fisher_z))


class DeclaredPosterior(pv.Posterior):
    """The AR(1) Gaussian that a trained :class:`ReleasedPosterior` declares, drawn from as it should be."""

    def __init__(self, released: ReleasedPosterior) -> None:
        super().__init__(released.in_features, released.latent_dim)
        self.released = released

    def forward(self, features: Tensor) -> AR1Normal:
        """q(z|x) for features (*batch, in_features)."""
        return self.released(features).declared


class ReleasedLoss(pv.AnalyticELBO):
    """WRONG on purpose: the released objective, which bounds nothing.

    Of a batch of B it is (1/B) [Σ_b cross-entropy_b + ½ Σ_b ‖μ_b‖²
    + (1/B) Σ_b ½ (d (s_b − 1 − log s_b) − (d − 1) log(1 − ρ_b²))]; the estimator's value, as in Pyro, is B times that.
    """

    def _bound(self, pair: TracedPair) -> Tensor:
        q = pair.guide.nodes["z"]["fn"].declared
        (batch,), (d,) = q.batch_shape, q.event_shape
        s = q.scale.square()
        covariance = 0.5 * (d * (s - 1 - s.log()) - 2 * (d - 1) * log_sech(q.fisher_z)).sum()
        return pair.model.nodes["x"]["log_prob_sum"] - 0.5 * q.loc.square().sum() - covariance / batch


@torch.no_grad()
def reported_loss(model: Program, guide: Program, x: Tensor, batch_size: int) -> float:
    """The loss that the released objective reports of data x (num, n) in batches, mean over the data."""
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
        torch.manual_seed(0)
        return sum(ReleasedLoss().loss(model, guide, batch) for batch in x.split(batch_size)) / len(x)
