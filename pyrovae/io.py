"""Save and load models: safetensors for the numbers, JSON for the architecture; no code is executed."""

import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from pyrovae.datasets import Preprocessing
from pyrovae.descriptions import Bounded, Json, build, check_keys, describe
from pyrovae.errors import InputError, InputTypeError, one_line
from pyrovae.files import checksum, to_json, write_bytes
from pyrovae.linear_gaussian import FactorModel, LinearGaussianVAE, LinearModel, ShrunkGaussian
from pyrovae.nn import ConfigurableModule
from pyrovae.vae import AmortizedGuide, GenerativeModel

FORMAT = 2
"""The written format. Format 1, of version 0.1, has no checksum of the description."""

_DAMAGE = (ValueError, TypeError, RuntimeError, LookupError, AttributeError, ArithmeticError)
"""What the constructors raise for a damaged description."""


class MissingChecksumWarning(UserWarning):
    """A model of version 0.1 has no complete checksum, so damage may not be noticed."""


def save(
    path: str | Path,
    model: GenerativeModel | LinearModel,
    guide: AmortizedGuide | None = None,
    *,
    preprocessing: Preprocessing | None = None,
) -> None:
    """Save a model and its guide as ``<path>`` (safetensors) with ``<path minus suffix>.json`` beside it.

    Both consist of the library's modules, or of your own :class:`~pyrovae.nn.ConfigurableModule` s. A linear-Gaussian
    model, whose posterior is exact, has no guide.

    Args:
        path: a file name ending in ``.safetensors``.
        model: the generative model, or a linear one such as a :class:`~pyrovae.FactorModel`.
        guide: the generative model's guide.
        preprocessing: the fitted steps from the original data to the model's. Their statistics go into the JSON, and
            :func:`load_preprocessing` reads them.

    Raises:
        InputTypeError: a part cannot be described by its constructor's arguments.
        InputError: the path does not end in ``.safetensors``.
        FileNotFoundError: the folder does not exist.

    Example:
        >>> import tempfile
        >>> from pyrovae import FactorModel, GaussianLikelihood
        >>> linear = FactorModel.fit(torch.randn(50, 3), GaussianLikelihood(1, 3), latent_dim=1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(f"{folder}/model.safetensors", linear)
        ...     loaded = load_linear(f"{folder}/model.safetensors")
        >>> torch.equal(loaded.loadings, linear.loadings)
        True
    """
    path = _checked_path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent}")
    if isinstance(model, LinearGaussianVAE):
        model = FactorModel.of(model)
    is_linear = isinstance(model, FactorModel | ShrunkGaussian)
    if is_linear and guide is not None:
        raise InputTypeError(f"the posterior of a {type(model).__name__} is exact; give no guide")
    parts: dict[str, object] = {"model": model, "guide": guide, "preprocessing": preprocessing}
    classes = {"model": GenerativeModel, "guide": AmortizedGuide, "preprocessing": Preprocessing}
    for name in ("preprocessing",) if is_linear else classes:
        if not isinstance(parts[name], classes[name]) and (name, parts[name]) != ("preprocessing", None):
            raise InputTypeError(
                f"the {name} must be of class {classes[name].__name__}, not {type(parts[name]).__name__}"
            )
    given = {name: part for name, part in parts.items() if isinstance(part, ConfigurableModule)}
    description: dict[str, Json] = {"format": FORMAT, **{name: describe(part, name) for name, part in given.items()}}
    from safetensors.torch import save as to_bytes

    tensors = {
        f"{name}.{key}": tensor.detach().cpu().contiguous()
        for name, part in given.items()
        if name != "preprocessing"
        for key, tensor in part.state_dict().items()
    }
    content, plain = to_bytes(tensors), json.loads(to_json(description))
    signed = {"sha256": checksum(plain, content), **plain}
    write_bytes((path, content), (path.with_suffix(".json"), to_json(signed).encode()))


def load(path: str | Path, classes: Iterable[type[ConfigurableModule]] = ()) -> tuple[GenerativeModel, AmortizedGuide]:
    """Load the model and the guide that :func:`save` wrote; for a linear model these are its programs.

    Args:
        path: the ``.safetensors`` file.
        classes: your own module classes that the saved programs consist of.

    Raises:
        InputError: the files are damaged, of a newer format, name an unknown class, or contain a model without latents.
        FileNotFoundError: there is no such file.

    Warns:
        MissingChecksumWarning: version 0.1 saved the model, without a complete checksum.
    """
    found = load_any(path, classes)
    return found if isinstance(found, tuple) else (found.to_model(), found.to_guide())


