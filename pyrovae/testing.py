"""Contract tests, for the library's own parts and for yours: each raises an AssertionError that says what fails.

Example:
    >>> import pyrovae as pv
    >>> pv.testing.check_posterior(pv.FullCovariancePosterior)
    >>> pv.testing.check_likelihood(pv.GaussianLikelihood, gaussian=True)
    >>> pv.testing.check_elbo(pv.AnalyticELBO)

The truths come from another way: dense float64 algebra, closed forms, finite differences. Where draws are compared
with a moment, the seed is fixed and the bound is 5 standard errors: a right implementation fails with a probability
below 1e-6 a comparison.
"""

import itertools
import math
from collections.abc import Callable
from typing import TypeVar

import pyro
import torch
from pyro.distributions import MultivariateNormal, Normal, TorchDistribution
from pyro.infer import ELBO
from torch import Tensor, nn
from torch.distributions import kl_divergence

from pyrovae.distributions import PartiallyObserved, covariance_of
from pyrovae.elbo import NoClosedFormError
from pyrovae.errors import InputTypeError
from pyrovae.likelihoods import GaussianLikelihood, Likelihood
from pyrovae.nn import ConfigurableModule
from pyrovae.posteriors import DiagonalPosterior, FullCovariancePosterior, Posterior
from pyrovae.training import CannotReplicateError, reinitialize
from pyrovae.vae import AmortizedGuide, GenerativeModel


def check_posterior(
    make: Callable[[int, int], Posterior], *, latent_dims: tuple[int, ...] = (2, 5), gaussian: bool = True
) -> None:
    """Check a posterior family: a subclass of :class:`~pyrovae.posteriors.Posterior` that is right in every use.

    Checked are the shapes of q(z|x), its draws and their log-density; the independence of data from each other; the
    gradient of reparameterised draws against finite differences; that every parameter receives a gradient; that the
    state can be saved, loaded and started anew. For a Gaussian family also the density, the entropy, the moments of
    draws and the KL against dense algebra; for another one that the draws have the density that ``log_prob`` gives.

    Args:
        make: the class, or another callable of (in_features, latent_dim).
        latent_dims: dimensions to check.
        gaussian: whether q(z|x) is Gaussian, with ``mean``, a covariance, ``entropy`` and a KL to N(0, I).

    Raises:
        AssertionError: names the first part that is wrong.
    """
    for d in latent_dims:
        with torch.random.fork_rng(), pyro.validation_enabled(True):
            torch.manual_seed(d)
            head = _random_head(make, d)
            _check_module(head, make, d, lambda q: q.rsample())
            assert make(4, d)(torch.randn(3, 4)).rsample().dtype == torch.float32, "float32 features give other draws"
            if gaussian:
                _check_gaussian(head(torch.randn(3, 4, dtype=torch.float64)))
            else:
                _check_score(head)


def check_likelihood(make: Callable[[int, int], Likelihood], *, n: int = 3, gaussian: bool = False) -> None:
    """Check a likelihood: a subclass of :class:`~pyrovae.likelihoods.Likelihood` that is right in every use.

    Checked are the shapes of p(x|z), its draws and their log-density; the independence of data from each other; the
    gradient of the log-density against finite differences; that every parameter receives a gradient; that the state
    can be saved, loaded and started anew; that ``check_support`` accepts the likelihood's own draws, and that these
    have the density that ``log_prob`` gives; ``fisher``, if there is one, against the mean of the Hessian over draws.

    Args:
        make: the class, or another callable of (in_features, n).
        n: dimension of x.
        gaussian: whether p(x|z) is Gaussian, with ``mean`` and a covariance: then density and moments are compared
            with dense algebra, and the density of the observed channels too, for every pattern of missing values.

    Raises:
        AssertionError: names the first part that is wrong.
    """
    with torch.random.fork_rng(), pyro.validation_enabled(True):
        torch.manual_seed(n)
        head = _random_head(make, n)
        x = head(torch.randn(3, 4, dtype=torch.float64)).sample()
        _check_module(head, make, n, lambda p: p.log_prob(x))
        head.check_support("the likelihood's own draws", x)
        if gaussian:
            p = head(torch.randn(3, 4, dtype=torch.float64))
            _check_density(p)
            _check_missing(p)
        elif head.is_density:
            _check_score(head)
        if type(head).fisher is not Likelihood.fisher:
            _check_fisher(head)


