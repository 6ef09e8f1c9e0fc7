"""Low-rank-plus-diagonal posterior."""

from pyro.distributions import LowRankMultivariateNormal
from torch import Tensor, nn

from pyrovae.distributions.low_rank import RELATIVE_FLOOR
from pyrovae.errors import check_integer
from pyrovae.nn import LocHead, positive
from pyrovae.posteriors.base import Posterior


class LowRankPosterior(Posterior):
    """q(z|x) = N(μ(x), diag δ(x)² + W(x)W(x)ᵀ), W of shape (d, r): d(r + 1) covariance parameters per datum.

    Args:
        in_features: width of the encoder's features.
        latent_dim: dimension d of z.
        rank: number r of columns of W.

    Example:
        >>> import torch
        >>> LowRankPosterior(8, 5, rank=2)(torch.zeros(3, 8)).covariance_matrix.shape
        torch.Size([3, 5, 5])
    """

    def __init__(self, in_features: int, latent_dim: int, rank: int = 2) -> None:
        super().__init__(in_features, latent_dim)
        check_integer("rank", rank)
        self.rank = rank
        self.loc_head = LocHead(in_features, latent_dim)
        self.covariance_head = nn.Linear(in_features, latent_dim * (rank + 1))

    def forward(self, features: Tensor) -> LowRankMultivariateNormal:
        """q(z|x) for features (*batch, in_features)."""
        d = self.latent_dim
        raw_scale, factor = self.covariance_head(features).split([d, d * self.rank], dim=-1)
        factor = factor.unflatten(-1, (d, self.rank))
        cov_diag = positive(raw_scale).square() + RELATIVE_FLOOR * factor.square().sum(-1)
        return LowRankMultivariateNormal(self.loc_head(features), cov_factor=factor, cov_diag=cov_diag)
