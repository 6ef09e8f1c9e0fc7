"""One generative model trained with three guides: what an isotropic posterior loses."""

import matplotlib.pyplot as plt
import torch

import pyrovae as pv

x = pv.datasets.SYNTHETIC["rotated-gaussian"].sample(4000, torch.Generator().manual_seed(0))
for posterior in (pv.IsotropicPosterior, pv.DiagonalPosterior, pv.FullCovariancePosterior):
    torch.manual_seed(0)
    model = pv.GenerativeModel(pv.nn.MLP(2, 64, 64), pv.GaussianLikelihood(64, 2), latent_dim=2)
    guide = pv.AmortizedGuide(pv.nn.MLP(2, 64, 64), posterior(64, 2))
    history = pv.fit(model, guide, x, pv.AnalyticELBO(), epochs=15, batch_size=64, progress=False)
    plt.plot([record.loss for record in history.epochs], label=posterior.__name__)
    print(f"{posterior.__name__}: loss {history.epochs[-1].loss:.2f} nats per datum")
plt.xlabel("epoch")
plt.ylabel("−ELBO, nats per datum (one seed)")
plt.legend()
plt.savefig("swap_the_guide.png", dpi=110)
