"""Small files that ask for much memory are refused from their headers, within a bound that is measured."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import forked
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tombola.data import cache
from tombola.data.load import load_data
from tombola.errors import DataError

Writer = Callable[..., Path]

# What reading may take beyond its bound: libraries that are imported late, tables of names, buffers.
SLACK_MB = 150


def png(size: tuple[int, int], mode: str = "1") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, "PNG")
    return buffer.getvalue()


def repeated(value: bytes | str, rows: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([value]))


def parquet(
    folder: Path, rows: int, cell: bytes, file: str = "train.parquet", *, label: str = "", typed: bool = False
) -> Path:
    """A table of one picture, as often as is asked, which is stored once.

    label: text of every second label; by default labels are 0 and 1.
    typed: whether the table also says that its pictures are a dictionary.
    """
    folder.mkdir(exist_ok=True)
    pictures = pa.StructArray.from_arrays(
        [repeated(cell, rows), pa.nulls(rows, pa.string())], ["bytes", "path"]
    )
    labels = repeated(label, rows) if label else pa.array([row % 2 for row in range(rows)], pa.int8())
    table = pa.table({"image": pictures, "label": labels})
    pq.write_table(table, folder / file, compression="zstd", store_schema=typed)
    return folder


def growth_of_peak(folder: Path, bound_mb: int) -> tuple[str, float]:
    """What loading a folder ends with in a process of its own, and by how many MB its peak memory grows."""
    code = f"""
import resource, datasets, torch, numpy, pyarrow.parquet, pyarrow.dataset, PIL.Image
from tombola.data.load import load_data
from tombola.errors import DataError
resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, 4 << 30))  # a failure must not take the machine along
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    print(len(load_data({str(folder)!r}).train))
except DataError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    environment = os.environ | {"TOMBOLA_LARGEST_DATA": str(bound_mb / 1024)}
    child = forked.run("-c", code, env=environment)
    assert child.returncode == 0, child.stderr[-2000:]
    *_, message, grown = child.stdout.strip().splitlines()
    return message, float(grown)


def pictures(folder: Path, count: int, picture: bytes) -> Path:
    for row in range(count):
        place = folder / ("cat" if row % 2 else "bat")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{row}.png").write_bytes(picture)
    return folder


def test_one_bit_pictures_that_ask_for_gigabytes_are_refused_before_any_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pictures(tmp_path / "bits", 90, png((8000, 8000)))
    assert sum(file.stat().st_size for file in folder.rglob("*.png")) < 1e6
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("a picture was decoded"))
    with pytest.raises(
        DataError, match=r"bits: 90 images .*8000x8000.* 5\.8 GB .* 4\.3 GB;.*TOMBOLA_LARGEST_DATA.*now 4\)"
    ):
        load_data(folder)


@pytest.mark.long
def test_the_memory_of_pictures_stays_within_the_bound(tmp_path: Path) -> None:
    message, grown = growth_of_peak(pictures(tmp_path / "bits", 40, png((4000, 4000))), 256)
    assert "TOMBOLA_LARGEST_DATA" in message
    assert grown < SLACK_MB


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("side", [8300, 10_000, 20_000])
def test_a_picture_of_too_many_pixels_is_named(tmp_path: Path, side: int) -> None:
    folder = pictures(tmp_path / "pets", 4, png((8, 8)))
    (folder / "cat" / "3.png").write_bytes(png((side, side)))
    with pytest.raises(DataError, match=r"pets: image 3 \(.*cat/3.png\) has more than 67,108,864 pixels"):
        load_data(folder)


def test_the_first_colour_picture_counts_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pictures(tmp_path / "pets", 8, png((512, 512)))
    monkeypatch.setenv("TOMBOLA_LARGEST_DATA", str(4 / 1024))
    assert load_data(folder).channels == 1
    (folder / "cat" / "7.png").write_bytes(png((512, 512), "RGB"))
    with pytest.raises(DataError, match=r"pets: 8 images like image 7 \(.*cat/7.png\).* in colour"):
        load_data(folder)


