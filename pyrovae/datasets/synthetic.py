"""The five synthetic sets in two dimensions, each with its density, so that the lowest possible loss is known.

They come from the seminar slides (Guo, Liao & Zhou). Four slips of the slides are corrected: π in the figure eight's
u(z), sin(π/3) in the mixture's third rotation, a uniform z there, and "isotropic" for a diagonal covariance.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal


@dataclass(frozen=True)
class SyntheticDataset(ABC):
    """A distribution on the plane with draws and a known log-density.

    Attributes:
        name: its name on command lines and in files.
        num_train: number of training data in the slides.
        num_test: number of test data in the slides.
        epochs: number of epochs in the slides.
    """

    name: str
    num_train: int
    num_test: int
    epochs: int

    @abstractmethod
    def sample(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw x, shape (num, 2), float32."""

    @abstractmethod
    def log_density(self, x: Tensor) -> Tensor:
        """Log p(x) in nats for x (num, 2), computed and returned in float64, shape (num,)."""

    def mode_log_densities(self, x: Tensor) -> Tensor:
        """Joint log-density of x and each separate mode, shape (num, modes); one mode where there is one."""
        return self.log_density(x).unsqueeze(-1)

    @cached_property
    def entropy(self) -> float:
        """−E log p(x) in nats: the floor of a model's −ELBO."""
        # The trapezoidal rule converges exponentially for such smooth, decaying integrands.
        log_density = self.log_density(self._grid)
        return -float((log_density.exp() * log_density).sum() * self._grid_cell)

    @cached_property
    def mode_weights(self) -> Tensor:
        """Probability of each mode, shape (modes,)."""
        return self.mode_log_densities(self._grid).exp().sum(0) * self._grid_cell

    @property
    @abstractmethod
    def _extent(self) -> tuple[float, float]:
        """Half-width of a square that holds all the mass, and the finest standard deviation inside."""

    @property
    def _grid_cell(self) -> float:
        return (self._extent[1] / 3) ** 2

    @cached_property
    def _grid(self) -> Tensor:
        half_width, scale = self._extent
        axis = torch.arange(-half_width, half_width, scale / 3, dtype=torch.float64)
        return torch.cartesian_prod(axis, axis)


def _rotation(angle: float) -> Tensor:
    cos, sin = math.cos(angle), math.sin(angle)
    return torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)


