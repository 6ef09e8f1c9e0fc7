"""The same VAE elsewhere: written by hand in PyTorch, and in NumPyro."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.benchmarks.timing import best_rates

Loop = Callable[[int], None]
"""Makes so many steps."""


@dataclass(frozen=True)
class Work:
    """What a step has to do: a network of these widths, a posterior family, an estimator."""

    net: str
    n: int
    hidden: tuple[int, ...]
    d: int
    batch: int
    posterior: str
    estimator: str

    @property
    def binary(self) -> bool:
        """Whether the data are images with a Bernoulli likelihood; otherwise a Gaussian one with a learned σ."""
        return self.n == 784

    @property
    def limit(self) -> float:
        """Seconds that a step takes at least here: its products of matrices and Adam's reading and writing.

        A layer has three products, the first one two. Adam reads a parameter, its slope and its two moments, and writes
        all but the slope.
        """
        parameters = list(ByHand(self).parameters())
        weights, total = sum(p.numel() for p in parameters if p.ndim == 2), sum(p.numel() for p in parameters)
        flops, rate = best_rates(4 * total)
        return 2 * self.batch * (3 * weights - self.n * self.hidden[0]) / flops + 7 * 4 * total / rate

    def data(self, num: int) -> Tensor:
        """Data of that shape."""
        x = torch.randn(num, self.n, generator=torch.Generator().manual_seed(0))
        return (x > 1).float() if self.binary else x


class ByHand(nn.Module):
    """The loss in plain PyTorch, KL and densities written out."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.work = work

        def mlp(*sizes: int) -> nn.Sequential:
            return nn.Sequential(*[m for a, b in itertools.pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())])

        d, width = work.d, work.hidden[-1]
        self.encoder = mlp(work.n, *work.hidden)
        self.loc = nn.Linear(width, d)
        self.scale = nn.Linear(width, d if work.posterior == "diagonal" else d * (d + 1) // 2)
        self.decoder = mlp(d, *reversed(work.hidden))
        self.out = nn.Linear(work.hidden[0], work.n)
        self.raw_noise = nn.Parameter(torch.zeros(()))
        self.register_buffer("rows_columns", torch.tril_indices(d, d))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """The loss of a batch, summed, in nats."""
        features = self.encoder(x)
        loc, raw = self.loc(features), self.scale(features)
        if self.work.posterior == "diagonal":
            scale = diagonal = F.softplus(raw)
            z = loc + scale * noise
        else:
            rows, columns = self.get_buffer("rows_columns")
            lower = raw.new_zeros(len(x), self.work.d, self.work.d)
            lower = lower.index_put((torch.arange(len(x), device=x.device)[:, None], rows, columns), raw)
            diagonal = F.softplus(lower.diagonal(dim1=-2, dim2=-1))
            scale = lower.tril(-1) + torch.diag_embed(diagonal)
            z = loc + (scale @ noise[..., None]).squeeze(-1)
        if self.work.estimator == "analytic":
            size = scale.square().flatten(1).sum(-1)
            kl = 0.5 * (loc.square().sum(-1) + size - self.work.d) - diagonal.log().sum(-1)
        else:
            kl = 0.5 * (z.square() - noise.square()).sum(-1) - diagonal.log().sum(-1)
        x_hat = self.out(self.decoder(z))
        if self.work.binary:
            return F.binary_cross_entropy_with_logits(x_hat, x, reduction="sum") + kl.sum()
        sigma = F.softplus(self.raw_noise)
        return (0.5 * ((x - x_hat) / sigma).square() + sigma.log()).sum() + kl.sum()


def by_hand(work: Work, x: Tensor) -> Loop:
    """A plain loop: fused Adam, the loss read at every step."""
    module = ByHand(work).to(x.device)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, fused=True)
    batches = x.split(work.batch)

    def loop(steps: int) -> None:
        for step in range(steps):
            batch = batches[step % len(batches)]
            loss = module(batch, torch.randn(len(batch), work.d, device=x.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()

    return loop


def numpyro_loops(work: Work, x: Tensor) -> dict[str, Loop]:
    """NumPyro's SVI: its jitted step called from Python, and an epoch of steps in ``lax.scan``."""
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist
    from jax.example_libraries import stax
    from numpyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
    from numpyro.optim import Adam

    d, batch = work.d, work.batch

    def hidden(*sizes: int) -> list[Any]:
        return [layer for size in sizes for layer in (stax.Dense(size), stax.Relu)]

    scales = d if work.posterior == "diagonal" else d * (d + 1) // 2
    heads = (stax.FanOut(2), stax.parallel(stax.Dense(d), stax.Dense(scales)))
    encoder = stax.serial(*hidden(*work.hidden), *heads)
    decoder = stax.serial(*hidden(*reversed(work.hidden)), stax.Dense(work.n))
    rows, columns = jnp.tril_indices(d)

    def model(x: Any) -> None:
        net = numpyro.module("decoder", decoder, (batch, d))
        raw_noise = numpyro.param("raw_noise", jnp.array(0.0))
        with numpyro.plate("data", batch):
            if work.posterior == "diagonal" or work.estimator == "monte-carlo":
                prior = dist.Normal(jnp.zeros(d), 1.0).to_event(1)
            else:  # the KL in closed form is there for two dense Normals alone
                prior = dist.MultivariateNormal(jnp.zeros(d), scale_tril=jnp.eye(d))
            x_hat = net(numpyro.sample("z", prior))
            noise = dist.Bernoulli(logits=x_hat) if work.binary else dist.Normal(x_hat, jax.nn.softplus(raw_noise))
            numpyro.sample("x", noise.to_event(1), obs=x)

    def guide(x: Any) -> None:
        loc, raw = numpyro.module("encoder", encoder, (batch, work.n))(x)
        if work.posterior == "diagonal":
            q = dist.Normal(loc, jax.nn.softplus(raw)).to_event(1)
        else:
            lower = jnp.zeros((batch, d, d)).at[:, rows, columns].set(raw)
            diagonal = jax.nn.softplus(jnp.diagonal(lower, axis1=-2, axis2=-1))
            q = dist.MultivariateNormal(loc, scale_tril=jnp.tril(lower, -1) + jax.vmap(jnp.diag)(diagonal))
        with numpyro.plate("data", batch):
            numpyro.sample("z", q)

    elbo = TraceMeanField_ELBO() if work.estimator == "analytic" else Trace_ELBO()
    svi = SVI(model, guide, Adam(1e-3), elbo)
    data = jnp.asarray(x.cpu().numpy()).reshape(-1, batch, work.n)
    state = svi.init(jax.random.PRNGKey(0), data[0])
    one = jax.jit(svi.update)
    many = jax.jit(lambda state, order: jax.lax.scan(lambda s, i: svi.update(s, data[i]), state, order))
    current = {"state": state}

    def stepwise(steps: int) -> None:
        for step in range(steps):
            current["state"], loss = one(current["state"], data[step % len(data)])
            float(loss)

    def scanned(steps: int) -> None:
        order = jnp.arange(steps) % len(data)
        current["state"], losses = many(current["state"], order)
        losses.block_until_ready()

    return {"NumPyro step": stepwise, "NumPyro scan": scanned}
