"""The suite notices: each known slip of a published code, put into a copy of the package, turns tests red."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

MUTATIONS = {
    "flipped sign of the KL": (
        "elbo/analytic.py",
        '"closed form", -kl,',
        '"closed form", kl,',
        "tests/test_testing.py::test_estimator[analytic]",
    ),
    "flipped sign of the sampled KL": (
        "elbo/monte_carlo.py",
        'value = -site["log_prob_sum"]',
        'value = site["log_prob_sum"]',
        "tests/test_testing.py::test_estimator[monte-carlo]",
    ),
    "a sum over the batch where each datum's own term belongs": (
        "elbo/analytic.py",
        "scale_and_mask(kl.expand(q.batch_shape),",
        "scale_and_mask(kl.sum().expand(q.batch_shape),",
        "tests/test_testing.py::test_estimator[analytic]",
    ),
    "a sum over the data where the mean belongs": (
        "training/engines/eager.py",
        "value = loss.item() / len(batch)",
        "value = loss.item()",
        "tests/training/test_fit.py",
    ),
    "1/√s in the sampler": (
        "distributions/ar1.py",
        "torch.addcmul(self.loc, self.scale, ",
        "torch.addcmul(self.loc, 1 / self.scale, ",
        "tests/test_testing.py::test_posterior[ar1]",
    ),
    "the score left in where sticking the landing takes it out": (
        "elbo/path_derivative.py",
        "- (score - score.detach())",
        "+ (score - score.detach())",
        "tests/elbo/test_gradients.py",
    ),
    "one log-mean-exp over the batch": (
        "elbo/importance_weighted.py",
        "inner = [dim for dim in range(-term.dim(), 0) if dim not in shared]",
        "inner = list(range(1 - term.dim(), 0))",
        "tests/test_testing.py::test_estimator[importance-weighted]",
    ),
    "the guide detached site by site where one draw depends on another": (
        "elbo/path_derivative.py",
        "if len(latents) == 1:",
        "if True:",
        "tests/elbo/test_importance_weighted.py::test_doubly_reparameterized_is_unbiased_with_dependent_sites",
    ),
    "squared weights where β ≠ 1 asks for a mixture": (
        "elbo/doubly_reparameterized.py",
        "1 - self.beta + self.beta * weights",
        "weights",
        "tests/elbo/test_importance_weighted.py::test_doubly_reparameterized_is_unbiased_with_one_site",
    ),
    "the gap to the truth the wrong way round": (
        "comparison/_measures.py",
        "gap = truth.log_density(test) - terms.elbo",
        "gap = terms.elbo - truth.log_density(test)",
        "tests/comparison/test_compare.py::test_the_gap_is_paired_and_has_its_sign_and_error",
    ),
    "β ignored": (
        "elbo/base.py",
        'msg["scale"] = self.beta * msg["scale"]',
        "pass",
        "tests/test_testing.py::test_estimator[monte-carlo]",
    ),
    "ρ left out of the log-determinant": (
        "distributions/ar1.py",
        "return _sum_of(self.scale.log(), d) + _sum_of(self._log_innovation_scale, d - 1)",
        "return _sum_of(self.scale.log(), d) + 0 * _sum_of(self._log_innovation_scale, d - 1)",
        "tests/distributions",
    ),
}


def run_tests(package: Path, tests: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-n0", "-p", "no:cacheprovider", tests],
        cwd=package,
        env=os.environ | {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def copied(to: Path) -> Path:
    for part in ("pyrovae", "tests"):
        shutil.copytree(ROOT / part, to / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", to)
    return to


def test_an_unchanged_copy_stays_green(tmp_path):
    result = run_tests(copied(tmp_path), "tests/elbo/test_gradients.py")
    assert result.returncode == 0, f"{result.stdout[-2000:]}{result.stderr[-2000:]}"


@pytest.mark.parametrize("slip", MUTATIONS)
def test_the_suite_turns_red(tmp_path, slip):
    file, right, wrong, tests = MUTATIONS[slip]
    source = copied(tmp_path) / "pyrovae" / file
    text = source.read_text(encoding="utf-8")
    assert text.count(right) == 1, "the mutation no longer fits the code"
    source.write_text(text.replace(right, wrong), encoding="utf-8")
    result = run_tests(tmp_path, tests)
    assert result.returncode == 1, f"the tests did not notice: {result.stdout[-2000:]}{result.stderr[-2000:]}"
    assert "AssertionError" in result.stdout
