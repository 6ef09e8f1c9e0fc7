"""LowRankNormal is PyTorch's distribution, also under vmap with a factor that all data share."""

import pytest
import torch
from pyro.distributions import LowRankMultivariateNormal

from pyrovae.distributions import LowRankNormal


@pytest.mark.parametrize("batch", [(), (5,)])
def test_draws_and_densities_are_pytorchs(batch):
    loc, factor = torch.randn(5, 4).double(), torch.randn(*batch, 4, 2).double()
    diagonal, x = torch.rand(*batch, 4).double() + 0.1, torch.randn(5, 4).double()
    ours, theirs = (cls(loc, factor, diagonal) for cls in (LowRankNormal, LowRankMultivariateNormal))
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    torch.testing.assert_close(ours.expand((3, 5)).log_prob(x), theirs.log_prob(x).expand(3, 5))
    torch.manual_seed(1)
    draw = ours.rsample()
    torch.manual_seed(1)
    assert torch.equal(draw, theirs.rsample())


def test_a_shared_factor_under_vmap():
    factor, diagonal = torch.randn(4, 2).double(), torch.rand(4).double() + 0.1
    loc, x = torch.randn(3, 4).double(), torch.randn(4).double()
    together = torch.vmap(lambda loc: LowRankNormal(loc, factor, diagonal).log_prob(x))(loc)
    torch.testing.assert_close(together, LowRankNormal(loc, factor, diagonal).log_prob(x))


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"cov_factor \(…, d, r\) .* do not fit: \(3,\), \(4, 2\), \(3,\)"):
        LowRankNormal(torch.zeros(3), torch.zeros(4, 2), torch.ones(3))
