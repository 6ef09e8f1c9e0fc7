"""Log p(x) by importance sampling from the guide."""

import warnings
from dataclasses import dataclass
from typing import ClassVar

from pyrovae.errors import check_integer
from pyrovae.evaluation._method import Method, Problem
from pyrovae.evaluation._pareto import reliable_below
from pyrovae.evaluation.estimate import LogMarginal, UnreliableEstimateWarning
from pyrovae.evaluation.weights import log_mean_weight, over_log_weights


@dataclass(frozen=True)
class Importance(Method):
    """The log-mean-exp of weights p(x, z)/q(z|x) at draws from the guide (Burda et al. 2016).

    It is a lower bound in expectation, and its error falls with ``num_samples``. It warns where Pareto k̂ says that the
    guide is too narrow for that to be true in practice.
    """

    name: ClassVar[str] = "importance"
    num_samples: int = 1000
    """Draws of z per datum."""

    def __post_init__(self) -> None:
        check_integer("num_samples", self.num_samples)

    def estimate(self, problem: Problem) -> LogMarginal:
        """Estimate log p(x) of each datum."""
        per_datum, stderr, effective, gain, k = over_log_weights(log_mean_weight, problem, self.num_samples)
        found = LogMarginal(per_datum, stderr, self.num_samples, effective, gain, k)
        if found.mostly_unreliable:
            share = found.unreliable.double().mean().item()
            warnings.warn(
                f"the importance weights of {share:.0%} of the data have a Pareto k̂ above "
                f"{reliable_below(self.num_samples):.2f}: log p(x) may be far above this estimate; use more "
                "num_samples, a wider guide, or method='annealed'",
                UnreliableEstimateWarning,
                stacklevel=4,  # the caller of log_marginal, through its decorator
            )
        return found
