"""Log p(x) of a trained model: by importance sampling, annealing, or on a grid."""

import copy
import math
import warnings
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pyrovae.errors import InputError, InputTypeError
from pyrovae.evaluation.annealing import forward_log_weights, path_from, reverse_log_weights
from pyrovae.evaluation.estimate import Estimate
from pyrovae.evaluation.pareto import pareto_k, reliable_below
from pyrovae.evaluation.per_datum import AnyGuide, PerDatumGuide, rows_of
from pyrovae.evaluation.quadrature import (
    MAX_HERMITE_POINTS,
    MAX_LATENT_DIM,
    log_integral_around_guide,
    log_integral_around_prior,
)
from pyrovae.evaluation.weights import in_chunks, over_log_weights, rows_at_once
from pyrovae.programs import Program, cannot_run, check_data, evaluating
from pyrovae.vae import AmortizedGuide, GenerativeModel

_SHARE_OF_BAD = 0.1


class UnreliableEstimateWarning(UserWarning):
    """Importance weights of so many data have so heavy a tail that log p(x) may be far too low."""


@dataclass(frozen=True, repr=False)
class LogMarginal(Estimate):
    """Estimates of log p(x) in nats per datum.

    Attributes:
        per_datum: shape (num,), in float64 on the CPU.
        stderr_per_datum: Monte Carlo standard error of each, shape (num,); too small where the effective sample
            size is; NaN, as all that needs independent draws, where chains go back from one draw of the posterior.
        num_samples: draws, or chains, for each datum.
        effective_sample_size: (Σ w)² / Σ w² of each datum's weights, shape (num,).
        gain_of_doubling: what the second half of the draws added to each estimate, shape (num,). What more draws
            could add is about as much again if the bias falls as 1/num_samples, and more if slower.
        pareto_k: shape k̂ of the tail of each datum's weights, shape (num,): above min(1 − 1/log₁₀ K, 0.7) the
            estimate and its standard error cannot be trusted. NaN below 25 draws.
        acceptance: of annealing's transitions, the share accepted, shape (num,).
        quadrature_error: of a grid, how much halving its points along each dimension changes each estimate, shape
            (num,); None where it was sampled. A grid has no Monte Carlo error, and what concerns draws is NaN there.
        is_density: whether p(x|z) is a probability or a density of x. If not (a Bernoulli with soft targets), these
            are estimates of log ∫ p(z) exp(−cross-entropy(x, z)) dz, which no log p(x) can be compared with.
        bound: ``"lower"`` or ``"upper"``, on which side of log p(x) the estimates lie in expectation; None of a grid.
    """

    num_samples: int
    effective_sample_size: Tensor
    gain_of_doubling: Tensor
    pareto_k: Tensor
    acceptance: Tensor | None = None
    quadrature_error: Tensor | None = None
    bound: str | None = "lower"
    is_density: bool = True

    @property
    def mostly_unreliable(self) -> bool:
        """Whether more than a tenth of the data is, which is warned of: a few are by chance."""
        return self.unreliable.double().mean().item() > _SHARE_OF_BAD

    @classmethod
    def exact(cls, per_datum: Tensor, quadrature_error: Tensor | None = None) -> "LogMarginal":
        """Values without Monte Carlo error, shape (num,): known in closed form, or integrated on a grid."""
        per_datum = per_datum.double().cpu()
        nothing = torch.full_like(per_datum, math.nan)
        none = torch.zeros_like(per_datum)
        return cls(per_datum, none, 0, nothing, nothing, nothing, quadrature_error=quadrature_error, bound=None)

    @property
    def unreliable(self) -> Tensor:
        """Whether k̂ is above what the number of draws allows, shape (num,)."""
        return self.pareto_k > reliable_below(max(self.num_samples, 2))

    def __str__(self) -> str:
        errors = f"± {self.stderr_data:.2g} (which data), ± {self.stderr_monte_carlo:.2g} (Monte Carlo)"
        if math.isnan(self.stderr_monte_carlo):
            errors = f"± {self.stderr:.2g} (data and draws)"
        if self.quadrature_error is not None:
            errors = f"± {self.stderr_data:.2g} (which data), ± {self.quadrature_error.mean().item():.2g} (grid)"
        side = {"lower": "≥", "upper": "≤", None: "="}[self.bound]
        num_bad = int(self.unreliable.sum())
        bad = f", {num_bad} with a bad k̂" if num_bad else ""
        what = "log p(x)" if self.is_density else "cross-entropy bound (no density, not log p(x))"
        return f"{what} {side} {self.mean:.6g} {errors} nats per datum, {len(self.per_datum)} data{bad}"


