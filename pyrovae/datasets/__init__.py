"""Data sets: synthetic data, images and spectra, with preprocessing and splitting."""

from pyrovae.datasets.channels import ChannelAxis
from pyrovae.datasets.images import IMAGES, ImageDataset, binarize, digits, fashion_mnist, mnist, split_digits
from pyrovae.datasets.preprocessing import (
    MultiplicativeScatterCorrection,
    Pipeline,
    Preprocessing,
    SavitzkyGolay,
    Standardize,
    StandardNormalVariate,
)
from pyrovae.datasets.readers.files import SpectraFiles
from pyrovae.datasets.readers.idx import PIXEL, read_idx
from pyrovae.datasets.readers.settings import ReadingKeywords, ReadingSettings
from pyrovae.datasets.readers.spectra import read_data, read_spectra
from pyrovae.datasets.reading import AxisSource, Finding, Place, Reading
from pyrovae.datasets.simulation import SimulatedSpectra, SimulationSettings, SpectraTruth, simulated
from pyrovae.datasets.spectra import Spectra
from pyrovae.datasets.splitting import (
    SpectraSplit,
    SplitMethod,
    find_copies,
    split_by_group,
    split_into_blocks,
    split_randomly,
    split_spectra,
)
from pyrovae.datasets.synthetic import SYNTHETIC, SyntheticDataset
from pyrovae.datasets.training_rows import TrainingRows

__all__ = [
    "IMAGES",
    "PIXEL",
    "SYNTHETIC",
    "AxisSource",
    "ChannelAxis",
    "Finding",
    "ImageDataset",
    "MultiplicativeScatterCorrection",
    "Pipeline",
    "Place",
    "Preprocessing",
    "Reading",
    "ReadingKeywords",
    "ReadingSettings",
    "SavitzkyGolay",
    "SimulatedSpectra",
    "SimulationSettings",
    "Spectra",
    "SpectraFiles",
    "SpectraSplit",
    "SpectraTruth",
    "SplitMethod",
    "StandardNormalVariate",
    "Standardize",
    "SyntheticDataset",
    "TrainingRows",
    "binarize",
    "digits",
    "fashion_mnist",
    "find_copies",
    "mnist",
    "read_data",
    "read_idx",
    "read_spectra",
    "simulated",
    "split_by_group",
    "split_digits",
    "split_into_blocks",
    "split_randomly",
    "split_spectra",
]
