"""A folder is read from that folder only: no file outside it, and nothing over the network."""

from __future__ import annotations

import csv
import http.server
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tombola.data import hub
from tombola.data.catalogue import origin_of
from tombola.data.imageset import Data, ImageSet, data_from_tensors
from tombola.data.inside import only_inside
from tombola.data.load import load_data
from tombola.errors import DataError

Writer = Callable[..., Path]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A picture outside every data set."""
    (tmp_path / "private").mkdir()
    Image.new("RGB", (6, 4), (1, 2, 3)).save(tmp_path / "private" / "secret.png")
    return tmp_path / "private" / "secret.png"


@pytest.fixture
def requests(secret: Path) -> Iterator[tuple[str, list[str]]]:
    """A server on loopback that has the picture: its address, and the requests that it saw."""
    seen: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(secret.parent))

        def handle(self) -> None:
            seen.append("a connection")
            super().handle()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()
        thread.join()


def table(folder: Path, paths: list[str], picture: Any, file: str = "train.parquet") -> Path:
    """A table of two embedded pictures, and of cells that are only paths."""
    folder.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    picture(0).save(buffer, "PNG")
    cells = [{"bytes": buffer.getvalue(), "path": None}] * 2 + [{"bytes": None, "path": p} for p in paths]
    labels = [row % 2 for row in range(len(cells))]
    type_ = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    pq.write_table(pa.table({"image": pa.array(cells, type_), "label": labels}), folder / file)
    return folder


@pytest.mark.parametrize(
    "form",
    ["{file}", "file://{file}", "{folder}/../private/secret.png", "zip://a.png::{file}", "{url}/secret.png",
     "zip://a.png::{url}/secret.zip", "s3://bucket/a.png", "hf://datasets/a/b/c.png"],
)  # fmt: skip
def test_a_cell_that_is_a_path_outside_is_refused(
    tmp_path: Path, secret: Path, requests: tuple[str, list[str]], picture: Any, form: str
) -> None:
    url, seen = requests
    path = form.format(file=secret, folder=tmp_path / "tiny", url=url)
    folder = table(tmp_path / "tiny", [path, path], picture)
    with pytest.raises(DataError, match=r"tiny: image 2 \(.*\) is not in .*; copy .* into") as caught:
        load_data(folder)
    assert "\n" not in str(caught.value)
    assert seen == []


def test_a_cell_that_is_a_path_inside_is_read(tmp_path: Path, picture: Any) -> None:
    (tmp_path / "tiny" / "pictures").mkdir(parents=True)
    picture(5).save(tmp_path / "tiny" / "pictures" / "a.png")
    folder = table(tmp_path / "tiny", [str(tmp_path / "tiny" / "pictures" / "a.png")] * 8, picture)
    assert len(load_data(folder).train) == 8


def test_a_cell_that_is_no_regular_file_is_refused(tmp_path: Path, picture: Any) -> None:
    folder = table(tmp_path / "tiny", [str(tmp_path / "tiny" / "pipe")] * 2, picture)
    os.mkfifo(folder / "pipe")
    with pytest.raises(DataError, match=r"image 2 \(.*pipe\) is no regular file"):
        load_data(folder)


README = "---\nconfigs:\n- config_name: default\n{}\n---\n"


@pytest.mark.parametrize(
    "text",
    [
        "  data_files: {outside}/train.parquet",
        "  data_files: ../private/train.parquet",
        "  data_files: 'file://{outside}/train.parquet'",
        "  data_files: '{url}/train.parquet'",
        "  data_files:\n  - split: train\n    path: ['{url}/train.parquet']",
        "  data_files: 'zip://a.parquet::{url}/train.zip'",
        "  data_dir: ../private",
        "  data_dir: {outside}",
        "  data_dir: '{url}/'",
    ],
)
@pytest.mark.parametrize("file", ["README.md", ".huggingface.yaml"])
def test_a_description_that_names_data_outside_is_refused(
    tmp_path: Path, secret: Path, requests: tuple[str, list[str]], picture: Any, text: str, file: str
) -> None:
    url, seen = requests
    table(secret.parent, [], picture)
    folder = table(tmp_path / "tiny", [], picture)
    description = README.format(text.format(outside=secret.parent, url=url))
    (folder / file).write_text(description if file == "README.md" else description.strip("-\n"))
    with pytest.raises(DataError, match=r"tiny: .* names .*outside"):
        load_data(folder)
    assert seen == []


def test_a_second_configuration_outside_is_refused_too(tmp_path: Path, secret: Path, picture: Any) -> None:
    table(secret.parent, [], picture)
    folder = table(tmp_path / "tiny", [], picture)
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: a\n  data_files: train.parquet\n- config_name: b\n  default: true\n"
        f"  data_files: {secret.parent}/train.parquet\n---\n"
    )
    with pytest.raises(DataError, match=r"tiny: .* names .*outside"):
        load_data(folder)


def test_a_description_of_data_inside_is_followed(tmp_path: Path, picture: Any) -> None:
    folder = table(tmp_path / "tiny", [], picture, "odd.parquet")
    table(folder, [], picture, "other.parquet")
    (folder / "README.md").write_text(
        README.format(
            "  data_files:\n  - split: train\n    path: odd*\n  - split: test\n    path: other.parquet"
        )
    )
    assert len(load_data(folder).test) == 2


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("form", ["{file}", "../../private/secret.png", "{url}/secret.png"])
def test_metadata_of_pictures_may_not_name_files_outside(
    tmp_path: Path, secret: Path, requests: tuple[str, list[str]], picture: Any, kind: str, form: str
) -> None:
    url, seen = requests
    folder = tmp_path / "pets" / "train"
    folder.mkdir(parents=True)
    picture(0).save(folder / "a.png")
    name = form.format(file=secret, url=url)
    rows = [{"file_name": "a.png", "label": 0}, {"file_name": name, "label": 1}] * 2
    with open(folder / f"metadata.{kind}", "w", newline="") as file:
        if kind == "csv":
            writer = csv.DictWriter(file, ["file_name", "label"])
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    with pytest.raises(DataError, match=r"pets"):
        load_data(tmp_path / "pets")
    assert seen == []


def test_links_within_the_folder_are_followed_and_links_out_of_it_refused(
    tmp_path: Path, secret: Path, picture: Any
) -> None:
    for name in ("cat", "bat"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for row in range(2):
            picture(row).save(tmp_path / "pets" / name / f"{row}.png")
    (tmp_path / "pets" / "cat" / "2.png").symlink_to("../bat/0.png")
    (tmp_path / "alias").symlink_to("pets")
    assert len(load_data(tmp_path / "alias").train) == 3
    (tmp_path / "pets" / "cat" / "3.png").symlink_to(secret)
    with pytest.raises(DataError, match=r"cat/3.png is not in .*; copy .* into"):
        load_data(tmp_path / "pets")


def test_linked_folders_that_go_round_in_circles_end(tmp_path: Path, simple: Writer) -> None:
    folder = simple(train=4, test=2)
    for name in ("a", "b", "c"):
        (folder / name).symlink_to(".")
    (folder / "root").symlink_to("/")
    assert len(load_data(folder).train) == 4


@pytest.mark.parametrize("name", ["README.md", ".huggingface.yaml", "dataset_infos.json"])
@pytest.mark.parametrize("kind", ["pipe", "link", "huge"])
def test_a_description_must_be_a_small_file_of_the_folder(
    simple: Writer, secret: Path, name: str, kind: str
) -> None:
    folder = simple(train=4, test=2)
    if kind == "pipe":
        os.mkfifo(folder / name)
    elif kind == "link":
        (folder / name).symlink_to(secret)
    else:
        (folder / name).touch()
        os.truncate(folder / name, 1 << 40)
    with pytest.raises(DataError, match=rf"tiny: .*{name} is "):
        load_data(folder)


def test_a_repository_of_the_hub_may_name_only_its_own_files(
    tmp_path: Path,
    secret: Path,
    requests: tuple[str, list[str]],
    picture: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, seen = requests
    with only_inside("hf://datasets/a/b", "a--b"):
        for pattern, base in [
            (f"{url}/train.parquet", "hf://datasets/a/b@main"),
            (str(secret), "hf://datasets/a/b@main"),
            ("train.parquet", "hf://datasets/a/b@main/../../other/data"),
            ("train.parquet", "hf://datasets/a/bc@main"),
            ("train.parquet", str(tmp_path)),
        ]:
            with pytest.raises(DataError, match=r"a--b: .* outside"):
                datasets.data_files.resolve_pattern(pattern, base)
    split = hub._splits
    for path in (str(secret), f"{url}/secret.png"):
        folder = str(table(tmp_path / "tiny", [path], picture))
        monkeypatch.setattr(hub, "_splits", lambda *_, folder=folder: split(folder, folder, "tiny"))
        with pytest.raises(DataError, match=r"a--b: image 2 \(.*\) is not in .*datasets--a--b"):
            load_data("a/b")
    assert seen == []


def test_postscript_is_never_run(simple: Writer, tables: Writer, picture: Any) -> None:
    buffer = io.BytesIO()
    picture(0).save(buffer, "EPS")
    cells = [{"bytes": buffer.getvalue(), "path": None}] * 4
    folder = tables(
        {"train": {"image": cells, "label": [0, 1, 0, 1]}},
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])},
    )
    with pytest.raises(DataError, match=r"image 0 .*EPS"):
        load_data(folder)


@pytest.mark.parametrize("text", ["\x1b[31mred", "\x1b]0;title\x07", "two\nlines"])
def test_control_characters_in_names_are_refused(tables: Writer, picture: Any, text: str) -> None:
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", text])}
    columns = {"image": [picture(row) for row in range(4)], "label": [0, 1, 0, 1]}
    with pytest.raises(DataError, match="class name") as caught:
        load_data(tables({"train": columns}, features))
    assert str(caught.value).isprintable()
    split = torch.zeros(1, 1, 3, 3, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(DataError, match="name") as caught:
        data_from_tensors(split, split, name=text)
    assert str(caught.value).isprintable()
    with pytest.raises(DataError, match="name"):
        Data("x", ImageSet(*split), ImageSet(*split), (text,))


def test_control_characters_in_the_name_of_a_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "\x1b[31mred").mkdir()
    with pytest.raises(DataError, match="name") as caught:
        origin_of(tmp_path / "\x1b[31mred")
    assert str(caught.value).isprintable()


def test_control_characters_in_paths_and_columns_are_not_printed(tmp_path: Path, picture: Any) -> None:
    folder = table(tmp_path / "tiny", ["/nowhere/\x1b[31m.png"], picture)
    with pytest.raises(DataError, match="image 2") as caught:
        load_data(folder)
    assert str(caught.value).isprintable()


def test_what_the_libraries_log_of_a_data_set_is_not_shown(tmp_path: Path, picture: Any) -> None:
    folder = table(tmp_path / "tiny", [], picture)
    red = pq.read_table(folder / "train.parquet").append_column("\x1b[31mred", [[1, 2]])
    pq.write_table(red, folder / "train.parquet")
    types = "[{name: image, dtype: image}]"
    (folder / "README.md").write_text(f"---\ndataset_info: {{features: {types}}}\n---\n")
    # In a process of its own, since the libraries write to the standard error that they were imported under.
    code = "import sys, tombola, tombola.errors\ntry: tombola.load_data(sys.argv[1])\n"
    code += "except tombola.errors.DataError: print('refused')"
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("refused\n", "")


def test_unusual_characters_in_class_names_are_kept(tables: Writer, picture: Any) -> None:
    names = ["caf\N{LATIN SMALL LETTER E WITH ACUTE}", "no\N{NO-BREAK SPACE}break"]
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=names)}
    columns = {"image": [picture(row) for row in range(4)], "label": [0, 1, 0, 1]}
    assert load_data(tables({"train": columns}, features)).class_names == tuple(names)


def test_the_hub_libraries_are_offline_while_a_folder_is_read(
    simple: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    seen = []
    build = datasets.load_dataset_builder

    def watched(*arguments: Any, **options: Any) -> Any:
        seen.append(datasets.config.HF_HUB_OFFLINE)
        return build(*arguments, **options)

    monkeypatch.setattr(datasets, "load_dataset_builder", watched)
    load_data(simple(train=4, test=2))
    assert seen == [True]
    assert not datasets.config.HF_HUB_OFFLINE
