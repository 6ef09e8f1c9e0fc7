"""Running a pair: the guide, then the model at the guide's draws."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeGuard

import pyro
import pyro.poutine as poutine
import torch
from pyro.infer.util import is_validation_enabled
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from pyrovae.errors import InputError, InputTypeError
from pyrovae.programs._pair import DATA_PLATE, TracedPair
from pyrovae.programs._running import FAILURES, running_on
from pyrovae.programs._sites import Program, Role, Site, is_subsample, latent_sites, log_prob_of
from pyrovae.randomness import random_state, set_random_state


def trace_pair(
    model: Program,
    guide: Program,
    *args: object,
    keywords: dict[str, object] | None = None,
    check: bool = False,
    enumerates: bool = False,
) -> TracedPair:
    """Run a guide, and its model at the guide's draws; describe the pair.

    Args:
        model: Pyro program of the joint density.
        guide: Pyro program of the variational posterior.
        *args: arguments of both.
        keywords: keyword arguments of both.
        check: whether to raise an InputError if the two do not fit each other.
        enumerates: whether latents that the guide lacks are summed out where the model marks them for that.
    """
    if check:  # in a trace of its own: a distribution that is made under validation goes on validating
        before = random_state()
        try:
            given = [value.clone() if isinstance(value, Tensor) else value for value in args]
            with pyro.validation_enabled(True), data_unchanged(given), seed_unchanged():
                pair = TracedPair.of(*raw_traces(model, guide, *given, keywords=keywords, check=True))
                pair.check(enumerates)
                pair.check_same_latents()
                pair.check_values()
            check_observes(model, pair, *given, **(keywords or {}))
        finally:
            set_random_state(before)
    return TracedPair.of(*raw_traces(model, guide, *args, keywords=keywords))


def raw_traces(
    model: Program, guide: Program, *args: object, keywords: dict[str, object] | None = None, check: bool = False
) -> tuple[Trace, Trace]:
    """The traces of a model and of its guide, the model's at the guide's draws."""
    kwargs = keywords or {}
    if check:
        _check_call(guide, "the guide", args, kwargs)
        _check_call(model, "the model", args, kwargs)
    messenger = poutine.unwrap(guide)
    x = args[0] if check and args else None
    if isinstance(messenger, Messenger):  # one of Pyro's guides that are made out of the model
        with running_on(x):
            guide(*args, **kwargs)
        model_trace, guide_trace = messenger.get_traces()
        return model_trace, guide_trace

    def traced(program: Program, who: str) -> Trace:
        tracer = poutine.trace(program)
        try:
            with running_on(x, who):
                return tracer.get_trace(*args, **kwargs)
        finally:
            if check:
                _check_data_plate(tracer.trace, x)

    guide_trace = traced(guide, "the guide")
    replayed = poutine.replay(model, trace=guide_trace)
    with draws_unchanged(guide_trace):
        model_trace = traced(_SameEvents(guide_trace)(replayed) if check else replayed, "the model")
    return model_trace, guide_trace


def pair_at(
    model: Program, guide: Program, values: Mapping[str, Tensor], *args: object, **kwargs: object
) -> TracedPair:
    """The programs' sites if what the guide draws has these values, by name."""
    guide_trace = trace_at(guide, values, *args, **kwargs)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
    return TracedPair.of(model_trace, guide_trace)


def trace_at(program: Program, values: Mapping[str, Tensor], *args: object, **kwargs: object) -> Trace:
    """A program's sites if what it draws has these values, by name."""
    given = Trace()
    for name, value in values.items():
        given.add_node(name, type="sample", name=name, is_observed=False, value=value, infer={})
    return poutine.trace(poutine.replay(program, trace=given)).get_trace(*args, **kwargs)


@contextmanager
def data_unchanged(args: Sequence[object]) -> Iterator[None]:
    """Where Pyro validates, raise an InputError if the programs change their data in place."""
    given = [value for value in args if _has_version(value)] if is_validation_enabled() else []
    before = [value._version for value in given]
    yield
    if before != [value._version for value in given]:
        raise InputError(
            "the model or the guide changes its data in place, so the next run has other data; change a copy, as in "
            "x = x.clamp(0, 1) instead of x.clamp_(0, 1)"
        )


@contextmanager
def seed_unchanged() -> Iterator[None]:
    """Raise an InputError if the programs set the seed of torch's draws; it is another one inside."""
    seed = torch.default_generator.initial_seed() ^ 1
    torch.default_generator.manual_seed(seed)
    yield
    if torch.default_generator.initial_seed() != seed:
        raise InputError(
            "the model or the guide sets the random seed, so all of its draws are the same; omit torch.manual_seed "
            "(or pyro.set_rng_seed), or call it once, outside of the programs"
        )


