"""Adam against PyTorch's."""

import subprocess
import sys

import pytest
import torch

from pyrovae.evaluation._adam import Adam


def test_steps_are_pytorchs():
    torch.manual_seed(0)
    start = [torch.randn(3, 2, dtype=torch.float64), torch.randn(4, dtype=torch.float64)]
    ours, theirs, still = [p.clone() for p in start], [p.clone() for p in start], torch.ones(2)
    adam = Adam([*ours, still], betas=(0.8, 0.95), eps=0.05)
    optimizer = torch.optim.Adam(theirs, lr=0.1, betas=(0.8, 0.95), eps=0.05)
    for rate in (0.1, 0.1, 0.03, 0.01):
        gradients = [torch.randn_like(p) for p in start]
        adam.step([*gradients, None], rate)
        for p, gradient in zip(theirs, gradients, strict=True):
            p.grad = gradient
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        torch.testing.assert_close(ours, theirs)
    assert (still == 1).all()


@pytest.mark.slow
def test_evaluation_imports_no_compiler_of_pytorch():
    """It would take a second."""
    program = """
import sys, torch, pyrovae as pv
model = pv.GenerativeModel(pv.nn.MLP(2, 8), pv.GaussianLikelihood(8, 3), latent_dim=2)
guide = pv.AmortizedGuide(pv.nn.MLP(3, 8), pv.DiagonalPosterior(8, 2))
x = model.sample(20)
pv.refine(model, guide, x)
pv.log_marginal(model, guide, x)
pv.refit(model, guide, x, pv.DiagonalPosterior, max_steps=50)
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"
