"""Choose the latent dimension by linear-Gaussian models on held-out data."""

from collections.abc import Iterable

from torch import Tensor

from pyrovae.blocks import has_gaps
from pyrovae.errors import InputError
from pyrovae.likelihoods import GaussianLikelihood, GaussianNoiseLikelihood
from pyrovae.linear_gaussian._moments import few_rows
from pyrovae.linear_gaussian.exact import LinearGaussianVAE
from pyrovae.linear_gaussian.factor_model import FactorModel, simpler_form
from pyrovae.progress import progress_bar

GRID = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Latent dimensions that are tried."""
_FEW = 500
"""Numbers of a noise up to which its models are fitted for every dimension that is tried."""


def latent_dim_by_validation(
    train: Tensor,
    validation: Tensor,
    noises: Iterable[GaussianNoiseLikelihood] = (),
    *,
    threshold: float = 0.1,
    progress: bool = True,
) -> int:
    """The smallest d of the best linear model whose log p(x) on validation data is within ``threshold`` of the best d.

    For each noise, the dimensions of :data:`GRID` are tried in order, until two in a row are no better than the best
    before. The result is for the noise with the largest log p(x) of validation data: with the wrong noise, additional
    latent dimensions would replace the missing correlations.

    Args:
        train: data, shape (num, n).
        validation: shape (any, n).
        noises: Gaussian likelihoods. Noise with more than 500 parameters is left out, and noise that is fitted by way
            of a simpler form is replaced by it. Without any, probabilistic PCA.
        threshold: nats per datum.
        progress: show a bar on a terminal.

    Raises:
        InputError: the data have no room for a latent dimension and noise.

    Example:
        >>> import torch
        >>> x = torch.randn(400, 3) @ torch.randn(3, 10) + 0.1 * torch.randn(400, 10)
        >>> latent_dim_by_validation(x[:200], x[200:])
        3
    """
    train, validation = few_rows(train), few_rows(validation)
    forms = {repr(form.config()): form for form in (simpler_form(noise, train, 1)[0] for noise in noises)}
    few = [form for form in forms.values() if form.num_noise_parameters <= _FEW]
    best: dict[int, float] = {}
    for noise in few or [GaussianLikelihood(1, train.shape[1])]:
        found: dict[int, float] = {}
        for d in progress_bar(GRID, "latent dimensions", leave=False, show=progress):
            model = _fitted(train, noise, d)
            if model is None:
                break
            found[d] = model.log_prob(validation).mean().item()
            if max(list(found.values())[-2:]) < max(found.values()) - threshold:
                break
        if found and max(found.values()) > max(best.values(), default=-float("inf")):
            best = found
    if not best:
        raise InputError("these data have no room for a latent dimension and noise; give latent_dim")
    return min(d for d, value in best.items() if value >= max(best.values()) - threshold)


def _fitted(train: Tensor, noise: GaussianNoiseLikelihood, d: int) -> FactorModel | None:
    """The linear model; None if the data span no more than d dimensions."""
    try:
        if isinstance(noise, GaussianLikelihood) and noise.scale == "shared" and not has_gaps(train):
            return FactorModel.of(LinearGaussianVAE.fit(train, d))
        return FactorModel.fit(train, noise, d)
    except InputError:
        return None
