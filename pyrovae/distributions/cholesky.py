"""The dense Gaussian, given by its Cholesky factor."""

import math

import torch
from pyro.distributions import MultivariateNormal, TorchDistribution
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.utils import lazy_property

_LARGEST_ELEMENTWISE = 64
"""Up to this d a sum of products is faster than a batch of tiny matrix products."""


def tril_position(d: int) -> Tensor:
    """Positions in a flattened (d, d) matrix of its diagonal, then of its entries below by rows: (d(d + 1)/2,)."""
    below = torch.tril_indices(d, d, offset=-1)
    rows, columns = torch.cat([torch.arange(d).expand(2, -1), below], dim=1)
    return rows * d + columns


def fill_scale_tril(diagonal: Tensor, below: Tensor, position: Tensor) -> Tensor:
    """Lower triangular matrices (*batch, d, d) from diagonals (*batch, d) and the entries below them by rows.

    Args:
        diagonal: shape (*batch, d).
        below: shape (*batch, d(d − 1)/2).
        position: the result of :func:`tril_position`.
    """
    d = diagonal.shape[-1]
    entries = torch.cat([diagonal, below], dim=-1)
    # One scatter, whose derivative is a gather: a gather's derivative would be a slower scatter_add.
    zeros = entries.new_zeros(d * d).expand(*entries.shape[:-1], d * d)
    return zeros.scatter(-1, position.expand(entries.shape), entries).unflatten(-1, (d, d))


def fixed_draw(value: Tensor) -> Tensor:
    """A draw as a constant that its distribution still recognises."""
    fixed = value.detach()
    fixed.fixed_draw_of = value  # type: ignore[attr-defined]
    return fixed


class CholeskyNormal(MultivariateNormal):
    """Pyro's ``MultivariateNormal(loc, scale_tril=L)``, faster for small factors and for a factor that all data share.

    Draws and densities are the same; at B = 128, d = 32 a draw with its gradient takes a third of the
    time and a density less than half. A factor without batch axes is never repeated: the data are the columns of one
    triangular solve. It is a ``MultivariateNormal``, and is accepted wherever one is.

    Args:
        loc: mean μ, shape (*batch, d).
        scale_tril: factor L with positive diagonal, shape (*batch, d, d) or (d, d).
        diagonal: the diagonal of L, shape (*batch, d), if it is known: the log-determinant's gradient then skips
            a d × d matrix of zeros.
        validate_args: whether to check the values.

    Example:
        >>> q = CholeskyNormal(torch.zeros(5, 3), scale_tril=torch.eye(3).expand(5, 3, 3))
        >>> q.rsample().shape
        torch.Size([5, 3])
    """

    def __init__(
        self, loc: Tensor, scale_tril: Tensor, *, diagonal: Tensor | None = None, validate_args: bool | None = None
    ) -> None:
        shared = loc.dim() > 1 and scale_tril.dim() == 2
        if scale_tril.dim() > 1 and loc.shape[:-1] == scale_tril.shape[:-2]:  # nothing to broadcast: half of the time
            self.loc, self.scale_tril, self._unbroadcasted_scale_tril = loc, scale_tril, scale_tril
            Distribution.__init__(self, loc.shape[:-1], loc.shape[-1:], validate_args)
        else:
            super().__init__(loc, scale_tril=scale_tril, validate_args=False if shared else validate_args)
        if shared:
            self._validate_args = TorchDistribution._validate_args if validate_args is None else validate_args
            if self._validate_args:  # the factor is checked once, not once a datum
                MultivariateNormal(loc.new_zeros(loc.shape[-1]), scale_tril=scale_tril, validate_args=True)
                MultivariateNormal(loc, scale_tril=scale_tril, validate_args=False)._validate_sample(loc)
        self._diagonal = scale_tril.diagonal(dim1=-2, dim2=-1) if diagonal is None else diagonal
        self._drawn: tuple[Tensor, Tensor] | None = None

    def expand(self, batch_shape: torch.Size, _instance: "CholeskyNormal | None" = None) -> "CholeskyNormal":
        """The same distribution with its batch shape broadcast to ``batch_shape``."""
        new = super().expand(batch_shape, _instance=self._get_checked_instance(CholeskyNormal, _instance))
        new._diagonal = self._diagonal
        new._drawn = None
        return new

    @lazy_property
    def _half_log_det(self) -> Tensor:
        return self._diagonal.log().sum(-1)

    def entropy(self) -> Tensor:
        """½ d (1 + log 2π) + Σ log L_ii in nats, shape (*batch)."""
        constant = 0.5 * self.event_shape[0] * (1 + math.log(2 * math.pi))
        return (self._half_log_det + constant).expand(self.batch_shape)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008 (torch's signature)
        """Draw z = μ + Lε."""
        shape = self._extended_shape(torch.Size(sample_shape))
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        factor = self._unbroadcasted_scale_tril
        if factor.dim() == 2:
            draw = self.loc + noise @ factor.mT
        elif shape[-1] <= _LARGEST_ELEMENTWISE:
            draw = self.loc + (factor * noise.unsqueeze(-2)).sum(-1)
        else:
            draw = self.loc + (factor @ noise.unsqueeze(-1)).squeeze(-1)
        self._drawn = draw, noise
        return draw

    @property
    def _is_differentiated(self) -> bool:
        parameters = (self.loc, self._unbroadcasted_scale_tril, self._diagonal)
        return torch.is_grad_enabled() and any(p.requires_grad for p in parameters)

    def _noise_of(self, value: Tensor) -> Tensor | None:
        """The ε of a value that this object drew, where the density may be computed from it."""
        if self._drawn is None:
            return None
        draw, noise = self._drawn
        if getattr(value, "fixed_draw_of", None) is draw:
            return noise
        # a draw made without a gradient may be a sample whose score is wanted
        has_path = draw.grad_fn is not None or not torch.is_grad_enabled()
        return noise if value is draw and (has_path or not (draw.requires_grad or self._is_differentiated)) else None

    def _linear_in_parameters(self, noise: Tensor) -> Tensor:
        """Scalar with derivatives of −½‖L⁻¹(z − μ)‖² in μ and L at fixed z = μ + Lε: L⁻ᵀε · (μ + Lε), L⁻ᵀε fixed."""
        factor = self._unbroadcasted_scale_tril
        with torch.no_grad():
            weight = torch.linalg.solve_triangular(factor.mT, noise.unsqueeze(-1), upper=True).squeeze(-1)
        return (weight * (self.loc + (factor @ noise.unsqueeze(-1)).squeeze(-1))).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """−½‖L⁻¹(z − μ)‖² − Σ log L_ii − ½ d log 2π in nats, shape (*sample, *batch).

        A draw of this object is scored by its ε. That is exact even where L is nearly singular and L⁻¹(z − μ) is
        inaccurate in float32. The gradient is that of log q(μ + Lε) in μ and L; none flows through z. For a detached
        draw (:func:`fixed_draw`) it is the gradient of log q at fixed z.
        """
        factor = self._unbroadcasted_scale_tril
        noise = self._noise_of(value)
        if noise is not None:
            squares = noise.square().sum(-1)
            if not value.requires_grad and self._is_differentiated:
                linear = self._linear_in_parameters(noise)
                squares = squares - 2 * (linear - linear.detach())
        elif factor.dim() > 2 and value.shape[:-1] != factor.shape[:-2]:
            return super().log_prob(value)  # does not repeat a factor that several values share
        else:
            if self._validate_args:
                self._validate_sample(value)
            difference = value - self.loc
            if factor.dim() == 2:
                columns = difference.reshape(-1, difference.shape[-1]).mT
                white = torch.linalg.solve_triangular(factor, columns, upper=False)
                squares = white.square().sum(0).reshape(difference.shape[:-1])
            else:
                white = torch.linalg.solve_triangular(factor, difference.unsqueeze(-1), upper=False)
                squares = white.square().sum((-2, -1))
        return -0.5 * (squares + value.shape[-1] * math.log(2 * math.pi)) - self._half_log_det
