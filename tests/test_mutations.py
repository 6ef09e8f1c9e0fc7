"""The suite notices: each known slip of a published code, put into the package as it is imported, turns a test red.

``python -m tests.test_mutations`` is the process that imports the package anew for each slip and runs its test.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
# green on the package as it is, by the same way; the suite runs the others
UNCHANGED = (
    "tests/distributions/test_ar1.py::test_covariance_factor_precision_and_density",
    "tests/elbo/test_sticking_the_landing.py::test_sticking_the_landing_sticks",
    "tests/elbo/test_importance_weighted.py::test_value_and_its_derivative_in_beta_from_the_same_draws",
    "tests/test_testing.py::test_posterior[ar1]",
)

MUTATIONS = {
    "flipped sign of the KL": (
        "elbo/analytic.py",
        "return -kl.sum()",
        "return kl.sum()",
        "tests/test_testing.py::test_estimator[analytic]",
    ),
    "flipped sign of the sampled KL": (
        "elbo/monte_carlo.py",
        'value = -site.site["log_prob_sum"]',
        'value = site.site["log_prob_sum"]',
        "tests/test_testing.py::test_estimator[monte-carlo]",
    ),
    "a sum over the batch where each datum's own term belongs": (
        "programs/_sites.py",
        "kl = kl.expand(q.batch_shape)",
        "kl = kl.sum().expand(q.batch_shape)",
        "tests/test_testing.py::test_estimator[analytic]",
    ),
    "a sum over the data where the mean belongs": (
        "training/engines/eager.py",
        "value = total / len(index[0])",
        "value = total",
        "tests/training/test_fit.py::test_fit_is_svi",
    ),
    "1/√s in the sampler": (
        "distributions/ar1.py",
        "torch.addcmul(self.loc, self.scale, ",
        "torch.addcmul(self.loc, 1 / self.scale, ",
        "tests/test_testing.py::test_posterior[ar1]",
    ),
    "the score left in where sticking the landing takes it out": (
        "elbo/_path_derivative.py",
        "- (score - score.detach())",
        "+ (score - score.detach())",
        "tests/elbo/test_sticking_the_landing.py::test_sticking_the_landing_sticks",
    ),
    "one log-mean-exp over the batch": (
        "elbo/importance_weighted.py",
        "inner = [dim for dim in range(-term.dim(), 0) if dim not in shared]",
        "inner = list(range(1 - term.dim(), 0))",
        "tests/elbo/test_importance_weighted.py::test_value_and_its_derivative_in_beta_from_the_same_draws",
    ),
    "the guide detached site by site where one draw depends on another": (
        "elbo/_path_derivative.py",
        "if not depends_on_draws:",
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
        "tests/distributions/test_ar1.py::test_covariance_factor_precision_and_density",
    ),
}


@pytest.mark.slow
def test_each_slip_turns_its_test_red(tmp_path):
    results = tmp_path / "results.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.test_mutations", results],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
    unchanged, *mutants = json.loads(results.read_text())
    assert unchanged == ["no slip", pytest.ExitCode.OK, []], done.stdout[-2000:]
    assert [name for name, *_ in mutants] == list(MUTATIONS)
    for name, status, errors in mutants:
        assert status == pytest.ExitCode.TESTS_FAILED, f"{name}: the test did not notice"
        assert "AssertionError" in errors, (name, errors)


class Mutant(MetaPathFinder, SourceFileLoader):
    """Imports one module of the package with a slip in its source, and leaves all others to Python."""

    def __init__(self, file: str, right: str, wrong: str) -> None:
        self.right, self.wrong = right, wrong
        path = ROOT / "pyrovae" / file
        super().__init__(".".join(path.relative_to(ROOT).with_suffix("").parts), str(path))

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname == self.name else None
        if spec is not None:
            spec.loader = self
        return spec

    def get_code(self, fullname):
        """Code of the changed source; the cache beside the file is neither read nor written."""
        text = Path(self.path).read_text(encoding="utf-8")
        assert text.count(self.right) == 1, f"the mutation no longer fits the code: {self.right}"
        return compile(text.replace(self.right, self.wrong), self.path, "exec")


class Errors:
    """A plugin of pytest that keeps the names of the errors."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def pytest_exception_interact(self, call):
        self.names.append(call.excinfo.typename)


def run_anew(tests: Sequence[str]) -> tuple[int, list[str]]:
    """Run tests on the package and the tests as they are imported now: pytest's status, and the errors."""
    for name in [name for name in sys.modules if name.split(".")[0] in ("pyrovae", "tests")]:
        del sys.modules[name]
    errors = Errors()
    options = ["-x", "-q", "-n0", "-m", "", "-p", "no:cacheprovider"]
    return int(pytest.main([*options, *tests], plugins=[errors])), errors.names


def main(results: Path) -> None:
    """Run some tests on the package as it is, then each one on its mutant."""
    rows = [["no slip", *run_anew(UNCHANGED)]]
    for name, (file, right, wrong, tests) in MUTATIONS.items():
        sys.meta_path.insert(0, Mutant(file, right, wrong))
        rows.append([name, *run_anew([tests])])
        del sys.meta_path[0]
    results.write_text(json.dumps(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