@pytest.mark.parametrize("typed", [pytest.param(False, marks=pytest.mark.long), True])
def test_many_rows_of_one_large_cell_are_refused_before_they_are_unfolded(
    tmp_path: Path, typed: bool
) -> None:
    cell = png((640, 640), "L") + os.urandom(60_000)
    folder = parquet(tmp_path / "rows", 300_000, cell, typed=typed)
    file = folder / "train.parquet"
    assert file.stat().st_size < 100_000
    message, grown = growth_of_peak(folder, 256)
    assert "train.parquet" in message
    assert "TOMBOLA_LARGEST_DATA" in message
    assert grown < 256 + SLACK_MB


def test_the_table_at_fault_is_the_one_blamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = parquet(tmp_path / "rows", 10, png((8, 8)), "train.parquet")
    parquet(folder, 30_000, png((8, 8)) + os.urandom(9000), "test.parquet")
    monkeypatch.setenv("TOMBOLA_LARGEST_DATA", "0.1")
    with pytest.raises(DataError, match=r"rows: .*test\.parquet"):
        load_data(folder)


def test_rows_without_contents_count_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    pq.write_table(pa.table({"label": pa.nulls(3_000_000, pa.int64())}), folder / "train.parquet")
    monkeypatch.setenv("TOMBOLA_LARGEST_DATA", str(1 / 1024))
    with pytest.raises(DataError, match=r"train\.parquet .*TOMBOLA_LARGEST_DATA"):
        load_data(folder)


@pytest.mark.long
def test_the_memory_of_a_large_table_is_about_its_bound(tmp_path: Path) -> None:
    rows = 15_000
    message, grown = growth_of_peak(parquet(tmp_path / "rows", rows, png((128, 128), "L")), 256)
    assert message == str(rows * 4 // 5)
    # The decoded 234 MB, and once more while train and test are parted.
    assert grown < 2 * 256 + SLACK_MB


@pytest.mark.long
def test_long_texts_as_labels_are_refused_before_they_are_unfolded(tmp_path: Path) -> None:
    folder = parquet(tmp_path / "labels", 100_000, png((4, 4)), label="x" * 50_000)
    message, grown = growth_of_peak(folder, 256)
    assert "train.parquet" in message
    assert grown < 256 + SLACK_MB


def number(value: int, length: int = 0) -> bytes:
    """A number as a footer has it, in as many bytes as are asked or it takes."""
    value, digits = 2 * value if value >= 0 else -2 * value - 1, []
    while value or not digits or len(digits) < length:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits[:-1], digits[-1] & 127])


def lie(file: Path, true: list[tuple[bytes, int]], false: list[tuple[bytes, int]]) -> None:
    """Replaces numbers, each after the head of its field, that stand next to each other in a footer."""
    parts = [number(value) for _, value in true]
    old = b"".join(head + part for (head, _), part in zip(true, parts, strict=True))
    new = b"".join(h + number(v, len(part)) for (h, v), part in zip(false, parts, strict=True))
    content = file.read_bytes()
    assert content.count(old) == 1
    file.write_bytes(content.replace(old, new))


# Heads of fields in a footer: the size of a column, whose field of packed bytes follows; the places of its
# pages, and that of its dictionary. One of another type is not read.
SIZE, PACKED, DATA, DICTIONARY, UNREAD = b"\x16", b"\x16", b"\x26", b"\x26", b"\x25"


def one_text(folder: Path, rows: int, *, within: str = "") -> tuple[Path, pq.ColumnChunkMetaData]:
    """A table of one text of 2 MB, as often as is asked, that is stored once; and what its footer says."""
    folder.mkdir()
    file, texts = folder / "train.parquet", repeated("x" * 2_000_000, rows)
    columns: dict[str, pa.Array] = {"label": texts}
    if within == "list":
        columns["label"] = pa.ListArray.from_arrays(pa.array([0, rows], pa.int32()), texts)
    elif within == "many":
        columns |= {f"more{index}": texts for index in range(40)}
    pq.write_table(pa.table(columns), file, compression="zstd", store_schema=False, write_statistics=False)
    assert file.stat().st_size < 20_000
    return file, pq.read_metadata(file).row_group(0).column(0)


