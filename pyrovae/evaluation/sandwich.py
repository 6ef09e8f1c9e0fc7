"""Log p(x) between two bounds, on data simulated from the model (Grosse, Ghahramani and Adams 2015)."""

from dataclasses import dataclass
from typing import Unpack

import pyro.poutine as poutine
import torch
from pyro.distributions import Unit
from pyro.poutine import Trace
from pyro.poutine.uncondition_messenger import UnconditionMessenger
from torch import Tensor

from pyrovae.errors import InputError, check_integer
from pyrovae.evaluation._density import latents_of
from pyrovae.evaluation.annealing import Annealing, AnnealingKeywords
from pyrovae.evaluation.estimate import LogMarginal
from pyrovae.evaluation.marginal import log_marginal
from pyrovae.keywords import accepts
from pyrovae.programs import (
    Program,
    Site,
    check_data,
    is_deterministic,
    latent_sites,
    mode,
    running_on,
    trace_pair,
    undisturbed,
)
from pyrovae.vae import GenerativeModel


@dataclass(frozen=True, repr=False)
class Sandwich:
    """Bounds of log p(x), in nats per datum.

    Attributes:
        lower: annealed from the guide or the prior to the posterior.
        upper: annealed from an exact draw of the posterior back.
        x: the simulated data, shape (num, n).
    """

    lower: LogMarginal
    upper: LogMarginal
    x: Tensor

    @property
    def width(self) -> float:
        """Distance of the bounds. Apart from Monte Carlo error, neither is further from the truth."""
        return self.upper.mean - self.lower.mean

    @property
    def upper_stderr(self) -> float:
        """Standard error of the upper bound's mean, from the spread over data of its distance to the lower one.

        Each datum has one exact draw of its posterior, so only the spread over data shows the effect of the draw.
        """
        return (self.upper - self.lower).stderr

    @property
    def interval(self) -> tuple[float, float]:
        """Interval from two Monte Carlo standard errors below the lower bound to two above the upper bound."""
        return self.lower.mean - 2 * self.lower.stderr_monte_carlo, self.upper.mean + 2 * self.upper_stderr

    def __repr__(self) -> str:
        low, high = self.interval
        return f"Sandwich(log p(x) in [{low:.6g}, {high:.6g}] nats per datum, {len(self.x)} data)"

    def __str__(self) -> str:
        return f"{self.lower}\n{self.upper}\nwidth {self.width:.4f} ± {self.upper_stderr:.2g} nats"


@accepts(Annealing)
def sandwich(
    model: Program,
    guide: Program,
    num: int = 100,
    *,
    like: Tensor | None = None,
    seed: int = 0,
    progress: bool = False,
    **annealing: Unpack[AnnealingKeywords],
) -> Sandwich:
    """Simulate data from the model and bound their log p(x) from both sides by annealed importance sampling.

    The bounds are for data from the model. Their distance shows how well annealing works with these settings, and so
    how tight its lower bound is for real data.

    Args:
        model: Pyro program of the joint density.
        guide: its guide, where annealing starts unless ``center="prior"``.
        num: number of data to simulate.
        like: some data (any number, …), needed for a model written by hand: it is called with them, and its
            observations are drawn.
        seed: seed of everything random; the caller's random state does not change.
        progress: whether to show a progress bar (on a terminal).
        **annealing: the fields of :class:`~pyrovae.evaluation.Annealing`: ``num_samples``, ``center``,
            ``num_temperatures``, ``num_leapfrog``.

    Raises:
        InputError: a model written by hand needs ``like``, or no data can be drawn from it.
    """
    check_integer("num, of data to simulate from the model,", num)
    if isinstance(model, GenerativeModel):
        with torch.random.fork_rng(), mode(model, training=False):
            torch.manual_seed(seed)
            z, x = model.simulate(num)
    elif like is None:
        raise InputError("like= is needed for a model written by hand: some data, in whose place new ones are drawn")
    else:
        rows = check_data(like, model, guide)
        with torch.no_grad(), undisturbed(rows, model, guide):
            z, x = _simulate(model, guide, rows[torch.arange(num) % len(rows)], seed)
    lower = log_marginal(model, guide, x, "annealed", seed=seed + 1, progress=progress, **annealing)
    upper = log_marginal(model, guide, x, "annealed", latents=z, seed=seed + 2, progress=progress, **annealing)
    return Sandwich(lower, upper, x)


def _simulate(model: Program, guide: Program, like: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Draw z and x of a model written by hand: latents in its guide's coordinates (num, d), and data as ``like``."""

    def draw(x: Tensor) -> Trace:
        torch.manual_seed(seed)
        with running_on(x, "the model"):
            return poutine.trace(_Unobserved()(model)).get_trace(x)

    with running_on(like):
        trace_pair(model, guide, like, check=True)
    trace = draw(like)
    seen = [site for site in latent_sites(trace).values() if site["infer"].get("was_observed")]
    if len(seen) != 1 or isinstance(seen[0]["fn"], Unit):
        names = ", ".join(repr(site["name"]) for site in seen) or "nothing"
        raise InputError(
            f"the model observes {names}, so no data can be drawn from it; let it observe its data at one site, "
            "without pyro.factor, or bound log p(x) with log_marginal alone"
        )
    (site,) = seen
    again = draw(like.flip(0)).nodes[site["name"]]["value"]
    if site["infer"]["obs"].numel() != like.numel() or not torch.equal(again, site["value"]):
        raise InputError(
            f"the model uses its data otherwise than to observe them at site {site['name']!r}, so new data cannot be "
            "drawn in their place; bound log p(x) with log_marginal alone"
        )
    x = site["value"].reshape(like.shape)
    return latents_of(model, guide, x, trace), x


class _Unobserved(UnconditionMessenger):
    """Draw what a model observes, but not what ``pyro.deterministic`` makes, which Pyro would draw from a Delta."""

    def _pyro_sample(self, msg: Site) -> None:
        if not is_deterministic(msg):
            super()._pyro_sample(msg)
