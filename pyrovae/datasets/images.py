"""Image data."""

import torch
from torch import Tensor


def digits() -> tuple[Tensor, Tensor]:
    """The 1,797 handwritten digits of 8 × 8 pixels that come with scikit-learn.

    Returns:
        Grey values in [0, 1], shape (1797, 64), and the digits 0 to 9, shape (1797,).
    """
    from sklearn.datasets import load_digits  # takes a second to import

    bunch = load_digits()
    return torch.as_tensor(bunch.data / 16.0, dtype=torch.get_default_dtype()), torch.as_tensor(bunch.target)
