"""Pyro programs: their sites, parameters and modes, and every check of a program.

A program is a function or a module with Pyro's ``sample`` statements; a model and its guide form a pair. All code that
trains, scores or evaluates a pair uses :func:`trace_pair`, which returns one description, a :class:`TracedPair`, made
from both traces.
"""

from pyrovae.programs._data import as_data, check_data, check_support, check_values, takes_missing
from pyrovae.programs._modules import (
    FixedParameters,
    OwnParameters,
    ProgramModule,
    announced_parameters,
    check_not_tied,
    evaluating,
    mode,
    module_buffers,
    modules_of,
    own_parameter_store,
    trainable_parameters,
    undisturbed,
    unregistered,
    with_gradients,
)
from pyrovae.programs._pair import DATA_PLATE, PARTICLES, TracedPair
from pyrovae.programs._running import FAILURES, DrawsAsRows, cannot_run, reason_of, running_on, takes_any_axes
from pyrovae.programs._sites import (
    Pair,
    PairedSite,
    Program,
    Role,
    Site,
    closed_form_kl,
    describe,
    is_delta,
    is_deterministic,
    latent_sites,
    log_prob_of,
    masks_of,
    same_masks,
    same_scale,
    without_deterministic,
    without_mask,
)
from pyrovae.programs._tracing import data_unchanged, draws_unchanged, pair_at, raw_traces, trace_pair
from pyrovae.programs._training import check_programs

__all__ = [
    "DATA_PLATE",
    "FAILURES",
    "PARTICLES",
    "DrawsAsRows",
    "FixedParameters",
    "OwnParameters",
    "Pair",
    "PairedSite",
    "Program",
    "ProgramModule",
    "Role",
    "Site",
    "TracedPair",
    "announced_parameters",
    "as_data",
    "cannot_run",
    "check_data",
    "check_not_tied",
    "check_programs",
    "check_support",
    "check_values",
    "closed_form_kl",
    "data_unchanged",
    "describe",
    "draws_unchanged",
    "evaluating",
    "is_delta",
    "is_deterministic",
    "latent_sites",
    "log_prob_of",
    "masks_of",
    "mode",
    "module_buffers",
    "modules_of",
    "own_parameter_store",
    "pair_at",
    "raw_traces",
    "reason_of",
    "running_on",
    "same_masks",
    "same_scale",
    "takes_any_axes",
    "takes_missing",
    "trace_pair",
    "trainable_parameters",
    "undisturbed",
    "unregistered",
    "with_gradients",
    "without_deterministic",
    "without_mask",
]
