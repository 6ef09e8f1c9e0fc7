"""``pyrovae evaluate DIR DATA``."""

from dataclasses import dataclass
from typing import ClassVar

from pyrovae.commands._base import OnData, Summary
from pyrovae.datasets import Spectra, TrainingRows

_STRANGEST = 3


@dataclass
class Evaluate(OnData):
    """Write log p(x), its standard error and the ELBO of each datum. Outliers have the smallest log p(x)."""

    TAKES_LARGE: ClassVar = True

    num_samples: int = 300
    """Draws of z per datum."""

    def apply(self, data: Spectra) -> Summary:
        """Evaluate."""
        from pyrovae.trained_model import summary_of

        table = self.trained.scores(data.x, num_samples=self.num_samples, progress=not self.json)
        found = summary_of(table)
        sign, how = (
            ("=", "exact") if found["exact"] else ("≥", f"{100 * (1 - found['reliable_share']):.0f} % not reliable")
        )
        worst = table["log_prob"].nsmallest(_STRANGEST if len(table) > _STRANGEST else 0)
        strangest = {data.row_names[int(i)]: float(value) for i, value in worst.items()}  # type: ignore[call-overload]
        path = self.write_rows(table, data, "scores")
        text = (
            f"log p(x) {sign} {found['log_prob']:.2f} ± {found['log_prob_stderr']:.2f} nats per datum, {len(table)} "
            f"data, {how}: {path}"
        )
        known = TrainingRows.read(self.folder)
        num_seen = 0 if known is None else known.count_in(data.x)
        if num_seen:
            text += (
                f"\nnote: the model was trained on {num_seen} of these data; their log p(x) is too high to judge it by"
            )
        if strangest:
            text += "\nleast likely: " + ", ".join(f"{name} ({value:.2f})" for name, value in strangest.items())
        return {**found, "num_trained_on": num_seen, "strangest": strangest, "out": str(path), "text": text}
