"""Errors of programs in one line."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pyrovae.errors import InputError, out_of_memory

_PAIR = "the model and the guide"

FAILURES = (RuntimeError, ValueError, LookupError, AssertionError)
"""What programs raise on data that they cannot take."""
NUM_REPEATED = 3
"""Runs at the same latents. Random numbers for a few data may be equal by chance, as those of dropout."""


def are_close(left: Tensor, right: Tensor) -> bool:
    """Whether terms are equal but for rounding in float32."""
    return torch.allclose(left, right, rtol=1e-4, atol=1e-4, equal_nan=True)


def reason_of(error: Exception) -> str:
    """An error of a program in one line, without the shapes of what ran before, which Pyro adds."""
    return " ".join(str(error).split("Trace Shapes")[0].split())[:300]


def cannot_run(x: Tensor, error: Exception, who: str = _PAIR) -> InputError:
    """The error to raise where programs fail on data."""
    reason = reason_of(error)
    if "collide at dim" in reason:
        reason += " (or the programs' plates nest deeper than max_plate_nesting)"
    data = f"data of shape {tuple(x.shape)}"
    if "Long" in reason or "indices" in reason:
        dtype = str(x.dtype).removeprefix("torch.")
        data, reason = f"{data} in {dtype}", f"{reason}; data are given in floating point: take x.long() inside"
    elif "same dtype" in reason:
        reason += "; give the data and the modules one dtype, x.float() or module.double()"
    elif "mat1 and mat2" in reason or "size mismatch" in reason:
        reason += "; its first layer must be as wide as the data" if who == "the guide" else ""
    return InputError(f"{who} cannot run on {data}: {reason}")


@contextmanager
def running_on(x: object, who: str = _PAIR) -> Iterator[None]:
    """Turn what programs raise on data into an InputError of one line; a refusal stays as it is."""
    try:
        yield
    except InputError as error:
        line = str(error).split("Trace Shapes")[0].strip()  # Pyro adds the shapes of what ran before
        if line == str(error):
            raise
        raise type(error)(line) from error
    except (RuntimeError, ValueError) as error:  # what else is raised is a bug
        if out_of_memory(error) or not isinstance(x, Tensor):
            raise
        raise cannot_run(x, error, who) from error


class DrawsAsRows(TorchFunctionMode):
    """Refuse an axis of draws before the data's in what takes its first axis for the batch, as BatchNorm1d does.

    Args:
        draws: how many draws there are of each datum.
        num: number of data.
    """

    def __init__(self, draws: int, num: int) -> None:
        super().__init__()
        self.draws, self.num = draws, num

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Look at what the function is given, and call it."""
        if getattr(func, "__name__", "") in _TAKING_ROWS and args and isinstance(args[0], Tensor):
            draws, *rest = args[0].shape
            while len(rest) > 2 and rest[0] == 1:
                rest = rest[1:]
            if draws == self.draws and len(rest) > 1 and rest[0] == self.num > 1:
                raise InputError(
                    f"{func.__name__} mistakes the axis of {draws} draws for the data's axis; give its module rows, "
                    "pyrovae.nn.on_rows(module, z), or draw one by one with vectorize_particles=False"
                )
        return func(*args, **(kwargs or {}))


def takes_any_axes(program: Callable[..., object]) -> bool:
    """Whether a program is a module of dense layers and of the library's own: none takes draws for the batch."""
    return isinstance(program, nn.Module) and all(
        type(module).__module__.startswith(_DENSE) and not isinstance(module, nn.MultiheadAttention)
        for module in program.modules()
    )


_DENSE = (
    *(f"torch.nn.modules.{name}" for name in ("linear", "activation", "container", "dropout")),
    *(
        f"pyrovae.{name}"
        for name in ("vae", "likelihoods", "posteriors", "priors", "nn._modules", "nn._scales", "evaluation.per_datum")
    ),
)
_TAKING_ROWS = {
    *("batch_norm", "instance_norm", "group_norm", "conv1d", "conv2d", "conv3d", "gru", "lstm", "rnn_tanh"),
    *("multi_head_attention_forward", "scaled_dot_product_attention"),
}