@torch.no_grad()
def log_marginal(
    model: Program,
    guide: Program,
    x: Tensor,
    method: str = "importance",
    *,
    num_samples: int | None = None,
    num_points: int = 128,
    center: str | None = None,
    num_temperatures: int = 500,
    num_leapfrog: int = 5,
    reverse: bool = False,
    latents: Tensor | None = None,
    seed: int = 0,
    max_plate_nesting: int = 1,
    progress: bool = False,
) -> LogMarginal:
    """Estimate log p(x) for each datum.

    ``"importance"`` is the log-mean-exp of weights p(x, z)/q(z|x) at draws from the guide: a lower bound in
    expectation, whose error falls with ``num_samples``. It warns where Pareto k̂ says that the guide is too narrow for
    that to be true in practice.

    ``"quadrature"`` sums p(z) p(x|z) over a grid of at most three latent dimensions, by midpoints around the prior or
    Gauss–Hermite nodes around the guide, and halves the grid for an estimate of its error, which means nothing where
    the grid around the prior is coarser than the posterior is wide: give more ``num_points``.

    ``"annealed"`` takes chains from the guide or the prior to the posterior by Hamiltonian transitions through
    ``num_temperatures`` densities in between: a lower bound that needs no good guide. With ``reverse=True`` the chains
    go back from an exact draw of the posterior, which only data simulated from the model itself have, and the result
    is an upper bound. :func:`~pyrovae.sandwich` does both.

    Memory grows neither with the data nor with the draws (annealing holds all chains of a datum at once). Modules are
    evaluated as copies in float64: in float32 a nearly singular q cannot tell where its own draws lie, and the estimate
    may come out above the truth by any amount.

    Args:
        model: Pyro program of the joint density, with the data along a plate.
        guide: Pyro program of q(z|x), reparameterised.
        x: data (num, …), on the programs' device.
        method: ``"importance"``, ``"quadrature"`` or ``"annealed"``.
        num_samples: draws of z per datum, 1000 by default, or chains, 16 by default.
        num_points: of a grid along each latent dimension, at least 2.
        center: where a grid lies, ``"prior"`` by default, and where annealing starts, ``"guide"`` by default. A grid
            around the guide needs fewer points where q is near the posterior, and overlooks what lies far from q.
        num_temperatures: steps of annealing: the distance of the bounds falls as one over it.
        num_leapfrog: leapfrog steps in each of annealing's transitions.
        reverse: whether to anneal from the posterior back, for an upper bound.
        latents: with ``reverse``, the z that each x was simulated with, see ``GenerativeModel.simulate``.
        seed: of the draws; the caller's random state is left as it was.
        max_plate_nesting: depth of the programs' own plates.
        progress: whether to show a progress bar (on a terminal).

    Raises:
        InputError: an unknown method, no samples, data that the programs cannot take, a grid for more than
            three latent dimensions, or a grid or annealing for programs that are not ``GenerativeModel`` and
            ``AmortizedGuide``.
        NoClosedFormError: a latent site outside the data plate, or one that is not reparameterised.
    """
    if method not in ("importance", "quadrature", "annealed"):
        raise InputError(f"unknown method {method!r}; choose 'importance', 'quadrature' or 'annealed'")
    if num_samples is None:
        num_samples = 16 if method == "annealed" else 1000
    for name, value, least in (
        ("num_samples", num_samples, 1),
        ("num_points", num_points, 2),
        ("num_temperatures", num_temperatures, 1),
        ("num_leapfrog", num_leapfrog, 1),
    ):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            what = "a positive integer" if least == 1 else f"an integer of at least {least}"
            raise InputError(f"{name} must be {what}, not {value!r}")
    if center not in (None, "prior", "guide"):
        raise InputError(f"center must be 'prior' or 'guide', not {center!r}")
    if (reverse or latents is not None) and method != "annealed":
        raise InputError(f"reverse and latents belong to method='annealed', not to {method!r}")
    if latents is not None and not isinstance(latents, Tensor):
        raise InputTypeError(f"latents must be a tensor, not {type(latents).__name__}")
    check_data(x, model, guide)
    if isinstance(model, nn.Module) and isinstance(guide, nn.Module):
        model, guide, x = copy.deepcopy(model).double(), copy.deepcopy(guide).double(), x.double()
    with evaluating(model, guide, x, seed):
        if method == "importance":
            found = _by_importance(model, guide, x, num_samples, max_plate_nesting, progress)
        elif not isinstance(model, GenerativeModel) or not isinstance(guide, AmortizedGuide | PerDatumGuide):
            raise InputError(
                f"method={method!r} needs a GenerativeModel and an AmortizedGuide; use method='importance'"
            )
        elif method == "quadrature":
            found = _on_a_grid(model, guide, x, num_points, center or "prior", progress)
        else:
            settings = (num_samples, center or "guide", num_temperatures, num_leapfrog, reverse, progress)
            found = _by_annealing(model, guide, x, latents, *settings)
    likelihood = getattr(model, "likelihood", None)
    return replace(found, is_density=getattr(likelihood, "is_density", True))


