"""Better posteriors than the encoder's, datum by datum (Kim et al. 2018; Khan & Rue 2023, Gauss–Newton)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pyrovae.distributions import CholeskyNormal, covariance_of, mean_of
from pyrovae.errors import check_integer
from pyrovae.evaluation._density import density_of, moments_of_guide
from pyrovae.evaluation._gauss_newton import Gaussians, Mixture, antithetic, climb, descend, settle
from pyrovae.evaluation._method import Problem, problem_of
from pyrovae.evaluation._target import DensityTarget, ModelTarget, Target
from pyrovae.evaluation.estimate import Estimate, check_numbers, mean_and_stderr
from pyrovae.evaluation.importance import in_chunks
from pyrovae.evaluation.per_datum import NUM_DRAWS as NUM_MOMENT_DRAWS
from pyrovae.evaluation.per_datum import AnyGuide, rows_of
from pyrovae.frames import Data
from pyrovae.programs import Program
from pyrovae.vae import GenerativeModel

NUM_STEPS, NUM_DRAWS = 8, 8
"""Gauss–Newton steps, and draws of each."""

_NUM_TRIED, _NUM_TRIED_FIRST = 64, 16
"""Draws by which candidates are compared, and those to start from."""

_ROUNDING = 1e-6
"""Nats by which a later candidate must be better, so that an exact posterior is not replaced by a float32 one."""

_MOST_MODES, _STARTS = 12, 16
"""Number of new modes to look for, and of starts in a round; a round without a new mode ends the search."""

_PRIORS_SHARE = 0.05
"""Of a proposal's draws."""

_STEPS_AFTER, _STEPS_ALONE = 12, 60
"""Steps of Adam for one of Gauss–Newton: after it, or in its place."""


@dataclass(frozen=True, repr=False)
class Refined:
    """Posteriors fitted datum by datum at a fixed model.

    Attributes:
        posterior: q(z|x) of each datum, batch shape (num,), in float64. For other programs than
            GenerativeModel, of all latents of a datum, unconstrained, one site after the other.
        elbo: its ELBO.
        guide_elbo: the ELBO of the guide's q.
        stayed: where refining did not raise the ELBO on independent draws, so that the guide's q is kept, shape (num,).
            There, a guide that is not Gaussian is replaced by its mean and covariance.
        by_gradient: whether q was fitted by gradient: the prior is not Gaussian, or the likelihood has no ``fisher``.
    """

    posterior: CholeskyNormal
    elbo: Estimate
    guide_elbo: Estimate
    stayed: Tensor
    by_gradient: bool

    @property
    def lost_by_encoder(self) -> Estimate:
        """ELBO that the encoder and its family lose for each datum, in nats."""
        return self.elbo - self.guide_elbo

    def __repr__(self) -> str:
        return f"Refined({self})"

    def __str__(self) -> str:
        return (
            f"ELBO {self.elbo.mean:.6g} (guide {self.guide_elbo.mean:.6g}) nats per datum, {len(self.stayed)} data, "
            f"the guide's q is kept for {int(self.stayed.sum())}"
        )


def refine(
    model: Program,
    guide: Program,
    x: Data,
    *,
    num_steps: int = NUM_STEPS,
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
    progress: bool = False,
) -> Refined:
    """Fit a full-covariance Gaussian q(z|x) to each datum, starting from the guide's, with the decoder's curvature.

    Variational Gauss–Newton: with J = ∂f/∂z of the decoder's features f and I their Fisher information
    (:meth:`~pyrovae.likelihoods.Likelihood.fisher`), Λ = Λ₀ + E_q[JᵀIJ] and μ ← μ + step · Λ⁻¹ E_q[∇ log p(x, z)],
    starting from the best of the guide's q and Laplace approximations at the modes. One step gives the exact posterior
    of a linear-Gaussian model. Gradient steps then correct for the decoder's second derivatives, which JᵀIJ ignores. If
    the prior is not Gaussian, if the likelihood has no ``fisher``, and for your own programs, q is fitted with gradient
    steps alone.

    Args:
        model: Pyro program of the joint density, with the data along a plate.
        guide: Pyro program of q(z|x), reparameterised.
        x: data (num, …), on the programs' device.
        num_steps: Gauss–Newton steps for each datum; 12 times as many gradient steps follow.
        num_draws: draws of z per datum and step; an odd number is rounded up.
        seed: seed of the draws; the caller's random state does not change.
        progress: whether to show a progress bar (on a terminal).

    Raises:
        InputError: data that the programs cannot take, or settings that cannot be run.

    Example:
        >>> import pyrovae as pv
        >>> model = pv.GenerativeModel(pv.nn.MLP(2, 8), pv.GaussianLikelihood(8, 3), latent_dim=2)
        >>> guide = pv.AmortizedGuide(pv.nn.MLP(3, 8), pv.DiagonalPosterior(8, 2))
        >>> refined = refine(model, guide, model.sample(10))
        >>> refined.posterior.batch_shape, refined.lost_by_encoder.mean > 0
        (torch.Size([10]), True)
    """
    check_integer("num_steps", num_steps)
    check_integer("num_draws", num_draws, least=2)
    with problem_of(model, guide, x, seed, progress=progress, part_for="refine") as problem:
        loc, scale_tril, _, _, *found, stayed, by_gradient = fit_each(problem, num_steps, num_draws + num_draws % 2)
    elbo, error, guide_elbo, guide_error = found
    check_numbers(elbo, problem.x)
    return Refined(
        CholeskyNormal(loc[:, 0], scale_tril[:, 0], validate_args=False),
        Estimate(elbo, error),
        Estimate(guide_elbo, guide_error),
        stayed,
        bool(by_gradient.any()),
    )


