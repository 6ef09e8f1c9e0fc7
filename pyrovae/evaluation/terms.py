"""The ELBO and its two parts, datum by datum."""

from dataclasses import dataclass

import torch
from pyro.poutine.indep_messenger import CondIndepStackFrame
from torch import Tensor

from pyrovae.blocks import let_go
from pyrovae.errors import check_integer
from pyrovae.evaluation._method import Problem
from pyrovae.evaluation.estimate import Estimate, check_numbers, mean_and_stderr
from pyrovae.evaluation.per_datum import rows_of
from pyrovae.frames import Data
from pyrovae.programs import Program, Role, TracedPair, check_data, evaluating, log_prob_of, running_on, trace_pair


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
        """The ELBO with its errors from the data and from the draws."""
        return Estimate(self.elbo, self.stderr_per_datum)

    @property
    def elbo(self) -> Tensor:
        """Estimates of the ELBO, shape (num,)."""
        return self.reconstruction - self.kl


@torch.no_grad()
def elbo_terms(
    model: Program, guide: Program, x: Data, *, num_samples: int = 16, seed: int = 0, chunk_size: int = 4096
) -> ELBOTerms:
    """Evaluate the ELBO (β = 1) for each datum, averaged over draws of z.

    Args:
        model: Pyro program of the joint density, with the data along its innermost plate.
        guide: Pyro program of q(z|x).
        x: data (num, …), of the programs' dtype and device.
        num_samples: draws of z per datum.
        seed: seed of the draws; the caller's random state does not change.
        chunk_size: data evaluated at once; it bounds the memory.

    Raises:
        InputError: data are outside the likelihood's support, such as grey values for a Bernoulli; or the terms of a
            datum change with other data, or with random numbers outside of sample sites.
    """
    check_integer("num_samples", num_samples)
    check_integer("chunk_size", chunk_size)
    x = check_data(x, model, guide)
    reconstruction, kl, stderr = [], [], []
    with evaluating(model, guide, x, seed):
        problem = Problem.of(model, guide, x)
        problem.check_rows_apart()
        chunk_size = problem.at_once(chunk_size)
        for start in range(0, len(x), chunk_size):
            rows = slice(start, min(start + chunk_size, len(x)))
            part = rows_of(guide, rows, x)
            draws = []
            for draw in range(num_samples):
                with running_on(x[rows]):
                    pair = trace_pair(model, part, x[rows], check=draw == 0)
                if draw == 0:
                    plate = pair.data_plate(len(x[rows]))
                draws.append(torch.stack(_terms_at_one_draw(pair, plate)))
            parts = torch.stack(draws)
            reconstruction.append(parts[:, 0].mean(0))
            kl.append(parts[:, 1].mean(0))
            stderr.append(mean_and_stderr(parts[:, 0] - parts[:, 1])[1])
            let_go(x)
    terms = ELBOTerms(torch.cat(reconstruction), torch.cat(kl), torch.cat(stderr))
    check_numbers(terms.elbo, x)
    return terms


def _terms_at_one_draw(pair: TracedPair, plate: CondIndepStackFrame) -> tuple[Tensor, Tensor]:
    reconstruction = kl = torch.zeros(plate.size, dtype=torch.float64)
    for site in pair.sites:
        if site.role is Role.OBSERVED:
            reconstruction = reconstruction + pair.per_datum(site, log_prob_of(site.site), plate)
        elif site.role is Role.LATENT:
            divergence = site.kl(by_value=True)
            kl = kl + pair.per_datum(site, site.log_ratio() if divergence is None else divergence, plate)
        else:
            kl = kl + pair.per_datum(site, site.log_q(), plate)
    return reconstruction, kl
