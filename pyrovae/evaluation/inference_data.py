"""Draws of z, log p(x) and the data in the form of ArviZ."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pyrovae.errors import needing_extra
from pyrovae.evaluation.posterior_draws import posterior_draws
from pyrovae.programs import Program, check_data

if TYPE_CHECKING:
    import pandas as pd
    from arviz import InferenceData


@torch.no_grad()
def to_inference_data(
    model: Program,
    guide: Program,
    x: Tensor | np.ndarray | pd.DataFrame,
    *,
    num_samples: int = 1000,
    seed: int = 0,
    progress: bool = False,
) -> InferenceData:
    """Draw z for each datum and return the draws, log p(x) and the data as ArviZ's groups (extra ``arviz``).

    - ``posterior``: draws ``z`` of p(z|x), with dimensions chain, draw, datum and latent. The weighted draws of
      :func:`~pyrovae.evaluation.posterior_draws` are resampled by their weights, so all draws count alike.
    - ``log_likelihood``: log p(x_i) in nats, with z integrated out. The draws are those of a Bayesian bootstrap of the
      importance weights (Rubin 1981), so they differ only by the Monte Carlo error. ``az.loo`` then returns the sum of
      log p(x_i), ``az.compare`` paired differences between models, and a large k̂ marks data with bad weights. The
      model's parameters are fixed and nothing is left out: give data that did not train the model.
    - ``observed_data``: x. A DataFrame's index and columns are the coordinates.
    - ``importance``: ``log_weight`` of each draw before the resampling, log p(x, z) − log q(z|x), and ``pareto_k`` and
      ``reliable`` of each datum.

    A linear model is given as ``linear.to_model()`` and ``linear.to_guide()``.

    Args:
        model: Pyro program of the joint density, with the data along a plate.
        guide: Pyro program of q(z|x), reparameterised.
        x: data (num, …), on the programs' device.
        num_samples: draws for each datum, at least 25.
        seed: seed of the draws; the caller's random state does not change.
        progress: whether to show a progress bar (on a terminal).

    Returns:
        An ``arviz.InferenceData``; an ``xarray.DataTree`` with ArviZ 1.0 or later.

    Raises:
        MissingExtraError: ArviZ is not installed.
        InputError: as :func:`~pyrovae.evaluation.posterior_draws`.

    Example:
        >>> import pyrovae as pv
        >>> truth = pv.exact.LinearGaussianVAE(torch.randn(4, 2), 0.5, torch.zeros(4))
        >>> data = to_inference_data(truth.to_model(), truth.to_guide(), truth.sample(10))  # doctest: +SKIP
        >>> az.loo(data)  # doctest: +SKIP
    """
    with needing_extra("to_inference_data needs ArviZ: pip install 'pyrovae[arviz]'"):
        import arviz as az
        import pandas as pd
        import xarray as xr
    values = check_data(x, model, guide)
    draws = posterior_draws(model, guide, values, num_samples=num_samples, seed=seed, progress=progress)
    g = torch.Generator().manual_seed(seed)
    index = torch.multinomial(draws.weights, num_samples, replacement=True, generator=g)
    z = draws.z.gather(1, index.unsqueeze(-1).expand_as(draws.z))
    shares = torch.empty(num_samples, num_samples, dtype=torch.float64).exponential_(generator=g)
    mean_weights = (shares / shares.sum(1, keepdim=True)) @ draws.weights.T
    log_likelihood = mean_weights.log() + draws.log_weights.logsumexp(1)
    channels = ["channel"] if values.dim() == 2 else [f"channel_{k}" for k in range(1, values.dim())]
    coordinates = {}
    if isinstance(x, pd.DataFrame):
        coordinates = {"datum": x.index.to_numpy(), "channel": x.columns.to_numpy()}
    by_draw = ("chain", "draw", "datum")
    groups: dict[str, dict[str, tuple[tuple[str, ...], Tensor]]] = {
        "posterior": {"z": ((*by_draw, "latent"), z.transpose(0, 1).unsqueeze(0))},
        "log_likelihood": {"x": (by_draw, log_likelihood.unsqueeze(0))},
        "observed_data": {"x": (("datum", *channels), values.cpu())},
        "importance": {
            "log_weight": (by_draw, draws.log_weights.T.unsqueeze(0)),
            "pareto_k": (("datum",), draws.pareto_k),
            "reliable": (("datum",), draws.reliable),
        },
    }
    datasets = {}
    for name, variables in groups.items():
        of_group = {dimension for dimensions, _ in variables.values() for dimension in dimensions}
        datasets[name] = xr.Dataset(
            {variable: (dimensions, tensor.numpy()) for variable, (dimensions, tensor) in variables.items()},
            coords={dimension: found for dimension, found in coordinates.items() if dimension in of_group},
            attrs={"inference_library": "pyrovae", "inference_library_version": version("pyrovae")},
        )
    return az.InferenceData(**datasets) if az.__version__ < "1" else xr.DataTree.from_dict(datasets)
