import os
import random
import signal
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell has it for what runs in its background
    signal.signal(signal.SIGINT, signal.default_int_handler)

import numpy as np
import pyro
import pytest
import torch

from pyrovae.linear_gaussian.exact import LinearGaussianVAE


class _Seeded:
    """The examples of docstrings lie where no fixture of this folder reaches: they start with the same seed, too."""

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        torch.default_generator.manual_seed(0)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Seeded())


@pytest.fixture(autouse=True)
def _clean_slate() -> Iterator[None]:
    """Every test starts with a fixed seed, one thread, Pyro's validation on and an empty parameter store.

    An interrupted command ignores further interrupts until its process ends; a test's process goes on.
    """
    on_interrupt = signal.getsignal(signal.SIGINT)
    torch.set_num_threads(1)
    pyro.clear_param_store()
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.default_generator.manual_seed(0)  # torch.manual_seed keeps a traceback for each GPU it does not have
    with pyro.validation_enabled(True):
        yield
    signal.signal(signal.SIGINT, on_interrupt)


@pytest.fixture
def linear() -> LinearGaussianVAE:
    """A linear-Gaussian VAE of two latent and three observed dimensions."""
    return LinearGaussianVAE(torch.tensor([[1.0, 0.3], [-0.4, 0.8], [0.5, 0.5]]), 0.7, torch.tensor([0.2, 0.0, -1.0]))
