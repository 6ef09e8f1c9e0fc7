"""The latent space of handwritten digits, with each posterior as an ellipse."""

import torch

import pyrovae as pv
from pyrovae import plotting

x, labels = pv.datasets.digits()
x = (x > 0.5).float()
torch.manual_seed(0)
model = pv.GenerativeModel(pv.nn.MLP(2, 64), pv.BernoulliLikelihood(64, 64), latent_dim=2)
guide = pv.AmortizedGuide(pv.nn.MLP(64, 64), pv.FullCovariancePosterior(64, 2))
history = pv.fit(model, guide, x, pv.AnalyticELBO(), epochs=40, learning_rate=3e-3, progress=False)
print(f"loss {history.epochs[-1].loss:.0f} nats per image")
with torch.no_grad():
    q = guide.posterior(x[:600])
plotting.latent_space(q, labels[:600]).savefig("latent_space.png")