def fit_each(problem: Problem, num_steps: int, num_draws: int) -> tuple[Tensor, ...]:
    """What :class:`Refined` holds: ELBOs and their errors, refined and the guide's, which stay, how.

    Before them the tensors of a :class:`Mixture`, whose first part is the refined q, and of which data all modes were
    found.
    """
    x = problem.x

    def fit(rows: slice) -> tuple[Tensor, ...]:
        guide, target = rows_of(problem.guide, rows, x), target_for(problem, rows)
        q = gaussians_of_guide(guide, target, x[rows])
        before, error_before = mean_and_stderr(guide_log_weights(guide, target, x[rows], _NUM_TRIED))
        modes, are_new, found_all = (
            [q],
            torch.zeros_like(before, dtype=torch.bool).unsqueeze(1),
            torch.ones_like(before, dtype=torch.bool),
        )
        if target.has_curvature:
            modes, are_new, found_all = search_modes(target, q.loc)
            candidates = [q, *modes]
            start, _ = best_of(target, candidates, _NUM_TRIED_FIRST)
            fast = target.in_single(start.at(antithetic(2, start.loc)), start.scale_tril)
            settled = settle(fast, start, num_steps, num_draws)
            candidates += [settled, descend(fast, settled, _STEPS_AFTER * num_steps, num_draws)]
        else:
            candidates = [q, descend(target, q, _STEPS_ALONE * num_steps, num_draws)]
        found, is_first = best_of(target, candidates)
        elbo, error = elbo_of(target, found)
        stayed = is_first | (elbo < before)
        found = q.where(stayed, found)
        elbo, error = torch.where(stayed, before, elbo), torch.where(stayed, error_before, error)
        numbers = (values.cpu() for values in (found_all, elbo, error, before, error_before, stayed))
        mixture = with_other_modes(target, found, elbo, modes, are_new)
        return *mixture.tensors(), *numbers, torch.full(stayed.shape, not target.has_curvature)

    at_once = max(1, min(1024, problem.rows_at_once // max(num_draws, _NUM_TRIED)))
    return in_chunks(fit, x, at_once, problem.progress)


def search_modes(target: Target, loc: Tensor) -> tuple[list[Gaussians], Tensor, Tensor]:
    """Modes reached from there, and from where the prior has likely draws, far from the places before.

    Returns:
        Laplace's approximations; at which of them a datum has a new mode, booleans (num, modes); and whether the search
        ended, (num,): the last starts brought nothing new. A ring or a ridge has new modes without an end.
    """
    modes, starts = [climb(target, loc)], [loc]
    are_new = torch.ones(len(loc), 1, dtype=torch.bool, device=loc.device)
    rows = torch.arange(len(loc) if target.is_searched else 0, device=loc.device)
    while len(rows):
        start, before = target.starts([*starts, *(mode.loc for mode in modes)], _STARTS), are_new.sum(1)
        climbed = climb(target.of(rows.repeat(_STARTS)), start[:, rows].flatten(0, 1))
        for k in range(_STARTS):
            found = climbed.of(slice(k * len(rows), (k + 1) * len(rows)))
            known = torch.stack([within_reach(mode.of(rows), found.loc) for mode in modes], dim=1) & are_new[rows]
            is_new = torch.zeros_like(are_new[:, 0])
            is_new[rows] = ~known.any(1)
            if is_new.any():
                mode = Gaussians(modes[0].loc.clone(), modes[0].scale_tril.clone())
                mode.loc[rows], mode.scale_tril[rows] = found.loc, found.scale_tril
                modes, are_new = [*modes, mode], torch.cat([are_new, is_new.unsqueeze(1)], dim=1)
        starts += start.unbind()
        num = are_new.sum(1)
        (rows,) = ((num > before) & (num <= _MOST_MODES)).nonzero(as_tuple=True)
    return modes, are_new, are_new.sum(1) <= _MOST_MODES


def within_reach(q: Gaussians, z: Tensor) -> Tensor:
    """Whether z, (num, d), is among draws from q: four standard deviations of their squared distance at most."""
    d = z.shape[-1]
    return q.noise_of(z.unsqueeze(0)).squeeze(0).square().sum(-1) <= d + 4 * math.sqrt(2 * d)


def with_other_modes(target: Target, q: Gaussians, elbo: Tensor, modes: list[Gaussians], are_new: Tensor) -> Mixture:
    """A proposal for p(z|x): q, the modes that it does not reach, and a share of the prior, which bounds the weights.

    Half of the draws are in proportion to exp(ELBO), half are shared equally: a mode may be worth more than its
    Gaussian's ELBO says.
    """
    if not target.is_searched:
        return Mixture((q,), torch.zeros_like(elbo).unsqueeze(-1))
    noise = antithetic(_NUM_TRIED_FIRST, q.loc)
    logs = []
    for mode, is_new in zip(modes, are_new.unbind(1), strict=True):
        present = is_new & ~within_reach(q, mode.loc)
        logs.append(torch.where(present, elbo_of(target, mode, noise)[0], -math.inf))
    others = Mixture(tuple(modes), torch.stack(logs, dim=-1)).likeliest(_MOST_MODES)
    stacked = torch.cat([elbo.unsqueeze(-1), others.log_weights], dim=-1)
    present = (stacked > -math.inf).double()
    shares = 0.5 * (1 - _PRIORS_SHARE) * (stacked.softmax(-1) + present / present.sum(-1, keepdim=True))
    weights = torch.cat([shares, torch.full_like(shares[:, :1], _PRIORS_SHARE)], dim=-1)
    return Mixture((q, *others.parts, Gaussians(*target.prior)), weights.log())


def target_for(problem: Problem, rows: slice) -> Target:
    """Log p(x, z) of some of the data."""
    x = problem.x[rows]
    if isinstance(problem.model, GenerativeModel) and isinstance(problem.guide, AnyGuide):
        return ModelTarget(problem.model, x)
    return DensityTarget(density_of(problem.model, problem.guide, problem.x, rows, problem.rows_at_once), x)


def gaussians_of_guide(guide: Program, target: Target, x: Tensor) -> Gaussians:
    """The Gaussian of the guide's mean and covariance, of each datum."""
    if isinstance(target, DensityTarget):
        mean, covariance = moments_of_guide(target.density)
    else:
        assert isinstance(guide, AnyGuide)
        q = guide.posterior(x)
        mean, covariance = mean_of(q, num_draws=NUM_MOMENT_DRAWS), covariance_of(q, num_draws=NUM_MOMENT_DRAWS)
    return gaussians_of(mean.double(), covariance.double())


def guide_log_weights(guide: Program, target: Target, x: Tensor, num_draws: int) -> Tensor:
    """Log p(x, z) − log q(z|x) at draws from the guide, shape (num_draws, num)."""
    if isinstance(target, DensityTarget):
        z = target.density.draw(num_draws)
        return (target.density.log_joint(z) - target.density.log_guide(z)).double()
    assert isinstance(guide, AnyGuide)
    q = guide.posterior(x)
    z = q.sample(torch.Size([num_draws]))
    log_weights: Tensor = target.log_joint(z) - q.log_prob(z)
    return log_weights


def gaussians_of(mean: Tensor, covariance: Tensor) -> Gaussians:
    """N(μ, Σ) of each datum; of a Σ that rounding has made singular, the variances alone."""
    factor, failed = torch.linalg.cholesky_ex(covariance)
    scale = covariance.diagonal(dim1=-2, dim2=-1).clamp_min(1e-12).sqrt().diag_embed()
    return Gaussians(mean, torch.where((failed > 0).unsqueeze(-1).unsqueeze(-1), scale, factor))


def elbo_of(target: Target, q: Gaussians, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The ELBO of each datum and its standard error; −∞ where it is not a number."""
    noise = antithetic(_NUM_TRIED, q.loc) if noise is None else noise
    elbo, error = mean_and_stderr(target.log_joint(q.at(noise)) - q.log_prob_of(noise))
    return elbo.nan_to_num(nan=-math.inf), error


def best_of(target: Target, candidates: list[Gaussians], num_draws: int = _NUM_TRIED) -> tuple[Gaussians, Tensor]:
    """Of each datum the candidate of the largest ELBO, on the same noise for all, and whether it is the first.

    Of equals it is the earliest.
    """
    noise = antithetic(num_draws, candidates[0].loc)
    best = candidates[0]
    first, _ = elbo_of(target, best, noise)
    most = first
    for q in candidates[1:]:
        elbo, _ = elbo_of(target, q, noise)
        worse = elbo <= most + _ROUNDING
        best, most = best.where(worse, q), torch.where(worse, most, elbo)
    return best, most == first
