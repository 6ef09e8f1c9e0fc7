"""Checkpoints: the state of a training run on disk, written completely or not at all, read without executing code."""

import json
import math
import re
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from pyrovae.errors import InputError, InputTypeError, one_line
from pyrovae.files import checksum, locked_folder, versions, write_bytes
from pyrovae.training import processes
from pyrovae.training.history import SavedState
from pyrovae.training.settings import ENGINES, Engine

FORMAT = 2
"""The written format. Format 1, of version 0.1, describes a run less completely."""

_KEPT = 2


class CheckpointWarning(UserWarning):
    """A checkpoint could not be written or read, and the run continues without it."""


class Checkpoints:
    """The last two states of a training run, in a folder that one run at a time may use.

    A state is ``checkpoint-<steps>.safetensors``, its tensors, and a JSON of the same name with everything else and a
    SHA-256 of both. Both are written to temporary files, and the JSON is moved into place last, so that a killed
    process leaves only complete states. Use it as a context manager, which locks the folder. Of several processes that
    share a training, the first one locks and writes, and all read.

    Args:
        folder: created if it does not exist.
        seconds: how long to train between two states.

    Raises:
        InputError: the folder cannot be written, or another run uses it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, Checkpoints(folder) as checkpoints:
        ...     checkpoints.save(3, {"parameters": [torch.ones(2)], "loss": math.nan})
        ...     checkpoints.load()
        {'parameters': [tensor([1., 1.])], 'loss': nan}
    """

    def __init__(self, folder: str | Path, seconds: float = 60.0) -> None:
        if not seconds >= 0:
            raise InputError(f"the seconds between checkpoints must be a number ≥ 0, not {seconds!r}")
        self.folder, self.seconds = Path(folder), seconds
        self._folder_lock = ExitStack()
        self._sound_steps: int | None = None
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        if processes.rank() > 0:
            return self
        self._folder_lock.enter_context(locked_folder(self.folder))
        self._prune()  # of a run that was killed before it could
        self._last = time.monotonic()
        return self

    def __exit__(self, *error: object) -> None:
        self._folder_lock.close()

    @property
    def due(self) -> bool:
        """Whether the last state is older than ``seconds``."""
        return processes.rank() == 0 and time.monotonic() - self._last >= self.seconds

    def save(self, steps: int, state: Mapping[str, object]) -> None:
        """Write the state after so many steps, and delete all but the last two.

        Args:
            steps: the state's place in the order.
            state: tensors, numbers, strings and None, in dicts, lists and tuples of these.

        Warns:
            CheckpointWarning: it cannot be written, such as on a full disk; earlier ones are kept.
        """
        import safetensors.torch

        self._last = time.monotonic()
        if steps == self._sound_steps or processes.rank() > 0:
            return
        tensors: dict[str, Tensor] = {}
        body = {"steps": steps, "versions": versions(), "state": _encode(state, "", tensors)}
        content = safetensors.torch.save(tensors)
        text = json.dumps({"format": FORMAT, "sha256": checksum(body, content), **body}, indent=1, allow_nan=False)
        beside = self._path(steps)
        try:
            write_bytes((beside.with_suffix(".safetensors"), content), (beside, text.encode() + b"\n"))
            self._sound_steps = steps
            self._prune()
        except OSError as error:
            where = f"cannot write a checkpoint of step {steps} to {self.folder}: {error.strerror or error}"
            last = "there is none" if not self._steps() else f"the last one is of step {self._steps()[-1]}"
            warnings.warn(f"{where}; training continues; {last}", CheckpointWarning, stacklevel=3)

    def load(self) -> SavedState | None:
        """The last state; None if there is none.

        Raises:
            InputError: a newer version wrote it, or no state is complete; says what is wrong with the last one.

        Warns:
            CheckpointWarning: the last state is damaged, and the previous one is used; or other package versions wrote
                it.
        """
        problems: list[str] = []
        for steps in reversed(self._steps()):
            try:
                state, written_by = _read(self._path(steps))
            except FutureFormatError:
                raise
            except ValueError as error:
                problems.append(str(error))
                continue
            if problems:
                warnings.warn(f"{problems[0]}; resuming from step {steps}", CheckpointWarning, stacklevel=2)
            if written_by:
                warnings.warn(f"the checkpoint {self._path(steps)} {written_by}", CheckpointWarning, stacklevel=2)
            self._sound_steps = steps
            return state
        if problems:
            raise InputError(f"{problems[0]}; there is no other checkpoint: delete {self.folder} to start again")
        return None

    def _path(self, steps: int) -> Path:
        return self.folder / f"checkpoint-{steps:09d}.json"

    def _steps(self) -> list[int]:
        """Steps of the existing states, in order."""
        names = (re.fullmatch(r"checkpoint-(\d{9,})\.json", path.name) for path in self.folder.glob("checkpoint-*"))
        return sorted(int(name[1]) for name in names if name)

    def _prune(self) -> None:
        kept = {self._path(steps).stem for steps in self._steps()[-_KEPT:]}
        for path in sorted(self.folder.glob("checkpoint-*")):  # the JSON of a state before its tensors
            if path.stem not in kept:
                path.unlink(missing_ok=True)


