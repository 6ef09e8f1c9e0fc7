"""Random draws of a traced step, and tensors that replace them."""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from pyrovae.errors import InputError
from pyrovae.randomness import random_state


class CannotTraceError(InputError):
    """Programs whose step is not one fixed graph of tensor operations; says why."""


@dataclass(frozen=True)
class Draw:
    """A random draw of a step: how to fill a tensor with it.

    Attributes:
        operation: PyTorch's operator.
        arguments: its arguments, without the tensor that it fills or takes the shape of.
        options: its keyword arguments.
        takes_tensor: whether it has such a tensor.
        shape: shape of the draw.
        dtype: dtype of the draw.
    """

    operation: OpOverload
    arguments: tuple[object, ...]
    options: dict[str, object]
    takes_tensor: bool
    shape: torch.Size
    dtype: torch.dtype

    @classmethod
    def of(cls, operation: OpOverload, args: tuple[object, ...], kwargs: dict[str, object]) -> "Draw":
        """The draw that a call makes, its shape unknown as yet.

        Raises:
            CannotTraceError: it depends on the parameters or the data.
        """
        schema = operation._schema
        name = schema.name.removeprefix("aten::")
        takes_tensor = bool(args) and isinstance(args[0], Tensor)
        of_shape_alone = schema.is_mutable or name.endswith("_like") or operation is torch.ops.aten.bernoulli.p
        rest = args[1:] if takes_tensor else args
        if any(isinstance(a, torch.Generator) for a in (*rest, *kwargs.values())):
            raise CannotTraceError(f"a draw ({name}) has its own random generator")
        if (takes_tensor and not of_shape_alone) or any(isinstance(a, Tensor) for a in (*rest, *kwargs.values())):
            raise CannotTraceError(
                f"a draw ({name}) is not a function of parameters and independent noise: a discrete site, or one with "
                "another kind of rsample"
            )
        return cls(operation, rest, kwargs, takes_tensor, torch.Size(), torch.float32)

    def fill(self, out: Tensor) -> None:
        """Fill a tensor with the draw."""
        if self.operation._schema.is_mutable:
            self.operation(out, *self.arguments, **self.options)
        else:
            like = (out,) if self.takes_tensor else ()
            out.copy_(self.operation(*like, *self.arguments, **self.options))

    @property
    def standard_normal(self) -> bool:
        """Whether it fills with independent N(0, 1)."""
        name = self.operation._schema.name
        return name in ("aten::randn", "aten::randn_like") or (name == "aten::normal_" and not self.arguments)


def make_draws(draws: Sequence[Draw], device: torch.device) -> list[Tensor]:
    """One step's noise from the global generator, a tensor for each draw."""
    noise = [torch.empty(draw.shape, dtype=draw.dtype, device=device) for draw in draws]
    for draw, out in zip(draws, noise, strict=True):
        draw.fill(out)
    return noise


class DispatchMode(TorchDispatchMode):
    """A mode that sees every operation of PyTorch, without the second that it takes to import ``torch._dynamo``."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:  # a name of PyTorch's, by which it wraps what follows for its compiler
        return False


class Recorder(DispatchMode):
    """Record every draw; repeated draws from the same state of the generator are one draw."""

    def __init__(self) -> None:
        super().__init__()
        self.draws: list[Draw] = []
        self.calls: list[int] = []
        self._known: dict[bytes, int] = {}

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple[object, ...] = (), kwargs: dict[str, object] | None = None
    ) -> object:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        draw = Draw.of(func, args, kwargs)
        digest = hashlib.sha256(str(func).encode())
        for state in random_state():
            digest.update(state.numpy().tobytes())
        result = func(*args, **kwargs)
        key = digest.digest()
        if key not in self._known:
            self._known[key] = len(self.draws)
            self.draws.append(dataclasses.replace(draw, shape=result.shape, dtype=result.dtype))
        self.calls.append(self._known[key])
        return result


class Replayer(DispatchMode):
    """Replace the draws by given tensors, and record failed factorisations where PyTorch would raise an error."""

    def __init__(self, draws: list[Draw], calls: list[int], noise: list[Tensor]) -> None:
        super().__init__()
        self.draws, self.noise = draws, noise
        self.calls = iter(calls)
        self.failures: list[Tensor] = []

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple[object, ...] = (), kwargs: dict[str, object] | None = None
    ) -> object:
        kwargs = kwargs or {}
        if func is torch.ops.aten.native_batch_norm.default and args[5] and args[3] is not None:
            # its schema does not say that it changes the running mean and variance
            *result, mean, var = torch.ops.aten._native_batch_norm_legit_functional.default(*args, **kwargs)
            for tensor, value in zip(args[3:5], (mean, var), strict=True):
                cast(Tensor, tensor).copy_(value)
            return tuple(result)
        if func is torch.ops.aten._linalg_check_errors.default:
            self.failures.append((cast(Tensor, args[0]) != 0).any())
            return None
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        call = next(self.calls, None)
        if call is None or self.draws[call].operation is not func:
            raise CannotTraceError("the programs do not make the same draws each time they run")
        noise = self.noise[call]
        return cast(Tensor, args[0]).copy_(noise) if func._schema.is_mutable else noise.clone()
