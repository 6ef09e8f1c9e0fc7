"""Binary data, and the cross-entropy of soft targets, which is not a density."""

import pytest
import torch

import pyrovae as pv


def test_what_a_bernoulli_likelihood_cannot_score():
    torch.manual_seed(0)
    model = pv.GenerativeModel(pv.nn.MLP(2, 8), pv.BernoulliLikelihood(8, 3), 2)
    guide = pv.AmortizedGuide(pv.nn.MLP(3, 8), pv.DiagonalPosterior(8, 2))
    x = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, -0.25]])
    for run in (
        lambda: pv.fit(model, guide, x, pv.AnalyticELBO(), epochs=1),
        lambda: pv.log_marginal(model, guide, x),
    ):
        with pytest.raises(ValueError, match=r"holds -0\.25 at row 1, column 2 .*use a GaussianLikelihood") as caught:
            run()
        assert "\n" not in str(caught.value)
