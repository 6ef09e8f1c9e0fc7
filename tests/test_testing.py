"""Every family, likelihood and estimator meets the contract that ships in pyrovae.testing."""

from functools import partial

import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.elbo import ESTIMATORS
from pyrovae.likelihoods import LIKELIHOODS, Likelihood
from pyrovae.nn import class_of
from pyrovae.posteriors import POSTERIORS, Posterior
from pyrovae.testing import check_elbo, check_likelihood, check_posterior

IMPORTANCE_WEIGHTED = ("importance-weighted", "doubly-reparameterized")


@pytest.mark.parametrize("name", POSTERIORS)
def test_posterior(name):
    check_posterior(POSTERIORS[name], gaussian=name != "flow")


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_likelihood(name):
    check_likelihood(LIKELIHOODS[name], gaussian=class_of(LIKELIHOODS[name]).is_gaussian, n=4)


@pytest.mark.parametrize("options", [{"num_classes": 4}, {"num_classes": 3, "one_hot": True}])
def test_categorical_likelihood(options):
    check_likelihood(partial(pv.CategoricalLikelihood, **options))


def test_likelihoods_of_one_channel_and_of_a_fixed_scale():
    check_likelihood(partial(pv.GaussianLikelihood, scale=0.3), gaussian=True)
    for name in LIKELIHOODS:
        p = LIKELIHOODS[name](4, 1)(torch.zeros(3, 4))
        assert p.log_prob(p.sample()).shape == (3,)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in IMPORTANCE_WEIGHTED else ()) for name in ESTIMATORS]
)
def test_estimator(name):
    check_elbo(ESTIMATORS[name], bound=name in IMPORTANCE_WEIGHTED)


class _WrongCovariance(Posterior):
    """Declares one covariance and draws from another, as the released ρ-VAE code does."""

    def __init__(self, in_features, latent_dim):
        super().__init__(in_features, latent_dim)
        self.loc_head = torch.nn.Linear(in_features, latent_dim)
        self.covariance_head = torch.nn.Linear(in_features, 1)

    def forward(self, features):
        q = pv.distributions.AR1Normal(self.loc_head(features), self.covariance_head(features).exp(), 0.5)
        q.rsample = lambda shape=(): q.loc + torch.randn(*shape, *q.loc.shape, dtype=q.loc.dtype).cumsum(-1) * q.scale
        return q


def test_the_contract_catches_a_sampler_of_another_covariance():
    with pytest.raises(AssertionError, match="covariance of the draws"):
        check_posterior(_WrongCovariance)


class StudentTLikelihood(Likelihood):
    """What a newcomer writes."""

    def __init__(self, in_features, n, degrees_of_freedom=4.0):
        super().__init__(in_features, n)
        self.degrees_of_freedom = degrees_of_freedom
        self.raw_scale = torch.nn.Parameter(torch.zeros(()))
        self.loc_head = torch.nn.Linear(in_features, n)

    def reset_parameters(self):
        torch.nn.init.zeros_(self.raw_scale)

    def forward(self, features):
        scale = pv.nn.positive(self.raw_scale)
        return dist.StudentT(self.degrees_of_freedom, self.loc_head(features), scale).to_event(1)


class BandedPosterior(Posterior):
    """What a newcomer writes: a Cholesky factor of two diagonals."""

    def __init__(self, in_features, latent_dim):
        super().__init__(in_features, latent_dim)
        self.loc_head = torch.nn.Linear(in_features, latent_dim)
        self.diagonal_head = torch.nn.Linear(in_features, latent_dim)
        self.band_head = torch.nn.Linear(in_features, latent_dim - 1)

    def forward(self, features):
        diagonal = pv.nn.positive(self.diagonal_head(features))
        scale_tril = torch.diag_embed(diagonal) + torch.diag_embed(self.band_head(features), offset=-1)
        return pv.distributions.CholeskyNormal(self.loc_head(features), scale_tril=scale_tril)


def test_a_newcomers_parts_meet_the_contract():
    check_likelihood(StudentTLikelihood)
    check_posterior(BandedPosterior)


