"""Data sets: synthetic ones, images, spectra, and what prepares and splits them."""

from pyrovae.datasets.images import IMAGES, ImageDataset, binarize, digits, fashion_mnist, mnist, split_digits
from pyrovae.datasets.preprocessing import (
    MultiplicativeScatterCorrection,
    Pipeline,
    Preprocessing,
    SavitzkyGolay,
    Standardize,
    StandardNormalVariate,
)
from pyrovae.datasets.readers.data import read_data
from pyrovae.datasets.readers.idx import read_idx
from pyrovae.datasets.readers.spectra import read_spectra
from pyrovae.datasets.spectra import SimulatedSpectra, Spectra, SpectraTruth
from pyrovae.datasets.splitting import split_by_group, split_into_blocks, split_randomly
from pyrovae.datasets.synthetic import SYNTHETIC, SyntheticDataset

__all__ = [
    "IMAGES",
    "SYNTHETIC",
    "ImageDataset",
    "MultiplicativeScatterCorrection",
    "Pipeline",
    "Preprocessing",
    "SavitzkyGolay",
    "SimulatedSpectra",
    "Spectra",
    "SpectraTruth",
    "StandardNormalVariate",
    "Standardize",
    "SyntheticDataset",
    "binarize",
    "digits",
    "fashion_mnist",
    "mnist",
    "read_data",
    "read_idx",
    "read_spectra",
    "split_by_group",
    "split_digits",
    "split_into_blocks",
    "split_randomly",
]
