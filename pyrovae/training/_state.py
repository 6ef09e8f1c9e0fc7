"""What a training run saves and restores: plain values and tensors."""

from typing import TypedDict

from torch import Tensor

from pyrovae.training.history import HistoryState


class EngineState(TypedDict):
    """Everything that the next step depends on; lists of lists are by replica, then by tensor."""

    steps: int
    errors: dict[int, tuple[float, str, int]]
    noise_states: list[list[Tensor]]
    parameters: list[list[Tensor]]
    buffers: list[list[Tensor]]
    first_moments: list[list[Tensor]]
    second_moments: list[list[Tensor]]
    counts: list[list[int]]


class TrainerState(TypedDict):
    """Everything that the rest of a run depends on."""

    of: dict[str, object]
    engine: EngineState
    epoch_start: list[Tensor]
    errors: dict[int, str]
    histories: list[HistoryState]
    best: dict[int, tuple[float, list[Tensor]]]
    seconds: float


class SavedRun(TypedDict):
    """What a checkpoint holds: a state, and the engine and the number of threads that made it."""

    engine: str
    threads: int
    state: TrainerState
