"""What of the latent space a guide uses, for posteriors whose dimensions may correlate."""

import copy
import math
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from pyrovae.distributions import AR1Normal, covariance_of, mean_of
from pyrovae.errors import InputError, InputTypeError
from pyrovae.evaluation.estimate import Estimate
from pyrovae.programs import cannot_run, check_data, evaluating, mode
from pyrovae.vae import AmortizedGuide, GenerativeModel

_PAIRS_AT_ONCE = 2**21
"""Numbers z − μ(x) held in one pass over pairs of draws and data."""

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, repr=False)
class CollapseReport:
    """How a guide's posteriors use the latent space, in nats per datum and in the prior's units.

    Burda et al. (2016) count the coordinates whose posterior mean moves with x, and others list the KL of each
    coordinate; both change when the latent space is turned. Here the coordinates are the eigenvectors of the posterior
    means' covariance, which turn with it. (Those of the aggregate posterior's whole covariance would not do: where
    training succeeds it is the prior's, and any basis is an eigenbasis.)

    Attributes:
        directions: unit vectors, one a column, shape (d, d), the most used first.
        signal: variance of the posterior mean along each, shape (d,).
        noise: mean posterior variance along each, shape (d,); with ``signal`` the aggregate posterior's.
        spectrum: KL of q(z|x)'s marginal along each from the prior's, mean over data, shape (d,), of its first two
            moments.
        correlation: what q's correlations between these directions add, ½(Σ log Σ_kk − log det Σ), mean over data;
            NaN for a flow, whose moments are of draws.
        kl: KL(q(z|x) ‖ p(z)) = ``mutual_information`` + ``aggregate_kl``.
        mutual_information: of x and z under q, with q(z) the mixture over these data: at most log num.
        aggregate_kl: KL(q(z) ‖ p(z)) of that mixture.
        active: number of directions of ``signal`` above the threshold.
        ar1: for AR(1) posteriors quantiles over the data of ρ and of σ, a row each; else None.
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
    ar1: pd.DataFrame | None

    def to_frame(self) -> pd.DataFrame:
        """One row a direction."""
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
            + (f" (near the most that so many can show, {math.log(num):.3g}: take more)" if saturated else ""),
            f"correlations between the directions {self.correlation:.4g} nats; by direction:",
            self.to_frame().to_string(float_format="{:.4f}".format),
        ]
        if self.ar1 is not None:
            lines += ["AR(1), quantiles over the data:", self.ar1.to_string(float_format="{:.4f}".format)]
        return "\n".join(lines)


@torch.no_grad()
def collapse_report(
    model: GenerativeModel,
    guide: AmortizedGuide,
    x: Tensor,
    *,
    threshold: float = 0.01,
    num_samples: int = 1,
    max_data: int = 2000,
    seed: int = 0,
    progress: bool = False,
) -> CollapseReport:
    """Report active directions, mutual information and the aggregate posterior of a guide.

    Args:
        model: the generative model, for its prior.
        guide: the guide.
        x: data (num, n), at least two.
        threshold: variance of the posterior mean, in the prior's, from which a direction is active.
        num_samples: draws of z per datum.
        max_data: only so many of the data are looked at, evenly spread: the cost is the number's square.
        seed: of the draws; the caller's random state is left as it was.
        progress: whether to show a progress bar (on a terminal).

    Raises:
        InputError: fewer than two data, or data that the guide cannot take.
    """
    check_data(x, model, guide)
    if not isinstance(num_samples, int) or num_samples < 1:
        raise InputError(f"num_samples must be a positive integer, not {num_samples!r}")
    if min(len(x), max_data) < 2:
        raise InputError("the spread of posterior means needs at least two data")
    if not isinstance(model, GenerativeModel) or not isinstance(guide, AmortizedGuide):
        raise InputTypeError("collapse_report needs a GenerativeModel and an AmortizedGuide")
    x = x[torch.linspace(0, len(x) - 1, min(len(x), max_data)).long()].double()
    model, guide = copy.deepcopy(model).double(), copy.deepcopy(guide).double()
    with evaluating(model, guide, x, seed):
        try:
            q = guide.posterior(x)
        except (RuntimeError, ValueError) as error:
            raise cannot_run(x, error) from error
        prior = model.prior_distribution()
        mean, covariance = _in_units_of(prior, mean_of(q, num_draws=256), covariance_of(q, num_draws=256))
        parts = []
        draws_at_once = max(1, _PAIRS_AT_ONCE // (len(x) * mean.shape[-1]))
        with tqdm(total=len(x) * num_samples, unit="draw", disable=None if progress else True) as bar:
            for _ in range(num_samples):
                z = q.sample()
                mixture = torch.cat([_log_mean_density(q, some, bar) for some in z.split(draws_at_once)])
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
        kl=_estimate(information + aggregate),
        mutual_information=_estimate(information),
        aggregate_kl=_estimate(aggregate),
        active=int((signal > threshold).sum()),
        ar1=_ar1_quantiles(q) if isinstance(q, AR1Normal) else None,
    )


def _log_mean_density(q: torch.distributions.Distribution, z: Tensor, bar: tqdm) -> Tensor:
    """Log of the mean over the data of q(z|x), at each draw z (some, d)."""
    num = q.batch_shape[0]
    values = q.log_prob(z.unsqueeze(1).expand(-1, num, -1)).logsumexp(1) - math.log(num)
    bar.update(len(z))
    return values


def _half_log_det(distribution: torch.distributions.Distribution) -> Tensor:
    """½ log det Σ of a Gaussian from its entropy, without its dense covariance; NaN for others."""
    try:
        d = distribution.event_shape[0]
        return distribution.entropy().double().cpu() - 0.5 * d * (1 + math.log(2 * math.pi))
    except NotImplementedError:
        return torch.tensor(math.nan)


def _in_units_of(prior: torch.distributions.Distribution, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Means and covariances in coordinates in which the prior's are 0 and I, in float64 on the CPU."""
    factor = torch.linalg.cholesky(covariance_of(prior, num_draws=256).double().cpu())
    mean = (mean - mean_of(prior, num_draws=256)).double().cpu()
    mean = torch.linalg.solve_triangular(factor, mean.T, upper=False).T
    inverse = torch.linalg.inv(factor)
    return mean, inverse @ covariance.double().cpu() @ inverse.T


