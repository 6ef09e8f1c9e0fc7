"""Modules as plain values, their constructors' arguments, and back; no code is executed."""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias, Union

from torch import Tensor
from torch.overrides import TorchFunctionMode

from pyrovae import likelihoods, linear_gaussian, nn, posteriors, priors, vae
from pyrovae.datasets import preprocessing
from pyrovae.errors import InputError, InputTypeError
from pyrovae.nn import ConfigurableModule

Json: TypeAlias = Union[bool, int, float, str, list["Json"], dict[str, "Json"], None]  # noqa: UP007
"""Values that JSON can store."""

_CREATORS = (
    "arange", "empty", "eye", "full", "linspace", "normal", "ones", "rand", "randn", "tril_indices", "triu_indices",
    "zeros", "new_empty", "new_full", "new_ones", "new_zeros",
)  # fmt: skip
"""Functions of torch that make a tensor of a size."""

_LIBRARY: dict[str, type[ConfigurableModule]] = {
    name: value
    for module in (nn, likelihoods, posteriors, priors, vae, preprocessing, linear_gaussian)
    for name, value in vars(module).items()
    if isinstance(value, type) and issubclass(value, ConfigurableModule)
}


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


def build(description: Json, classes: Iterable[type[ConfigurableModule]] = ()) -> object:
    """The value that :func:`describe` described.

    Args:
        description: as :func:`describe` returned it.
        classes: classes that may be in it besides the library's.

    Raises:
        InputError: an unknown class, or no description of a module.
        TypeError: arguments that the class does not take, or whatever else its constructor raises for them.
    """
    return _build(description, _LIBRARY | {cls.__name__: cls for cls in classes})


def _build(description: Json, known: dict[str, type[ConfigurableModule]]) -> object:
    if isinstance(description, list):
        return [_build(item, known) for item in description]
    if not isinstance(description, dict):
        return description
    name, given = description.get("class"), description.get("arguments")
    if not isinstance(name, str) or not isinstance(given, dict):
        raise InputError(f"a module needs a class and its arguments, and has only {', '.join(description)}")
    check_keys(f"the description of {name}", description, ("class", "arguments"))
    if name not in known:
        raise InputError(f"it holds a {name}, which is not of the library; pass classes=[{name}]")
    arguments = {key: _build(item, known) for key, item in given.items()}
    positional = arguments.pop("*", [])
    if not isinstance(positional, list):
        raise InputError(f"the positional arguments of {name} must be a list, not {positional!r}")
    return known[name].from_config(*positional, **arguments)


def check_keys(where: str, found: Iterable[str], known: Iterable[str]) -> None:
    """Raise an InputError that names the first key which is not known."""
    unknown = [key for key in found if key not in known]
    if unknown:
        raise InputError(f"{where} holds something unknown, {unknown[0]!r}")


class Bounded(TorchFunctionMode):
    """Refuses to make more numbers than a program can need whose tensors hold so many, before there is memory for them.

    A constructor makes its parameters and buffers, and some of its own to find them with.

    Args:
        values: number of values in the program's tensors.
        spare: how many numbers more than a multiple of those are no reason to refuse.
    """

    def __init__(self, values: int, spare: int) -> None:
        super().__init__()
        self.values, self.left = values, 16 * values + spare

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Iterable[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Call a function of torch; of one that makes a tensor, look at the size first."""
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _CREATORS and "out" not in kwargs:
            made = func(*args, **{**kwargs, "device": "meta"})
            assert isinstance(made, Tensor)
            self.left -= made.numel()
            if self.left < 0:
                size = " × ".join(map(str, made.shape))
                raise InputError(f"it asks for more numbers, {size} among them, than the {self.values} in its tensors")
        return func(*args, **kwargs)
