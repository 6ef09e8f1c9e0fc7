"""The Gaussian whose covariance is that of a first-order autoregressive process, AR(1)."""

import math

import torch
import torch.nn.functional as F
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor
from torch.distributions.utils import lazy_property

from pyrovae.distributions._recurrence import linear_recurrence
from pyrovae.errors import InputError, InputTypeError

FISHER_Z_BOUND = 8.0
"""Largest |arctanh ρ| that a network may give. Beyond it, the density is inaccurate in float32."""


def bounded_fisher_z(raw: Tensor) -> Tensor:
    """Map any number to Fisher's z = arctanh ρ inside (−8, 8); small numbers hardly change."""
    return FISHER_Z_BOUND * (raw / FISHER_Z_BOUND).tanh()


def log_sech(x: Tensor) -> Tensor:
    """Log of 1/cosh x = √(1 − tanh² x), finite and smooth wherever x is."""
    return math.log(2) + x - F.softplus(2 * x, threshold=50)


class AR1Normal(TorchDistribution):
    r"""Gaussian whose covariance is that of an AR(1) process: Σ_ij = σ_i σ_j ∏_{k=i}^{j−1} ρ_k for i < j.

    Every marginal variance is σ_i². With one shared σ = √s and one shared ρ this is the posterior of the ρ-VAE
    (Ferdowsi et al., eq. 4; their eq. 7 should read √s, not 1/√s). Sampling, density, entropy and Kullback–Leibler
    divergences cost O(d). Only ``covariance_matrix``, ``scale_tril`` and ``precision_matrix`` form a d × d matrix.

    With u = (z − μ)/σ, w_0 = u_0 and w_j = (u_j − ρ_{j−1} u_{j−1})/√(1 − ρ_{j−1}²),
    log p(z) = −½ Σ_j w_j² − Σ_i log σ_i − ½ Σ_k log(1 − ρ_k²) − ½ d log 2π.

    Args:
        loc: mean μ, shape (*batch, d).
        scale: standard deviations σ > 0, shape (*batch, 1), shared by all dimensions, or (*batch, d).
            A number or a scalar tensor is shared by all dimensions.
        correlation: ρ between neighbours, in (−1, 1), shape (*batch, 1) or (*batch, d−1), or a number.
        fisher_z: arctanh ρ, instead of ``correlation``: any real number, stable where ρ rounds to ±1.
        validate_args: whether to check the values too (shapes and types always are).

    Raises:
        InputTypeError: an argument is not a floating-point tensor, or dtypes differ.
        InputError: not exactly one of ``correlation`` and ``fisher_z`` is given, shapes do not fit,
            devices differ, a scale is not positive or a correlation not inside (−1, 1).

    Example:
        >>> q = AR1Normal(torch.zeros(5, 3), torch.ones(5, 1), correlation=torch.full((5, 1), 0.9))
        >>> q.batch_shape, q.event_shape, q.covariance_matrix[0]
        (torch.Size([5]), torch.Size([3]), tensor([[1.0000, 0.9000, 0.8100],
                [0.9000, 1.0000, 0.9000],
                [0.8100, 0.9000, 1.0000]]))
    """

    arg_constraints = {  # noqa: RUF012 (torch's own convention)
        "loc": constraints.real_vector,
        "scale": constraints.independent(constraints.positive, 1),
        "correlation": constraints.independent(constraints.interval(-1.0, 1.0), 1),
        "fisher_z": constraints.real_vector,
    }
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        loc: Tensor,
        scale: Tensor | float,
        correlation: Tensor | float | None = None,
        *,
        fisher_z: Tensor | float | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if (correlation is None) == (fisher_z is None):
            given = "neither" if correlation is None else "both"
            raise InputError(f"AR1Normal takes exactly one of correlation and fisher_z, but {given} was given")
        _check_floating("loc", loc)
        if loc.dim() < 1 or loc.shape[-1] < 1:
            raise InputError(f"loc must have shape (*batch, d) with d ≥ 1, not {tuple(loc.shape)}")
        d = loc.shape[-1]
        self.loc, self.scale = loc, _parameter("scale", scale, loc, d)
        name, value = ("fisher_z", fisher_z) if correlation is None else ("correlation", correlation)
        step = _parameter(name, value, loc, d - 1)
        setattr(self, name, step)
        shapes = {"loc": loc.shape[:-1], "scale": self.scale.shape[:-1], name: step.shape[:-1]}
        try:
            batch_shape = torch.broadcast_shapes(*shapes.values())
        except RuntimeError:
            parts = ", ".join(f"{part} {tuple(shape)}" for part, shape in shapes.items())
            raise InputError(f"batch shapes do not broadcast: {parts}") from None
        super().__init__(batch_shape, loc.shape[-1:], validate_args=False)
        self._validate_args = TorchDistribution._validate_args if validate_args is None else validate_args
        if self._validate_args:
            _check_values("loc", loc, loc.isfinite(), "finite")
            _check_values("scale", self.scale, self.scale > 0, "positive")
            valid, meaning = (step.isfinite(), "finite") if correlation is None else (step.abs() < 1, "inside (−1, 1)")
            _check_values(name, step, valid, meaning)

    @lazy_property
    def correlation(self) -> Tensor:
        """ρ, shape (*batch, 1) or (*batch, d−1)."""
        return self.fisher_z.tanh()

    @lazy_property
    def fisher_z(self) -> Tensor:
        """Arctanh ρ, shape (*batch, 1) or (*batch, d−1)."""
        return self.correlation.atanh()

    @lazy_property
    def _log_innovation_scale(self) -> Tensor:
        """½ log(1 − ρ²), shape (*batch, 1 or d−1)."""
        return log_sech(self.fisher_z)

    @lazy_property
    def _innovation_scale(self) -> Tensor:
        """√(1 − ρ²), shape (*batch, 1 or d−1)."""
        return self._log_innovation_scale.exp()

    @lazy_property
    def _half_log_det(self) -> Tensor:
        """½ log det Σ = Σ log σ_i + ½ Σ log(1 − ρ_k²), broadcastable to the batch shape."""
        d = self.event_shape[0]
        return _sum_of(self.scale.log(), d) + _sum_of(self._log_innovation_scale, d - 1)

    @property
    def mean(self) -> Tensor:
        """μ, shape (*batch, d)."""
        return self.loc.expand(self._extended_shape())

    @property
    def mode(self) -> Tensor:
        """μ, shape (*batch, d)."""
        return self.mean

    @property
    def variance(self) -> Tensor:
        """σ², shape (*batch, d)."""
        return self.scale.square().expand(self._extended_shape())

    @property
    def first_off_diagonal(self) -> Tensor:
        """Σ_{i,i+1} = σ_i σ_{i+1} ρ_i, shape (*batch, d−1)."""
        scale = self.scale.expand(self._extended_shape())
        return scale[..., 1:] * scale[..., :-1] * self.correlation

    @property
    def scale_tril(self) -> Tensor:
        """Cholesky factor, L_ij = σ_i (∏_{k=j}^{i−1} ρ_k) √(1 − ρ_{j−1}²), shape (*batch, d, d): O(d²)."""
        d = self.event_shape[0]
        eye = torch.eye(d, dtype=self.loc.dtype, device=self.loc.device).expand((*self._extended_shape(), d))
        columns = self._colour(eye, self.correlation.unsqueeze(-2), self._innovation_scale.unsqueeze(-2))
        return self.scale.unsqueeze(-1) * columns.mT

    @property
    def covariance_matrix(self) -> Tensor:
        """Σ, shape (*batch, d, d): O(d²) memory."""
        return self.scale_tril @ self.scale_tril.mT

    @property
    def precision_matrix(self) -> Tensor:
        """Σ⁻¹, tridiagonal, shape (*batch, d, d): O(d²) memory."""
        shape = self._extended_shape()
        z = self.fisher_z.expand((*shape[:-1], shape[-1] - 1))
        sinh_squared = z.sinh().square()  # ρ²/(1 − ρ²)
        diagonal = 1 + F.pad(sinh_squared, (0, 1)) + F.pad(sinh_squared, (1, 0))
        off_diagonal = -z.sinh() * z.cosh()  # −ρ/(1 − ρ²)
        unit = diagonal.diag_embed() + off_diagonal.diag_embed(1) + off_diagonal.diag_embed(-1)
        inverse_scale = self.scale.reciprocal().expand(shape)
        return inverse_scale.unsqueeze(-1) * unit * inverse_scale.unsqueeze(-2)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008 (torch's signature)
        """Draw z = μ + σ ⊙ y with y_0 = ε_0, y_j = ρ_{j−1} y_{j−1} + √(1 − ρ_{j−1}²) ε_j, in O(d)."""
        shape = self._extended_shape(torch.Size(sample_shape))
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return torch.addcmul(self.loc, self.scale, self._colour(noise, self.correlation, self._innovation_scale))

    @staticmethod
    def _colour(noise: Tensor, correlation: Tensor, innovation_scale: Tensor) -> Tensor:
        """White ε (*, d) to AR(1) of unit variance."""
        innovation = torch.cat([noise[..., :1], innovation_scale * noise[..., 1:]], dim=-1)
        return linear_recurrence(correlation, innovation)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density in nats, shape (*sample, *batch), in O(d)."""
        if self._validate_args and _has_values(value):
            self._validate_sample(value)
        u, divisor = value - self.loc, self.scale
        if divisor.shape[-1] > 1:
            u, divisor = u / divisor, divisor.new_ones(1)
        w, step = u[..., 1:] - self.correlation * u[..., :-1], self._innovation_scale
        if step.shape[-1] != 1:  # none of a single dimension
            w, step = w / step, step.new_ones(1)
        # a shared scale divides the sum, not its terms: fewer passes over x
        squares = u[..., 0].square() + torch.linalg.vecdot(w, w) / step.squeeze(-1).square()
        squares = squares / divisor.squeeze(-1).square()
        return -0.5 * (squares + self.event_shape[0] * math.log(2 * math.pi)) - self._half_log_det

    def entropy(self) -> Tensor:
        """½ d (1 + log 2π) + ½ log det Σ in nats, shape (*batch)."""
        constant = 0.5 * self.event_shape[0] * (1 + math.log(2 * math.pi))
        return (self._half_log_det + constant).expand(self._batch_shape)

    def expand(self, batch_shape: torch.Size, _instance: "AR1Normal | None" = None) -> "AR1Normal":
        """The same distribution with its batch shape broadcast to ``batch_shape``."""
        new = self._get_checked_instance(AR1Normal, _instance)
        batch_shape = torch.Size(batch_shape)
        for name in ("loc", "scale", "correlation", "fisher_z"):
            if name in self.__dict__:
                tensor = self.__dict__[name]
                setattr(new, name, tensor.expand(batch_shape + tensor.shape[-1:]))
        super(AR1Normal, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @classmethod
    def infer_shapes(cls, **arg_shapes: tuple[int, ...]) -> tuple[torch.Size, torch.Size]:
        """Batch and event shape for arguments of these shapes."""
        batch_shape = torch.broadcast_shapes(*(tuple(shape)[:-1] for shape in arg_shapes.values()))
        return batch_shape, torch.Size(tuple(arg_shapes["loc"])[-1:])


def ar1_factor_transpose(q: AR1Normal, rows: Tensor) -> Tensor:
    """Lᵀv for rows v of shape (*batch, r, d), with L the Cholesky factor of q's covariance, in O(r d)."""
    scaled = rows * q.scale.unsqueeze(-2)
    summed = linear_recurrence(q.correlation.unsqueeze(-2), scaled, reverse=True)
    return torch.cat([summed[..., :1], q._innovation_scale.unsqueeze(-2) * summed[..., 1:]], dim=-1)


def _sum_of(tensor: Tensor, count: int) -> Tensor:
    """Sum over the last axis. A shared axis has one entry, which counts ``count`` times."""
    return tensor.squeeze(-1) * count if tensor.shape[-1] == 1 else tensor.sum(-1)


def _check_floating(name: str, tensor: object) -> None:
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        seen = f"a tensor of {tensor.dtype}" if isinstance(tensor, Tensor) else type(tensor).__name__
        raise InputTypeError(f"{name} must be a floating-point tensor, not {seen}")


def _parameter(name: str, value: Tensor | float | None, loc: Tensor, size: int) -> Tensor:
    if isinstance(value, (int, float)) and not isinstance(value, bool):  # not int | float, for torch 2.8
        return torch.full((1,), float(value), dtype=loc.dtype, device=loc.device)
    _check_floating(name, value)
    assert isinstance(value, Tensor)
    if value.dtype != loc.dtype:
        raise InputTypeError(f"{name} is of {value.dtype}, loc of {loc.dtype}; convert one of them")
    if value.device != loc.device:
        raise InputError(f"{name} is on {value.device}, loc on {loc.device}; move one of them")
    if value.dim() == 0:
        return value.unsqueeze(0)
    if value.shape[-1] not in (1, size):
        sizes = f"1 (shared) or {size}" if size > 1 else "1 (shared)"
        raise InputError(
            f"the last axis of {name} must be {sizes} for loc of shape {tuple(loc.shape)}, but {name} has shape "
            f"{tuple(value.shape)}"
        )
    return value


def _has_values(tensor: Tensor) -> bool:
    """Whether there are values to check: not on the meta device, while compiling or under vmap."""
    transformed = torch._C._functorch.peek_interpreter_stack() is not None
    return not (tensor.is_meta or tensor.numel() == 0 or torch.compiler.is_compiling() or transformed)


def _check_values(name: str, tensor: Tensor, valid: Tensor, meaning: str) -> None:
    if _has_values(tensor) and not bool(valid.all()):
        raise InputError(f"{name} must be {meaning}, but holds {tensor[~valid].flatten()[0].item():g}")