def load_linear(path: str | Path) -> FactorModel | ShrunkGaussian:
    """Load the linear-Gaussian model that :func:`save` wrote.

    Args:
        path: the ``.safetensors`` file.

    Raises:
        InputError: the files are damaged, of a newer format, or contain another model.
        FileNotFoundError: there is no such file.
    """
    found = load_any(path)
    if isinstance(found, tuple):
        raise InputError(f"{path} is a VAE; pyrovae.load reads it")
    return found


def load_any(
    path: str | Path, classes: Iterable[type[ConfigurableModule]] = ()
) -> tuple[GenerativeModel, AmortizedGuide] | FactorModel | ShrunkGaussian:
    """What :func:`save` wrote: a model and its guide, or a linear model."""
    from safetensors.torch import load as from_bytes

    path, own = _checked_path(path), list(classes)
    with _saved(path) as (description, content):
        tensors: dict[str, Tensor] = from_bytes(content)
        dtype = next((tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()), torch.float32)
        programs = []
        kinds = (
            {"model": GenerativeModel, "guide": AmortizedGuide} if "guide" in description else {"model": LinearModel}
        )
        for name, kind in kinds.items():
            of_program = {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
            values = sum(tensor.numel() for tensor in of_program.values())
            with torch.random.fork_rng(devices=[]), Bounded(values, spare=2**28 if own else 2**16):
                program = build(description.get(name), own)
            if not isinstance(program, kind) or not isinstance(program, ConfigurableModule):
                raise InputError(f"{path.with_suffix('.json').name} describes no model and guide")
            program.to(dtype).load_state_dict(of_program)
            programs.append(program)
    if description["format"] == 1:
        warnings.warn(
            f"{path} was saved by version 0.1 without a checksum, so damage to it may not be noticed; save it "
            "again with pyrovae.save",
            MissingChecksumWarning,
            stacklevel=3,
        )
    if len(programs) == 1:
        return cast("FactorModel | ShrunkGaussian", programs[0])
    return cast("tuple[GenerativeModel, AmortizedGuide]", tuple(programs))


def load_preprocessing(path: str | Path, classes: Iterable[type[ConfigurableModule]] = ()) -> Preprocessing | None:
    """Load the preprocessing that :func:`save` wrote beside a model; None if there was none.

    Args:
        path: the ``.safetensors`` file.
        classes: your own classes of steps.

    Raises:
        InputError: the file is damaged, or names an unknown class.
        FileNotFoundError: there is no such file.
    """
    with _saved(_checked_path(path)) as (description, _):
        step = build(description.get("preprocessing"), classes)
        if step is not None and not isinstance(step, Preprocessing):
            raise InputError(f"its preprocessing is a {type(step).__name__}")
    return step


def _checked_path(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"the file name must end in .safetensors, not {path.name!r}")
    return path


@contextmanager
def _saved(path: Path) -> Iterator[tuple[dict[str, Json], bytes]]:
    """The description and the tensors' bytes that :func:`save` wrote, sound as far as their format can tell.

    What damage makes the block raise becomes an InputError that names the file.
    """
    from safetensors import SafetensorError

    beside = path.with_suffix(".json")
    for file in (path, beside):
        if not file.is_file():
            raise FileNotFoundError(f"there is no file {file}")
    try:
        description, content = json.loads(beside.read_bytes()), path.read_bytes()
        if not isinstance(description, dict):
            raise InputError(f"{beside.name} is not a description of a model")
        number, sha256 = description.get("format"), description.pop("sha256", None)
        if type(number) is not int or not 1 <= number <= FORMAT:
            raise InputError(f"its format is {number!r}, this version reads 1 to {FORMAT}")
        of_tensors = hashlib.sha256(content).hexdigest()  # what there was in format 1, if anything
        sound = {checksum(description, content)} if number > 1 else {of_tensors, None}
        if sha256 not in sound:
            raise InputError(f"its checksum is wrong: it is damaged, or {beside.name} is of another model")
        check_keys(beside.name, description, ("format", "model", "guide", "preprocessing"))
        yield description, content
    except (*_DAMAGE, SafetensorError) as error:
        raise InputError(f"cannot load {path}: {one_line(error, 300)}") from error