@pytest.mark.parametrize("lying", ["size", "dictionary", "list", "many"])
def test_no_footer_hides_how_large_a_dictionary_is(tmp_path: Path, lying: str) -> None:
    file, said = one_text(tmp_path / "lies", 600, within=lying)
    sizes = [(SIZE, said.total_uncompressed_size), (PACKED, said.total_compressed_size)]
    if lying == "size":
        lie(file, sizes, [(SIZE, 1), sizes[1]])
    elif lying == "dictionary":
        places = [(DATA, said.data_page_offset), (DICTIONARY, said.dictionary_page_offset)]
        lie(file, places, [(DATA, said.dictionary_page_offset), (UNREAD, said.dictionary_page_offset)])
    message, grown = growth_of_peak(file.parent, 100)
    assert "train.parquet it would take" in message
    assert grown < 100 + SLACK_MB


def test_a_page_without_a_dictionary_is_measured_by_its_own_header(tmp_path: Path) -> None:
    (tmp_path / "lies").mkdir()
    file = tmp_path / "lies" / "train.parquet"
    table = pa.table({"label": ["x" * 1_000_000_000]})
    pq.write_table(table, file, compression="zstd", use_dictionary=False, write_statistics=False)
    said = pq.read_metadata(file).row_group(0).column(0)
    sizes = [(SIZE, said.total_uncompressed_size), (PACKED, said.total_compressed_size)]
    lie(file, sizes, [(SIZE, 1), sizes[1]])
    message, grown = growth_of_peak(file.parent, 100)
    assert "train.parquet it would take" in message
    assert grown < SLACK_MB


def test_a_negative_number_in_a_footer_is_refused(tmp_path: Path) -> None:
    file, said = one_text(tmp_path / "lies", 4)
    sizes = [(SIZE, said.total_uncompressed_size), (PACKED, said.total_compressed_size)]
    lie(file, sizes, [(SIZE, -1), sizes[1]])
    with pytest.raises(DataError, match=r"train\.parquet cannot be read; mend or remove it"):
        load_data(file.parent)


def test_texts_stored_by_what_they_share_are_refused(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    texts = pa.table({"label": ["x" * 2_000_000 + str(row) for row in range(60)]})
    encoding = {"label": "DELTA_BYTE_ARRAY"}
    file = tmp_path / "shared" / "train.parquet"
    pq.write_table(texts, file, use_dictionary=False, column_encoding=encoding, compression="zstd")
    with pytest.raises(DataError, match=r"train\.parquet is encoded as DELTA_BYTE_ARRAY"):
        load_data(tmp_path / "shared")


@pytest.mark.parametrize("name", ["train.csv.gz", "train.tar", "train.arrow", "train.zip"])
def test_kinds_of_files_without_a_bound_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "kinds").mkdir()
    with zipfile.ZipFile(tmp_path / "kinds" / name, "w") as archive:  # where the name does not fit, too
        archive.writestr("cat/0.png", png((4, 4)))
    with pytest.raises(DataError, match=rf"{name}.*parquet"):
        load_data(tmp_path / "kinds")


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner", content)
    return buffer.getvalue()


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, zipped])
@pytest.mark.parametrize("name", ["train.csv", "train.json"])
def test_a_compressed_file_is_no_text_whatever_its_name(
    tmp_path: Path, pack: Callable[[bytes], bytes], name: str
) -> None:
    (tmp_path / "texts").mkdir()
    line = b"image,label\n" if name.endswith("csv") else b'{"image": "a", "label": 1}\n'
    (tmp_path / "texts" / name).write_bytes(pack(line * 10))
    with pytest.raises(DataError, match=rf"{name} cannot be read as text"):
        load_data(tmp_path / "texts")


