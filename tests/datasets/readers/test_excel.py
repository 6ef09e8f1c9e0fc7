"""Sheets with merged cells, and with a second table."""

import pytest

from pyrovae.datasets import read_spectra
from tests.datasets.readers.files import AXIS, IDS, NUM, N, X, assert_read, message_of, rows_of, text, written

openpyxl = pytest.importorskip("openpyxl")
GROUPS = [f"g{i // 5}" for i in range(NUM)]


def saved(folder, rows, merged=()):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    for area in merged:
        book.active.merge_cells(area)
    book.save(folder / "a.xlsx")
    return folder / "a.xlsx"


@pytest.mark.parametrize("title", [False, True])
@pytest.mark.parametrize("size", [5, 1])
def test_merged_cells_are_the_group_of_each_row(size, title, tmp_path):
    first = 2 + title
    rows = [
        [g if i % size == 0 else None, n, *row]
        for i, (g, n, row) in enumerate(zip(GROUPS, IDS, X.tolist(), strict=True))
    ]
    top = [["info", None, "spectra", *[None] * (len(AXIS) - 1)]] * title
    merged = [f"A{first + i}:A{first + i + size - 1}" for i in range(0, NUM, size) if size > 1]
    merged += ["A1:B1", "C1:V1"] * title
    found = assert_read(
        saved(tmp_path, [*top, ["group", "id", *AXIS.tolist()], *rows], merged), targets=["group", "id"]
    )
    assert found.targets["group"].tolist() == GROUPS


@pytest.mark.parametrize("groups", [GROUPS, [str(i // 5) for i in range(NUM)]])
def test_groups_that_are_said_once_are_noticed(groups, tmp_path):
    rows = [
        [g if i % 5 == 0 else "", n, *row] for i, (g, n, row) in enumerate(zip(groups, IDS, rows_of(), strict=True))
    ]
    found = assert_read(written(tmp_path, text([["group", "id", *AXIS], *rows])))
    assert "guessed: group as it stands, as 20 of its 25 cells are empty: do they" in "\n".join(found.reading.lines())
    assert "as it stands" not in "\n".join(
        read_spectra(written(tmp_path, text([["id", *AXIS], *rows_of(left=IDS)]))).reading.lines()
    )


SECOND = {
    "settings": [["parameter", "value"], ["gain", 2], ["scans", 32]],
    "another table": [["id", "fat"], *([i, 3.5] for i in IDS[:8])],
}


@pytest.mark.parametrize("below", SECOND)
@pytest.mark.parametrize("empty", [1, 3])
def test_a_table_below_is_left_out_by_its_rows(empty, below, tmp_path):
    rows = [["id", *AXIS.tolist()], *rows_of(left=IDS)]
    sheet = saved(tmp_path, [*rows, *[[]] * empty, *SECOND[below]])
    table = written(tmp_path, text(rows) + "\n" * empty + text(SECOND[below]))
    for path in (sheet, table):
        first = NUM + 2 + empty
        assert f"if another table begins there, leave it out with drop_rows='{first}:'" in message_of(path)
        assert_read(path, targets=["id"], drop_rows=f"{first}:")


def test_hidden_sheets_are_not_offered(tmp_path):
    rows = [["id", *AXIS.tolist()], *rows_of(left=IDS)]
    for hidden in (["old"], ["data", "old"]):
        book = openpyxl.Workbook()
        book.active.title = "data"
        book.create_sheet("old")
        book.create_sheet("notes").append(["see the others"])
        for sheet in book.worksheets[:2]:
            for row in rows if sheet.title == "data" else [*rows[:1], *rows[3:]]:
                sheet.append(row)
        for title in hidden:
            book[title].sheet_state = "hidden"
        book.save(path := tmp_path / "a.xlsx")
        if hidden == ["old"]:
            assert_read(path, targets=["id"])
        else:
            assert "several sheets with numbers" in message_of(path)
    assert read_spectra(path, table="old").x.shape == (NUM - 2, N)


@pytest.mark.parametrize("cell", ["=B1+7.5", "=SUM(B2:B9)"])
def test_formulas_that_nothing_has_computed(cell, tmp_path):
    rows = [["id", *AXIS.tolist()], *rows_of(left=IDS)]
    rows[0 if "B1" in cell else 3][2] = cell
    assert "has formulas without their values: open it in Excel" in message_of(saved(tmp_path, rows))


@pytest.mark.parametrize("note", [["measured in June"], ["", "n = 25"], ["Operator:", "A. B."]])
def test_a_note_below_a_table(note, tmp_path):
    rows = [["id", *AXIS.tolist()], *rows_of(left=IDS)]
    sheet = saved(tmp_path, [*rows, [], note])
    table = written(tmp_path, text([*rows, [""] * (N + 1), [*note, *[""] * (N + 1 - len(note))]]))
    for path in (sheet, table):
        found = assert_read(path, targets=["id"])
        assert f"row {NUM + 3} left out" in "\n".join(found.reading.lines())


@pytest.mark.parametrize("name", ["tablet 25", "blank25"])
def test_an_empty_sample_below_a_table_is_no_note(name, tmp_path):
    rows = [["id", *AXIS.tolist()], *rows_of(left=IDS), [name, *[""] * N]]
    assert f"row {NUM + 2}, column 2 ('1100.0'): every value of this spectrum is missing" in message_of(
        written(tmp_path, text(rows))
    )
    rows.insert(5, ["measured in June", *[""] * N])
    assert "row 6, column 2" in message_of(written(tmp_path, text(rows)))