def check_elbo(make: Callable[..., ELBO], *, bound: bool = False) -> None:
    """Check an estimator on a linear-Gaussian model, where the ELBO is known exactly, for β in {0, 0.3, 1}.

    Args:
        make: the class, or another callable that takes ``beta``, ``num_particles`` and
            ``vectorize_particles``.
        bound: whether the value is a tighter bound of log p(x) than the ELBO, datum by datum, that meets the
            ELBO at one particle.

    Raises:
        AssertionError: says which value is wrong, or which parameter receives no gradient.
    """
    for family in (DiagonalPosterior, FullCovariancePosterior):
        with torch.random.fork_rng(), pyro.validation_enabled(True):
            torch.manual_seed(0)
            model, guide, x, reconstruction, kl, log_p = _linear_gaussian(family)
            for beta in (0.0, 0.3, 1.0):
                elbo = make(beta=beta, num_particles=50, vectorize_particles=True)
                mean, stderr = _mean_loss(elbo, model, guide, x)
                exact = -(reconstruction - beta * kl).sum().item()
                if bound:
                    assert mean < exact - 5 * stderr, (
                        f"with 50 particles the bound {-mean} ± {stderr} is not above the ELBO {-exact}"
                    )
                    most = log_p.sum().item() if beta == 1 else math.inf
                    assert -mean <= most + 5 * stderr, f"the bound {-mean} ± {stderr} is above log p(x), {most}"
                    alone = [_mean_loss(elbo, model, guide, datum) for datum in x.split(1)]
                    apart, noise = sum(m for m, _ in alone), math.hypot(stderr, *(s for _, s in alone))
                    assert abs(mean - apart) <= 5 * noise, (
                        f"the bound of a batch is {-mean}, that of its data one by one {-apart}"
                    )
                    mean, stderr = _mean_loss(make(beta=beta, num_particles=1), model, guide, x)
                assert abs(mean - exact) <= 5 * stderr + 1e-9, (
                    f"at β = {beta} the loss is {mean} ± {stderr}, exactly {exact}"
                )
            one_by_one = make(num_particles=3)
            assert one_by_one.differentiable_loss(model, guide, x).dim() == 0, "the loss is not a scalar"
            model.zero_grad()
            guide.zero_grad()
            make().loss_and_grads(model, guide, x)
            for name, parameter in [*model.named_parameters(), *guide.named_parameters()]:
                assert parameter.grad is not None, f"loss_and_grads gives {name} no gradient"


def dense_kl(q: TorchDistribution, p: TorchDistribution) -> Tensor:
    """KL(q ‖ p) of two Gaussians by dense float64 algebra on their means and covariances."""
    mu_q, mu_p = q.mean.double(), p.mean.double()
    sigma_q, sigma_p = covariance_of(q).double(), covariance_of(p).double()
    difference = (mu_p - mu_q).unsqueeze(-1)
    trace = torch.linalg.solve(sigma_p, sigma_q).diagonal(dim1=-2, dim2=-1).sum(-1)
    mahalanobis = (difference.mT @ torch.linalg.solve(sigma_p, difference)).squeeze(-1).squeeze(-1)
    kl: Tensor = 0.5 * (torch.logdet(sigma_p) - torch.logdet(sigma_q) - mu_q.shape[-1] + trace + mahalanobis)
    return kl


H = TypeVar("H", bound=ConfigurableModule)


def _random_head(make: Callable[[int, int], H], size: int) -> H:
    head = make(4, size).double()
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.5)
    _check_shapes(head, (size,))
    return head


def _check_module(
    head: H, make: Callable[[int, int], H], size: int, function: Callable[[TorchDistribution], Tensor]
) -> None:
    _check_gradients(head, function)
    _check_round_trip(head, make(4, size).double())
    _check_config(head)
    _check_fresh_start(make(4, size), make(4, size))


def _check_shapes(head: nn.Module, event_shape: tuple[int, ...]) -> None:
    for batch in ((), (4,), (2, 3)):
        features = torch.randn(*batch, 4, dtype=torch.float64)
        distribution = head(features)
        assert distribution.event_shape == event_shape, f"event shape {distribution.event_shape}, not {event_shape}"
        assert distribution.batch_shape == batch, f"batch shape {distribution.batch_shape} for features {batch}"
        draw = distribution.sample(torch.Size([7]))
        assert draw.shape == (7, *batch, *event_shape), f"draws of shape {tuple(draw.shape)}"
        assert distribution.log_prob(draw).shape == (7, *batch), "log_prob has the wrong shape"
        expanded = distribution.expand(torch.Size([6, *batch]))
        assert expanded.batch_shape == (6, *batch), "expand has the wrong batch shape"
        torch.testing.assert_close(expanded.log_prob(draw[0]), distribution.log_prob(draw[0]).expand(6, *batch))
    features = torch.randn(4, 4, dtype=torch.float64)
    draw = head(features).sample()
    alone = torch.stack([head(row).log_prob(value) for row, value in zip(features, draw, strict=True)])
    torch.testing.assert_close(head(features).log_prob(draw), alone, msg="a datum's density depends on the others")