def keys(rows: int) -> list[dict[str, object]]:
    return [{f"a{row}": row} for row in range(rows)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("train.csv", ",".join(map(str, range(1200))) + "\n" + "1\n" * 20),
        ("train.csv", '"","' + '\n","'.join(map(str, range(1200))) + '"\n' + "1\n" * 20),
        ("train.csv", "  \n\n" + ",".join(map(str, range(1200))) + "\n" + "1\n" * 20),
        ("train.jsonl", "\n".join(map(json.dumps, keys(1200)))),
        ("train.jsonl", "".join(map(json.dumps, keys(1200)))),
        ("train.json", json.dumps(keys(1200))),
        ("train.json", json.dumps([{"a": row} for row in keys(1200)])),
        ("train.json", json.dumps({"a": [keys(1200)]})),
        ("pictures/metadata.csv", "file_name," + ",".join(map(str, range(1200))) + "\n" + "0.png\n" * 20),
        ("pictures/metadata.jsonl", "\n".join(json.dumps(row | {"file_name": "0.png"}) for row in keys(1200)))
    ],
)  # fmt: skip
def test_a_table_of_too_many_columns_is_refused_before_short_rows_are_filled_up(
    tmp_path: Path, name: str, text: str
) -> None:
    folder = pictures(tmp_path / "texts", 4, png((4, 4))) if "pictures" in name else tmp_path / "texts"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    with pytest.raises(DataError, match=rf"{name} has 1,\d\d\d columns or more; at most 1,000 are read"):
        load_data(folder)


@pytest.mark.parametrize("name", ["train.csv", "train.jsonl"])
def test_short_rows_count_as_if_they_were_filled_up(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = ",".join(map(str, range(500))) + "\n" + "1\n" * 2000
    if name.endswith("jsonl"):
        text = "\n".join(map(json.dumps, keys(500) * 4))
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / name).write_text(text)
    monkeypatch.setenv("TOMBOLA_LARGEST_DATA", str(4 / 1024))
    with pytest.raises(DataError, match=rf"{name} would take .*TOMBOLA_LARGEST_DATA"):
        load_data(tmp_path / "texts")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".txt"])
def test_all_text_tables_of_a_data_set_count_together(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {".csv": "1,1\n", ".jsonl": '{"a": 1, "b": 1}\n', ".txt": "1" * 20 + "\n"}[suffix]
    (tmp_path / "texts").mkdir()
    for split in ("train", "test"):
        (tmp_path / "texts" / (split + suffix)).write_text(row * 25_000)
    monkeypatch.setenv("TOMBOLA_LARGEST_DATA", str(1 / 1024))
    with pytest.raises(DataError, match=rf"with .*{suffix} it would take .*TOMBOLA_LARGEST_DATA"):
        load_data(tmp_path / "texts")
    (tmp_path / "texts" / f"test{suffix}").write_text(row * 2)
    with pytest.raises(DataError, match="no images"):
        load_data(tmp_path / "texts")


def described(folder: Path, text: str) -> Path:
    (folder / "README.md").write_text(f"---\n{text}\n---\n")
    return folder


@pytest.mark.parametrize("place", ["configs: *a3", "configs: [{config_name: default, data_files: *a3}]"])
@pytest.mark.parametrize("file", ["README.md", ".huggingface.yaml"])
def test_a_readme_that_multiplies_is_refused(tmp_path: Path, place: str, file: str) -> None:
    folder = pictures(tmp_path / "pets", 4, png((4, 4)))
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 4)), place]
    text = "\n".join(lines)
    (folder / file).write_text(f"---\n{text}\n---\n" if file == "README.md" else text)
    with pytest.raises(DataError, match=r"pets: its README has aliases"):
        load_data(folder)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("chunksize: 9000000000000", "sets 'chunksize'"),
        ("names: [image, label]", "sets 'names'"),
        ("engine: python", "sets 'engine'"),
        ("sep: (a+)+c", "separates cells by"),
    ],
)
def test_options_of_reading_that_ask_for_memory_or_time_are_refused(
    tmp_path: Path, option: str, words: str
) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "train.csv").write_text("image,label\na,1\n")
    text = f"configs:\n- config_name: default\n  data_files: train.csv\n  {option}"
    with pytest.raises(DataError, match=rf"texts: its README {words}"):
        load_data(described(tmp_path / "texts", text))