@dataclass(frozen=True)
class LinearGaussian(SyntheticDataset):
    """x = R(angle) diag(3, 1/3) z + ε, z ~ N(0, I), ε ~ N(0, 0.2 I)."""

    angle: float
    noise_variance: float = 0.2

    @property
    def loadings(self) -> Tensor:
        """R(angle) diag(3, 1/3), shape (2, 2), float64."""
        return _rotation(self.angle) @ torch.tensor([3.0, 1 / 3], dtype=torch.float64).diag()

    @cached_property
    def _distribution(self) -> MultivariateNormal:
        covariance = self.loadings @ self.loadings.T + self.noise_variance * torch.eye(2, dtype=torch.float64)
        return MultivariateNormal(torch.zeros(2, dtype=torch.float64), covariance)

    def sample(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw x, shape (num, 2), float32."""
        z = torch.randn(num, 2, generator=generator)
        noise = math.sqrt(self.noise_variance) * torch.randn(num, 2, generator=generator)
        return z @ self.loadings.T.float() + noise

    def log_density(self, x: Tensor) -> Tensor:
        """Log p(x) in nats, shape (num,), float64."""
        log_density: Tensor = self._distribution.log_prob(x.double())
        return log_density

    @cached_property
    def entropy(self) -> float:
        """½ log det(2πe S) in nats, exactly."""
        return float(self._distribution.entropy())

    @property
    def _extent(self) -> tuple[float, float]:
        return 32.0, math.sqrt(self.noise_variance)


@dataclass(frozen=True)
class NoisyCurve(SyntheticDataset, ABC):
    """x = curve(Φ(z)) + ε, z ~ N(0, 1), ε ~ N(0, v I); its density is an integral over Φ(z) ~ U(0, 1)."""

    noise_variance: float
    num_midpoints: int = 1024

    @abstractmethod
    def curve(self, z: Tensor) -> Tensor:
        """Noise-free x of shape (*batch, 2) for z of shape (*batch,)."""

    def sample(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw x, shape (num, 2), float32."""
        z = torch.randn(num, generator=generator)
        return self.curve(z) + math.sqrt(self.noise_variance) * torch.randn(num, 2, generator=generator)

    @cached_property
    def _midpoints(self) -> Tensor:
        u = (torch.arange(self.num_midpoints, dtype=torch.float64) + 0.5) / self.num_midpoints
        midpoints: Tensor = torch.special.ndtri(u)
        return midpoints

    def log_density(self, x: Tensor) -> Tensor:
        """Log p(x) in nats by the midpoint rule over Φ(z), shape (num,), float64."""
        return self._log_density_over(x, self.curve(self._midpoints))

    def _log_density_over(self, x: Tensor, points: Tensor) -> Tensor:
        constant = math.log(2 * math.pi * self.noise_variance) + math.log(self.num_midpoints)
        chunks = []
        for chunk in x.double().split(2048):  # bounds the memory of the distances to all points
            squares = (chunk.unsqueeze(-2) - points).square().sum(-1)
            chunks.append(torch.logsumexp(-squares / (2 * self.noise_variance), dim=-1) - constant)
        return torch.cat(chunks)

    @property
    def _extent(self) -> tuple[float, float]:
        scale = math.sqrt(self.noise_variance)
        return 1.5 + 8 * scale, scale


@dataclass(frozen=True)
class FigureEight(NoisyCurve):
    """A lemniscate: u = (0.6 + 1.8 Φ(z)) π, x = (√½ cos u, √2 cos u sin u)/(sin² u + 1) + ε."""

    def curve(self, z: Tensor) -> Tensor:
        """Noise-free x of shape (*batch, 2) for z of shape (*batch,)."""
        u = (0.6 + 1.8 * torch.special.ndtr(z)) * math.pi
        sin, cos = u.sin(), u.cos()
        denominator = sin.square() + 1
        return torch.stack([math.sqrt(0.5) * cos / denominator, math.sqrt(2) * cos * sin / denominator], dim=-1)


@dataclass(frozen=True)
class ThreeBlobs(NoisyCurve):
    """Points on a circle at the four plateaus of a staircase, of which the first and last overlap.

    u = 2π/(1 + exp(−πz/2)), t = 2 tanh(10u − 20⌊u/2⌋ − 10) + 4⌊u/2⌋ + 2, x = (cos t, sin t) + ε.
    """

    def _angle(self, z: Tensor) -> Tensor:
        u = 2 * math.pi * torch.sigmoid(math.pi * z / 2)
        floor = (u / 2).floor()
        return 2 * torch.tanh(10 * u - 20 * floor - 10) + 4 * floor + 2

    def curve(self, z: Tensor) -> Tensor:
        """Noise-free x of shape (*batch, 2) for z of shape (*batch,)."""
        t = self._angle(z)
        return torch.stack([t.cos(), t.sin()], dim=-1)

    def mode_log_densities(self, x: Tensor) -> Tensor:
        """Joint log-density of x and each of the three blobs (near 0°/328°, 98° and 229°), shape (num, 3)."""
        plateau = (
            self._angle(self._midpoints) / 4
        ).round().long() % 3  # t ≈ 0, 4, 8, 12; the last lies beside the first
        points = self.curve(self._midpoints)
        return torch.stack([self._log_density_over(x, points[plateau == blob]) for blob in range(3)], dim=-1)


@dataclass(frozen=True)
class GaussianMixture(SyntheticDataset):
    """Three Gaussians N(0, diag(3, 1/3)), turned by 0, 2π/3, π/3 and set on a triangle, in thirds."""

    @cached_property
    def _components(self) -> MultivariateNormal:
        r = 3 * math.sqrt(3)
        locs = torch.tensor([[0, r], [-r, -r / 2], [r, -r / 2]], dtype=torch.float64)
        rotations = torch.stack([_rotation(angle) for angle in (0.0, 2 * math.pi / 3, math.pi / 3)])
        scales = torch.tensor([3.0, 1 / 3], dtype=torch.float64).diag()
        return MultivariateNormal(locs, rotations @ scales @ rotations.mT)

    def sample(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw x, shape (num, 2), float32."""
        component = (3 * torch.rand(num, generator=generator)).long()
        noise = torch.randn(num, 2, 1, generator=generator, dtype=torch.float64)
        return (self._components.loc[component] + (self._components.scale_tril[component] @ noise).squeeze(-1)).float()

    def log_density(self, x: Tensor) -> Tensor:
        """Log p(x) in nats, shape (num,), float64."""
        return self.mode_log_densities(x).logsumexp(-1)

    def mode_log_densities(self, x: Tensor) -> Tensor:
        """Joint log-density of x and each of the three components, shape (num, 3)."""
        log_density: Tensor = self._components.log_prob(x.double().unsqueeze(-2))
        return log_density - math.log(3)

    @property
    def _extent(self) -> tuple[float, float]:
        return 20.0, math.sqrt(1 / 3)


ISOTROPIC_GAUSSIAN = LinearGaussian("isotropic-gaussian", 20_000, 10_000, 20, angle=0.0)
ROTATED_GAUSSIAN = LinearGaussian("rotated-gaussian", 20_000, 10_000, 50, angle=math.pi / 3)
FIGURE_EIGHT = FigureEight("figure-eight", 40_000, 20_000, 200, noise_variance=0.02)
THREE_BLOBS = ThreeBlobs("three-blobs", 40_000, 20_000, 200, noise_variance=0.2)
MIXTURE = GaussianMixture("mixture", 40_000, 20_000, 400)

SYNTHETIC: dict[str, SyntheticDataset] = {
    dataset.name: dataset for dataset in (ISOTROPIC_GAUSSIAN, ROTATED_GAUSSIAN, FIGURE_EIGHT, THREE_BLOBS, MIXTURE)
}
"""The sets by their names on command lines and in files."""
