"""Noise that is correlated along the channels: what a likelihood gains from knowing it."""

import matplotlib.pyplot as plt
import torch

import pyrovae as pv

spectra = pv.datasets.simulated(400, channels=60, correlation=0.9, seed=0)
x, test = spectra.x[:300], spectra.x[300:]
for name, likelihood in {"independent": pv.GaussianLikelihood, "AR(1)": pv.AR1GaussianLikelihood}.items():
    torch.manual_seed(0)
    noise = likelihood(1, 60)
    linear = pv.FactorModel.fit(x, noise, latent_dim=5)
    print(f"{name} noise: log p(x) {linear.log_prob(test).mean():.0f} nats per spectrum")
    drawn = linear.marginal.sample((2000,))
    correlation = torch.corrcoef((drawn - linear.reconstruct(drawn)).T)
    plt.plot(correlation[30], label=f"{name} noise")
observed = torch.corrcoef((test - linear.reconstruct(test)).T)
plt.plot(observed[30], "k--", lw=1, label="residuals of new spectra")
plt.xlabel("channel")
plt.ylabel("correlation with channel 30")
plt.legend()
plt.savefig("noise_of_spectra.png", dpi=110)
