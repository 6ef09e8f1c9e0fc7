"""The variational mixture of posteriors as the prior (Tomczak and Welling 2018)."""

import copy

import torch
from pyro.distributions import Categorical, MixtureSameFamily
from torch import Tensor, nn

from pyrovae.errors import InputError, check_integer
from pyrovae.posteriors import Posterior
from pyrovae.priors.base import Prior


class VampPrior(Prior):
    """p(z) = 1/K Σ_k q(z|u_k) at learned pseudo-inputs u_k, a mixture of their posteriors.

    The prior has its own encoder. Tomczak and Welling share the guide's. But then p(z), and with it the model, would
    change whenever the guide's encoder is retrained, refined or replaced. No KL in closed form: use an estimator that
    samples.

    Args:
        encoder: module from u (K, n) to features.
        posterior: head from those features to Gaussians; give copies of the guide's parts to start there.
        n: dimension of x.
        num_components: number K of pseudo-inputs. They start as draws from N(0, I); :meth:`set_pseudo_inputs` gives
            them data, the usual start.

    Raises:
        InputError: the posterior's family is not Gaussian.

    Example:
        >>> import pyrovae as pv
        >>> guide = pv.AmortizedGuide(pv.nn.MLP(5, 16), pv.DiagonalPosterior(16, 2))
        >>> prior = VampPrior.like(guide.encoder, guide.posterior_head, torch.randn(10, 5))
        >>> model = pv.GenerativeModel(pv.nn.MLP(2, 16), pv.GaussianLikelihood(16, 5), latent_dim=2, prior=prior)
        >>> model.sample(3).shape
        torch.Size([3, 5])
    """

    logits: Tensor

    def __init__(self, encoder: nn.Module, posterior: Posterior, n: int, num_components: int = 100) -> None:
        super().__init__(posterior.latent_dim)
        check_integer("n", n)
        check_integer("num_components", num_components)
        if not posterior.is_gaussian:
            raise InputError(f"a VampPrior needs a Gaussian family, and {type(posterior).__name__} is not one")
        self.encoder, self.posterior = encoder, posterior
        self.n, self.num_components = n, num_components
        self.pseudo_inputs = nn.Parameter(torch.empty(num_components, n))
        self.register_buffer("logits", torch.zeros(num_components), persistent=False)
        self._start: Tensor | None = None
        self.reset_parameters()

    @classmethod
    def like(cls, encoder: nn.Module, posterior: Posterior, x: Tensor) -> "VampPrior":
        """A prior with copies of a guide's encoder and posterior; its pseudo-inputs start at data x (K, n)."""
        prior = cls(copy.deepcopy(encoder), copy.deepcopy(posterior), x.shape[1], len(x)).to(x)
        prior.set_pseudo_inputs(x)
        return prior

    def reset_parameters(self) -> None:
        """Draw new pseudo-inputs, or go back to those that were set."""
        if self._start is None:
            nn.init.normal_(self.pseudo_inputs)
        else:
            self.set_pseudo_inputs(self._start)

    @torch.no_grad()
    def set_pseudo_inputs(self, x: Tensor) -> None:
        """Set the pseudo-inputs, shape (K, n), at which every replica starts."""
        if x.shape != self.pseudo_inputs.shape:
            raise InputError(f"x must have shape {tuple(self.pseudo_inputs.shape)}, not {tuple(x.shape)}")
        self.pseudo_inputs.copy_(x)
        self._start = x.detach().clone()

    def forward(self) -> MixtureSameFamily:
        """p(z)."""
        return MixtureSameFamily(Categorical(logits=self.logits), self.posterior(self.encoder(self.pseudo_inputs)))