@pytest.mark.parametrize(
    "files", ["'a*a*a*a*b.png'", "'" + "**/" * 10 + "*.png'", "[" + "'*', " * 1001 + "]"]
)
def test_patterns_of_files_that_take_for_ever_are_refused(tmp_path: Path, files: str) -> None:
    folder = pictures(tmp_path / "pets", 4, png((4, 4)))
    text = f"configs:\n- config_name: default\n  data_files: {files}"
    with pytest.raises(DataError, match=r"pets: its README names its files by more than .* patterns"):
        load_data(described(folder, text))


def test_missing_lists_of_a_great_fixed_length_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOMBOLA_LARGEST_DATA", str(1 / 1024))
    folder, length = parquet(tmp_path / "lists", 4, png((4, 4))), 2**16
    empty = pa.FixedSizeListArray.from_arrays(
        pa.nulls(length * 4, pa.int8()), length, mask=pa.array([True] * 4)
    )
    pictures = pq.read_table(folder / "train.parquet")
    pq.write_table(pictures.append_column("more", empty), folder / "train.parquet")
    with pytest.raises(DataError, match=r"train\.parquet it would take .*TOMBOLA_LARGEST_DATA"):
        load_data(folder)
    pq.write_table(pictures.append_column("more", pa.nulls(4, pa.list_(pa.int8()))), folder / "train.parquet")
    assert len(load_data(folder).train) == 2
    types = ["{name: image, dtype: image}", "{name: label, dtype: int8}"]
    types.append(f"{{name: more, list: int8, length: {length}}}")
    with pytest.raises(DataError, match=r"train\.parquet it would take .*TOMBOLA_LARGEST_DATA"):
        load_data(described(folder, "dataset_info:\n  features:\n  - " + "\n  - ".join(types)))


@pytest.mark.parametrize("value", ["much", "0", "-1", "nan"])
def test_a_bound_that_is_no_size_is_refused(
    simple: Writer, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("TOMBOLA_LARGEST_DATA", value)
    with pytest.raises(DataError, match=f"TOMBOLA_LARGEST_DATA is '{value}'.*GiB"):
        load_data(simple(train=4, test=2))


@pytest.mark.parametrize("kind", ["fifo", "link", "folder", "sparse"])
def test_what_is_no_regular_cache_file_is_rebuilt(
    simple: Writer, cache_folder: Path, tmp_path: Path, kind: str
) -> None:
    folder = simple(train=6, test=4)
    fingerprint = load_data(folder).fingerprint
    (file,) = (cache_folder / "data").iterdir()
    content = file.read_bytes()
    file.unlink()
    if kind == "fifo":
        os.mkfifo(file)
    elif kind == "link":
        (tmp_path / "elsewhere").write_bytes(content)
        file.symlink_to(tmp_path / "elsewhere")
    elif kind == "folder":
        file.mkdir()
    else:
        file.write_bytes(content)
        os.truncate(file, 1 << 42)
    with pytest.warns(UserWarning, match="damaged|cannot be kept") as warned:
        assert load_data(folder).fingerprint == fingerprint
    assert "will be rebuilt" in str(warned[0].message)


def test_a_cache_file_larger_than_any_data_set_is_not_read(
    simple: Writer, monkeypatch: pytest.MonkeyPatch, cache_folder: Path
) -> None:
    folder = simple(train=6, test=4)
    load_data(folder)
    (file,) = (cache_folder / "data").iterdir()
    monkeypatch.setattr(cache, "safe_open", lambda *_, **__: pytest.fail("it was opened"))
    os.truncate(file, 1 << 42)
    with pytest.warns(UserWarning, match="damaged"):
        load_data(folder)
