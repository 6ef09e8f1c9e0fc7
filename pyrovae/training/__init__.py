"""Training: one loop, two engines that make its steps."""

from pyrovae.errors import moved
from pyrovae.training._batches import Transform
from pyrovae.training._losses import NonFiniteLossError
from pyrovae.training.checkpoint import Checkpoints, CheckpointWarning
from pyrovae.training.engines import CannotCompileError, CannotTraceError
from pyrovae.training.fit import fit, train_replicas
from pyrovae.training.history import ChunkRecord, EpochRecord, History
from pyrovae.training.replicas import CannotReplicateError, CannotVectorizeError, Replica, reinitialize
from pyrovae.training.schedules import SCHEDULES, Schedule, as_schedule, linear_warmup
from pyrovae.training.settings import (
    ENGINES,
    Engine,
    Measure,
    OptionalTrainingKeywords,
    SharedTrainingKeywords,
    TrainingKeywords,
    TrainingSettings,
    check_learning_rate,
    describe_settings,
)
from pyrovae.training.trainer import Trainer

__all__ = [
    "ENGINES",
    "SCHEDULES",
    "CannotCompileError",
    "CannotReplicateError",
    "CannotTraceError",
    "CannotVectorizeError",
    "CheckpointWarning",
    "Checkpoints",
    "ChunkRecord",
    "Engine",
    "EpochRecord",
    "History",
    "Measure",
    "NonFiniteLossError",
    "OptionalTrainingKeywords",
    "Replica",
    "Schedule",
    "SharedTrainingKeywords",
    "Trainer",
    "TrainingKeywords",
    "TrainingSettings",
    "Transform",
    "as_schedule",
    "check_learning_rate",
    "describe_settings",
    "fit",
    "linear_warmup",
    "reinitialize",
    "train_replicas",
]

__getattr__ = moved(__name__, {"Settings": "pyrovae.TrainingSettings"})
"""A name of version 0.1."""
