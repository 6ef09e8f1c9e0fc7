"""Any VAE as callables: a model and a guide that every method accepts."""

import copy
from collections.abc import Callable, Iterator

import pyro
import pyro.poutine as poutine
import torch
from pyro.distributions import Normal, TorchDistribution
from torch import Tensor
from torch.distributions import Distribution, constraints

from pyrovae.errors import InputError
from pyrovae.evaluation._density import Density, density_of
from pyrovae.evaluation._method import ROWS_AT_ONCE
from pyrovae.evaluation._weights import repeated
from pyrovae.programs import Program, takes_missing
from pyrovae.randomness import kept_random_state


class Callables:
    """A VAE that is not a Pyro program, given by three functions; unpacks into a model and a guide.

    Args:
        log_joint: from data x (num, …) and z (num, d) to log p(x, z) in nats, shape (num,).
        sample: from x to one draw of q(z|x) for each datum, (num, d).
        log_q: from x and z to log q(z|x), shape (num,).
        prior: p(z), with batch shape (); N(0, I) by default. It splits the ELBO into its parts and sets the units of
            collapse. Log p(x) does not need it.

    Example:
        >>> import pyrovae as pv
        >>> normal = torch.distributions.Normal
        >>> vae = Callables(
        ...     log_joint=lambda x, z: (normal(0.0, 1.0).log_prob(z) + normal(z, 1.0).log_prob(x)).sum(-1),
        ...     sample=lambda x: 0.5 * x + 0.5**0.5 * torch.randn_like(x),
        ...     log_q=lambda x, z: normal(0.5 * x, 0.5**0.5).log_prob(z).sum(-1),
        ... )
        >>> pv.log_marginal(*vae, torch.tensor([[0.0], [2.0]]), num_samples=30).per_datum
        tensor([-1.2655, -2.2655], dtype=torch.float64)
    """

    def __init__(
        self,
        log_joint: Callable[[Tensor, Tensor], Tensor],
        sample: Callable[[Tensor], Tensor],
        log_q: Callable[[Tensor, Tensor], Tensor],
        *,
        prior: TorchDistribution | None = None,
    ) -> None:
        self.model = CallableModel(log_joint, sample, prior)
        self.guide = CallableGuide(sample, log_q)

    def __iter__(self) -> Iterator[Program]:
        return iter((self.model, self.guide))

    @classmethod
    def of_pair(cls, model: Program, guide: Program) -> "Callables":
        """A model and a guide with one latent: the guide's unconstrained coordinates, one site after the other."""
        made: dict[torch.Size, tuple[Tensor, Density]] = {}  # data and draws × data take turns

        def density(x: Tensor) -> Density:
            if x.shape not in made or not _are_same(made[x.shape][0], x):
                made[x.shape] = x, density_of(model, guide, x, slice(0, len(x)), ROWS_AT_ONCE)
            return made[x.shape][1]

        pair = cls(
            poutine.block(lambda x, z: density(x).log_joint(z.unsqueeze(0))[0]),
            poutine.block(lambda x: density(x).draw(1)[0]),
            poutine.block(lambda x, z: density(x).log_guide(z.unsqueeze(0))[0]),
        )
        pair.model.missing = takes_missing(model)
        return pair


class CallableModel:
    """log p(x, z) as a Pyro model.

    Attributes:
        missing: whether it accepts missing values, NaN.
    """

    missing = False

    def __init__(
        self,
        log_joint: Callable[[Tensor, Tensor], Tensor],
        sample: Callable[[Tensor], Tensor],
        prior: TorchDistribution | None,
    ) -> None:
        self.log_joint, self.sample, self.prior = log_joint, sample, prior

    def prior_distribution(self, x: Tensor) -> TorchDistribution:
        """p(z); if it is N(0, I), a draw gives its dimension."""
        if self.prior is not None:
            return self.prior
        with torch.no_grad(), kept_random_state(x):
            zeros = torch.zeros_like(_checked("sample", self.sample(x), (len(x),), 2)[0])
        return Normal(zeros, torch.ones_like(zeros)).to_event(1)

    def __call__(self, x: Tensor) -> None:
        """The Pyro program for data x (num, …)."""
        prior, plate = self.prior_distribution(x), pyro.plate("data", len(x))
        with plate:
            z = pyro.sample("z", prior)
        log_likelihood = _on_draws("log_joint", self.log_joint, x, z) - prior.log_prob(z)  # may run programs itself
        with plate:
            pyro.factor("x", log_likelihood)


class CallableGuide:
    """q(z|x), by a sampler and its log-density, as a Pyro guide."""

    def __init__(self, sample: Callable[[Tensor], Tensor], log_q: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.sample, self.log_q = sample, log_q

    def posterior(self, x: Tensor) -> TorchDistribution:
        """q(z|x), batch shape (num,)."""
        return _Given(self, x)

    def __call__(self, x: Tensor) -> None:
        """The Pyro program for data x (num, …)."""
        q = self.posterior(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", q)


class _Given(TorchDistribution):
    """A distribution given by functions for its draws and its log-density."""

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's)
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, guide: CallableGuide, x: Tensor) -> None:
        self.guide, self.x = guide, x
        self._first: Tensor | None = _checked("sample", guide.sample(x), (len(x),), 2)
        super().__init__(torch.Size([len(x)]), self._first.shape[1:], validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: Distribution | None = None) -> "_Given":
        new = copy.copy(self)
        new._batch_shape = torch.Size(batch_shape)
        return new

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008 (torch's signature)
        shape = self._extended_shape(torch.Size(sample_shape))
        repeats = shape[:-2].numel()
        draws, self._first = self._first, None
        if draws is None or repeats > 1:
            draws = self.guide.sample(self.x if repeats == 1 else repeated(self.x, repeats))
        return draws.reshape(shape)

    def log_prob(self, value: Tensor) -> Tensor:
        return _on_draws("log_q", self.guide.log_q, self.x, value)


def _on_draws(name: str, function: Callable[[Tensor, Tensor], Tensor], x: Tensor, z: Tensor) -> Tensor:
    """A function of x (num, …) and z (num, d) at z (*draws, num, d); the draws are rows."""
    repeats = z.shape[:-2].numel()
    rows = z.reshape(-1, z.shape[-1])
    values = function(x if repeats == 1 else repeated(x, repeats), rows)
    return _checked(name, values, (len(rows),), 1).reshape(z.shape[:-1])


def _are_same(left: Tensor, right: Tensor) -> bool:
    """Whether values of one shape are equal, where NaN is equal to NaN."""
    return bool(((left == right) | ((left != left) & (right != right))).all())


def _checked(name: str, values: Tensor, first: tuple[int, ...], dim: int) -> Tensor:
    if not isinstance(values, Tensor) or values.dim() != dim or values.shape[0] != first[0]:
        shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise InputError(
            f"{name} must return shape {'(num, d)' if dim == 2 else '(num,)'} with num = {first[0]}, not {shape}"
        )
    return values