def _by_importance(
    model: Program, guide: Program, x: Tensor, num_samples: int, max_plate_nesting: int, progress: bool
) -> LogMarginal:
    per_datum, stderr, effective, gain, k = over_log_weights(
        _log_mean_weight, model, guide, x, num_samples, max_plate_nesting, progress
    )
    found = LogMarginal(per_datum, stderr, num_samples, effective, gain, k)
    share = found.unreliable.double().mean().item()
    if found.mostly_unreliable:
        warnings.warn(
            f"the importance weights of {share:.0%} of the data have a Pareto k̂ above "
            f"{reliable_below(num_samples):.2f}: log p(x) may be far above this estimate; use more num_samples, a "
            "wider guide, or method='annealed'",
            UnreliableEstimateWarning,
            stacklevel=4,  # whoever called log_marginal, through its decorator
        )
    return found


def _by_annealing(
    model: GenerativeModel,
    guide: AnyGuide,
    x: Tensor,
    latents: Tensor | None,
    num_chains: int,
    center: str,
    num_temperatures: int,
    num_leapfrog: int,
    reverse: bool,
    progress: bool,
) -> LogMarginal:
    if reverse != (latents is not None):
        raise InputError(
            "reverse=True and latents=, the z that x was simulated with, belong together (z, x = model.simulate(100)): "
            "only simulated data come with an exact draw of their posterior"
        )
    if latents is not None and latents.shape != (len(x), model.latent_dim):
        raise InputError(f"latents must have shape ({len(x)}, {model.latent_dim}), not {tuple(latents.shape)}")
    if latents is not None and not latents.isfinite().all():
        raise InputError("latents hold NaN or infinite values")

    def estimate(rows: slice) -> tuple[Tensor, ...]:
        here = rows_of(guide, rows, x) if center == "guide" else None
        path = path_from(model, here, x[rows], num_temperatures)
        if latents is None:
            log_w, acceptance = forward_log_weights(path, num_chains, num_leapfrog)
        else:
            log_w, acceptance = reverse_log_weights(path, latents[rows].to(x), num_chains, num_leapfrog)
            log_w = -log_w  # weights of mean 1/p(x)
        return *_log_mean_weight(log_w.double().cpu()), acceptance.double().cpu()

    data_at_once = max(1, rows_at_once(x) // num_chains)
    per_datum, stderr, effective, gain, k, acceptance = in_chunks(estimate, x, data_at_once, progress)
    if reverse:  # chains that start from one draw are not independent: their spread tells too little
        unknown = torch.full_like(stderr, math.nan)
        return LogMarginal(-per_datum, unknown, num_chains, unknown, -gain, unknown, acceptance, bound="upper")
    return LogMarginal(per_datum, stderr, num_chains, effective, gain, k, acceptance)


def _log_mean_weight(log_w: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Log mean weight of each datum, its standard error, effective sample size, gain of doubling and k̂, each (num,).

    Args:
        log_w: log-weights, shape (K, num), in float64 on the CPU.
    """
    num = len(log_w)
    first, second = log_w.logsumexp(0), (2 * log_w).logsumexp(0)
    per_datum = first - math.log(num)
    effective = (2 * first - second).exp()
    if num == 1:
        unknown = torch.full_like(first, math.nan)
        return per_datum, unknown, effective, unknown, unknown
    relative_variance = (1 / effective - 1 / num).clamp_min(0) * num / (num - 1)
    halves = [half.logsumexp(0) - math.log(len(half)) for half in log_w.tensor_split([(num + 1) // 2])]
    gain = per_datum - 0.5 * (halves[0] + halves[1])
    return per_datum, relative_variance.sqrt(), effective, gain, pareto_k(log_w)


def _on_a_grid(
    model: GenerativeModel, guide: AnyGuide, x: Tensor, num_points: int, center: str, progress: bool
) -> LogMarginal:
    if center == "guide" and num_points > MAX_HERMITE_POINTS:
        raise InputError(
            f"num_points must be at most {MAX_HERMITE_POINTS} around the guide, not {num_points}: weights would vanish"
        )
    if model.latent_dim > MAX_LATENT_DIM:
        raise InputError(
            f"quadrature is for at most {MAX_LATENT_DIM} latent dimensions, not {model.latent_dim}; "
            "use method='importance' or 'annealed'"
        )
    try:
        if center == "prior":
            fine, coarse = (log_integral_around_prior(model, x, num, progress) for num in (num_points, num_points // 2))
        else:
            fine, coarse = (
                log_integral_around_guide(model, guide, x, num, progress) for num in (num_points, num_points // 2)
            )
    except (RuntimeError, ValueError) as error:
        raise cannot_run(x, error) from error
    return LogMarginal.exact(fine, (fine - coarse).abs())
