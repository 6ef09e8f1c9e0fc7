"""The suite runs, and a second run does only what is missing."""

import pytest


@pytest.mark.slow
def test_suite_goes_on_where_it_stopped(tmp_path, run):
    small = [
        "--datasets", "rotated-gaussian", "figure-eight", "--posteriors", "diagonal", "--estimators", "analytic",
        "--num-train", 64, "--num-test", 20, "--epochs", 1, "--seeds", 2, "--workers", 1, "--out", tmp_path / "out",
    ]  # fmt: skip
    first = run("experiments.suite", *small)
    assert first.returncode == 0, first.stderr
    assert "rotated-gaussian" in first.stdout
    folders = sorted((tmp_path / "out" / "figure-eight").glob("diagonal-*"))
    assert len(folders) == 2
    kept = {folder: (folder / "metrics.json").stat().st_mtime_ns for folder in folders}
    (folders[1] / "metrics.json").unlink()
    second = run("experiments.suite", *small)
    assert second.returncode == 0, second.stderr
    now = {folder: (folder / "metrics.json").stat().st_mtime_ns for folder in folders}
    assert [folder for folder in folders if now[folder] != kept[folder]] == [folders[1]]
    before, after = (result.stdout.split("Training took")[0] for result in (first, second))
    assert before == after
