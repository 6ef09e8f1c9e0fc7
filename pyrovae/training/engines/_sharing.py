"""A batch that several processes share: each computes the loss of its own rows, under the noise of the whole batch."""

from dataclasses import dataclass

import torch
from pyro.infer import ELBO
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pyrovae.errors import InputError
from pyrovae.programs import Pair, module_buffers, trace_pair, unregistered
from pyrovae.randomness import kept_random_state, random_state, set_random_state
from pyrovae.training import processes
from pyrovae.training.engines._base import Tensors
from pyrovae.training.engines._draws import CannotTraceError, Draw, Recorder, Replayer, make_draws
from pyrovae.training.engines._tracing import left_as_they_are
from pyrovae.training.settings import sha256

_ALONE = "train these programs in one process, without torchrun"


@dataclass(frozen=True)
class Part:
    """What one process computes of every batch of one size.

    Attributes:
        rows: its rows of the batch.
        weight: what its loss counts.
        whole: the draws of the whole batch.
        own: the draws of its rows.
        calls: which draw each call makes.
        loss: loss of the whole batch at which the draws were recorded, in nats.
    """

    rows: slice
    weight: float
    whole: list[Draw]
    own: list[Draw]
    calls: list[int]
    loss: float

    def noise(self, device: torch.device) -> Tensors:
        """One step's noise of the own rows; the global generator moves on as by the whole batch."""
        drawn = make_draws(self.whole, device)
        return [self._own(noise, draw.shape) for noise, draw in zip(drawn, self.own, strict=True)]

    def _own(self, noise: Tensor, shape: torch.Size) -> Tensor:
        axes = [axis for axis, length in enumerate(shape) if length != noise.shape[axis]]
        return noise[(slice(None),) * axes[0] + (self.rows,)].contiguous() if axes else noise


class PartialLoss(nn.Module):
    """The loss of some rows of a batch, of two module programs.

    Args:
        pair: model and guide.
        parameters: the parameters that are trained.
        size: number of processes.
        rank: number of this process.
    """

    def __init__(self, pair: Pair, parameters: Tensors, size: int, rank: int) -> None:
        super().__init__()
        if not all(isinstance(program, nn.Module) for program in pair):
            raise InputError(f"processes share the training of modules only; make the programs nn.Modules, or {_ALONE}")
        self.pair, self.size, self.rank = pair, size, rank
        self.trained = nn.ParameterList(parameters)  # DistributedDataParallel would send buffers at each step
        self.unused = nn.Parameter(torch.zeros(1, device=parameters[0].device))

    def part(self, elbo: ELBO, x: Tensor) -> Part:
        """This process's part of every batch of the size of x (size, …).

        Raises:
            InputError: the loss of a batch is not the sum of its rows' losses.
        """
        pieces = torch.arange(len(x)).tensor_split(self.size)
        first = sum(len(piece) for piece in pieces[: self.rank])
        num = len(pieces[self.rank])
        rows = slice(first, first + num) if num else slice(0, 1)  # without rows, a loss that counts nothing
        model, guide = self.pair
        recorders, losses = [], []
        with left_as_they_are(module_buffers(model, guide)) as changed, kept_random_state(x), unregistered():
            start = random_state()
            pair = trace_pair(model, guide, x)
            for batch in (x, x[rows]):
                set_random_state(start)
                with Recorder() as recorder:
                    losses.append(elbo.differentiable_loss(model, guide, batch).item())
                recorders.append(recorder)
        if changed:
            raise InputError(f"a buffer of a module changes in training, as those of BatchNorm; {_ALONE}")
        plate = pair.data_plate(len(x))
        for site in pair.sites:
            if plate.name not in [frame.name for frame in site.site["cond_indep_stack"]]:
                raise InputError(f"site {site.name!r} is outside the data's plate, so no rows own it; {_ALONE}")
        whole, own = recorders
        if whole.calls != own.calls or not all(
            self._is_by_row(*draws, len(x), rows) for draws in zip(whole.draws, own.draws, strict=True)
        ):
            raise InputError(f"the programs' noise has no axis of rows; {_ALONE}")
        weight = float(num > 0) if pair.full_size is None else num / len(x)
        return Part(rows, weight, whole.draws, own.draws, whole.calls, losses[0])

    @staticmethod
    def _is_by_row(whole: Draw, own: Draw, num: int, rows: slice) -> bool:
        """Whether two draws differ in one axis at most, that of the rows."""
        sizes = zip(whole.shape, own.shape, strict=False)
        differences = [pair for pair in sizes if pair[0] != pair[1]]
        is_same = whole.operation is own.operation and len(whole.shape) == len(own.shape)
        return is_same and differences in ([], [(num, rows.stop - rows.start)])

    def forward(self, elbo: ELBO, x: Tensor, part: Part, noise: Tensors) -> Tensor:
        """The loss of the part's rows x, in nats."""
        with Replayer(part.own, part.calls, noise) as replayer:
            loss: Tensor = elbo.differentiable_loss(*self.pair, x) * part.weight
        for failed in replayer.failures:
            loss = torch.where(failed, torch.nan, loss)  # the run stops there, and the programs say why
        return loss


class SharedLoss:
    """The loss of a batch as the processes of the group compute it together, by DistributedDataParallel.

    Args:
        pair: model and guide, both modules; all processes start with the first one's parameters.
        parameters: the parameters that are trained.

    Raises:
        InputError: what they compute cannot be shared.
    """

    def __init__(self, pair: Pair, parameters: Tensors) -> None:
        processes.check_equal("the buffers", [sha256(buffer) for buffer in module_buffers(*pair)])
        self._partial = PartialLoss(pair, parameters, processes.size(), processes.rank())
        # where it looks for unused parameters, it sums in one order at every step, and with one it gives no warning
        self._shared = DistributedDataParallel(self._partial, find_unused_parameters=True)
        self._parts: dict[int, Part] = {}

    def __call__(self, elbo: ELBO, x: Tensor, index: Tensor) -> tuple[Tensor, float]:
        """What each process differentiates, such that the mean of their gradients is the batch's; the batch's loss."""
        part, is_new = self._parts.get(len(index)), False
        if part is None:
            try:
                part, is_new = self._partial.part(elbo, x[index]), True
            except CannotTraceError as error:
                raise InputError(f"{error}; {_ALONE}") from error
            self._parts[len(index)] = part
        loss = self._shared(elbo, x[index[part.rows]], part, part.noise(x.device))
        value = processes.total(loss.item())
        if is_new:
            self.check_sum(value, part.loss, len(index), loss.dtype)
        return loss * processes.size(), value

    @staticmethod
    def check_sum(value: float, whole: float, num: int, dtype: torch.dtype) -> None:
        """Raise an InputError unless the parts' losses add up to the batch's, NaN aside."""
        tolerance = 1e-9 if dtype == torch.float64 else 1e-4
        if abs(value - whole) > tolerance * (abs(whole) + num):
            raise InputError(
                f"the loss of a batch, {whole:.6g}, is not the sum of its rows' losses, {value:.6g}, so the programs "
                f"mix the rows of a batch; {_ALONE}"
            )
