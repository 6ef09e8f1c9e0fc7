"""What a Pyro program is to the library: its sites, its parameters and modes, and every check of a program.

A program is a function or a module with Pyro's ``sample`` statements; a model and its guide form a pair. Whatever
trains, scores or evaluates a pair asks this package what its sites are and whether they are right.
"""

from pyrovae.programs._checks import (
    as_data,
    cannot_run,
    check_data,
    check_guide,
    check_programs,
    check_same_latents,
    check_support,
    check_values,
    running_on,
    takes_missing,
)
from pyrovae.programs._modes import evaluating, mode, undisturbed
from pyrovae.programs._parameters import (
    ProgramModule,
    announced_parameters,
    module_buffers,
    modules_of,
    own_parameter_store,
    trainable_parameters,
    unregistered,
)
from pyrovae.programs._sites import (
    Pair,
    Program,
    Site,
    describe,
    is_deterministic,
    latent_sites,
    paired_sites,
    same_scale,
    trace_pair,
    without_deterministic,
)

__all__ = [
    "Pair",
    "Program",
    "ProgramModule",
    "Site",
    "announced_parameters",
    "as_data",
    "cannot_run",
    "check_data",
    "check_guide",
    "check_programs",
    "check_same_latents",
    "check_support",
    "check_values",
    "describe",
    "evaluating",
    "is_deterministic",
    "latent_sites",
    "mode",
    "module_buffers",
    "modules_of",
    "own_parameter_store",
    "paired_sites",
    "running_on",
    "same_scale",
    "takes_missing",
    "trace_pair",
    "trainable_parameters",
    "undisturbed",
    "unregistered",
    "without_deterministic",
]
