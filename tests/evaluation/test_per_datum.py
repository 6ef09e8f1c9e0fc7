"""Guides with parameters for each datum."""

import pytest
import torch

import pyrovae as pv
from pyrovae.posteriors import POSTERIORS

GAUSSIAN = [name for name in POSTERIORS if name != "flow"]


@pytest.mark.parametrize("family", GAUSSIAN)
def test_data_are_fitted_apart_from_one_another(vae, family):
    """The guide of some of the data is theirs alone, and knows how many it is for."""
    x = vae.sample(5)
    q = pv.evaluation.PerDatumGuide(POSTERIORS[family], torch.randn(5, 3).double())
    whole, part = q.posterior(), q.select(slice(1, 3)).posterior()
    torch.testing.assert_close(part.mean, whole.mean[1:3])
    with pytest.raises(ValueError, match="belongs to 5 data, not to 3"):
        q(x[:3])
    terms = pv.elbo_terms(vae.to_model(), q, x, chunk_size=2, num_samples=200)
    estimate = pv.elbo_estimate(vae.to_model(), q, x, num_samples=4000)
    spread = (terms.stderr_per_datum.square() + estimate.stderr_per_datum.square()).sqrt()
    assert ((terms.elbo - estimate.per_datum).abs() < 5 * spread).all()
