"""Log p(x) between two bounds: how many temperatures does annealing need?"""

import matplotlib.pyplot as plt
import torch

import pyrovae as pv
from pyrovae.exact import LinearGaussianVAE

torch.manual_seed(0)
truth = LinearGaussianVAE(torch.randn(10, 4), noise_scale=0.3)
model, guide = truth.to_model(), truth.to_guide("isotropic")
temperatures = (5, 10, 20, 50, 100, 200)
found = [pv.sandwich(model, guide, 50, num_temperatures=t, num_samples=4, center="prior") for t in temperatures]
for t, bounds in zip(temperatures, found, strict=True):
    print(f"{t} temperatures: the bounds are {bounds.width:.1f} nats apart")
exact = truth.log_prob(found[0].x).mean()
plt.plot(temperatures, [bounds.lower.mean - exact for bounds in found], "o-", label="lower bound, from the prior")
plt.plot(temperatures, [bounds.upper.mean - exact for bounds in found], "s-", label="upper bound, from exact draws")
plt.axhline(0, color="black", lw=1)
plt.xscale("log")
plt.xlabel("temperatures")
plt.ylabel("bound − log p(x), nats per datum")
plt.legend()
plt.savefig("two_sided_log_p.png", dpi=110)
