"""Sizes in the footer of a parquet table: those that pyarrow reads, also where pyarrow ends the process."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tombola.data.footer import row_groups

TABLE = pa.table(
    {
        "label": pa.array([1, None, 3, 4], pa.int16()),
        "text": pa.array(["a", "b", "a", None]).dictionary_encode(),
        "list": pa.array([[1, 2], [], None, [3]], pa.list_(pa.float64())),
        "struct": pa.array([{"a": True, "b": b"x"}] * 4),
    }
)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_sizes_are_those_that_pyarrow_reads(tmp_path: Path, version: str, compression: str) -> None:
    file = tmp_path / "table.parquet"
    pq.write_table(TABLE, file, compression=compression, row_group_size=3, data_page_version=version)
    metadata = pq.read_metadata(file)
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    chunks = [group.column(column) for group in groups for column in range(group.num_columns)]
    expected = [
        (chunk.num_values, chunk.total_uncompressed_size, chunk.has_dictionary_page) for chunk in chunks
    ]
    found = row_groups(str(file))
    assert [column[:3] for group in found for column in group.columns] == expected
    assert [group.rows for group in found] == [group.num_rows for group in groups]


@given(content=st.binary(max_size=200))
def test_any_other_footer_is_an_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "footer"
    file.write_bytes(content + len(content).to_bytes(4, "little") + b"PAR1")
    with pytest.raises((LookupError, TypeError, ValueError, RecursionError)):
        row_groups(str(file))
    file.write_bytes(content)
    with pytest.raises(ValueError, match="no footer"):
        row_groups(str(file))


def test_a_footer_that_contradicts_itself_ends_no_process(tmp_path: Path) -> None:
    file = tmp_path / "train.parquet"
    pq.write_table(TABLE, file)
    content = file.read_bytes()
    optional, required = b"\x25\x02\x18\x05label", b"\x25\x00\x18\x05label"
    assert content.count(optional) == 1
    file.write_bytes(content.replace(optional, required))
    code = "import sys, tombola.errors\nfrom tombola.data.load import load_data\n"
    code += "try: load_data(sys.argv[1])\nexcept tombola.errors.DataError: print('refused')"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr
