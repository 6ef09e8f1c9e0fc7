"""Data sets."""

from pyrovae.datasets.idx import read_idx
from pyrovae.datasets.images import IMAGES, ImageDataset, binarize, digits, fashion_mnist, mnist, split_digits
from pyrovae.datasets.synthetic import SYNTHETIC, SyntheticDataset

__all__ = [
    "IMAGES",
    "SYNTHETIC",
    "ImageDataset",
    "SyntheticDataset",
    "binarize",
    "digits",
    "fashion_mnist",
    "mnist",
    "read_idx",
    "split_digits",
]
