"""Files of one's own data: spectra, a table or images."""

from pyrovae.datasets.readers.idx import PIXEL
from pyrovae.datasets.readers.spectra import read_spectra

__all__ = ["PIXEL", "read_data"]

read_data = read_spectra
"""The same function, under a name that fits tables and images too."""
