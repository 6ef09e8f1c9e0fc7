"""Saving and loading models: safetensors for the numbers, JSON for the architecture; nothing is executed."""

import hashlib
import inspect
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from pyrovae import likelihoods, nn, posteriors, vae
from pyrovae.datasets import preprocessing as preprocessing_steps
from pyrovae.datasets.preprocessing import Preprocessing
from pyrovae.errors import InputError, InputTypeError
from pyrovae.files import to_json, write_bytes
from pyrovae.nn import ConfigurableModule
from pyrovae.vae import AmortizedGuide, GenerativeModel

FORMAT = 1

_LIBRARY = {
    name: value
    for module in (nn, likelihoods, posteriors, vae, preprocessing_steps)
    for name, value in vars(module).items()
    if isinstance(value, type) and issubclass(value, ConfigurableModule)
}


def save(
    path: str | Path, model: GenerativeModel, guide: AmortizedGuide, *, preprocessing: Preprocessing | None = None
) -> None:
    """Save a model and a guide as ``<path>`` (safetensors) with ``<path minus suffix>.json`` beside it.

    Both are made of the library's modules, or of your own :class:`~pyrovae.nn.ConfigurableModule` s.

    Args:
        path: a file name ending in ``.safetensors``.
        model: the generative model.
        guide: the guide.
        preprocessing: the fitted steps that make the model's data of the original ones; its statistics go into the
            JSON, and :func:`load_preprocessing` reads them.

    Raises:
        InputTypeError: a part cannot be described by its constructor's arguments.
        InputError: the path does not end in ``.safetensors``.
    """
    path = _checked_path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent}")
    for name, program, cls in (("model", model, GenerativeModel), ("guide", guide, AmortizedGuide)):
        if not isinstance(program, cls):
            raise InputTypeError(f"the {name} must be of class {cls.__name__}, not {type(program).__name__}")
    programs = {"model": model, "guide": guide}
    description: dict[str, Any] = {"format": FORMAT} | {
        name: describe(program, name) for name, program in programs.items()
    }
    if preprocessing is not None:
        if not isinstance(preprocessing, Preprocessing):
            raise InputTypeError(f"preprocessing must be of class Preprocessing, not {type(preprocessing).__name__}")
        description["preprocessing"] = describe(preprocessing, "preprocessing")
    tensors = {
        f"{name}.{key}": tensor.detach().cpu().contiguous()
        for name, program in programs.items()
        for key, tensor in program.state_dict().items()
    }
    content = safetensors.torch.save(tensors)
    description["sha256"] = hashlib.sha256(content).hexdigest()
    write_bytes((path, content), (path.with_suffix(".json"), to_json(description).encode()))


def load(path: str | Path, classes: Iterable[type[torch.nn.Module]] = ()) -> tuple[GenerativeModel, AmortizedGuide]:
    """Load the model and the guide that :func:`save` wrote.

    Args:
        path: the ``.safetensors`` file.
        classes: your own module classes that the saved programs are made of.

    Raises:
        InputError: the files are damaged, of a newer format, or name a class that is not known.
        FileNotFoundError: there is no such file.
    """
    path = _checked_path(path)
    beside = path.with_suffix(".json")
    for file in (path, beside):
        if not file.is_file():
            raise FileNotFoundError(f"there is no file {file}")
    known = _LIBRARY | {cls.__name__: cls for cls in classes}
    try:
        description = json.loads(beside.read_text(encoding="utf-8"))
        if not isinstance(description, dict) or description.get("format") != FORMAT:
            found = description.get("format") if isinstance(description, dict) else None
            raise InputError(f"its format is {found!r}, this version reads {FORMAT}")
        model, guide = (_build(description[name], known) for name in ("model", "guide"))
        content = path.read_bytes()
        if description.get("sha256") not in (None, hashlib.sha256(content).hexdigest()):  # None: of version 0.1
            raise InputError(f"it is damaged, or {beside.name} is of another model")
        tensors = safetensors.torch.load(content)
        dtype = next((tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()), torch.float32)
        for name, program in (("model", model), ("guide", guide)):
            prefix = f"{name}."
            program.to(dtype)
            program.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    except (ValueError, KeyError, TypeError, RuntimeError, OSError) as error:
        raise InputError(f"cannot load {path}: {' '.join(str(error).split())}") from None
    except Exception as error:  # safetensors raises a class of its own for damaged files
        raise InputError(f"cannot load {path}: {error}") from None
    return model, guide


def load_preprocessing(path: str | Path, classes: Iterable[type[torch.nn.Module]] = ()) -> Preprocessing | None:
    """Load the preprocessing that :func:`save` wrote beside a model; None if it was given none.

    Args:
        path: the ``.safetensors`` file.
        classes: your own classes of steps.

    Raises:
        InputError: the file is damaged, or names a class that is not known.
        FileNotFoundError: there is no such file.
    """
    beside = _checked_path(path).with_suffix(".json")
    if not beside.is_file():
        raise FileNotFoundError(f"there is no file {beside}")
    known = _LIBRARY | {cls.__name__: cls for cls in classes}
    try:
        description = json.loads(beside.read_text(encoding="utf-8"))
        saved = description.get("preprocessing")
        step = None if saved is None else _build(saved, known)
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise InputError(f"cannot load {beside}: {' '.join(str(error).split())}") from None
    if step is not None and not isinstance(step, Preprocessing):
        raise InputError(f"cannot load {beside}: its preprocessing is a {type(step).__name__}")
    return step


def _checked_path(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"the file name must end in .safetensors, not {path.name!r}")
    return path


def describe(value: Any, where: str) -> Any:
    """Constructor arguments of a module, and of the modules among them, as plain values."""
    if isinstance(value, ConfigurableModule):
        arguments = {key: describe(item, f"{where}.{key}") for key, item in value.config().items()}
        return {"class": type(value).__name__, "arguments": arguments}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [describe(item, where) for item in value]
    raise InputTypeError(
        f"cannot save {where}, a {type(value).__name__}: only numbers, strings and modules that derive from "
        "pyrovae.nn.ConfigurableModule can be described"
    )


def _build(description: Any, known: Mapping[str, type[torch.nn.Module]]) -> Any:
    if isinstance(description, list):
        return [_build(item, known) for item in description]
    if not isinstance(description, dict):
        return description
    name = description["class"]
    if name not in known:
        raise InputError(f"it holds a {name}, which is not of the library; pass classes=[{name}]")
    arguments = {key: _build(item, known) for key, item in description["arguments"].items()}
    positional = arguments.pop("*", ())
    inspect.signature(known[name]).bind(*positional, **arguments)
    return known[name](*positional, **arguments)
