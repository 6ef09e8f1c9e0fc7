"""Spectra and their parts."""

import pandas as pd
import pytest
import torch

from pyrovae.datasets import Spectra, simulated, split_spectra


def test_parts_of_spectra():
    spectra = Spectra(
        torch.arange(12.0).reshape(3, 4),
        torch.tensor([900.0, 901, 902, 903]),
        "nm",
        pd.DataFrame({"day": ["2020-01-01 10:00", "2020-01-01 12:00", "2020-01-02 09:00"]}),
    )
    assert spectra.between(901, 902).x.tolist() == [[1, 2], [5, 6], [9, 10]]
    assert spectra.groups("day", by_day=True).tolist() == ["2020-01-01", "2020-01-01", "2020-01-02"]
    with pytest.raises(ValueError, match=r"no channel lies in \[1, 2\]"):
        spectra.between(1, 2)
    with pytest.raises(ValueError, match="there is no column 'x' among the targets: day"):
        spectra.groups("x")
    with pytest.raises(ValueError, match="do not fit"):
        Spectra(torch.zeros(3, 4), torch.zeros(3), "nm", spectra.targets)


def test_names_that_moved_out_of_spectra_warn():
    from pyrovae.datasets import spectra as module

    with pytest.warns(DeprecationWarning, match=r"spectra\.simulated is now pyrovae\.datasets\.simulation\.sim"):
        assert module.simulated is simulated
    with pytest.warns(DeprecationWarning, match=r"is now pyrovae\.datasets\.splitting\.split_spectra"):
        assert module.split_spectra is split_spectra
    with pytest.raises(AttributeError, match="has no attribute 'simulate'"):
        _ = module.simulate
