"""Data sets."""

from pyrovae.datasets.synthetic import SYNTHETIC, SyntheticDataset

__all__ = ["SYNTHETIC", "SyntheticDataset"]
