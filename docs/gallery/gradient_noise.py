"""How noisy each estimator's gradient is, between a poor posterior and the exact one."""

import matplotlib.pyplot as plt
import torch

import pyrovae as pv
from pyrovae.exact import LinearGaussianVAE

torch.manual_seed(0)
truth = LinearGaussianVAE(torch.randn(8, 3), noise_scale=0.5)
model, x = truth.to_model(), truth.sample(64)
exact = truth.to_guide("full-covariance")
estimators = (pv.MonteCarloELBO(), pv.AnalyticELBO(), pv.StickingTheLandingELBO())
shifts = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
for elbo in estimators:
    variances = []
    for shift in shifts:
        guide = truth.to_guide("full-covariance")
        with torch.no_grad():
            guide.posterior_head.loc_head.bias += shift
        variances.append(pv.gradient_statistics(model, guide, elbo, x, num_repeats=100)["encoder"].variance)
    plt.plot(shifts, variances, "o-", label=type(elbo).__name__)
    print(f"{type(elbo).__name__}: {variances[-1]:.0f} far from the posterior")
plt.yscale("symlog", linthresh=1e-1)
plt.xlabel("error of q's mean")
plt.ylabel("variance of the encoder's gradient")
plt.legend()
plt.savefig("gradient_noise.png", dpi=110)
