"""Log p(x) of a trained model, by sampling or on a grid."""

import copy
import math
from dataclasses import dataclass

import pyro
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from pyrovae.elbo import ImportanceWeightedELBO
from pyrovae.evaluation.quadrature import MAX_LATENT_DIM, log_integral_around_guide, log_integral_around_prior
from pyrovae.registration import cannot_run, check_data, mode, unregistered
from pyrovae.training.programs import Program
from pyrovae.vae import AmortizedGuide, GenerativeModel

_ROWS_AT_ONCE = 2**15
"""Draws × data evaluated in one pass, which bounds the memory."""


@dataclass(frozen=True)
class LogMarginal:
    """Estimates of log p(x) in nats per datum.

    Attributes:
        per_datum: shape (num,), in float64 on the CPU.
        stderr_per_datum: Monte Carlo standard error of each, shape (num,); too small where the effective sample
            size is.
        effective_sample_size: (Σ w)² / Σ w² of each datum's weights, shape (num,).
        gain_of_doubling: what the second half of the draws added to each estimate, shape (num,). What more draws
            could add is about as much again if the bias falls as 1/num_samples, and more if slower.
        is_density: whether p(x|z) is a probability or a density of x. If not (a Bernoulli with soft targets), these
            are estimates of log ∫ p(z) exp(−cross-entropy(x, z)) dz, which no log p(x) can be compared with.
        quadrature_error: of a grid, how much halving its points along each dimension changes each estimate, shape
            (num,); None where it was sampled. A grid has no Monte Carlo error, and the other fields are NaN there.
    """

    per_datum: Tensor
    stderr_per_datum: Tensor
    effective_sample_size: Tensor
    gain_of_doubling: Tensor
    quadrature_error: Tensor | None = None
    is_density: bool = True

    def __str__(self) -> str:
        errors = f"± {self.stderr_data:.2g} (which data), ± {self.stderr_monte_carlo:.2g} (Monte Carlo)"
        if self.quadrature_error is not None:
            errors = f"± {self.stderr_data:.2g} (which data), ± {self.quadrature_error.mean().item():.2g} (grid)"
        what = "log p(x)" if self.is_density else "cross-entropy bound (no density, not log p(x))"
        return f"{what} = {self.mean:.6g} {errors} nats per datum, {len(self.per_datum)} data"

    @property
    def mean(self) -> float:
        """Mean over the data."""
        return self.per_datum.mean().item()

    @property
    def stderr_data(self) -> float:
        """Standard error of the mean due to which data were drawn."""
        return (self.per_datum.std() / math.sqrt(len(self.per_datum))).item()

    @property
    def stderr_monte_carlo(self) -> float:
        """Standard error of the mean due to how well each datum's value was estimated."""
        return (self.stderr_per_datum.square().sum().sqrt() / len(self.per_datum)).item()


