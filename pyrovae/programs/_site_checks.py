"""Checks of a sample site: elements outside of its plates, values outside of its support, data counted twice."""

import math

import torch
from pyro.distributions import ExpandedDistribution, MaskedDistribution
from torch import Tensor
from torch.distributions import Distribution, Independent

from pyrovae.errors import InputError
from pyrovae.programs._sites import Site, describe

NO_SIZE = -1
"""Pyro's size of a plate that was given none, which takes any."""


def check_width(name: str, site: Site) -> None:
    """Raise an InputError where a site's log-density, scaled and masked, has elements outside of its plates."""
    fn, value = site["fn"], site["value"]
    sizes = {f.dim: f.size for f in site["cond_indep_stack"] if f.vectorized}
    own = {"distribution": fn.batch_shape}
    if isinstance(value, Tensor):
        own["value"] = value.shape[: value.dim() - fn.event_dim]
    own |= {part: site[part].shape for part in ("mask", "scale") if isinstance(site[part], Tensor)}
    if all(_is_inside(shape, sizes) for shape in own.values()):
        return
    try:
        shape = torch.broadcast_shapes(*own.values())
    except RuntimeError:
        shapes = " and ".join(f"a {part} of shape {tuple(shape)}" for part, shape in own.items())
        raise InputError(
            f"site {name!r} has {shapes}, which do not fit each other; give both one element for each datum of a batch"
        ) from None
    num_terms = f"an invalid log_prob shape, {tuple(shape)} with {math.prod(shape)} terms"
    if not sizes:
        raise InputError(
            f"site {name!r} has {num_terms}, and is in no plate; put the sites of the data into "
            "`with pyro.plate('data', len(x))`, and declare all other axes with .to_event"
        )
    depth = -min(sizes, default=0)
    plates = tuple(sizes.get(k - depth, 1) for k in range(depth))
    raise InputError(
        f"site {name!r} has {num_terms}: its plates have {plates}, and it broadcasts; squeeze the extra axis of one of "
        "its tensors (or of a mask or scale around it), declare it with .to_event(1), or put it into a plate"
    )


def check_in_support(name: str, site: Site) -> None:
    """Raise an InputError where a value of the model's site that no mask hides lies outside of the support.

    A distribution that was made with ``validate_args=False`` takes any value. NaN is judged by its log-density.
    """
    fn, value, mask = site["fn"], torch.as_tensor(site["value"]), site["mask"]
    valid = _in_support(fn, value)
    if valid.all() or mask is False:
        return
    values = value.reshape(*value.shape[: value.dim() - fn.event_dim], -1)
    valid = valid | values.isnan().any(-1)
    if isinstance(mask, Tensor):
        valid = valid | ~mask
    if valid.all():
        return
    wrong = [round(number, 6) for number in values.expand(*valid.shape, -1)[~valid][0].tolist()]
    remedy = "give the guide the same support"
    if site["is_observed"]:
        remedy = "correct the data, or choose another distribution"
        if _bounds_vary(fn.support):
            remedy = (
                "where its bounds depend on latents, draws that leave out a datum make the ELBO -inf: choose a "
                "distribution with fixed bounds or without any, such as a Normal"
            )
    raise InputError(
        f"site {name!r} has the value {wrong[0] if len(wrong) == 1 else wrong[:3]}, which is outside of the support of "
        f"the model's {describe(fn)}; {remedy}"
    )


def check_counted_once(name: str, site: Site) -> None:
    """Raise an InputError where each element of a plate observes all of the data as one value."""
    value, events = site["value"], tuple(site["fn"].event_shape)
    for frame in site["cond_indep_stack"]:
        is_inside = frame.vectorized and frame.size > 1 and value.dim() - len(events) < -frame.dim
        if is_inside and events[:1] == (frame.size,):
            raise InputError(
                f"site {name!r} observes one value of shape {events} in each of the {frame.size} elements of plate "
                f"{frame.name!r}, so the data count {frame.size} times; write .to_event({len(events) - 1}) for "
                f".to_event({len(events)}) at its distribution"
            )


def _bounds_vary(support: object) -> bool:
    """Whether a support has other bounds for some elements than for others."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    bounds = (getattr(support, name, None) for name in ("lower_bound", "upper_bound"))
    return any(isinstance(bound, Tensor) and bool((bound != bound.flatten()[0]).any()) for bound in bounds)


def _in_support(fn: Distribution, value: Tensor) -> Tensor:
    """Which elements of a value lie in the support, shape of the batch; all where it is masked or not to be checked."""
    if isinstance(fn, MaskedDistribution):
        inside = _in_support(fn.base_dist, value)
        return inside | ~torch.as_tensor(fn._mask, device=inside.device)
    if isinstance(fn, ExpandedDistribution):
        return _in_support(fn.base_dist, value)
    if isinstance(fn, Independent):
        inside = _in_support(fn.base_dist, value)
        return inside.flatten(-fn.reinterpreted_batch_ndims).all(-1) if inside.dim() else inside
    try:
        support = fn.support if fn._validate_args else None
    except NotImplementedError:  # not known
        support = None
    return torch.tensor(True, device=value.device) if support is None else support.check(value)


def _is_inside(shape: torch.Size, sizes: dict[int, int]) -> bool:
    """Whether a shape has no axis but those of its plates; axes between plates may, as in Pyro, belong to others."""
    depth = -min(sizes, default=0)
    return all(
        size == 1 or sizes.get(-k, size if k <= depth else 1) in (size, NO_SIZE)
        for k, size in enumerate(reversed(shape), 1)
    )
