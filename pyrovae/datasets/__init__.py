"""Data sets."""

from pyrovae.datasets.images import digits
from pyrovae.datasets.synthetic import SYNTHETIC, SyntheticDataset

__all__ = ["SYNTHETIC", "SyntheticDataset", "digits"]
