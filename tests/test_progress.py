"""Progress where standard error is no terminal."""

import pytest

from pyrovae import progress
from pyrovae.progress import ProgressLines, progress_bar


def test_a_short_job_prints_nothing(capsys):
    assert list(progress_bar(range(3), "short")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("show", [True, False])
def test_a_long_job_prints_lines(show, capsys):
    with ProgressLines(total=3, desc="work", disable=not show, ncols=0, mininterval=0, miniters=1) as bar:
        for _ in range(3):
            bar.update()
    said, errors = capsys.readouterr()
    assert said == ""
    assert "\r" not in errors
    lines = errors.splitlines()
    assert all(line.startswith("work: ") for line in lines)
    assert (len(lines) >= 2) == show


def test_lines_come_every_ten_seconds(capsys):
    bar = progress_bar(total=3, desc="work")
    assert isinstance(bar, ProgressLines)
    assert bar.delay == bar.mininterval == progress._SECONDS == 10
    bar.close()
