"""The linear recurrence against its definition in a loop."""

import torch

from pyrovae.distributions._recurrence import linear_recurrence


def test_recurrence_and_its_derivatives():
    for coefficients in (1, 6):
        c = torch.randn(2, coefficients, dtype=torch.float64, requires_grad=True)
        x = torch.randn(2, 7, dtype=torch.float64, requires_grad=True)
        y = [x[:, 0]]
        for j in range(1, 7):
            y.append(c.expand(2, 6)[:, j - 1] * y[-1] + x[:, j])
        torch.testing.assert_close(linear_recurrence(c, x), torch.stack(y, -1))
        assert torch.autograd.gradcheck(linear_recurrence, (c, x))
        assert torch.autograd.gradgradcheck(linear_recurrence, (c, x))
