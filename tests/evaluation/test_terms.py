"""The ELBO's parts, where they are known."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence

import pyrovae as pv


@pytest.mark.parametrize("family", ["diagonal", "full-covariance"])
def test_the_parts_are_the_exact_ones(vae, family):
    model, guide, x = vae.to_model(), vae.to_guide(family), vae.sample(10)
    found = pv.elbo_terms(model, guide, x, num_samples=200)
    torch.testing.assert_close(found.kl, kl_divergence(guide.posterior(x), model.prior_distribution()).detach())
    torch.testing.assert_close(found.elbo, found.reconstruction - found.kl)
    assert ((found.elbo - vae.elbo(guide, x)).abs() < 5 * found.stderr_per_datum).all()
    assert found.estimate.mean == pytest.approx(found.elbo.mean().item())


def test_chunks_are_joined_and_one_draw_has_no_error(vae):
    model, guide, x = vae.to_model(), vae.to_guide(), vae.sample(7)
    state = torch.get_rng_state()
    whole, parts = (pv.elbo_terms(model, guide, x, num_samples=1, chunk_size=size) for size in (7, 3))
    assert (torch.get_rng_state() == state).all()
    torch.testing.assert_close(whole.kl, parts.kl)
    assert parts.stderr_per_datum.isnan().all()


def guide(x):
    pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))


def outside_the_plate(x):
    z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def of_another_name(x):
    with pyro.plate("data", len(x)):
        w = pyro.sample("w", dist.Normal(torch.zeros(len(x)), 1.0))
        pyro.sample("x", dist.Normal(w, 1.0), obs=x)


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        (outside_the_plate, {}, "site 'z' is outside the data's plate 'data', so it has no value per datum"),
        (of_another_name, {}, r"the model's latent sites \['w'\] are not the guide's \['z'\]"),
        (outside_the_plate, {"num_samples": 0}, "num_samples must be a positive integer, not 0"),
        (outside_the_plate, {"chunk_size": 0}, "chunk_size must be a positive integer, not 0"),
    ],
)
def test_bad_input(model, settings, message):
    with pytest.raises(pv.InputError, match=message):
        pv.elbo_terms(model, guide, torch.zeros(3), **settings)


def test_the_standard_error_is_that_of_the_mean_of_the_draws():
    """Var of log p(x|z) at z ~ N(m, s²) is ½ s⁴ + (x − m)² s²."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.5 * x, 0.7))

    x = torch.tensor([0.3, 1.2])
    right = ((0.5 * 0.7**4 + 0.25 * x.double() ** 2 * 0.49) / 2000).sqrt()
    # the standard deviation of 2000 draws is known to 5 %: false alarms below 1e-5
    torch.testing.assert_close(
        pv.elbo_terms(model, guide, x, num_samples=2000).stderr_per_datum, right, rtol=0.15, atol=0
    )
