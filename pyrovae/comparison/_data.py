"""The data of a comparison: training, validation and test data, preprocessed alike."""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pyrovae.datasets import Preprocessing, SyntheticDataset
from pyrovae.errors import InputError


@dataclass(frozen=True)
class Data:
    """Training and test data (num, n), with their distribution where it is known.

    Attributes:
        name: of the data set.
        train: what is trained on, preprocessed.
        test: what is reported of, preprocessed.
        truth: the data's distribution.
        validation: what chooses the best epoch and the learning rate, preprocessed.
        preprocessing: the fitted step that made these of the original data.
        log_jacobian: of that step at each test datum, shape (num,): its density's share; None where it has none.
    """

    name: str
    train: Tensor
    test: Tensor
    truth: SyntheticDataset | None = None
    validation: Tensor | None = None
    preprocessing: Preprocessing | None = None
    log_jacobian: Tensor | None = None


def prepare(
    data: SyntheticDataset | Tensor | np.ndarray,
    num_train: int | None,
    num_test: int | None,
    test: Tensor | np.ndarray | None,
    validation: Tensor | np.ndarray | None,
    preprocessing: Preprocessing | None,
    missing: bool,
) -> Data:
    """The data as :func:`pyrovae.compare` is given them, split and preprocessed.

    Raises:
        InputError: data of another shape, values that are not finite (but for NaN where ``missing``), or settings
            that do not go with them.
    """
    generator = torch.Generator().manual_seed(0)
    if isinstance(data, SyntheticDataset):
        if test is not None or validation is not None or preprocessing is not None:
            raise InputError("test, validation and preprocessing belong to data of one's own, not to a synthetic set")
        sizes = [data.num_train if num_train is None else num_train, data.num_test if num_test is None else num_test]
        for name, size in zip(("num_train", "num_test"), sizes, strict=True):
            if not isinstance(size, int) or size < 2:
                raise InputError(f"{name} must be an integer of at least 2, not {size!r}")
        return Data(data.name, data.sample(sizes[0], generator), data.sample(sizes[1], generator), data)
    train = as_data_tensor("data", data, missing)
    if test is None:
        shuffled = train[torch.randperm(len(train), generator=generator)]
        held_out = max(2, len(train) // 5)
        train, test = shuffled[:-held_out], shuffled[-held_out:]
    parts = {"test": as_data_tensor("test", test, missing)}
    if validation is not None:
        parts["validation"] = as_data_tensor("validation", validation, missing)
    for name, part in parts.items():
        if part.shape[1] != train.shape[1]:
            raise InputError(f"{name} has {part.shape[1]} columns and the training data {train.shape[1]}")
    jacobian = None
    if preprocessing is not None:
        preprocessing = copy.deepcopy(preprocessing).fit(train)
        jacobian = preprocessing.log_abs_det_jacobian(parts["test"]) if preprocessing.comparable else None
        train = preprocessing.transform(train)
        parts = {name: preprocessing.transform(part) for name, part in parts.items()}
    return Data("data", train, parts["test"], None, parts.get("validation"), preprocessing, jacobian)


def as_data_tensor(name: str, data: Tensor | np.ndarray, missing: bool) -> Tensor:
    """Data (num, n) in torch's default dtype.

    Raises:
        InputError: other data.
    """
    data = torch.as_tensor(data).to(torch.get_default_dtype())
    if data.dim() != 2 or len(data) < (4 if name == "data" else 2):
        least = 4 if name == "data" else 2
        raise InputError(f"{name} must have shape (num, n) with num ≥ {least}, not {tuple(data.shape)}")
    valid = data.isfinite() | (data.isnan() & missing)
    if not valid.all():
        row, column = (~valid).nonzero()[0].tolist()
        raise InputError(f"{name} hold NaN or infinity at row {row}, column {column} (counted from 0)")
    return data
