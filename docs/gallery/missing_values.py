"""Spectra with gaps: unobserved channels are left out of the likelihood, and filled in by the model."""

import matplotlib.pyplot as plt
import torch

import pyrovae as pv

spectra = pv.datasets.simulated(400, channels=60, seed=0)
generator = torch.Generator().manual_seed(1)
x = spectra.x.clone()
for row in x:
    start = int(torch.randint(0, 40, (1,), generator=generator))
    row[start : start + 15] = torch.nan
torch.manual_seed(0)
model = pv.GenerativeModel(pv.nn.MLP(3, 64), pv.GaussianLikelihood(64, 60), latent_dim=3, missing=True)
guide = pv.AmortizedGuide(pv.nn.ImputeMissing(pv.nn.MLP(60, 64)), pv.DiagonalPosterior(64, 3))
pv.fit(model, guide, x, pv.AnalyticELBO(), epochs=150, learning_rate=3e-3, progress=False)
with torch.no_grad():
    filled = model.conditional(guide.posterior(x).mean).mean
error = (filled - spectra.x)[x.isnan()].std()
print(f"error in the gaps {error:.2f}, spread of the data {spectra.x.std(0).mean():.2f}")
for row in range(3):
    line = plt.plot(x[row], lw=2)[0]
    plt.plot(filled[row].where(x[row].isnan(), torch.nan), "--", color=line.get_color())
    plt.plot(spectra.x[row].where(x[row].isnan(), torch.nan), ":", color=line.get_color(), lw=1)
plt.xlabel("channel (dashed: filled in; dotted: what was removed)")
plt.savefig("missing_values.png", dpi=110)
