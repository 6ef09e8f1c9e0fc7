"""Log p(x, z) of Pyro programs that are no GenerativeModel, by running them at given values of their latent sites."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import biject_to

from pyrovae.elbo import ImportanceWeightedELBO
from pyrovae.errors import InputError
from pyrovae.evaluation._target import Target
from pyrovae.programs import Program, Site, latent_sites

_NUM_DRAWS = 256


class ProgramTarget(Target):
    """That of a model and a guide with the data along a plate: z holds all unconstrained latents of a datum.

    Args:
        model: Pyro program of the joint density.
        guide: Pyro program of q(z|x), which says what the latent sites are.
        x: data (num, …), of the programs' dtype and device.
        max_plate_nesting: depth of the programs' plates.

    Raises:
        InputError: a latent site outside the plate of the data.
    """

    def __init__(self, model: Program, guide: Program, x: Tensor, max_plate_nesting: int) -> None:
        self.model, self.guide, self.x, self.max_plate_nesting = model, guide, x, max_plate_nesting
        self.num = len(x)
        with pyro.plate("draws", _NUM_DRAWS, dim=-max_plate_nesting - 1):
            sites = latent_sites(poutine.trace(guide).get_trace(x))
        self.sites = {name: _LatentSite(site, self.num) for name, site in sites.items()}
        self.draws = torch.cat([site.flat for site in self.sites.values()], dim=-1).double()
        """Of the guide, shape (draws, num, d)."""
        self.latent_dim = self.draws.shape[-1]

    def of(self, rows: Tensor) -> "ProgramTarget":
        """That of some of the data."""
        return ProgramTarget(self.model, self.guide, self.x[rows], self.max_plate_nesting)

    def log_joint(self, z: Tensor) -> Tensor:
        """Log p(x, z), with the Jacobian of what constrains the latents: the weight of a guide that draws nothing."""
        if len(z) == 1:  # several draws make the outermost plate
            return self.log_joint(z.expand(2, *z.shape[1:]))[:1]
        values, log_det = {}, torch.zeros(z.shape[:-1], dtype=torch.float64, device=z.device)
        parts = z.split([site.flat.shape[-1] for site in self.sites.values()], dim=-1)
        for (name, site), part in zip(self.sites.items(), parts, strict=True):
            values[name], change = site.constrained(part.to(site.flat))
            log_det = log_det + change

        def fixed(x: Tensor) -> None:
            with _Fixed(values, self.sites):
                self.guide(x)

        elbo = ImportanceWeightedELBO(len(z), max_plate_nesting=self.max_plate_nesting)
        log_joint = elbo.log_weights(self.model, fixed, self.x)
        return log_joint.double().reshape(z.shape[:-1]) + log_det


class _LatentSite:
    """How a latent site's values, (draws, *plates, *event), are laid out as rows, (draws, num, numbers of a datum)."""

    def __init__(self, site: Site, num: int) -> None:
        frames = [frame.dim for frame in site["cond_indep_stack"] if frame.vectorized and frame.size == num]
        frames = [dim for dim in frames if site["value"].dim() > 0]
        if not frames:
            raise InputError(f"latent site {site['name']!r} is in no plate of the data's size, {num}")
        self.event_dim = site["fn"].event_dim
        self.transform = biject_to(site["fn"].support)
        unconstrained = self.transform.inv(site["value"])
        self.unconstrained_event_dim = unconstrained.dim() - (site["value"].dim() - self.event_dim)
        self.dim = min(frames)
        moved = unconstrained.movedim(self.dim - self.unconstrained_event_dim, 1)
        self.shape = moved.shape[2:]
        self.flat = moved.flatten(2) if moved.dim() > 2 else moved.unsqueeze(-1)

    def constrained(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """The site's value of rows (draws, num, …), and log |det| of the transform, (draws, num)."""
        moved = flat.reshape(*flat.shape[:2], *self.shape)
        unconstrained = moved.movedim(1, self.dim - self.unconstrained_event_dim)
        value = self.transform(unconstrained)
        change = self.transform.log_abs_det_jacobian(unconstrained, value)
        # elementwise transforms leave the event's dimensions, others sum them
        left = change.dim() - (value.dim() - self.event_dim)
        return value, change.movedim(self.dim - left, 1).flatten(2).sum(-1) if change.dim() > 2 else change


class _Fixed(Messenger):
    """Latent sites have given values, without a density."""

    def __init__(self, values: dict[str, Tensor], sites: dict[str, _LatentSite]) -> None:
        super().__init__()
        self.values, self.sites = values, sites

    def _pyro_sample(self, msg: Site) -> None:
        if msg["name"] in self.values:
            value = self.values[msg["name"]]
            msg["fn"] = dist.Delta(value, event_dim=self.sites[msg["name"]].event_dim)
            msg["value"], msg["done"] = value, True
