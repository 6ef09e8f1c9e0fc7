"""Log-weights and their summaries, where they are known."""

import math

import pytest
import torch

import pyrovae as pv
from pyrovae.evaluation._method import Problem
from pyrovae.evaluation.weights import log_mean_weight, over_log_weights
from pyrovae.programs import evaluating


def test_the_elbo_at_the_exact_posterior_is_log_p(vae):
    x = vae.sample(6)
    found = pv.elbo_estimate(vae.to_model(), vae.to_guide(), x, num_samples=3)
    torch.testing.assert_close(found.per_datum, vae.log_prob(x))
    assert found.stderr_per_datum.max() < 1e-8


def test_the_elbo_of_another_guide(vae):
    x, guide = vae.sample(6), vae.to_guide("diagonal")
    found = pv.elbo_estimate(vae.to_model(), guide, x, num_samples=4000)
    assert ((found.per_datum - vae.elbo(guide, x)).abs() < 5 * found.stderr_per_datum).all()


@pytest.mark.parametrize("max_rows", [1, 20, 64, 10_000])
def test_every_datum_has_all_its_draws(vae, max_rows):
    x, seen = vae.sample(9), []

    def shape(log_w):
        seen.append(log_w.shape[1])
        return (torch.full(log_w.shape[1:], float(len(log_w))),)

    model, guide = vae.to_model(), vae.to_guide()
    with torch.no_grad(), evaluating(model, guide, x, seed=0):
        (num,) = over_log_weights(shape, Problem(model, guide, x, max_rows=max_rows), 13)
    assert num.tolist() == [13.0] * 9
    assert sum(seen) == 9
    assert max(seen) <= max_rows


def test_summaries_of_weights():
    log_w = torch.tensor([[1.0, 1.0], [3.0, 1.0], [2.0, 1.0], [6.0, 1.0]]).double().log()
    per_datum, stderr, effective, gain, k = log_mean_weight(log_w)
    torch.testing.assert_close(per_datum.exp(), torch.tensor([3.0, 1.0]).double())
    torch.testing.assert_close(effective, torch.tensor([144 / 50, 4.0]).double())
    # the delta method: the standard error of the mean weight over the mean
    expected = (log_w.exp().std(0) / math.sqrt(4) / log_w.exp().mean(0)).tolist()
    assert stderr.tolist() == pytest.approx(expected)
    assert gain.tolist() == pytest.approx([math.log(3) - (math.log(2) + math.log(4)) / 2, 0.0])
    assert k.isnan().all()


def test_one_draw_has_no_error(vae):
    with pytest.raises(ValueError, match="num_samples must be an integer of at least 2, not 1"):
        pv.elbo_estimate(vae.to_model(), vae.to_guide(), vae.sample(3), num_samples=1)
    per_datum, stderr, effective, gain, k = log_mean_weight(torch.zeros(1, 3).double())
    assert (per_datum == 0).all()
    assert (effective == 1).all()
    assert all(values.isnan().all() for values in (stderr, gain, k))
