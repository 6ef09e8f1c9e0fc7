"""Modes of log p(x, z), and the curvature there."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from pyrovae.evaluation._density import Density

_DRAWS, _WIDE = 12, 8
"""Starts that the guide draws, and starts as wide as most priors."""
_STEPS = 60


@dataclass(frozen=True)
class Modes:
    """Local maxima of log p(x, z) from several starts, the best of each datum first; a maximum may be repeated.

    Attributes:
        loc: where they are, shape (starts, num, d), float64.
        factor: Cholesky factor of the inverse curvature, (starts, num, d, d).
        log_mass: log p(x, z) + log |factor|, which orders their weights, (starts, num).
        dtype: dtype of the programs' numbers.
    """

    loc: Tensor
    factor: Tensor
    log_mass: Tensor
    dtype: torch.dtype


def find_modes(density: Density, like: Tensor) -> Modes:
    """Maximise log p(x, z) by Newton steps with line search, from draws of the guide and from farther away.

    Draws are also moved away from their mean, since a guide may be far too narrow. The starts from farther away lie on
    all sides of 0 in up to three dimensions, so that no mirrored mode is missed by chance.
    """
    draws = density.draw(_DRAWS).double()
    center = draws.mean(0)
    draws[_DRAWS - 4 :] = center + 3 * (draws[_DRAWS - 4 :] - center)
    draws[0] = center
    wide = 2 * torch.randn(_WIDE, *center.shape, dtype=torch.float64, device=center.device)
    sides = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3)), device=wide.device)[:, : wide.shape[-1]]
    wide[..., :3] = wide[..., :3].abs() * sides.unsqueeze(1)
    z = torch.cat([draws, wide])
    damping = torch.full(z.shape[:2], 1e-3, dtype=torch.float64, device=z.device)
    value, slope, curvature = _derivatives(density, z, like)
    for _ in range(_STEPS):
        step = (_damped(curvature, damping) @ slope.unsqueeze(-1)).squeeze(-1)
        moved, new_slope, new_curvature = _derivatives(density, z + step, like)
        better = moved > value
        damping = torch.where(better, damping / 4, damping * 6).clamp(1e-9, 1e12)
        z = torch.where(better.unsqueeze(-1), z + step, z)
        gain = torch.where(better, moved - value, torch.zeros_like(value))
        slope = torch.where(better.unsqueeze(-1), new_slope, slope)
        curvature = torch.where(better[..., None, None], new_curvature, curvature)
        value = torch.where(better, moved, value)
        if (gain.abs() < 1e-7).all() and (damping > 1e3).all():
            break
    factor = torch.linalg.cholesky(_damped(curvature, torch.zeros_like(damping)))
    log_mass = value + factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    best = log_mass.nan_to_num(-torch.inf).argmax(0)
    order = torch.arange(len(z), device=z.device).unsqueeze(1).repeat(1, z.shape[1])
    columns = torch.arange(z.shape[1], device=z.device)
    order[0], order[best, columns] = best, 0
    order[0] = best
    return Modes(z[order, columns], factor[order, columns], log_mass[order, columns], like.dtype)


def _derivatives(density: Density, z: Tensor, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log p(x, z) (draws, num), its gradient and its second derivatives, in float64."""
    with torch.enable_grad():
        at = z.to(like).detach().requires_grad_()
        value = density.log_joint(at)
        (slope,) = torch.autograd.grad(value.sum(), at, create_graph=True)
        rows = []
        for i in range(z.shape[-1]):
            if slope.requires_grad:
                (row,) = torch.autograd.grad(slope[..., i].sum(), at, retain_graph=True, allow_unused=True)
            else:
                row = None
            rows.append(torch.zeros_like(at) if row is None else row)
    value = value.detach().double().nan_to_num(-torch.inf, -torch.inf, -torch.inf)
    curvature = torch.stack(rows, -2).detach().double().nan_to_num(0.0, 0.0, 0.0)
    return value, slope.detach().double().nan_to_num(0.0, 0.0, 0.0), 0.5 * (curvature + curvature.mT)


def _damped(curvature: Tensor, damping: Tensor) -> Tensor:
    """Inverse of −curvature + damping, its eigenvalues made positive."""
    values, vectors = torch.linalg.eigh(-curvature)
    scale = values.abs().amax(-1, keepdim=True).clamp_min(1e-12)
    positive = torch.where(values > 1e-9 * scale, values, values.abs().clamp_min(1e-3 * scale))
    inverse: Tensor = vectors @ torch.diag_embed(1 / (positive + damping.unsqueeze(-1) * scale)) @ vectors.mT
    return inverse
