"""Files are whole or not there; any text in a CSV file is read back, and no cell is a formula."""

import csv
import io
import os

import av
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.common.csv_files import FORMULA_STARTS, csv_line, read_csv, write_csv
from pipeline.common.files import end_of_lines, try_lock, write_whole

# Undecodable bytes in a file's name become the code points from U+DC80 on.
CHARACTERS = st.one_of(
    st.sampled_from("'=+-@\t\r\n＝;,\" 1"),
    st.characters(exclude_categories=["Cs"]),
    st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF),
)
ROWS = st.lists(st.tuples(st.text(CHARACTERS), st.text(CHARACTERS)))


def raw_cells(path):
    """The cells of all rows as a spreadsheet sees them."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return [cell for row in list(csv.reader(file))[1:] for cell in row]


def is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


@settings(max_examples=50)
@given(ROWS)
@example([("=1+1", "'=1+1"), ("''=1+1", "'a"), ("-1e5", "-1e5.mp4"), ("\t-1", "'-1")])
@example([("a,b.mp4", 'a"b.mp4'), ("a\rb.mp4", " a.mp4 "), (os.fsdecode(b"caf\xe9"), "café ☕")])
def test_every_text_is_read_back_and_none_is_a_formula(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "texts.csv"
    write_csv(path, ["a", "b"], rows)
    assert [(row["a"], row["b"]) for row in read_csv(path)] == rows
    assert not [
        cell for cell in raw_cells(path) if cell.startswith(FORMULA_STARTS) and not is_number(cell)
    ]


def test_rows_that_are_read_and_written_again_stay_the_same(tmp_path):
    path, again = tmp_path / "x.csv", tmp_path / "y.csv"
    write_csv(path, ["a", "b"], [["=a", -0.5], ["'=a", None], ["-inf", ["=1"]]])
    write_csv(again, ["a", "b"], [list(row.values()) for row in read_csv(path)])
    assert path.read_bytes() == again.read_bytes()
    assert path.read_text() == 'a,b\n\'=a,-0.5\n\'\'=a,\n-inf,"[""=1""]"\n'


@pytest.mark.parametrize(
    "content", [b"\0\0\0\x18ftypmp42", "path,label\n".encode("utf-16"), b"\x89PNG\n"]
)
def test_what_is_no_text_is_no_table(tmp_path, content):
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    with pytest.raises(csv.Error, match="no text in UTF-8"):
        read_csv(path)


def test_what_others_wrote_is_read_as_it_is(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("a,b\n=1.mp4,'quoted'\n-x.mp4,'\nshort\nlong,1,2\n")
    rows = [{name: value for name, value in row.items() if name} for row in read_csv(path)]
    assert rows == [
        {"a": "=1.mp4", "b": "'quoted'"},
        {"a": "-x.mp4", "b": "'"},
        {"a": "short", "b": None},
        {"a": "long", "b": "1"},
    ]


@settings(max_examples=50)
@given(ROWS, st.data())
def test_wherever_a_kill_cuts_the_whole_rows_are_known(tmp_path_factory, rows, data):
    lines = [csv_line(row) for row in rows]
    content = b"".join(lines)
    cut = data.draw(st.integers(0, len(content)))
    path = tmp_path_factory.getbasetemp() / "cut.csv"
    path.write_bytes(content[:cut])
    ends = [sum(map(len, lines[:n])) for n in range(len(lines) + 1)]
    assert end_of_lines(path, quoted=True) == max(end for end in ends if end <= cut)


def test_a_file_is_locked_once(tmp_path):
    path = tmp_path / "log"
    with path.open("ab") as first, path.open("ab") as second:
        assert try_lock(first)
        assert not try_lock(second)
    with path.open("ab") as third:
        assert try_lock(third)
    with pytest.raises(io.UnsupportedOperation):
        try_lock(io.BytesIO())


def test_a_full_disk_names_the_file_that_was_to_be_whoever_met_it(tmp_path):
    def fill(path):
        raise av.error.OSError(28, "No space left", str(path))

    with pytest.raises(OSError) as caught:
        write_whole(tmp_path / "case.mp4", fill)
    assert (caught.value.errno, caught.value.filename) == (28, str(tmp_path / "case.mp4"))
    assert not list(tmp_path.iterdir())
