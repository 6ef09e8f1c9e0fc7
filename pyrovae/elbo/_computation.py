"""How an estimator computes a site's part of the bound, and its record of this."""

from dataclasses import dataclass
from enum import StrEnum

from torch import Tensor

from pyrovae.programs import Site


class Computation(StrEnum):
    """How an estimator computes the part of the bound that belongs to a site."""

    CLOSED_FORM = "closed_form"
    SAMPLED = "sampled"
    ENTROPY = "entropy"
    PATH_DERIVATIVE = "path_derivative"
    SCORE_FUNCTION = "score_function"
    WEIGHTS = "weights"
    DOUBLY_REPARAMETERIZED_WEIGHTS = "doubly_reparameterized_weights"

    @property
    def is_weighted(self) -> bool:
        """Whether the site is part of importance weights."""
        return self in (Computation.WEIGHTS, Computation.DOUBLY_REPARAMETERIZED_WEIGHTS)

    @property
    def is_sampled(self) -> bool:
        """Whether log p − log q is sampled where a closed form could be used."""
        return self in (Computation.SAMPLED, Computation.PATH_DERIVATIVE, Computation.SCORE_FUNCTION)


class Reason(StrEnum):
    """Why a site's part is sampled or not as expected."""

    OBSERVED = "observed"
    NO_CLOSED_FORM = "no_closed_form"
    BY_CHOICE = "by_choice"
    GUIDE_ALONE = "guide_alone"
    MODEL_ALONE = "model_alone"
    ANOTHER_ORDER = "another_order"
    ANOTHER_SCALE = "another_scale"


@dataclass(frozen=True)
class Note:
    """A site's part of the bound at one draw, as the estimator computed it.

    Attributes:
        site: name of the site.
        computation: how the part was computed.
        nats: the part, summed over the plate.
        model_site: the site in the model's trace; None for a site of the guide alone.
        guide_site: the site in the guide's trace; None for an observed site, or one of the model alone.
        reason: why the part is not as expected, if the estimator knows.
    """

    site: str
    computation: Computation
    nats: Tensor
    model_site: Site | None
    guide_site: Site | None
    reason: Reason | None = None