def _check_gradients(head: nn.Module, function: Callable[[TorchDistribution], Tensor]) -> None:
    features = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)

    def at_fixed_noise(features: Tensor) -> Tensor:
        torch.manual_seed(0)
        return function(head(features if features.shape[0] == 3 else features[[0, 1, 1]]))

    assert torch.autograd.gradcheck(at_fixed_noise, features), "the gradient differs from finite differences"
    q = head(torch.randn(3, 4, dtype=torch.float64))
    q.log_prob(q.sample()).sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, f"{name} receives no gradient"
        assert parameter.grad.abs().max() > 0, f"{name} receives a zero gradient"


def _check_round_trip(head: nn.Module, other: nn.Module) -> None:
    other.load_state_dict(head.state_dict())
    features = torch.randn(3, 4, dtype=torch.float64)
    draw = head(features).sample()
    torch.testing.assert_close(other(features).log_prob(draw), head(features).log_prob(draw), rtol=0, atol=0)


def _check_config(head: ConfigurableModule) -> None:
    try:
        config = head.config()
    except AttributeError as error:
        raise AssertionError(f"config() fails; keep each constructor argument as an attribute: {error}") from None
    again = type(head)(*config.pop("*", []), **config).double()
    again.load_state_dict(head.state_dict())


def _check_fresh_start(head: nn.Module, other: nn.Module) -> None:
    for module in (head, other):
        try:
            reinitialize(module, seed=0)
        except CannotReplicateError as error:
            raise AssertionError(str(error)) from None
    for (name, left), right in zip(head.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(left, right), f"reset_parameters leaves {name} dependent on what it was"


def _check_missing(p: TorchDistribution) -> None:
    covariance, partial = covariance_of(p), PartiallyObserved(p)
    x = p.sample()
    for pattern in itertools.product((False, True), repeat=p.event_shape[0]):
        observed = torch.tensor(pattern)
        expected = torch.zeros(p.batch_shape, dtype=x.dtype)
        if observed.any():
            rows = covariance[..., observed, :][..., observed]
            expected = MultivariateNormal(p.mean[..., observed], rows).log_prob(x[..., observed])
        ours = partial.log_prob(x.masked_fill(~observed, math.nan))
        _assert_close(f"the density of the channels observed as {pattern}", ours, expected)


def _check_density(q: TorchDistribution) -> None:
    covariance = covariance_of(q)
    dense = MultivariateNormal(q.mean, covariance)
    draws = q.rsample(torch.Size([20_000]))
    _assert_close("log_prob", q.log_prob(draws[:50]), dense.log_prob(draws[:50]))
    centred = draws - q.mean
    _assert_mean(centred, torch.zeros_like(q.mean), "the mean of the draws is not q.mean")
    products = centred.unsqueeze(-1) * centred.unsqueeze(-2)
    _assert_mean(products, covariance, "the covariance of the draws is not the declared one")


def _check_score(head: nn.Module) -> None:
    """E[∂ log p(x) / ∂ features] = 0 over draws of p itself, whatever p is, continuous or discrete."""
    features = torch.randn(3, 4, dtype=torch.float64).expand(10_000, 3, 4).clone().requires_grad_()
    p = head(features)
    (score,) = torch.autograd.grad(p.log_prob(p.sample()).sum(), features)
    _assert_mean(score, torch.zeros(3, 4, dtype=torch.float64), "the draws do not have the density that log_prob gives")


def _check_fisher(head: Likelihood) -> None:
    """−E[∇² log p(x) in the features] over draws of p itself, and its product with directions from both sides."""
    num, width = 5_000, head.in_features
    features = torch.randn(3, width, dtype=torch.float64)
    directions = torch.randn(3, width, 2, dtype=torch.float64)
    ours = head.fisher(features, torch.eye(width, dtype=torch.float64).expand(3, width, width))
    assert ours.shape == (3, width, width), f"fisher has shape {tuple(ours.shape)}"
    _assert_near("fisher along directions", head.fisher(features, directions), directions.mT @ ours @ directions)
    alone = [head.fisher(row, along) for row, along in zip(features, directions, strict=True)]
    _assert_near("fisher of a datum alone", torch.stack(alone), directions.mT @ ours @ directions)
    x = head(features).sample(torch.Size([num]))
    for observed in (None, torch.arange(head.n) % 2 == 0):
        if observed is not None:
            try:
                PartiallyObserved(head(features))
            except InputTypeError:
                break
            x = x.masked_fill(~observed, math.nan)
            ours = head.fisher(features, torch.eye(width, dtype=torch.float64).expand(3, width, width), observed)
        at = features.expand(num, 3, width).clone().requires_grad_()
        p = head(at) if observed is None else PartiallyObserved(head(at))
        (slope,) = torch.autograd.grad(p.log_prob(x).sum(), at, create_graph=True)
        rows = [torch.autograd.grad(column.sum(), at, retain_graph=True)[0] for column in slope.unbind(-1)]
        _assert_mean(-torch.stack(rows, dim=-2), ours, f"fisher is not −E[∇² log p], observed: {observed}")


def _check_gaussian(q: TorchDistribution) -> None:
    _check_density(q)
    _assert_close("entropy", q.entropy(), MultivariateNormal(q.mean, covariance_of(q)).entropy())
    d = q.event_shape[0]
    standard = Normal(torch.zeros(d, dtype=torch.float64), torch.ones(d, dtype=torch.float64)).to_event(1)
    wide = Normal(torch.linspace(-1, 1, d, dtype=torch.float64), torch.linspace(0.5, 2, d, dtype=torch.float64))
    for p in (standard, wide.to_event(1)):
        _assert_close("KL to an independent Normal", kl_divergence(q, p), dense_kl(q, p))


def _assert_close(what: str, ours: Tensor, dense: Tensor) -> None:
    # the dense reference factorises a covariance anew, so it is no more exact than this
    message = f"{what} is not that of the declared Gaussian (if q is none: gaussian=False)"
    torch.testing.assert_close(ours, dense, rtol=1e-5, atol=1e-6, msg=lambda reason: f"{message}: {reason}")


def _assert_near(what: str, ours: Tensor, expected: Tensor) -> None:
    error = ((ours - expected).abs().amax() / expected.abs().amax()).item()
    assert error < 1e-10, f"{what} is off by {error:.1e} of its largest entry"


def _assert_mean(draws: Tensor, expected: Tensor, message: str) -> None:
    stderr = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - expected).abs() <= 5 * stderr + 1e-12 * (1 + expected.abs().amax())).all(), message


