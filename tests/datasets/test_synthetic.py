"""The synthetic sets: densities, draws and entropies agree with each other and with published numbers."""

import math

import pytest
import torch

from pyrovae.datasets import SYNTHETIC


@pytest.fixture(params=SYNTHETIC)
def dataset(request):
    return SYNTHETIC[request.param]


def grid_of(dataset, spacing):
    half = {"figure-eight": 3.2, "three-blobs": 5.0, "mixture": 20.0}.get(dataset.name, 30.0)
    axis = torch.arange(-half, half, spacing, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis), spacing**2


def test_density_integrates_to_one(dataset):
    grid, cell = grid_of(dataset, {"figure-eight": 0.07, "three-blobs": 0.15}.get(dataset.name, 0.15))
    assert dataset.log_density(grid).exp().sum().item() * cell == pytest.approx(1, abs=1e-6)


def test_draws_have_the_moments_of_the_density(dataset):
    grid, cell = grid_of(dataset, {"figure-eight": 0.07, "three-blobs": 0.15}.get(dataset.name, 0.15))
    density = dataset.log_density(grid).exp() * cell
    x = dataset.sample(100_000, torch.Generator().manual_seed(0)).double()
    for function in (
        lambda x: x,
        lambda x: x.square(),
        lambda x: x.prod(-1, keepdim=True),
        lambda x: (2 * x).cos(),
        lambda x: (x[:, :1] - 2 * x[:, 1:]).sin(),
    ):
        expected = (density.unsqueeze(-1) * function(grid)).sum(0)
        values = function(x)
        # 5 standard errors: a false alarm once in 1.7 million comparisons
        assert ((values.mean(0) - expected).abs() <= 5 * values.std(0) / math.sqrt(len(x)) + 1e-9).all()


def test_entropy(dataset):
    published = {"figure-eight": 0.8848, "three-blobs": 2.2839, "mixture": 3.9365}.get(dataset.name, 3.3637)
    assert dataset.entropy == pytest.approx(published, abs=1e-4)
    log_density = dataset.log_density(dataset.sample(50_000, torch.Generator().manual_seed(1)))
    assert -log_density.mean().item() == pytest.approx(
        dataset.entropy, abs=5 * log_density.std().item() / math.sqrt(50_000)
    )


def test_modes_add_up_to_the_density(dataset):
    x = dataset.sample(1000, torch.Generator().manual_seed(2))
    torch.testing.assert_close(dataset.mode_log_densities(x).logsumexp(-1), dataset.log_density(x))
    assert dataset.mode_weights.sum().item() == pytest.approx(1, abs=1e-6)


def test_mode_weights_are_the_plateaus():
    assert SYNTHETIC["mixture"].mode_weights.tolist() == pytest.approx([1 / 3] * 3, abs=1e-9)
    first_and_last, second, third = SYNTHETIC["three-blobs"].mode_weights.tolist()
    assert first_and_last == pytest.approx(0.145 + 0.193, abs=2e-3)
    assert (second, third) == (pytest.approx(0.332, abs=2e-3), pytest.approx(0.330, abs=2e-3))


def test_draws_repeat_with_the_generator(dataset):
    first, second = (dataset.sample(10, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.dtype == torch.float32


def test_the_figure_eight_needs_its_pi():
    # without π, as the slides have it, u spans 1.8 radians: a short arc that never reaches the left loop
    curve = SYNTHETIC["figure-eight"].curve(torch.linspace(-3, 3, 1000))
    assert curve[:, 0].min() < -0.65
    assert curve[:, 0].max() > 0.65


def test_sizes_and_epochs_are_the_slides():
    settings = {name: (d.num_train, d.num_test, d.epochs) for name, d in SYNTHETIC.items()}
    assert settings == {
        "isotropic-gaussian": (20_000, 10_000, 20),
        "rotated-gaussian": (20_000, 10_000, 50),
        "figure-eight": (40_000, 20_000, 200),
        "three-blobs": (40_000, 20_000, 200),
        "mixture": (40_000, 20_000, 400),
    }


def test_covariance_of_the_rotated_set():
    cos, sin = 0.5, math.sqrt(3) / 2
    rotation = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)
    covariance = rotation @ torch.tensor([9.2, 1 / 9 + 0.2], dtype=torch.float64).diag() @ rotation.T
    x = SYNTHETIC["rotated-gaussian"].sample(100_000, torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(torch.cov(x.T), covariance, rtol=0, atol=5 * 9.2 * math.sqrt(2 / 100_000))
    dense = torch.distributions.MultivariateNormal(torch.zeros(2).double(), covariance)
    torch.testing.assert_close(SYNTHETIC["rotated-gaussian"].log_density(x), dense.log_prob(x))
