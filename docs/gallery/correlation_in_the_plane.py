"""A posterior that a diagonal one cannot match: log p(x) − ELBO of each family for a fixed linear decoder."""

import matplotlib.pyplot as plt
import torch

from pyrovae.exact import LinearGaussianVAE

families = ("isotropic", "diagonal", "ar1", "full-covariance")
angles = torch.linspace(0, torch.pi / 2, 31)
gaps = {family: [] for family in families}
for angle in angles:
    turn = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    model = LinearGaussianVAE(torch.diag(torch.tensor([2.0, 0.4])) @ turn, noise_scale=0.5)
    for family in families:
        gaps[family].append(model.gap(family))
for family, values in gaps.items():
    plt.plot(angles.rad2deg(), values, label=family)
    print(f"{family}: at most {max(values):.3f} nats")
plt.xlabel("angle by which the decoder turns z, degrees")
plt.ylabel("log p(x) − ELBO, nats per datum")
plt.legend()
plt.savefig("correlation_in_the_plane.png", dpi=110)