def _linear_gaussian(
    family: Callable[[int, int], Posterior],
) -> tuple[GenerativeModel, AmortizedGuide, Tensor, Tensor, Tensor, Tensor]:
    """A model x = Az + b + N(0, σ²I), a guide, data, and E_q[log p(x|z)], KL and log p(x) per datum, exactly."""
    d, n, sigma = 2, 3, 0.7
    model = GenerativeModel(nn.Identity(), GaussianLikelihood(d, n, scale=sigma), d).double()
    guide = AmortizedGuide(nn.Identity(), family(n, d)).double()
    x = torch.randn(4, n, dtype=torch.float64)
    with torch.no_grad():
        q = guide.posterior(x)
        loadings = model.likelihood.get_parameter("loc_head.weight")
        error = (x - model.conditional(q.mean).mean).square().sum(-1)
        spread = (loadings @ covariance_of(q) @ loadings.T).diagonal(dim1=-2, dim2=-1).sum(-1)
        reconstruction = -0.5 * ((error + spread) / sigma**2 + n * math.log(2 * math.pi * sigma**2))
        covariance = loadings @ loadings.T + sigma**2 * torch.eye(n, dtype=x.dtype)
        log_p = MultivariateNormal(model.conditional(x.new_zeros(d)).mean, covariance).log_prob(x)
        return model, guide, x, reconstruction, dense_kl(q, model.prior_distribution()), log_p


@torch.no_grad()
def _mean_loss(elbo: ELBO, model: GenerativeModel, guide: AmortizedGuide, x: Tensor) -> tuple[float, float]:
    try:
        losses = torch.stack([elbo.differentiable_loss(model, guide, x) for _ in range(200)])
    except NoClosedFormError as error:
        raise AssertionError(str(error)) from None
    return losses.mean().item(), (losses.std() / math.sqrt(len(losses))).item()
