"""Checks before training."""

import warnings
from collections.abc import Iterator

import pyro
import pyro.poutine as poutine
import torch
from pyro.infer import ELBO, Trace_ELBO, TraceEnum_ELBO
from pyro.poutine import Trace
from torch import Tensor, nn

from pyrovae.blocks import blocks
from pyrovae.errors import InputError, InputWarning
from pyrovae.programs._modules import announced_parameters, check_not_tied, mode, trainable_parameters
from pyrovae.programs._pair import TracedPair
from pyrovae.programs._place import check_in_order, of_place
from pyrovae.programs._running import running_on
from pyrovae.programs._sites import Pair, Program, Role, log_prob_of
from pyrovae.programs._tracing import trace_pair
from pyrovae.randomness import kept_random_state


def check_programs(
    model: Program, guide: Program, x: Tensor, x_validation: Tensor | None, batch_size: int, elbo: ELBO
) -> tuple[list[Tensor], int | None, bool]:
    """Run the programs with Pyro's validation before anything is trained.

    Returns:
        The parameters to train; the number of data that a loss stands for where a subsampled plate scales it; and
        whether the data must keep their order, since something belongs to their places.
    """

    def run(batch: Tensor) -> None:
        # other estimators of Pyro refuse a loss that cannot be differentiated
        with torch.set_grad_enabled(not isinstance(elbo, Trace_ELBO)), kept_random_state(x):
            elbo.differentiable_loss(model, guide, batch)

    check_not_tied(model, guide)
    pair = _describe_batches(model, guide, x, batch_size, enumerates=isinstance(elbo, TraceEnum_ELBO))
    if pair.laplace_point is not None:
        warnings.warn(
            InputWarning(
                f"the guide {pair.laplace_point} is called: training finds the posterior's mode, and its loss is no "
                "bound of log p(x); call it after the training, or use AutoNormal(model) for a distribution"
            ),
            stacklevel=2,
        )
    with pyro.validation_enabled(True), mode(model, guide, training=False):
        with running_on(x[:batch_size]), poutine.trace(param_only=True) as announced:
            run(x[:batch_size])
        parameters = trainable_parameters(model, guide, announced.trace)
        _check_all_are_trained(model, guide, x[:batch_size], parameters)
        if isinstance(model, nn.Module) and isinstance(guide, nn.Module):
            for data in (x, x_validation) if x_validation is not None else (x,):
                for batch in blocks(data, 4096):  # every datum must lie in the likelihood's support
                    with running_on(batch):
                        run(batch)
        with kept_random_state(x):
            what = of_place(model, guide, x[:batch_size], _with_names((model, guide), parameters, announced.trace))
        check_in_order(what, batch_size, len(x), x_validation is not None)
    return parameters, pair.full_size, what is not None


def _with_names(pair: Pair, parameters: list[Tensor], announced: Trace) -> list[tuple[str, Tensor]]:
    """The parameters to train, each with the name that a user knows."""
    modules = [program for program in pair if isinstance(program, nn.Module)]
    names = {id(p): name for module in modules for name, p in module.named_parameters()}
    for name, site in announced.nodes.items():
        if site["type"] == "param":
            names.setdefault(id(site["value"].unconstrained()), name)
    return [(names[id(p)], p) for p in parameters]


def _describe_batches(model: Program, guide: Program, x: Tensor, batch_size: int, enumerates: bool) -> TracedPair:
    """What the pair is on a batch; the last and smaller batch of an epoch must do as well."""
    full, last = x[:batch_size].flip(0), x[len(x) - (len(x) % batch_size) :]  # in another order, as epochs are
    with torch.no_grad(), kept_random_state(x), mode(model, guide, training=False) as met:
        pair = trace_pair(model, guide, full, check=True, enumerates=enumerates)
        if len(last) and len(full) == batch_size:
            trace_pair(model, guide, last, check=True, enumerates=enumerates)
    if len(full) < len(x):
        _check_shared(pair, len(full), len(x))
    smallest = last if len(last) else full
    if len(smallest) == 1:
        modules = [module for module, trains in met.items() if trains]
        _check_norms((model, guide), modules, smallest, len(x), batch_size)
    return pair


def _check_shared(pair: TracedPair, batch_size: int, num: int) -> None:
    """Raise an InputError where a latent of all data would count once in each batch."""
    plate = pair.plate_of_data
    if plate is None or plate.size != batch_size or pair.full_size is not None:
        return
    for site in pair.drawn:
        if all(frame.name != plate.name for frame in site.site["cond_indep_stack"]):
            raise InputError(
                f"site {site.name!r} is outside of plate {plate.name!r}, so each batch of {batch_size} counts it in "
                f"full, though it belongs to all {num} data; give the plate its full size, "
                f"pyro.plate({plate.name!r}, {num}, subsample=torch.arange(len(x))), or train with batch_size={num}"
            )


def _check_norms(pair: Pair, modules: list[nn.Module], x: Tensor, num: int, batch_size: int) -> None:
    """Raise an InputError where a batch of one datum meets a layer that needs two, as BatchNorm does in training."""
    norms = [module for module in modules if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    buffers = [b for norm in norms for b in norm.buffers()]
    before = [b.clone() for b in buffers]
    try:
        with torch.no_grad(), kept_random_state(x), mode(*modules, training=True):
            trace_pair(*pair, x)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise InputError(
            f"the last batch of an epoch holds one of the {num} data, and {type(norms[0]).__name__} needs two or more "
            f"to train; use another batch_size than {batch_size}, or leave one datum out"
        ) from None
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)


def _check_all_are_trained(model: Program, guide: Program, x: Tensor, parameters: list[Tensor]) -> None:
    """Raise an InputError where a site depends on a parameter that no module holds and nothing announces."""
    with torch.enable_grad(), kept_random_state(x):
        with poutine.trace(param_only=True) as announced:
            pair = trace_pair(model, guide, x)
        trained = {id(p) for p in (*parameters, *announced_parameters(announced.trace), x)}
        reached: set[int] = set()
        for site in pair.sites:
            for node in (site.model, site.guide):
                if node is None or (site.role is Role.OBSERVED and node["fn"] is None):
                    continue
                for leaf in _leaves(log_prob_of(node)):
                    reached.add(id(leaf))
                    if id(leaf) not in trained:
                        raise InputError(
                            f"a parameter of shape {tuple(leaf.shape)} at site {site.name!r} requires a gradient, but "
                            "nothing trains it: no module holds it and it is not a pyro.param; register it in a module "
                            "(an nn.Module that returns the distribution), announce it with pyro.param or "
                            "pyro.module, or freeze it with requires_grad_(False)"
                        )

    for program, who in ((model, "the model's"), (guide, "the guide's"), (None, "the programs'")):
        own = program.parameters() if isinstance(program, nn.Module) else parameters if program is None else ()
        needed = {id(p) for p in own if p.requires_grad}
        if needed and not needed & reached:
            raise InputError(
                f"no site depends on any of {who} parameters by a gradient, so none would be trained; leave out "
                "torch.no_grad() or .detach() there, or freeze them with requires_grad_(False)"
            )


def _leaves(value: Tensor) -> Iterator[Tensor]:
    """The leaf tensors that a value depends on and that require a gradient."""
    if value.is_leaf and value.requires_grad:
        yield value
    stack, seen = [value.grad_fn], set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        stack += [following for following, _ in node.next_functions]