def check_observes(model: Program, pair: TracedPair, *args: object, **keywords: object) -> None:
    """Raise an InputError unless the model observes something: the data, its first argument, or what changes with it.

    A tensor from outside is taken if it holds the same values as the data, in their order.
    """
    observed = pair.of_role(Role.OBSERVED)
    if not observed:
        raise InputError("the model observes no data, so there is no p(x|z); give the site of the data obs=x")
    x = args[0] if args else None
    if not isinstance(x, Tensor) or not x.dim() or any(_holds(site.site["value"], x) for site in observed):
        return
    others = x[:1].expand_as(x).clone()
    if torch.equal(others.nan_to_num(), x.nan_to_num()):
        return
    replayed = poutine.trace(poutine.replay(model, trace=pair.guide))
    try:
        with torch.no_grad():
            trace = replayed.get_trace(others, *args[1:], **keywords)
            is_same = all(_is_same(site.site, trace.nodes[site.name]) for site in observed)
    except FAILURES:  # for instance data of equal rows
        return
    if is_same:
        raise InputError(
            f"what the model observes at site {observed[0].name!r} does not change with the data that it is given; "
            "observe the program's argument, obs=x, not a tensor from outside (or one by poutine.condition)"
        )


def _holds(value: object, x: Tensor) -> bool:
    """Whether an observed value is the data themselves, along other axes too."""
    if not isinstance(value, Tensor) or value.numel() < x.numel():
        return False
    shapes = (x, x.unsqueeze(-1), x.squeeze(-1))
    return any(_fits(data, value) and torch.equal(data.to(value).expand_as(value), value) for data in shapes)


def _fits(data: Tensor, value: Tensor) -> bool:
    sizes = zip(reversed(data.shape), reversed(value.shape), strict=False)
    return data.dim() <= value.dim() and all(one in (1, other) for one, other in sizes)


def _is_same(site: Site, other: Site) -> bool:
    """Whether an observed site has the same value and the same terms."""
    return all(
        torch.equal(torch.as_tensor(one).nan_to_num(), torch.as_tensor(two).nan_to_num())
        for one, two in ((site["value"], other["value"]), (log_prob_of(site), log_prob_of(other)))
    )


@contextmanager
def draws_unchanged(guide_trace: Trace) -> Iterator[None]:
    """Where Pyro validates, raise an InputError if the model changes one of the guide's draws in place."""
    sites = latent_sites(guide_trace).items() if is_validation_enabled() else ()
    before = {name: site["value"]._version for name, site in sites if _has_version(site["value"])}
    yield
    for name, version in before.items():
        if guide_trace.nodes[name]["value"]._version != version:
            raise InputError(
                f"the model changes the draw of site {name!r} in place, so its densities are those of another value; "
                "write z = z + 1, not z += 1"
            )


def _has_version(value: object) -> TypeGuard[Tensor]:
    return type(value) is Tensor and not value.is_inference()


def _check_call(program: object, who: str, args: Sequence[object], kwargs: Mapping[str, object]) -> None:
    """Raise an InputTypeError unless the program can be called with the data alone."""
    if not callable(program):
        raise InputTypeError(f"{who} must be a Pyro program, a function or a module, not {type(program).__name__}")
    try:
        inspect.signature(program.forward if isinstance(program, nn.Module) else program).bind(*args, **kwargs)
    except TypeError as error:
        raise InputTypeError(
            f"{who} cannot be called with the data alone: {error}; bind what else it takes with functools.partial"
        ) from None
    except ValueError:  # a callable without a signature
        return


class _SameEvents(Messenger):
    """Refuse a model whose latent is of another shape than the guide's draw of it, before the model uses the draw."""

    def __init__(self, guide_trace: Trace) -> None:
        super().__init__()
        self.guide_trace = guide_trace

    def _pyro_sample(self, msg: Site) -> None:
        drawn = self.guide_trace.nodes.get(msg["name"])
        if drawn is None or drawn["type"] != "sample" or msg["is_observed"] or is_subsample(drawn):
            return
        of_model, of_guide = (tuple(getattr(fn, "event_shape", ())) for fn in (msg["fn"], drawn["fn"]))
        if of_model != of_guide and not drawn["is_observed"]:
            raise InputError(
                f"site {msg['name']!r} has the event shape {of_model} in the model and {of_guide} in the guide; give "
                "both one latent dimension, and .to_event(1) on both sides or on none"
            )


def _check_data_plate(trace: Trace, x: object) -> None:
    """Raise an InputError where the data's plate takes another number of rows than there are, by a size of its own."""
    site = trace.nodes.get(DATA_PLATE)
    if site is None or not is_subsample(site) or not isinstance(x, Tensor) or not x.dim():
        return
    num, full, size = len(x), site["fn"].size, len(site["value"])
    if num in (full, size):
        return
    if size == full:
        raise InputError(
            f"plate {DATA_PLATE!r} always has {size} elements, but a batch holds {num} data; give it len(x), or the "
            f"batch's rows of all {size} with subsample="
        )
    raise InputError(
        f"plate {DATA_PLATE!r} takes subsample_size={size} of {full}, but a batch holds {num} data; give the plate "
        f"the batch's rows with subsample=, or use batch_size={size} and a multiple of it as number of data"
    )
