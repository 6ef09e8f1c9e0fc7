"""Base class of the likelihoods of counts: the mean is given by its logarithm and starts at the data's."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyrovae.errors import InputError, check_positive
from pyrovae.likelihoods.base import Likelihood


class CountLikelihood(Likelihood):
    """Base of the likelihoods of counts 0, 1, 2, …: p(x|z) is a probability, and so is p(x).

    Counts are modelled as they are: standardised counts are not counts. An encoder reads them best through
    :class:`~pyrovae.nn.LogCounts`.

    Args:
        in_features: width of the decoder's features.
        n: number of channels.
        initial_mean: initial value of the means, a number or one per channel; the data's means are a good choice.
    """

    support = (
        "counts 0, 1, 2, …",
        "give counts without preprocessing (preprocessing='none'), or use a GaussianLikelihood for other numbers",
    )
    is_count = True

    def __init__(self, in_features: int, n: int, initial_mean: float | Sequence[float] = 1.0) -> None:
        super().__init__(in_features, n)
        means = [initial_mean] if isinstance(initial_mean, int | float) else list(initial_mean)
        if len(means) not in (1, n):
            raise InputError(f"initial_mean must be a number or {n} numbers, one per channel, not {len(means)}")
        for mean in means:
            check_positive("initial_mean", mean)
        self.initial_mean = float(means[0]) if isinstance(initial_mean, int | float) else [float(m) for m in means]
        self.log_mean_head = nn.Linear(in_features, n)
        self.register_buffer("_log_start", torch.tensor(means, dtype=torch.float64).log().float(), persistent=False)

    def log_mean(self, features: Tensor) -> Tensor:
        """Log E[x|z], shape (*batch, n), for features (*batch, in_features)."""
        means: Tensor = self.log_mean_head(features) + self.get_buffer("_log_start")
        return means

    def in_support(self, x: Tensor) -> Tensor:
        """Which values of x (num, n) are counts."""
        return (x >= 0) & (x % 1 == 0)
