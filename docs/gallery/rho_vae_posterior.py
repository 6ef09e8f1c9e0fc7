"""What an AR(1) posterior looks like: draws and covariance for three correlations."""

import matplotlib.pyplot as plt
import torch

import pyrovae as pv

torch.manual_seed(0)
figure, axes = plt.subplots(2, 3, figsize=(9, 5), layout="constrained")
for column, correlation in zip(axes.T, (-0.8, 0.0, 0.95), strict=True):
    q = pv.AR1Normal(torch.zeros(24), torch.ones(24), correlation)
    column[0].plot(q.sample((5,)).T, lw=1)
    column[0].set(title=f"ρ = {correlation:g}", xlabel="latent dimension", ylim=(-3.5, 3.5))
    column[1].imshow(q.covariance_matrix, vmin=-1, vmax=1, cmap="RdBu")
    print(f"rho = {correlation:g}: entropy {q.entropy():.2f} nats")
axes[0, 0].set_ylabel("five draws")
axes[1, 0].set_ylabel("covariance")
figure.savefig("rho_vae_posterior.png", dpi=110)
