"""Neural network modules for encoders and decoders."""

from pyrovae.nn._convolutions import ConvDecoder, ConvEncoder
from pyrovae.nn._modules import (
    ACTIVATIONS,
    MLP,
    ConfigurableModule,
    ImputeMissing,
    LocHead,
    LogCounts,
    Skip,
    class_of,
    on_rows,
)
from pyrovae.nn._scales import FLOOR, inverse_positive, positive, softplus_inverse
from pyrovae.nn._sequences import DilatedConvolutionEncoder, RecurrentEncoder, Stepwise, StepwiseLocHead, by_step

__all__ = [
    "ACTIVATIONS",
    "FLOOR",
    "MLP",
    "ConfigurableModule",
    "ConvDecoder",
    "ConvEncoder",
    "DilatedConvolutionEncoder",
    "ImputeMissing",
    "LocHead",
    "LogCounts",
    "RecurrentEncoder",
    "Skip",
    "Stepwise",
    "StepwiseLocHead",
    "by_step",
    "class_of",
    "inverse_positive",
    "on_rows",
    "positive",
    "softplus_inverse",
]
