"""Neural network modules for encoders and decoders."""

from pyrovae.nn._modules import (
    FLOOR,
    MLP,
    ConfigurableModule,
    ConvDecoder,
    ConvEncoder,
    ImputeMissing,
    LocHead,
    LogCounts,
    Skip,
    class_of,
    inverse_positive,
    on_rows,
    positive,
    softplus_inverse,
)
from pyrovae.nn._sequences import DilatedConvolutionEncoder, RecurrentEncoder, Stepwise, StepwiseLocHead, by_step

__all__ = [
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
