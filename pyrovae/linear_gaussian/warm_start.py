"""Networks that start as a linear-Gaussian model and improve on it."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from pyrovae.errors import InputError, InputTypeError
from pyrovae.likelihoods import GaussianNoiseLikelihood, Likelihood
from pyrovae.linear_gaussian.exact import is_standard
from pyrovae.linear_gaussian.factor_model import FactorModel, simpler_form
from pyrovae.linear_gaussian.keys import Attempt, linear_with, without_limit
from pyrovae.nn import Skip
from pyrovae.progress import progress_bar
from pyrovae.vae import AmortizedGuide, GenerativeModel


def linear_models(
    x: Tensor,
    likelihoods: Mapping[str, Callable[[int, int], Likelihood]],
    latent_dims: Sequence[int],
    validation: Tensor | None = None,
    *,
    attempt: Attempt = without_limit,
    progress: bool = True,
) -> dict[tuple[str, int], FactorModel]:
    """The linear model of each likelihood's noise, by the likelihood's name and the latent dimension.

    Args:
        x: data, shape (num, n).
        likelihoods: Gaussian ones by name, callables of (in_features, n).
        latent_dims: dimensions d.
        validation: data that choose the shrinkage of a full covariance; see :meth:`~pyrovae.FactorModel.fit`.
        attempt: fits each model, or leaves it out.
        progress: show a bar on a terminal.

    Raises:
        InputTypeError: a likelihood that is not Gaussian.
    """
    made = {name: _check_gaussian(make(1, x.shape[-1])) for name, make in likelihoods.items()}
    fitted: dict[tuple[object, ...], FactorModel] = {}  # a full covariance starts at what is fitted for AR(1), too
    found = {}

    def fit(likelihood: GaussianNoiseLikelihood, d: int) -> FactorModel:
        form, more = simpler_form(likelihood, x, d)
        key = (*_form(form), d + more)
        fitted[key] = fitted.get(key) or FactorModel.fit(x, form, d + more)
        return fitted[key].with_noise_of(likelihood, d, x, validation)

    jobs = list(itertools.product(made.items(), latent_dims))
    for (name, likelihood), d in progress_bar(jobs, "linear models", leave=False, show=progress):
        model = attempt(linear_with(name), partial(fit, likelihood, d))
        if model is not None:
            found[name, d] = model
    return found


@torch.no_grad()
def start_as_linear(model: GenerativeModel, guide: AmortizedGuide, linear: FactorModel) -> None:
    """Set the parameters so that the model is a factor model and the guide is the family's best for it.

    If a few directions have nearly all of the variance, as in spectra, a network with random weights needs thousands of
    steps to reach the linear model. Started there, the networks learn the nonlinear part: their weights in the heads
    start at 0. The means are in units of the noise and of the posterior's standard deviations.

    Args:
        model: with decoder ``Skip(network, latent_dim)``, a Gaussian likelihood and the prior N(0, I).
        guide: with encoder ``Skip(network, latent_dim)``; its head has the mean in ``loc_head``.
        linear: ``FactorModel.fit(x, model.likelihood, latent_dim)``, or another with a likelihood like the model's.

    Raises:
        InputTypeError: the programs have other parts.
        InputError: shapes do not fit, or the prior is another.
    """
    d, decoder, encoder = linear.latent_dim, model.decoder, guide.encoder
    head = guide.posterior_head
    if not isinstance(decoder, Skip) or not isinstance(encoder, Skip):
        raise InputTypeError("the decoder and the encoder must be Skip, with the linear model's latent_dim as width")
    likelihood = _check_gaussian(model.likelihood)
    if not head.can_start_as_linear:
        raise InputTypeError(
            f"a {type(head).__name__} has no loc_head (a LocHead) and covariance_head (a Linear), and cannot start as "
            "a linear model's posterior"
        )
    if (model.latent_dim, decoder.width, encoder.width, likelihood.n) != (d, d, d, linear.n):
        raise InputError(f"the linear model has d = {d} and n = {linear.n}, the programs and their Skip have others")
    if not is_standard(model.prior_distribution()):
        raise InputError("the model's prior must be N(0, I), as the linear model's is")
    if _form(likelihood) != _form(linear.likelihood):
        raise InputError("the linear model was fitted with another form of noise than the model's likelihood")
    values = head.closest_values(linear.precision)
    encoder.linear.weight.copy_(linear.gain)
    encoder.linear.bias.copy_(-linear.gain @ linear.offset)
    head.set_covariance(values)
    eye, zeros = torch.eye(d, dtype=torch.float64), torch.zeros(d, dtype=torch.float64)
    head.set_mean(eye, zeros, linear.covariance.diagonal().sqrt())
    likelihood.start_at(linear.likelihood.initial_scale)
    for name in likelihood.noise_names:
        likelihood.get_parameter(name).copy_(linear.likelihood.get_parameter(name))
    likelihood.loc_head.set_units(linear.conditional_scale)
    likelihood.loc_head.set_affine(linear.loadings, linear.offset)


def _check_gaussian(likelihood: Likelihood) -> GaussianNoiseLikelihood:
    if not isinstance(likelihood, GaussianNoiseLikelihood):
        raise InputTypeError(f"a linear-Gaussian start needs a Gaussian likelihood, not {type(likelihood).__name__}")
    return likelihood


def _form(likelihood: GaussianNoiseLikelihood) -> tuple[object, ...]:
    """What must agree for one likelihood's noise to be another's."""
    settings = likelihood.config().items()
    return type(likelihood), *((k, v) for k, v in settings if k not in ("in_features", "initial_scale"))