class FutureFormatError(InputError):
    """A newer version of pyrovae wrote the file."""


def read_checkpoint(path: Path) -> SavedState:
    """The state in a checkpoint's JSON and the tensors beside it.

    Raises:
        InputError: they are damaged, or of another format.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[SavedState, str]:
    """The state in a checkpoint, and a note about the versions that wrote it."""
    import safetensors.torch

    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict) or type(found.get("format")) is not int:
            raise InputError("it has no format number")
        if found["format"] > FORMAT:
            raise FutureFormatError(
                f"cannot read the checkpoint {path}: its format is {found['format']}, and this version of pyrovae "
                f"reads {FORMAT}; install a newer one"
            )
        if found["format"] < 1:
            raise InputError(f"its format is {found['format']}, not 1 to {FORMAT}")
        content = path.with_suffix(".safetensors").read_bytes()
        body = {key: value for key, value in found.items() if key not in ("format", "sha256")}
        if found.get("sha256") != checksum(body, content):
            raise InputError("its checksum is wrong, so it is damaged")
        state = _decode(body["state"], safetensors.torch.load(content))
        if not isinstance(state, dict):
            raise InputError("it holds no state")
    except FutureFormatError:
        raise
    except OSError as error:
        raise InputError(f"cannot read the checkpoint {path}: {error.strerror or error}") from None
    except Exception as error:  # not JSON, nested too deep, not safetensors, …
        raise InputError(f"cannot read the checkpoint {path}: {one_line(error, 200)}") from None
    return state, _written_by(found["format"], body.get("versions"))


def _written_by(number: int, theirs: object) -> str:
    """A note about the versions that wrote a checkpoint; empty if they are the current ones."""
    known = theirs if isinstance(theirs, dict) else {}
    others = [f"{name} {known[name]}, not {ours}" for name, ours in versions().items() if known.get(name, ours) != ours]
    said = [f"was written with {'; '.join(others)}: the same steps may give other bits"] if others else []
    said += ["is of version 0.1, which did not record its model: make sure that it is this one"] if number == 1 else []
    return "; it ".join(said)


def _encode(value: object, where: str, tensors: dict[str, Tensor]) -> object:
    """A state as JSON with tags for what JSON lacks; tensors, and lists of floats as such, go into ``tensors``."""
    if isinstance(value, Tensor):
        tensors[where] = value.detach().cpu().contiguous()
        return {"$tensor": where}
    if isinstance(value, Mapping):
        items = [(key, _encode(item, f"{where}.{key}".strip("."), tensors)) for key, item in value.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return dict(items)
        return {"$dict": [list(item) for item in items]}
    if isinstance(value, list) and value and all(type(item) is float for item in value):
        tensors[where] = torch.tensor(value, dtype=torch.float64)
        return {"$floats": where}
    if isinstance(value, list | tuple):
        entries = [_encode(item, f"{where}.{i}".strip("."), tensors) for i, item in enumerate(value)]
        return {"$tuple": entries} if isinstance(value, tuple) else entries
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise InputTypeError(f"a checkpoint cannot hold {where}, a {type(value).__name__}")


def _decode(value: object, tensors: Mapping[str, Tensor]) -> object:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next((key for key in value if key.startswith("$")), None)
    if tag is None:
        return {key: _decode(item, tensors) for key, item in value.items()}
    inner = value[tag]
    if tag == "$tensor":
        return tensors[inner]
    if tag == "$floats":
        return tensors[inner].tolist()
    if tag == "$tuple":
        return tuple(_decode(item, tensors) for item in inner)
    if tag == "$dict":
        return {key: _decode(item, tensors) for key, item in inner}
    if tag == "$float":
        return float(inner)
    raise InputError(f"it has a value of an unknown kind, {tag}")


@contextmanager
def resuming_from(folder: Path) -> Iterator[None]:
    """Raise an InputError where the state in a checkpoint cannot be loaded, as it is of another source."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(
            f"cannot resume from the checkpoint in {folder}: {one_line(error, 300)}; use its original programs, "
            "data and settings, or another folder"
        ) from None


def as_run(saved: SavedState, wanted: str, folder: Path) -> tuple[str, int, SavedState]:
    """The engine and the number of threads of a checkpoint's run, and its state.

    Raises:
        InputError: another engine is wanted, or the checkpoint names none.
    """
    engine, threads = saved.get("engine"), saved.get("threads")
    if engine not in ENGINES or engine == Engine.AUTO or not isinstance(threads, int) or threads < 1:
        raise InputError(f"cannot resume from the checkpoint in {folder}: it is not of a training run")
    if wanted not in (Engine.AUTO, engine):
        raise InputError(
            f"the run in {folder} was started with the {engine} engine and cannot resume with {wanted}; "
            "give another folder to start again"
        )
    return str(engine), threads, saved.get("state", {})  # what is missing is found when it is loaded
