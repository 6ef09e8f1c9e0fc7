"""The entropy in closed form leaves Monte Carlo's gradient as it is."""

import pytest
import torch

from pyrovae.elbo import ESTIMATORS
from tests.pairs import gradients, linear_gaussian


@pytest.mark.parametrize("beta", [0.4, 1.0])
def test_closed_form_entropy_has_monte_carlos_gradient_sample_by_sample(beta):
    model, guide, p_x = linear_gaussian()
    x = p_x.sample(torch.Size([5])) + 0.3
    both = [
        gradients(ESTIMATORS[name](beta=beta), model, guide, x, 5) for name in ("monte-carlo", "closed-form-entropy")
    ]
    for ours, other in zip(*both, strict=True):
        torch.testing.assert_close(ours, other)