def _estimate(values: Tensor) -> Estimate:
    """Means over draws (draws, num) with their standard errors."""
    draws = len(values)
    spread = values.std(0) if draws > 1 else torch.full(values.shape[1:], math.nan, dtype=torch.float64)
    return Estimate(values.mean(0), spread / math.sqrt(draws))


def _ar1_quantiles(q: AR1Normal) -> pd.DataFrame:
    """Quantiles over data (and over steps and dimensions, where each has its own) of ρ and σ."""
    levels = torch.tensor(_QUANTILES, dtype=torch.float64)
    rows = {"correlation": q.correlation, "scale": q.scale}
    found = {name: torch.quantile(values.double().cpu().flatten(), levels).tolist() for name, values in rows.items()}
    return pd.DataFrame.from_dict(found, orient="index", columns=[f"{level:.0%}" for level in _QUANTILES])


@torch.no_grad()
def active_directions(guide: AmortizedGuide, x: Tensor, threshold: float = 0.01) -> int:
    """Number of latent directions along which the posterior mean moves with x.

    Counts the eigenvalues of Cov_x(E_q[z|x]) above the threshold (Burda et al. 2016 count coordinates,
    which means nothing for a posterior that may be rotated). :func:`collapse_report` says more.
    """
    if len(x) < 2:
        raise InputError("the spread of posterior means needs at least two data")
    with torch.random.fork_rng(devices=[]), mode(guide, guide, training=False):
        means = torch.cat([mean_of(guide.posterior(chunk), num_draws=256) for chunk in x.split(4096)])
    return int((torch.linalg.eigvalsh(torch.cov(means.T.double()).reshape(means.shape[-1], -1)) > threshold).sum())