def test_the_contract_catches_what_a_newcomer_forgets():
    class NoFreshStart(StudentTLikelihood):
        reset_parameters = None

    class NoAttribute(StudentTLikelihood):
        def __init__(self, in_features, n, degrees=4.0):
            super().__init__(in_features, n, degrees)

    class OtherDraws(StudentTLikelihood):
        def forward(self, features):
            p = super().forward(features)
            p.sample = lambda shape=(): 1.2 * dist.Independent.sample(p, shape)
            return p

    for wrong, message in (
        (NoFreshStart, r"a NoFreshStart, has parameters but no reset_parameters\(\)"),
        (NoAttribute, "keep each constructor argument as an attribute: .*'degrees'"),
        (OtherDraws, "the draws do not have the density that log_prob gives"),
    ):
        with pytest.raises(AssertionError, match=message):
            check_likelihood(wrong)


def test_the_contract_catches_a_wrong_sign_of_the_kl():
    class Wrong(pv.AnalyticELBO):
        def _latent_part(self, site):
            return -super()._latent_part(site)

    with pytest.raises(AssertionError, match="exactly"):
        check_elbo(Wrong)


@pytest.mark.parametrize("make", POSTERIORS.values(), ids=POSTERIORS)
@pytest.mark.parametrize("sizes", [(0, 2), (3, 0), (3, 1.5)])
def test_posteriors_refuse_wrong_sizes(make, sizes):
    with pytest.raises(ValueError, match="must be a positive integer"):
        make(*sizes)


def test_scale_never_reaches_zero():
    # 1 + ELU(x), used in one of the sources, rounds to 0 in float32 once exp(x) does beside 1
    assert (1 + torch.nn.functional.elu(torch.tensor(-18.0))) == 0
    assert pv.nn.positive(torch.tensor([-18.0, -1e4])).log().isfinite().all()


def test_likelihoods_against_scipy():
    from scipy import stats

    features = torch.randn(6, 4, dtype=torch.float64)
    gaussian = pv.GaussianLikelihood(4, 3, initial_scale=0.7).double()
    assert gaussian.noise_scale.item() == pytest.approx(0.7, rel=1e-5)
    fixed = pv.GaussianLikelihood(4, 3, scale=0.3).double()
    x = torch.randn(6, 3, dtype=torch.float64)
    for likelihood in (gaussian, fixed):
        loc = likelihood.loc_head(features).detach().numpy()
        expected = stats.norm(loc, likelihood.noise_scale.item()).logpdf(x.numpy()).sum(-1)
        torch.testing.assert_close(likelihood(features).log_prob(x).detach(), torch.as_tensor(expected))
    bernoulli = pv.BernoulliLikelihood(4, 3).double()
    x = x.gt(0).double()
    probability = 1 / (1 + torch.exp(-bernoulli.logits_head(features)).detach().numpy())
    expected = stats.bernoulli(probability).logpmf(x.numpy()).sum(-1)
    torch.testing.assert_close(bernoulli(features).log_prob(x).detach(), torch.as_tensor(expected))


def test_fixed_scale_keeps_its_digits():
    assert pv.GaussianLikelihood(2, 2, scale=0.3).double().noise_scale.item() == 0.3


def test_fisher_z_is_bounded_where_float32_keeps_its_digits():
    head = pv.AR1Posterior(4, 32)
    with torch.no_grad():
        head.covariance_head.bias[1] = 1e6
    q = head(torch.zeros(2, 4))
    assert q.fisher_z.max() <= 8
    x = q.sample()
    exact = pv.AR1Normal(q.loc.double(), q.scale.double(), fisher_z=q.fisher_z.double()).log_prob(x.double())
    assert (q.log_prob(x).double() - exact).abs().max() < 0.02


def test_trap_4_event_dim_is_one_where_the_scale_is_shared():
    q = pv.IsotropicPosterior(4, 3)(torch.zeros(5, 4))
    assert (q.batch_shape, q.event_shape, q.event_dim) == ((5,), (3,), 1)


def test_zuko_leaves_torchs_distributions_as_they_were():
    pv.FlowPosterior(4, 2)
    assert isinstance(vars(torch.distributions.Distribution)["arg_constraints"], property)
    with pytest.raises(ValueError, match="scale"):
        torch.distributions.Normal(0.0, -1.0)
