"""The data of a comparison: training, validation and test data, with the same preprocessing."""

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrovae.blocks import blocks, extent, first_where, in_blocks, is_mapped, rows_at
from pyrovae.comparison.settings import Execution, LikelihoodFactory, NetworkSettings, kind_of
from pyrovae.datasets import PIXEL, Preprocessing, Spectra, SyntheticDataset, find_copies, split_by_group
from pyrovae.errors import InputError, InputWarning, Option
from pyrovae.frames import Data, tensor_of

MOST_TEST = 2000
"""Of data that lie in a file at most so many are held out as test data."""


class CountsWarning(InputWarning):
    """The data are counts, and a likelihood is a density."""


@dataclass(frozen=True)
class PreparedData:
    """Training and test data (num, n), with their distribution where it is known.

    Attributes:
        name: name of the data set.
        train: training data, preprocessed.
        test: test data, preprocessed.
        truth: the data's distribution.
        validation: data that choose the best epoch and the learning rate, preprocessed.
        preprocessing: the fitted step that was applied.
        log_jacobian: log |det| of that step at each test datum, shape (num,); None where it has none.
        test_groups: label of each test datum; data with one label are not independent. None if all are.
        num_copies: number of data that are equal or near copies of others and were kept in the same part.
    """

    name: str
    train: Tensor
    test: Tensor
    truth: SyntheticDataset | None = None
    validation: Tensor | None = None
    preprocessing: Preprocessing | None = None
    log_jacobian: Tensor | None = None
    test_groups: NDArray[np.int64] | None = None
    num_copies: int = 0

    def first(self, num: int) -> "PreparedData":
        """The same with the first test data alone."""
        jacobian = None if self.log_jacobian is None else self.log_jacobian[:num]
        groups = None if self.test_groups is None else self.test_groups[:num]
        return replace(self, test=self.test[:num], log_jacobian=jacobian, test_groups=groups)

    @property
    def is_comparable(self) -> bool:
        """Whether densities of the preprocessed data are densities of the original data, up to the Jacobian."""
        return self.preprocessing is None or self.preprocessing.comparable


def draw_synthetic(dataset: SyntheticDataset, num_train: int | None, num_test: int | None) -> PreparedData:
    """Training and test data of a synthetic set, with its own sizes or these."""
    generator = torch.Generator().manual_seed(0)
    sizes = (dataset.num_train if num_train is None else num_train, dataset.num_test if num_test is None else num_test)
    train, test = (dataset.sample(size, generator) for size in sizes)
    return PreparedData(dataset.name, train, test, dataset)


def prepare(
    data: Data,
    test: Data | None,
    validation: Data | None,
    settings: NetworkSettings,
) -> PreparedData:
    """Data (num, n), split where there are no test data, and preprocessed; copies stay in one part.

    Raises:
        InputError: data of another shape, or values that are not finite (NaN is allowed where missing is "mask").
    """
    train = as_data_tensor("data", data, settings.missing)
    groups, num_copies = None, 0  # of the test data, and of all
    if test is None:
        labels = find_copies(train)
        num_copies = len(train) - int(labels.max()) - 1
        if num_copies:
            share = min(0.2, MOST_TEST / len(train)) if is_mapped(train) else 0.2
            kept, held_out = split_by_group(labels, (1 - share, share))
        else:
            order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
            num_test = min(max(2, len(train) // 5), MOST_TEST if is_mapped(train) else len(train))
            kept, held_out = order[:-num_test], order[-num_test:]
        groups = labels[held_out.numpy()] if num_copies else None
        train, test = rows_at(train, kept), rows_at(train, held_out)
    parts = {"test": as_data_tensor("test", test, settings.missing)}
    if validation is not None:
        parts["validation"] = as_data_tensor("validation", validation, settings.missing)
    for name, part in parts.items():
        if part.shape[1] != train.shape[1]:
            raise InputError(f"{name} has {part.shape[1]} columns and the training data {train.shape[1]}")
    step, jacobian = copy.deepcopy(settings.preprocessing_step), None
    if step is not None:
        step = step.fit(train)
        jacobian = step.log_abs_det_jacobian(parts["test"]) if step.comparable else None
        train = step.transform(train)
        parts = {name: step.transform(part) for name, part in parts.items()}
    validation = parts.get("validation")
    return PreparedData("data", train, parts["test"], None, validation, step, jacobian, groups, num_copies)


def check_can_be_sent(data: PreparedData, execution: Execution) -> None:
    """Raise an InputError if other processes are to train on data that lie in a file."""
    if is_mapped(data.train) and (execution.workers > 1 or execution.scheduler is not None):
        raise InputError(
            f"{len(data.train):,} training data are too large to be sent to other processes: leave out workers and "
            "scheduler, or give fewer data"
        )


def as_data_tensor(name: str, data: Data, missing: str) -> Tensor:
    """Data (num, n) in torch's default dtype.

    Raises:
        InputError: other data.
    """
    data = tensor_of(name, data)
    if data.dtype != torch.get_default_dtype():
        data = in_blocks(lambda rows: rows.to(torch.get_default_dtype()), data)
    least = 4 if name == "data" else 2
    if data.dim() != 2 or len(data) < least:
        raise InputError(f"{name} must have shape (num, n) with num ≥ {least}, not {tuple(data.shape)}")

    found = first_where(lambda rows: ~(rows.isfinite() | (rows.isnan() & (missing == "mask"))), data)
    if found is not None:
        raise InputError(f"{name} hold NaN or infinity at row {found[0]}, column {found[1]} (counted from 0)")
    return data


def are_counts(x: Tensor) -> bool:
    """Whether all values except NaN are counts 0, 1, 2, …, with more than two, and below those that all are whole."""
    values, most = x.new_empty(0), 1 / torch.finfo(x.dtype).eps
    for rows in blocks(x):
        seen = rows[~rows.isnan()]
        if not ((seen >= 0).all() and (seen < most).all() and (seen % 1 == 0).all()):
            return False
        values = torch.cat([values, seen.unique()[:3]]).unique()
    return len(values) > 2


def warn_of_counts(data: Spectra, likelihoods: Mapping[str, LikelihoodFactory]) -> None:
    """Warn of counts with a Gaussian likelihood; pixels are grey values.

    Warns:
        CountsWarning: names the likelihoods of counts.
    """
    kinds = {name: kind_of(make) for name, make in likelihoods.items()}
    densities = [name for name, kind in kinds.items() if kind is not None and kind.is_gaussian]
    if densities and data.unit != PIXEL and are_counts(data.x):
        low, high = extent(data.x)
        said = CountsWarning(
            f"the data are counts, whole numbers from {low.min():.0f} to {high.max():.0f}, and {densities[0]} noise "
            "does not suit them; try the likelihoods poisson and negative-binomial, with ",
            Option("preprocessing", "none"),
        )
        warnings.warn(said, stacklevel=3)
