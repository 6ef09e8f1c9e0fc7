"""The given model of a comparison of guides."""

import copy

import pyro.poutine as poutine
import torch
from pyro.poutine import Trace
from torch import Tensor

from pyrovae.comparison._data import PreparedData
from pyrovae.comparison.settings import STANDARD, ComparisonSettings
from pyrovae.errors import InputError, InputTypeError
from pyrovae.programs import Program, latent_sites, log_prob_of, running_on, takes_missing, trace_at, undisturbed
from pyrovae.vae import GenerativeModel


def frozen(model: Program, data: PreparedData, settings: ComparisonSettings) -> Program:
    """A copy of a given model, in the data's dtype, that is not trained."""
    if not callable(model):
        raise InputTypeError(f"model must be a GenerativeModel or a Pyro model, not {type(model).__name__}")
    own = (settings.likelihoods, list(settings.named_priors), settings.start)
    if own != (None, [STANDARD], "random") or settings.preprocessing_step is not None:
        raise InputError("a given model has its own likelihood, prior, start and preprocessing: leave them out")
    if settings.missing != "error" and not takes_missing(model):
        raise InputError(f"missing={settings.missing!r} needs a model that masks NaN: model.missing = True")
    if not isinstance(model, GenerativeModel):
        _check_program(model, data, settings)
        return model
    if settings.latent_dims != (model.latent_dim,):
        raise InputError(
            f"the model has {model.latent_dim} latent dimensions, and latent_dims are {settings.latent_dims}"
        )
    n = data.train.shape[1]
    if model.likelihood.n != n:
        raise InputError(f"the model is of data with {model.likelihood.n} columns, and the data have {n}")
    model = copy.deepcopy(model).to(data.train.dtype).eval().requires_grad_(False)
    for name, x in (("data", data.train), ("test", data.test)):
        model.check_support(name, x)
    return model


def _check_program(model: Program, data: PreparedData, settings: ComparisonSettings) -> None:
    """Raise an InputError unless library guides can be guides of a model written by hand."""
    if settings.gap_data or settings.refit_epochs:
        raise InputError("gap_data and refit_epochs need a GenerativeModel; leave them out for a model written by hand")
    x = data.train[:2].clone()
    with torch.no_grad(), undisturbed(x, model), running_on(x, "the model"):
        trace = poutine.trace(model).get_trace(x)
    latents = {name: tuple(site["fn"].event_shape) for name, site in latent_sites(trace).items()}
    if latents != {"z": settings.latent_dims}:
        raise InputError(
            f"the model's latent sites have the event shapes {latents}, and the guides draw {{'z': "
            f"{settings.latent_dims}}}: give latent_dims=d, and the model one latent 'z' of event shape (d,)"
        )
    with torch.no_grad(), undisturbed(x, model), running_on(x, "the model"):
        _check_takes_some(model, x, trace)


def _check_takes_some(model: Program, x: Tensor, trace: Trace) -> None:
    """Raise an InputError unless the last datum's observations have the same density alone, in the first row."""
    drawn = latent_sites(trace)
    alone = {name: site["value"].narrow(-1 - site["fn"].event_dim, len(x) - 1, 1) for name, site in drawn.items()}
    last = trace_at(model, alone, x[-1:])
    observed = [name for name, site in trace.nodes.items() if site["type"] == "sample" and site["is_observed"]]
    for name in observed:
        both = log_prob_of(trace.nodes[name])[..., -1:], log_prob_of(last.nodes[name])
        if not torch.allclose(*both, rtol=1e-4, atol=1e-4):
            raise InputError(
                f"site {name!r} of the model changes with the place of a datum or with the other data, and compare "
                "splits the data; let each row depend on its own x and z alone"
            )
