"""Copies among data: equal rows, and rows so similar that they are measurements of one sample."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pyrovae.blocks import blocks

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 10_000
"""Near copies are looked for among at most so many different rows."""

NAMES_OF_SAMPLES = frozenset(
    {
        "id", "sample", "subject", "patient", "specimen", "batch", "lot", "plot", "site", "field", "plate", "donor",
        "animal", "plant", "tree", "tablet", "replicate", "group", "person", "participant", "individual",
    }
)  # fmt: skip
"""Words in the name of a column that names what was measured."""

_MOST_AGAIN = 9
"""A sample is measured again at most so often."""

_SOME = 2000
"""Rows that say how often values of a column are equal."""

_NEIGHBOURS = 25
_COMPONENTS = 20
_MOST_DIMENSIONS = 10.0
_LEVEL = 2e-4
"""Probability that rows without copies look like copies, for each set of rows."""
_LEAST_SHARE = 0.05
"""Of near copies among all rows: fewer are chance, or too few to matter."""


def _equal_rows(x: Tensor) -> tuple[NDArray[np.int64], bool]:
    """Label of each row, from 0: equal rows have one label, missing values being alike.

    Rows of so few different values that some are equal by chance have a label each; and whether that is so.
    """
    digests = b"".join(hashlib.blake2b(row.tobytes(), digest_size=16).digest() for b in blocks(x) for row in b.numpy())
    _, labels = np.unique(np.frombuffer(digests, np.dtype((np.void, 16))), return_inverse=True)
    if labels.max() + 1 < len(x) and _equal_by_chance(x[:_SOME].numpy(), len(x)):
        return np.arange(len(x)), True
    return labels.ravel().astype(np.int64), False


def _equal_by_chance(some: NDArray[np.generic], num: int) -> bool:
    """Whether a pair of so many rows may be equal by chance, if the columns of some are independent of each other."""
    log_pairs = 2 * np.log(num) - np.log(2)
    for column in some.T:
        _, counts = np.unique(column, return_counts=True)
        pairs = (counts * (counts - 1)).sum() / (len(some) * (len(some) - 1))
        log_pairs += np.log(max(pairs, 1 / len(some) ** 2))
        if log_pairs < 0:
            return False
    return True


def copies(x: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Labels of each row of x (num, n), from 0: of equal rows, and of equal rows or near copies.

    Neighbours at random have no gap between them: in D dimensions (d_r/d_(r+1))^(D r) of a row's distances to its r-th
    and next neighbour is uniform (Facco et al. 2017). A set of r + 1 rows that are each other's r nearest are copies
    where that has a probability below 0.0002 for each of them, and d_r is at most half of d_(r+1). D is estimated from
    farther neighbours (Levina and Bickel 2005), the distances are those of the largest 20 principal components. Fewer
    than 5 % are left as they are.

    Data with missing values, and more than 10,000 different rows, have equal rows alone.
    """
    labels, by_chance = _equal_rows(x)
    _, first = np.unique(labels, return_index=True)
    if by_chance or not _NEIGHBOURS + 1 < len(first) <= MOST_ROWS or x.shape[1] < 2 or x.isnan().any():
        return labels, labels
    near = _near(x.numpy()[first].astype(float))
    enough = len(first) - len(set(near.tolist())) >= _LEAST_SHARE * len(first)
    return labels, near[labels] if enough else labels


def _near(rows: NDArray[np.float64]) -> NDArray[np.int64]:
    """Labels of rows that differ."""
    from sklearn.decomposition import PCA
    from sklearn.neighbors import NearestNeighbors

    if min(rows.shape) > _COMPONENTS:
        rows = PCA(_COMPONENTS, svd_solver="randomized", random_state=0).fit_transform(rows)
    distances, neighbours = NearestNeighbors(n_neighbors=_NEIGHBOURS).fit(rows).kneighbors()
    distances = np.maximum(distances, np.finfo(float).tiny)
    far = np.log(distances[:, -1:] / distances[:, _MOST_AGAIN + 1 : -1])
    dimensions = min(1 / max(float(far.mean()), 1e-12), _MOST_DIMENSIONS)
    again = np.arange(1, _MOST_AGAIN + 1)
    ratio = distances[:, :_MOST_AGAIN] / distances[:, 1 : _MOST_AGAIN + 1]
    apart = (ratio <= 0.5) & (ratio ** (dimensions * again) < _LEVEL)  # (row, r)
    labels = np.arange(len(rows))
    for r in again:  # larger sets last, and they contain the smaller ones
        for i in np.flatnonzero(apart[:, r - 1]):
            members = {int(i), *neighbours[i, :r].tolist()}
            if all(apart[j, r - 1] and {j, *neighbours[j, :r].tolist()} == members for j in members):
                labels[list(members)] = min(labels[list(members)])
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def joined(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """Label of each datum, where data with one label in ``a`` or in ``b`` have one label."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    nodes = int(a.max() + b.max()) + 2
    links = coo_array((np.ones(len(a)), (a, a.max() + 1 + b)), shape=(nodes, nodes))
    _, label = connected_components(links, directed=False)
    _, found = np.unique(label[a], return_inverse=True)
    return found.ravel().astype(np.int64)


def columns_of_samples(targets: pd.DataFrame) -> tuple[str, ...]:
    """Columns whose name says that they name samples, and whose values come several times."""
    found = []
    for name in targets:
        values, words = targets[name], re.findall(r"[A-Z]?[a-z]+|[A-Z]+", str(name))
        named = {word.lower().removesuffix("s") for word in words} & NAMES_OF_SAMPLES
        if named and 3 <= values.nunique() < len(values) and not values.isna().any():
            found.append(str(name))
    return tuple(found)
