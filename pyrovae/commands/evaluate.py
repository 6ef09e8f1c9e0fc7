"""``pyrovae evaluate DIR DATA``."""

from dataclasses import dataclass

from pyrovae.commands._base import OnData, Summary


@dataclass
class Evaluate(OnData):
    """Write log p(x) with its standard error and the ELBO, one row a datum: the smallest are the outliers."""

    samples: int = 300
    """Draws of z per datum."""

    def __call__(self) -> Summary:
        """Evaluate."""
        from pyrovae.trained_model import summary_of

        table = self.trained().scores(self.read(), num_samples=self.samples, progress=not self.json)
        path = self.write(table, self.out, f"{self.data.stem}-scores")
        found = summary_of(table)
        sign, how = ("=", "exact") if found["exact"] else ("≥", f"{1 - found['reliable_share']:.0%} with a bad k̂")
        text = (
            f"log p(x) {sign} {found['log_prob']:.4f} ± {found['log_prob_stderr']:.4f} nats per datum, {len(table)} "
            f"data, {how}: {path}"
        )
        return {**found, "out": str(path), "text": text}
