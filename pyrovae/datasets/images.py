"""Image data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyrovae.datasets._published import PublishedFile, locate
from pyrovae.datasets.readers.idx import read_idx
from pyrovae.errors import InputError

_NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def _files(folder: str, mirrors: tuple[str, ...], checksums: tuple[str, ...]) -> tuple[PublishedFile, ...]:
    return tuple(
        PublishedFile(folder, f"{name}.gz", checksum, mirrors) for name, checksum in zip(_NAMES, checksums, strict=True)
    )


MNIST_FILES = _files(
    "mnist",
    ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
)
FASHION_MNIST_FILES = _files(
    "fashion_mnist",
    (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    (
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
)


@dataclass(frozen=True, eq=False, repr=False)
class ImageDataset:
    """Images in three parts, flat and row by row, with their classes.

    Attributes:
        name: its name on command lines and in files.
        side: height and width of an image in pixels.
        binarization: ``None`` for grey values in [0, 1]; ``"static"`` for pixels that are drawn once, 1 with the grey
            value as probability; ``"dynamic"`` to draw the training images again in each epoch.
        train: shape (num, side²); grey if the binarization is dynamic, ``transform`` draws from it.
        validation: shape (num, side²); the same binary pixels whether static or dynamic.
        test: likewise.
        train_labels: classes, shape (num,).
        validation_labels: likewise.
        test_labels: likewise.
    """

    name: str
    side: int
    binarization: str | None
    train: Tensor
    validation: Tensor
    test: Tensor
    train_labels: Tensor
    validation_labels: Tensor
    test_labels: Tensor

    @property
    def transform(self) -> Callable[[Tensor, torch.Generator], Tensor] | None:
        """The transform of the training images before each epoch: ``fit(…, transform=…)``."""
        return binarize if self.binarization == "dynamic" else None

    def __repr__(self) -> str:
        parts = ", ".join(f"{len(getattr(self, part))} {part}" for part in ("train", "validation", "test"))
        return f"ImageDataset({self.name!r}, {self.side} × {self.side}, {parts}, binarization={self.binarization!r})"


def binarize(x: Tensor, generator: torch.Generator) -> Tensor:
    """Draw each pixel, 1 with its grey value as probability and 0 otherwise.

    As a transform of :func:`~pyrovae.fit`, this is dynamic binarization: Salakhutdinov & Murray 2008.

    Args:
        x: grey values in [0, 1], any shape.
        generator: generator of the draws, on the device of x.

    Raises:
        InputError: values outside [0, 1].

    Example:
        >>> binarize(torch.tensor([0.0, 1.0, 1.0]), torch.Generator())
        tensor([0., 1., 1.])
    """
    if x.numel() and not (x.min() >= 0 and x.max() <= 1):
        raise InputError(f"grey values must be in [0, 1]; these go from {x.min():.4g} to {x.max():.4g}: scale them")
    return torch.rand(x.shape, generator=generator, dtype=torch.float32, device=x.device).lt(x).to(x.dtype)


def digits() -> tuple[Tensor, Tensor]:
    """The 1,797 handwritten digits of 8 × 8 pixels that come with scikit-learn.

    Returns:
        Grey values in [0, 1], shape (1797, 64), and the digits 0 to 9, shape (1797,).
    """
    from sklearn.datasets import load_digits  # takes a second to import

    bunch = load_digits()
    return torch.as_tensor(bunch.data / 16.0, dtype=torch.get_default_dtype()), torch.as_tensor(bunch.target)


def split_digits(binarization: str | None = None) -> ImageDataset:
    """:func:`digits` in a fixed shuffle: 1,197 to train, 300 to validate and 300 to test.

    Args:
        binarization: ``None``, ``"static"`` or ``"dynamic"``, see :class:`ImageDataset`.

    Raises:
        InputError: an unknown binarization.
    """
    _check_binarization(binarization)
    x, labels = digits()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    sizes = [len(x) - 600, 300, 300]
    return _dataset("digits", binarization, x[order].split(sizes), labels[order].split(sizes))


def mnist(binarization: str | None = None) -> ImageDataset:
    """MNIST: handwritten digits of 28 × 28 pixels, 50,000 to train, 10,000 to validate and 10,000 to test.

    The original files of LeCun, Cortes & Burges come from ``PYROVAE_DATA/mnist``, the cache, or a download. The last
    10,000 training images are the validation data. The static binarization is our own draw, not that of Larochelle &
    Murray (2011), so results on the two differ slightly.

    Args:
        binarization: ``None``, ``"static"`` or ``"dynamic"``, see :class:`ImageDataset`.

    Raises:
        InputError: an unknown binarization, or a damaged file.
        OSError: a file that is missing and cannot be downloaded, or a cache that cannot be written to.
    """
    return published_images("mnist", MNIST_FILES, binarization)


def fashion_mnist(binarization: str | None = None) -> ImageDataset:
    """Fashion-MNIST: articles of clothing in the format of :func:`mnist`, from ``PYROVAE_DATA/fashion_mnist``.

    Xiao, Rasul & Vollgraf 2017.

    Args:
        binarization: ``None``, ``"static"`` or ``"dynamic"``, see :class:`ImageDataset`.

    Raises:
        InputError: an unknown binarization, or a damaged file.
        OSError: a file that is missing and cannot be downloaded, or a cache that cannot be written to.
    """
    return published_images("fashion-mnist", FASHION_MNIST_FILES, binarization)


IMAGES: dict[str, Callable[[str | None], ImageDataset]] = {
    "digits": split_digits,
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
}
"""The image sets by the names used on command lines and in files."""


def _check_binarization(binarization: str | None) -> None:
    if binarization not in (None, "static", "dynamic"):
        raise InputError(f"unknown binarization {binarization!r}; choose None, 'static' or 'dynamic'")


def published_images(
    name: str, files: Sequence[PublishedFile], binarization: str | None = None, *, num_validation: int = 10_000
) -> ImageDataset:
    """A published set of images as :func:`mnist` has it.

    Args:
        name: name of the set.
        files: training images, their labels, test images and their labels, in IDX.
        binarization: see :class:`ImageDataset`.
        num_validation: number of images at the end of the published training set that validate.

    Raises:
        InputError: an unknown binarization, or files that are damaged or do not fit together.
        OSError: a file that is missing and cannot be downloaded, or a cache that cannot be written to.
    """
    _check_binarization(binarization)
    x, labels, x_test, test_labels = map(read_idx, [locate(file) for file in files])
    for file, images, classes in ((files[0], x, labels), (files[2], x_test, test_labels)):
        if images.dim() != 3 or images.shape[1] != images.shape[2] or classes.shape != images.shape[:1]:
            raise InputError(
                f"{file.name} and its labels hold shapes {tuple(images.shape)} and {tuple(classes.shape)}, not "
                "(num, side, side) and (num,)"
            )
    sizes = [len(x) - num_validation, num_validation]
    if sizes[0] < 1:
        raise InputError(
            f"{files[0].name} holds {len(x)} images; {num_validation} are for validation, and none is left"
        )
    dtype = torch.get_default_dtype()
    grey = [part.flatten(1).to(dtype).div_(255) for part in (*x.split(sizes), x_test)]
    return _dataset(name, binarization, grey, (*labels.long().split(sizes), test_labels.long()))


def _dataset(name: str, binarization: str | None, grey: Sequence[Tensor], labels: Sequence[Tensor]) -> ImageDataset:
    """The set of three parts; each binary part is drawn under a seed of its own."""
    x = list(grey)
    for part in range(3):
        if binarization == "static" or (binarization == "dynamic" and part > 0):
            x[part] = binarize(x[part], torch.Generator().manual_seed(part))
    return ImageDataset(name, round(x[0].shape[1] ** 0.5), binarization, *x, *labels)
