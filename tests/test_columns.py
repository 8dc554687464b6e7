"""read_columns(): whole tables are read, and damaged ones named in one line."""

import pytest

from fewshot.columns import read_columns
from fewshot.errors import DataError

TABLE = "path,split,name\na.png,train,ox\nb.png,test,ox\n"


def test_rows_come_in_order_with_every_column(tmp_path):
    (tmp_path / "t.csv").write_text(TABLE)
    assert read_columns(tmp_path / "t.csv", "name", "path") == [
        {"path": "a.png", "split": "train", "name": "ox"},
        {"path": "b.png", "split": "test", "name": "ox"},
    ]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "cannot be read as a table of path, name: .*No such file"),
        (b"", "it has 0 rows"),
        (b"path,split,name\n", "it has 0 rows"),
        (TABLE.replace("name", "nom").encode(), "it has 2 rows of other columns"),
        (TABLE.encode("utf-16"), "cannot be read as a table of path, name: .*decode"),
        (TABLE.replace("ox", "ö").encode("latin-1"), "cannot be read as a table of path, name: .*decode"),
        (TABLE.replace("b.png,test,ox", "b.png").encode(), "row 2: wants a cell for each of path, name"),
        (TABLE.replace("test,ox", "test,ox,3").encode(), "row 2: wants a cell for each of path, name"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, content, text):
    if content is not None:
        (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=text) as caught:
        read_columns(tmp_path / "t.csv", "path", "name")
    assert len(str(caught.value).splitlines()) == 1
