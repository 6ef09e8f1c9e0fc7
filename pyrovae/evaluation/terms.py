"""The ELBO and its two parts, datum by datum."""

from dataclasses import dataclass

import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions import kl_divergence

from pyrovae.errors import InputError, check_integer
from pyrovae.evaluation.estimate import Estimate, mean_and_stderr
from pyrovae.evaluation.per_datum import rows_of
from pyrovae.programs import Program, Site, check_data, check_same_latents, evaluating, paired_sites, trace_pair


@dataclass(frozen=True)
class ELBOTerms:
    """Parts of the ELBO in nats, each of shape (num,), in float64 on the CPU.

    Attributes:
        reconstruction: estimates of E_q[log p(x|z)].
        kl: KL(q(z|x) ‖ p(z)), sampled where it has no closed form.
        stderr_per_datum: standard error of each datum's ELBO due to the draws of z; NaN for a single draw.
    """

    reconstruction: Tensor
    kl: Tensor
    stderr_per_datum: Tensor

    @property
    def estimate(self) -> Estimate:
        """The ELBO with its errors, due to the data and to the draws."""
        return Estimate(self.elbo, self.stderr_per_datum)

    @property
    def elbo(self) -> Tensor:
        """Estimates of the ELBO, shape (num,)."""
        return self.reconstruction - self.kl


@torch.no_grad()
def elbo_terms(
    model: Program, guide: Program, x: Tensor, *, num_samples: int = 16, seed: int = 0, chunk_size: int = 4096
) -> ELBOTerms:
    """Evaluate the ELBO (β = 1) for each datum, averaged over draws of z.

    Args:
        model: Pyro program of the joint density, with the data along its innermost plate.
        guide: Pyro program of q(z|x).
        x: data (num, …), of the programs' dtype and device.
        num_samples: draws of z per datum.
        seed: of the draws; the caller's random state is left as it was.
        chunk_size: data evaluated at once, which bounds the memory.

    Raises:
        InputError: data outside the likelihood's support, such as grey values under a Bernoulli.
    """
    check_integer("num_samples", num_samples)
    check_integer("chunk_size", chunk_size)
    check_data(x, model, guide)
    reconstruction, kl, stderr = [], [], []
    with evaluating(model, guide, x, seed):
        for start in range(0, len(x), chunk_size):
            rows = slice(start, min(start + chunk_size, len(x)))
            part = rows_of(guide, rows, x)
            parts = torch.stack([torch.stack(_terms_at_one_draw(model, part, x[rows])) for _ in range(num_samples)])
            reconstruction.append(parts[:, 0].mean(0))
            kl.append(parts[:, 1].mean(0))
            stderr.append(mean_and_stderr(parts[:, 0] - parts[:, 1])[1])
    return ELBOTerms(torch.cat(reconstruction), torch.cat(kl), torch.cat(stderr))


def _terms_at_one_draw(model: Program, guide: Program, x: Tensor) -> tuple[Tensor, Tensor]:
    model_trace, guide_trace = trace_pair(model, guide, x)
    check_same_latents(model_trace, guide_trace)
    reconstruction = kl = torch.zeros(len(x), dtype=torch.float64)
    for name, site, q in paired_sites(model_trace, guide_trace):
        if q is None:
            reconstruction = reconstruction + _per_datum(name, site, _log_prob(site), len(x))
        else:
            try:
                divergence = kl_divergence(q["fn"], site["fn"]).expand(q["fn"].batch_shape)
                divergence = scale_and_mask(divergence, q["scale"], q["mask"])
            except NotImplementedError:
                divergence = _log_prob(q) - _log_prob(site)
            kl = kl + _per_datum(name, site, divergence, len(x))
    return reconstruction, kl


def _log_prob(site: Site) -> Tensor:
    log_prob: Tensor = scale_and_mask(site["fn"].log_prob(site["value"]), site["scale"], site["mask"])
    return log_prob


def _per_datum(name: str, site: Site, values: Tensor, num: int) -> Tensor:
    """Sum over all plates but the data's, which is the outermost one of that size."""
    dims = [frame.dim for frame in site["cond_indep_stack"] if frame.vectorized and frame.size == num]
    if not dims:
        raise InputError(f"site {name!r} is in no plate of the data's size, {num}, so it has no value per datum")
    values = values.double().cpu().movedim(min(dims), 0)
    return values.reshape(num, -1).sum(1)
