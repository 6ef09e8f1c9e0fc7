"""Saving and loading models: safetensors for the numbers, JSON for the architecture; nothing is executed."""

import hashlib
import inspect
import json
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias, Union

import torch
from torch import Tensor

from pyrovae import likelihoods, nn, posteriors, vae
from pyrovae.datasets import preprocessing as preprocessing_steps
from pyrovae.datasets.preprocessing import Preprocessing
from pyrovae.errors import InputError, InputTypeError, one_line
from pyrovae.files import to_json, write_bytes
from pyrovae.nn import ConfigurableModule
from pyrovae.vae import AmortizedGuide, GenerativeModel

Json: TypeAlias = Union[bool, int, float, str, list["Json"], dict[str, "Json"], None]  # noqa: UP007
"""What JSON can hold."""

FORMAT = 1

_Classes: TypeAlias = dict[str, type[torch.nn.Module]]

_LIBRARY: _Classes = {
    name: value
    for module in (nn, likelihoods, posteriors, vae, preprocessing_steps)
    for name, value in vars(module).items()
    if isinstance(value, type) and issubclass(value, ConfigurableModule)
}


_DAMAGE = (ValueError, TypeError, RuntimeError, LookupError, AttributeError, ArithmeticError)
"""What the constructors raise for a damaged description."""


class MissingChecksumWarning(UserWarning):
    """A model of version 0.1 has no checksum, so damage to its numbers would not be noticed."""


def save(
    path: str | Path, model: GenerativeModel, guide: AmortizedGuide, *, preprocessing: Preprocessing | None = None
) -> None:
    """Save a model and a guide as ``<path>`` (safetensors) with ``<path minus suffix>.json`` beside it.

    Both consist of the library's modules, or of your own :class:`~pyrovae.nn.ConfigurableModule` s.

    Args:
        path: a file name ending in ``.safetensors``.
        model: the generative model.
        guide: the guide.
        preprocessing: the fitted steps that turn the original data into the model's. Their statistics go into the
            JSON, and :func:`load_preprocessing` reads them.

    Raises:
        InputTypeError: a part cannot be described by its constructor's arguments.
        InputError: the path does not end in ``.safetensors``.
        FileNotFoundError: the folder does not exist.
    """
    path = _checked_path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent}")
    parts: dict[str, torch.nn.Module] = {"model": model, "guide": guide}
    if preprocessing is not None:
        parts["preprocessing"] = preprocessing
    classes = {"model": GenerativeModel, "guide": AmortizedGuide, "preprocessing": Preprocessing}
    for name, part in parts.items():
        if not isinstance(part, classes[name]):
            raise InputTypeError(f"the {name} must be of class {classes[name].__name__}, not {type(part).__name__}")
    description: dict[str, Json] = {"format": FORMAT, **{name: describe(part, name) for name, part in parts.items()}}
    from safetensors.torch import save as to_bytes

    tensors = {
        f"{name}.{key}": tensor.detach().cpu().contiguous()
        for name in ("model", "guide")
        for key, tensor in parts[name].state_dict().items()
    }
    content = to_bytes(tensors)
    description["sha256"] = hashlib.sha256(content).hexdigest()
    write_bytes((path, content), (path.with_suffix(".json"), to_json(description).encode()))


def load(path: str | Path, classes: Iterable[type[torch.nn.Module]] = ()) -> tuple[GenerativeModel, AmortizedGuide]:
    """Load the model and the guide that :func:`save` wrote.

    Args:
        path: the ``.safetensors`` file.
        classes: your own module classes that the saved programs consist of.

    Raises:
        InputError: the files are damaged, of a newer format, or name an unknown class.
        FileNotFoundError: there is no such file.

    Warns:
        MissingChecksumWarning: version 0.1 saved the model, without a checksum.
    """
    from safetensors.torch import load as from_bytes

    path = _checked_path(path)
    beside = path.with_suffix(".json")
    with _description(beside, path) as description:
        if description.get("format") != FORMAT:
            raise InputError(f"its format is {description.get('format')!r}, this version reads {FORMAT}")
        known = _LIBRARY | {cls.__name__: cls for cls in classes}
        model, guide = (_build(description.get(name), known) for name in ("model", "guide"))
        if not isinstance(model, GenerativeModel) or not isinstance(guide, AmortizedGuide):
            raise InputError(f"{beside.name} describes no model and guide")
        content = path.read_bytes()
        checksum = description.get("sha256")
        if checksum is not None and checksum != hashlib.sha256(content).hexdigest():
            raise InputError(f"it is damaged, or {beside.name} is of another model")
        tensors: dict[str, Tensor] = from_bytes(content)
        dtype = next((tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()), torch.float32)
        for name, program in (("model", model), ("guide", guide)):
            prefix = f"{name}."
            program.to(dtype)
            program.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    if checksum is None:
        warnings.warn(
            f"{path} was saved by version 0.1 without a checksum, so damage to its numbers would not be noticed; "
            "save it again with pyrovae.save",
            MissingChecksumWarning,
            stacklevel=2,
        )
    return model, guide


def load_preprocessing(path: str | Path, classes: Iterable[type[torch.nn.Module]] = ()) -> Preprocessing | None:
    """Load the preprocessing that :func:`save` wrote beside a model; None if there was none.

    Args:
        path: the ``.safetensors`` file.
        classes: your own classes of steps.

    Raises:
        InputError: the file is damaged, or names an unknown class.
        FileNotFoundError: there is no such file.
    """
    beside = _checked_path(path).with_suffix(".json")
    with _description(beside, beside) as description:
        step = _build(description.get("preprocessing"), _LIBRARY | {cls.__name__: cls for cls in classes})
        if step is not None and not isinstance(step, Preprocessing):
            raise InputError(f"its preprocessing is a {type(step).__name__}")
    return step


def describe(value: object, where: str) -> Json:
    """Constructor arguments of a module, and of the modules among them, as plain values.

    Raises:
        InputTypeError: a value is neither a number, a string, a list of them nor a ConfigurableModule.
    """
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


def _build(description: Json, known: _Classes) -> object:
    """The value that :func:`describe` described.

    Raises:
        InputError: an unknown class, or no description of a module.
        TypeError: arguments that the class does not take, or whatever else its constructor raises for them.
    """
    if isinstance(description, list):
        return [_build(item, known) for item in description]
    if not isinstance(description, dict):
        return description
    name, given = description.get("class"), description.get("arguments")
    if not isinstance(name, str) or not isinstance(given, dict):
        raise InputError(f"a module needs a class and its arguments, and has only {', '.join(description)}")
    if name not in known:
        raise InputError(f"it holds a {name}, which is not of the library; pass classes=[{name}]")
    arguments = {key: _build(item, known) for key, item in given.items()}
    positional = arguments.pop("*", [])
    if not isinstance(positional, list):
        raise InputError(f"the positional arguments of {name} must be a list, not {positional!r}")
    inspect.signature(known[name]).bind(*positional, **arguments)
    return known[name](*positional, **arguments)


def _checked_path(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"the file name must end in .safetensors, not {path.name!r}")
    return path


@contextmanager
def _description(path: Path, where: Path) -> Iterator[dict[str, Json]]:
    """The description in a JSON file; what damage makes the block raise becomes an InputError that names ``where``."""
    from safetensors import SafetensorError

    for file in (where, path):
        if not file.is_file():
            raise FileNotFoundError(f"there is no file {file}")
    try:
        description: Json = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(description, dict):
            raise InputError(f"{path.name} is no description of a model")
        yield description
    except (*_DAMAGE, SafetensorError) as error:
        raise InputError(f"cannot load {where}: {one_line(error)}") from error
