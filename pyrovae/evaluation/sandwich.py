"""Log p(x) between two bounds, on data simulated from the model (Grosse, Ghahramani and Adams 2015)."""

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from pyrovae.errors import InputTypeError, check_integer
from pyrovae.evaluation.annealing import Annealing, AnnealingKeywords
from pyrovae.evaluation.estimate import LogMarginal
from pyrovae.evaluation.marginal import log_marginal
from pyrovae.keywords import accepts
from pyrovae.programs import mode
from pyrovae.vae import AmortizedGuide, GenerativeModel


@dataclass(frozen=True, repr=False)
class Sandwich:
    """Bounds of log p(x), in nats per datum.

    Attributes:
        lower: annealed from the guide or the prior to the posterior.
        upper: annealed back from an exact draw of the posterior.
        x: the simulated data, shape (num, n).
    """

    lower: LogMarginal
    upper: LogMarginal
    x: Tensor

    @property
    def width(self) -> float:
        """Distance of the bounds: neither is further from the truth than this, but for Monte Carlo error."""
        return self.upper.mean - self.lower.mean

    @property
    def upper_stderr(self) -> float:
        """Standard error of the upper bound's mean, from the spread over data of its distance to the lower one.

        Each datum has one exact draw of its posterior, so only the spread over data shows how much depends on the draw.
        """
        return (self.upper - self.lower).stderr

    @property
    def interval(self) -> tuple[float, float]:
        """From two standard errors due to the draws below the lower bound to as many above the upper one."""
        return self.lower.mean - 2 * self.lower.stderr_monte_carlo, self.upper.mean + 2 * self.upper_stderr

    def __repr__(self) -> str:
        low, high = self.interval
        return f"Sandwich(log p(x) in [{low:.6g}, {high:.6g}] nats per datum, {len(self.x)} data)"

    def __str__(self) -> str:
        return f"{self.lower}\n{self.upper}\nwidth {self.width:.4f} ± {self.upper_stderr:.2g} nats"


@accepts(Annealing)
def sandwich(
    model: GenerativeModel,
    guide: AmortizedGuide,
    num: int = 100,
    *,
    seed: int = 0,
    progress: bool = False,
    **annealing: Unpack[AnnealingKeywords],
) -> Sandwich:
    """Simulate data from the model and bound their log p(x) from both sides by annealed importance sampling.

    The bounds hold for data of the model. Their distance shows how well annealing works with these settings, and so how
    near its lower bound is for real data.

    Args:
        model: the generative model.
        guide: its guide, where annealing starts unless ``center="prior"``.
        num: number of data to simulate.
        seed: of everything random; the caller's random state is left as it was.
        progress: whether to show a progress bar (on a terminal).
        **annealing: the fields of :class:`~pyrovae.evaluation.Annealing`: ``num_samples``, ``center``,
            ``num_temperatures``, ``num_leapfrog``.
    """
    check_integer("num, of data to simulate from the model,", num)
    if not isinstance(model, GenerativeModel):
        raise InputTypeError("sandwich needs a GenerativeModel and an AmortizedGuide")
    with torch.random.fork_rng(), mode(model, training=False):
        torch.manual_seed(seed)
        z, x = model.simulate(num)
    lower = log_marginal(model, guide, x, "annealed", seed=seed + 1, progress=progress, **annealing)
    upper = log_marginal(model, guide, x, "annealed", latents=z, seed=seed + 2, progress=progress, **annealing)
    return Sandwich(lower, upper, x)