@torch.no_grad()
def log_marginal(
    model: Program,
    guide: Program,
    x: Tensor,
    method: str = "importance",
    *,
    num_samples: int = 1000,
    num_points: int = 128,
    center: str = "prior",
    seed: int = 0,
    max_plate_nesting: int = 1,
    progress: bool = False,
) -> LogMarginal:
    """Estimate log p(x) for each datum.

    ``"importance"`` is the log-mean-exp of weights p(x, z)/q(z|x) at draws from the guide: a lower bound in
    expectation, whose error falls with ``num_samples``. ``"quadrature"`` sums p(z) p(x|z) over a grid of at most
    three latent dimensions, by midpoints around the prior or Gauss–Hermite nodes around the guide, and halves the
    grid for an estimate of its error.

    Memory does not grow with the data or with ``num_samples``. Modules are evaluated as copies in float64: in
    float32 a nearly singular q cannot tell where its own draws lie, and the estimate may come out above the truth
    by any amount.

    Args:
        model: Pyro program of the joint density, with the data along a plate.
        guide: Pyro program of q(z|x), reparameterised.
        x: data (num, …), on the programs' device.
        method: ``"importance"`` or ``"quadrature"``.
        num_samples: draws of z per datum.
        num_points: of a grid along each latent dimension, at least 2.
        center: of a grid, ``"prior"`` or ``"guide"``. The latter needs fewer points where q is near the posterior,
            and overlooks what lies far from q.
        seed: of the draws; the caller's random state is left as it was.
        max_plate_nesting: depth of the programs' own plates.
        progress: whether to show a progress bar (on a terminal).

    Raises:
        ValueError: an unknown method, no samples, data that the programs cannot take or that lie outside the
            likelihood's support, or a grid for more than three latent dimensions or for programs that are not
            ``GenerativeModel`` and ``AmortizedGuide``.
        NoClosedFormError: a latent site outside the data plate, or one that is not reparameterised.
    """
    if method not in ("importance", "quadrature"):
        raise ValueError(f"unknown method {method!r}; choose 'importance' or 'quadrature'")
    if not isinstance(num_samples, int) or num_samples < 1:
        raise ValueError(f"num_samples must be a positive integer, not {num_samples!r}")
    check_data(x)
    is_density = True
    if isinstance(model, GenerativeModel):
        is_density = model.likelihood.is_density
        try:
            with mode(model, training=False):
                model.check_data(x)
        except (RuntimeError, ValueError) as error:
            raise cannot_run(x, error) from error
    if isinstance(model, nn.Module) and isinstance(guide, nn.Module):
        model, guide, x = copy.deepcopy(model).double(), copy.deepcopy(guide).double(), x.double()
    if method == "quadrature":
        return _on_a_grid(model, guide, x, num_points, center, is_density)
    data_at_once = min(len(x), 1024)
    draws_at_once = max(1, min(num_samples, _ROWS_AT_ONCE // data_at_once))
    # two halves, each in passes of at most so many draws
    first_half = (num_samples + 1) // 2
    passes = [
        (half, len(part))
        for half, draws in enumerate((first_half, num_samples - first_half))
        for part in torch.empty(draws).split(draws_at_once)
        if len(part) > 0
    ]
    moments = []
    with (
        torch.random.fork_rng(devices=[x.device] if x.is_cuda else []),
        pyro.validation_enabled(False),
        unregistered(),
        mode(model, guide, training=False),
        tqdm(total=len(x), unit="datum", disable=None if progress else True) as bar,
    ):
        torch.manual_seed(seed)
        for chunk in x.split(data_at_once):
            # log Σ w and log Σ w² of each half
            log_sum = torch.full((2, 2, len(chunk)), -math.inf, dtype=torch.float64)
            for half, size in passes:
                try:
                    log_w = _log_weights(model, guide, chunk, size, max_plate_nesting)
                except NotImplementedError:
                    raise  # an estimator's own refusal
                except (RuntimeError, ValueError) as error:
                    raise cannot_run(chunk, error) from error
                added = torch.stack([log_w.logsumexp(0), (2 * log_w).logsumexp(0)])
                log_sum[half] = torch.logaddexp(log_sum[half], added)
            moments.append(log_sum)
            bar.update(len(chunk))
    halves = torch.cat(moments, dim=-1)
    first, second = halves.logsumexp(0)
    per_datum = first - math.log(num_samples)
    effective = (2 * first - second).exp()
    if num_samples == 1:
        unknown = torch.full_like(first, math.nan)
        return LogMarginal(per_datum, unknown, effective, unknown, is_density=is_density)
    relative_variance = (1 / effective - 1 / num_samples).clamp_min(0) * num_samples / (num_samples - 1)
    counts = torch.tensor([first_half, num_samples - first_half], dtype=torch.float64).unsqueeze(-1)
    gain = per_datum - (halves[:, 0] - counts.log()).mean(0)
    return LogMarginal(per_datum, relative_variance.sqrt(), effective, gain, is_density=is_density)


def _on_a_grid(
    model: Program, guide: Program, x: Tensor, num_points: int, center: str, is_density: bool
) -> LogMarginal:
    if not isinstance(model, GenerativeModel) or not isinstance(guide, AmortizedGuide):
        raise ValueError("quadrature needs a GenerativeModel and an AmortizedGuide; use method='importance'")
    if model.latent_dim > MAX_LATENT_DIM:
        raise ValueError(
            f"quadrature is for at most {MAX_LATENT_DIM} latent dimensions, not {model.latent_dim}; "
            "use method='importance'"
        )
    if not isinstance(num_points, int) or num_points < 2:
        raise ValueError(f"num_points must be an integer of at least 2, not {num_points!r}")
    if center not in ("prior", "guide"):
        raise ValueError(f"center must be 'prior' or 'guide', not {center!r}")
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []), mode(model, guide, training=False):
        try:
            if center == "prior":
                fine, coarse = (log_integral_around_prior(model, x, num) for num in (num_points, num_points // 2))
            else:
                fine, coarse = (
                    log_integral_around_guide(model, guide, x, num) for num in (num_points, num_points // 2)
                )
        except (RuntimeError, ValueError) as error:
            raise cannot_run(x, error) from error
    nothing = torch.full_like(fine, math.nan)
    return LogMarginal(fine, torch.zeros_like(fine), nothing, nothing, (fine - coarse).abs(), is_density)


def _log_weights(model: Program, guide: Program, x: Tensor, num: int, max_plate_nesting: int) -> Tensor:
    """Log weights of ``num`` draws for each datum, shape (num, len(x)), in float64 on the CPU."""
    elbo = ImportanceWeightedELBO(num, max_plate_nesting=max_plate_nesting)
    log_w = elbo.log_weights(model, guide, x).double().cpu()
    sizes = [size for size in log_w.shape[1:] if size > 1] or [1]
    if sizes != [len(x)] and not (len(x) == 1 and sizes == [1]):
        raise ValueError(f"weights have the plates {tuple(log_w.shape[1:])}, not one plate of {len(x)} data")
    return log_w.reshape(num, len(x))
