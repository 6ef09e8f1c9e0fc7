"""How much of the latent space a guide uses, for posteriors whose dimensions may correlate."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyrovae.distributions import AR1Normal, covariance_of, mean_of
from pyrovae.errors import InputError, InputTypeError, check_integer
from pyrovae.evaluation.callables import CallableGuide, CallableModel
from pyrovae.evaluation.estimate import Estimate, mean_and_stderr
from pyrovae.evaluation.per_datum import NUM_DRAWS
from pyrovae.frames import Data, tensor_of
from pyrovae.programs import check_data, evaluating, mode, running_on
from pyrovae.progress import progress_bar
from pyrovae.vae import AmortizedGuide, GenerativeModel

if TYPE_CHECKING:
    import pandas as pd

_PAIRS_AT_ONCE = 2**21
"""Numbers z − μ(x) in one pass over pairs of draws and data."""

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, repr=False)
class CollapseReport:
    """How a guide's posteriors use the latent space, in nats per datum and in the prior's units.

    Burda et al. (2016) count the coordinates whose posterior mean varies with x; others list the KL of each coordinate.
    Both change when the latent space is rotated. Here the coordinates are the eigenvectors of the posterior means'
    covariance, which rotate with the space. (The eigenvectors of the aggregate posterior's covariance would not work:
    after a successful training that covariance is the prior's, and any basis is an eigenbasis.)

    Attributes:
        directions: unit vectors in columns, shape (d, d), the most used first.
        signal: variance of the posterior mean along each, shape (d,).
        noise: mean posterior variance along each, shape (d,); with ``signal`` the aggregate posterior's.
        spectrum: KL of q(z|x)'s marginal along each direction from the prior's, mean over data, shape (d,), computed
            from the first two moments.
        correlation: contribution of q's correlations between these directions, ½(Σ log Σ_kk − log det Σ), mean over
            data; NaN for a flow, whose moments are estimated from draws.
        kl: KL(q(z|x) ‖ p(z)) = ``mutual_information`` + ``aggregate_kl``.
        mutual_information: that of x and z under q, with q(z) the mixture over these data: at most log num.
        aggregate_kl: KL(q(z) ‖ p(z)) of that mixture.
        active: number of directions with ``signal`` above the threshold.
        ar1_quantiles: for AR(1) posteriors the values of ρ and of σ below which 5, 25, 50, 75 and 95 % of the data
            lie (each step or dimension counts as one where they differ), by ``"correlation"`` and ``"scale"``; else
            None.
    """

    directions: Tensor
    signal: Tensor
    noise: Tensor
    spectrum: Tensor
    correlation: float
    kl: Estimate
    mutual_information: Estimate
    aggregate_kl: Estimate
    active: int
    ar1_quantiles: dict[str, list[float]] | None

    @property
    def ar1(self) -> pd.DataFrame | None:
        """``ar1_quantiles`` as a table, a row each for ρ and σ."""
        import pandas as pd

        if self.ar1_quantiles is None:
            return None
        columns = [f"{level:.0%}" for level in _QUANTILES]
        return pd.DataFrame.from_dict(self.ar1_quantiles, orient="index", columns=columns)

    def to_frame(self) -> pd.DataFrame:
        """One row a direction."""
        import pandas as pd

        columns = {"signal": self.signal, "noise": self.noise, "aggregate": self.signal + self.noise}
        return pd.DataFrame({name: values.numpy() for name, values in columns.items()} | {"kl": self.spectrum.numpy()})

    def __repr__(self) -> str:
        return (
            f"CollapseReport({self.active} of {len(self.signal)} latent directions active, KL {self.kl.mean:.4g} nats, "
            f"mutual information {self.mutual_information.mean:.4g}, aggregate KL {self.aggregate_kl.mean:.4g})"
        )

    def __str__(self) -> str:
        num = len(self.kl.per_datum)
        saturated = self.mutual_information.mean > math.log(num) - 1
        lines = [
            f"{self.active} of {len(self.signal)} latent directions active",
            f"KL {self.kl.mean:.4g} ± {self.kl.stderr:.2g} = mutual information {self.mutual_information.mean:.4g} + "
            f"KL of the aggregate posterior {self.aggregate_kl.mean:.4g} ± {self.aggregate_kl.stderr:.2g} nats, "
            f"{num} data"
            + (f" (near the maximum for so many data, {math.log(num):.3g}: use more)" if saturated else ""),
            f"correlations between the directions {self.correlation:.4g} nats; by direction:",
            self.to_frame().to_string(float_format="{:.4f}".format),
        ]
        if self.ar1 is not None:
            lines += ["AR(1), quantiles over the data:", self.ar1.to_string(float_format="{:.4f}".format)]
        return "\n".join(lines)


@torch.no_grad()
def collapse_report(
    model: GenerativeModel | CallableModel,
    guide: AmortizedGuide | CallableGuide,
    x: Tensor,
    *,
    threshold: float = 0.01,
    num_samples: int = 1,
    max_data: int = 2000,
    seed: int = 0,
    progress: bool = False,
) -> CollapseReport:
    """Report active directions, mutual information and the aggregate posterior of a guide.

    Moments without a formula, such as a flow's, are estimated from 256 draws.

    Args:
        model: the generative model, for its prior; or the model of :class:`~pyrovae.evaluation.Callables`.
        guide: its guide.
        x: data (num, n), at least two.
        threshold: variance of the posterior mean, in units of the prior's, above which a direction is active.
        num_samples: draws of z per datum.
        max_data: largest number of data to use, evenly spread; the cost grows with its square.
        seed: seed of the draws; the caller's random state does not change.
        progress: whether to show a progress bar (on a terminal).

    Raises:
        InputError: fewer than two data, or data that the guide cannot take.
    """
    x = check_data(x, model, guide)
    check_integer("num_samples", num_samples)
    check_integer("max_data", max_data, least=2)
    if len(x) < 2:
        raise InputError("the spread of posterior means needs at least two data")
    x = x[torch.linspace(0, len(x) - 1, min(len(x), max_data)).long()]
    if isinstance(model, GenerativeModel) and isinstance(guide, AmortizedGuide):
        x = x.double()
        model, guide = copy.deepcopy(model).double(), copy.deepcopy(guide).double()
    elif not isinstance(model, CallableModel) or not isinstance(guide, CallableGuide):
        raise InputTypeError(
            "collapse_report needs a GenerativeModel and an AmortizedGuide; for other VAEs give *Callables(…, prior=…)"
        )
    with evaluating(model, guide, x, seed):
        with running_on(x):
            q = guide.posterior(x)
        prior = model.prior_distribution(x) if isinstance(model, CallableModel) else model.prior_distribution()
        moments = mean_of(q, num_draws=NUM_DRAWS), covariance_of(q, num_draws=NUM_DRAWS)
        mean, covariance = _in_units_of(prior, *moments)
        parts = []
        draws_at_once = max(1, _PAIRS_AT_ONCE // (len(x) * mean.shape[-1]))
        with progress_bar(total=len(x) * num_samples, unit="draw", show=progress) as bar:
            for _ in range(num_samples):
                z = q.sample()
                log_mean_densities = []  # of the mean over the data of q(z|x), at each draw
                for some in z.split(draws_at_once):
                    densities = q.log_prob(some.unsqueeze(1).expand(-1, len(x), -1))
                    log_mean_densities.append(densities.logsumexp(1) - math.log(len(x)))
                    bar.update(len(some))
                mixture = torch.cat(log_mean_densities)
                parts.append(torch.stack([q.log_prob(z) - mixture, mixture - prior.log_prob(z)]).double().cpu())
    information, aggregate = torch.stack(parts, 1)
    signal, directions = torch.linalg.eigh(torch.cov(mean.T).reshape(mean.shape[-1], -1))
    signal, directions = signal.flip(0), directions.flip(1)
    turned = directions.T @ covariance @ directions
    variances = turned.diagonal(dim1=-2, dim2=-1)
    along = mean @ directions
    spectrum = 0.5 * (along.square() + variances - 1 - variances.log()).mean(0)
    return CollapseReport(
        directions=directions,
        signal=signal,
        noise=variances.mean(0),
        spectrum=spectrum,
        correlation=(0.5 * variances.log().sum(-1) - _half_log_det(q) + _half_log_det(prior)).mean().item(),
        kl=Estimate(*mean_and_stderr(information + aggregate)),
        mutual_information=Estimate(*mean_and_stderr(information)),
        aggregate_kl=Estimate(*mean_and_stderr(aggregate)),
        active=int((signal > threshold).sum()),
        ar1_quantiles=_ar1_quantiles(q) if isinstance(q, AR1Normal) else None,
    )


def _half_log_det(distribution: torch.distributions.Distribution) -> Tensor:
    """½ log det Σ of a Gaussian from its entropy, without its dense covariance; NaN for others."""
    try:
        d = distribution.event_shape[0]
        return distribution.entropy().double().cpu() - 0.5 * d * (1 + math.log(2 * math.pi))
    except NotImplementedError:
        return torch.tensor(math.nan)


def _in_units_of(prior: torch.distributions.Distribution, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Means and covariances in coordinates in which the prior's are 0 and I, in float64 on the CPU."""
    factor = torch.linalg.cholesky(covariance_of(prior, num_draws=NUM_DRAWS).double().cpu())
    mean = (mean - mean_of(prior, num_draws=NUM_DRAWS)).double().cpu()
    mean = torch.linalg.solve_triangular(factor, mean.T, upper=False).T
    inverse = torch.linalg.inv(factor)
    return mean, inverse @ covariance.double().cpu() @ inverse.T


def _ar1_quantiles(q: AR1Normal) -> dict[str, list[float]]:
    """Quantiles of ρ and σ over data (and over steps and dimensions, where they differ)."""
    levels = torch.tensor(_QUANTILES, dtype=torch.float64)
    parameters = {"correlation": q.correlation, "scale": q.scale}
    return {
        name: torch.quantile(values.double().cpu().flatten(), levels).tolist() for name, values in parameters.items()
    }


@torch.no_grad()
def active_directions(guide: AmortizedGuide, x: Data, threshold: float = 0.01) -> int:
    """Number of latent directions along which the posterior mean moves with x.

    Counts the eigenvalues of Cov_x(E_q[z|x]) above the threshold. (Burda et al. 2016 count coordinates, which depends
    on the rotation of the latent space.) The mean of a flow is estimated from 256 draws. :func:`collapse_report` gives
    more detail.

    Args:
        guide: the guide.
        x: data (num, n), at least two.
        threshold: variance of the posterior mean above which a direction counts.

    Raises:
        InputError: fewer than two data.
    """
    x = tensor_of("x", x)
    x = x.to(dtype=next(guide.parameters(), x).dtype)
    if len(x) < 2:
        raise InputError("the spread of posterior means needs at least two data")
    with torch.random.fork_rng(devices=[]), mode(guide, training=False):
        means = torch.cat([mean_of(guide.posterior(chunk), num_draws=NUM_DRAWS) for chunk in x.split(4096)])
    return int((torch.linalg.eigvalsh(torch.cov(means.T.double()).reshape(means.shape[-1], -1)) > threshold).sum())
