"""Alterations of valid files for coverage-guided fuzzing, most under checksums that fit.

Each takes a source of random numbers and the content of a valid file, and returns one that is nearly valid.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tomllib
import zipfile
import zlib
from collections.abc import Iterator
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
from hostile import PATHS, fitting_checksums, misdeclare, places
from PIL import ExifTags, Image
from pyarrow import parquet

from tombola import files
from tombola.lab.description import name_of

NAME = "0123456789abcdef" * 4
CALL: dict[str, Any] = {"function": "train", "version": 1, "arguments": {"run": {"job": NAME}}}
_VALUES: list[Any] = [
    None, True, False, "", [], {}, [[]], {"": {}}, "é" * 300, 0, 1, 2, 3, -1, 7, 2**31, 2**53, 2**63, 2**70,
    10**400, 0.5, 0.25, -0.0, 1e308, float("nan"), float("-inf"), [2**40] * 3, [-1, -1], [2**32, 2**32],
    [0, 2**62], ["3"], {"job": NAME}, {"job": NAME, "call": CALL}, {"data": "digits"}, CALL, *PATHS,
    {"value": NAME, "type": "Run"}, {"float": "nan"}, "F64", "BOOL", "F8_E4M3", "I16", "tiny", "paper",
    "none", "whole", "train", NAME,
]  # fmt: skip
_WORDS = [
    b"", b"\0", b"\r", b"\n", b"\xff", b'"', b"'", b'"""', b",", b"[", b"{", b"[[", b"a.", b"=", b"1e999",
    b"nan", b"[" * 1_500, b'{"a":' * 1_500, b"9" * 5_000, b"," * 1_000,
    b"x\n" * 1_000, b"\\ud800", b"\x1b[2J", "\u2028\x85\u202e".encode(), b"0x1", b"1979-05-27", b"07:32:00",
    b"inf", *map(str.encode, PATHS),
]  # fmt: skip


def altered_text(draw: Random, content: bytes) -> bytes:
    """Bytes with a word, or a part of their own, once or often in place of some of them."""
    place, other = draw.randrange(len(content) + 1), draw.randrange(len(content) + 1)
    word = draw.choice([*_WORDS, content[other : other + draw.choice([1, 8, 80])]])
    rest = content[place + draw.choice([0, 0, 1, 5, 40]) :]
    return content[:place] + word * draw.choice([1, 1, 1, 1, 2, 100]) + rest


def altered_value(draw: Random, value: Any) -> Any:
    """A JSON value, of which one to three parts are replaced, removed, renamed or copied; itself altered."""
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        inner = places(value)
        if not inner:
            return draw.choice(_VALUES)
        (container, key), (source, other) = draw.choice(inner), draw.choice(inner)
        part = json.loads(json.dumps(draw.choice([*_VALUES, source[other], source[other]])))
        match draw.randrange(4):
            case 0:
                del container[key]
            case 1 if isinstance(container, dict):
                container[draw.choice([*PATHS, "job", "call", "data", str(other)])] = container.pop(key)
            case 2 if isinstance(container, dict):
                container[draw.choice([*PATHS, "job", "call", "data", str(other)])] = part
            case _:
                container[key] = part
    return value


def altered_json(draw: Random, content: bytes) -> bytes:
    return json.dumps(altered_value(draw, json.loads(content))).encode()


def altered_toml(draw: Random, content: bytes) -> bytes:
    """A TOML file with values altered, or its text."""
    if draw.randrange(2):
        return altered_text(draw, content)
    return _toml(altered_value(draw, tomllib.loads(content.decode())), "\n").encode()


def _toml(value: Any, between: str = "") -> str:
    if isinstance(value, dict):
        entries = [f"{json.dumps(key)} = {_toml(part)}" for key, part in value.items()]
        return between.join(entries) if between else "{" + ", ".join(entries) + "}"
    return f"[{', '.join(map(_toml, value))}]" if isinstance(value, list) else json.dumps(value, default=str)


def altered_tensors(draw: Random, content: bytes) -> bytes:
    """A tensor file with its description, header or values altered, and sealed as its writer would."""
    (length,) = struct.unpack("<Q", content[:8])
    header, body = json.loads(content[8 : 8 + length]), content[8 + length :]
    metadata = header.pop("__metadata__")
    match draw.randrange(4):
        case 0:
            header = altered_value(draw, header)
        case 1:
            body = altered_text(draw, body)[: len(body)].ljust(len(body), b"\0")
        case _:
            metadata["description"] = json.dumps(altered_value(draw, json.loads(metadata["description"])))
    metadata["checksums"] = json.dumps(fitting_checksums(header, body))
    raw = json.dumps({"__metadata__": metadata | {"seal": files._seal(metadata)}, **header}).encode()
    return struct.pack("<Q", len(raw)) + raw + body


def altered_archive(draw: Random, content: bytes) -> bytes:
    """An export with a member altered, renamed, removed or misdeclared; all else of it fits."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    manifest = json.loads(members.pop("manifest.json"))
    member = draw.choice(sorted(members))
    folder, _, file = member.rpartition("/")
    false = draw.randrange(4) == 0
    match draw.randrange(8):
        case _ if false:
            pass
        case 0:
            members[draw.choice([*PATHS, f"{folder}/thin", f"{folder}/history.csv"])] = members.pop(member)
        case 1:
            del members[member]
        case 2:
            manifest = altered_value(draw, manifest)
        case _:
            alter = altered_json if file.endswith("json") else altered_text
            members[member] = (altered_tensors if "safetensors" in file else alter)(draw, members[member])
    if file in ("result.json", "history.csv") and member in members:
        provenance = json.loads(members[f"{folder}/provenance.json"])
        provenance["sums"][file] = hashlib.sha256(members[member]).hexdigest()
        members[f"{folder}/provenance.json"] = json.dumps(provenance).encode()
    if file == "job.json" and member in members:
        before, after = folder.removeprefix("jobs/"), name_of(json.loads(members[member]))
        members = {name.replace(before, after): value for name, value in members.items()}
        manifest["jobs"] = [after if name == before else name for name in manifest["jobs"]]
    manifest["checksums"] = {name: hashlib.sha256(value).hexdigest() for name, value in members.items()}
    written = io.BytesIO()
    method = draw.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    with zipfile.ZipFile(written, "w", method) as archive:
        for name, value in (members | {"manifest.json": json.dumps(manifest).encode()}).items():
            archive.writestr(name, value)
        if false:
            misdeclare(draw.choice, archive)
    return written.getvalue()


# Numbers in headers: sizes, counts, places.
_NUMBERS = [0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 2**12, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1]


def altered_numbers(draw: Random, content: bytes) -> bytes:
    """Bytes of which one to three numbers are others, mostly near the beginning, where headers are."""
    whole = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 3])):
        size, order = draw.choice([1, 2, 4]), draw.choice(["little", "big"])
        place = draw.randrange(draw.choice([min(64, len(whole)), len(whole)]) or 1)
        number = draw.choice([*_NUMBERS, draw.getrandbits(8 * size)]) % 256**size
        whole[place : place + size] = number.to_bytes(size, order)
    return bytes(whole)


def altered_picture(draw: Random, content: bytes) -> bytes:
    """A picture with numbers or parts altered, or put in a frame that says another size."""
    match draw.randrange(8):
        case 0:
            content = altered_text(draw, content)
        case 1:
            side = draw.choice([0, 1, 16, 255])
            header = struct.pack("<BBBBHHII", side, side, 0, 0, 1, 32, len(content), 22)
            return struct.pack("<HHH", 0, 1, 1) + header + content  # an icon
        case _:
            content = altered_numbers(draw, content)
    return _fitting_png(content) if content.startswith(b"\x89PNG") and draw.randrange(8) else content


def _fitting_png(content: bytes) -> bytes:
    """A PNG file whose chunks have the checksums that fit."""
    whole, place = bytearray(content), 8
    while place + 12 <= len(whole):
        end = place + 8 + int.from_bytes(whole[place : place + 4], "big")
        whole[end : end + 4] = struct.pack(">I", zlib.crc32(whole[place + 4 : end]))
        place = end + 4
    return bytes(whole[: len(content) + 4])


def pictures() -> Iterator[bytes]:
    """A small picture of each kind."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)
    colour = Image.fromarray(pixels[:, :, :3])
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    ways: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (colour, "PNG", {}), (colour, "JPEG", {"exif": turned}), (colour, "WEBP", {}), (colour, "BMP", {}),
        (colour, "GIF", {"save_all": True, "append_images": [colour.rotate(90)]}), (colour, "PPM", {}),
        (colour, "TIFF", {"compression": "tiff_lzw"}), (colour, "TGA", {}), (colour, "JPEG2000", {}),
        (Image.fromarray(pixels), "PNG", {"exif": turned}), (Image.fromarray(pixels), "ICO", {}),
        (Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257), "PNG", {}), (colour, "PCX", {}),
        (colour.convert("P"), "PNG", {"transparency": 3}), (colour.convert("1"), "TIFF", {}),
        (colour, "WEBP", {"save_all": True, "append_images": [colour]}), (colour, "SGI", {}),
        (colour, "MPO", {"save_all": True, "append_images": [colour]}), (colour, "DDS", {}),
        (Image.fromarray(pixels[:, :, 0].astype(np.float32)), "TIFF", {}), (colour, "ICNS", {}),
    ]  # fmt: skip
    for picture, kind, options in ways:
        written = io.BytesIO()
        picture.save(written, kind, **options)
        yield written.getvalue()


_README = b"""---
configs:
- config_name: default
  data_files: data.parquet
---
"""
_TYPES: list[Any] = [
    "int8", "string", "binary", "image", "fixed_size_binary[1000000000]", "null", "timestamp[s]", "bool",
    {"class_label": {"names": {"0": "a", "1": "b"}}}, {"list": "int8", "length": 2**30}, {"list": "image"},
    {"array2_d": {"shape": [2**16, 2**16], "dtype": "int8"}}, {"struct": [{"name": "a", "dtype": "int8"}]},
    "audio", "video", "pdf", "decimal128(3, 1)", "large_binary", "string_view",
]  # fmt: skip


def joined(readme: bytes, table: bytes) -> bytes:
    """A README and a parquet table as one input."""
    return struct.pack("<I", len(readme)) + readme + table


def parted(content: bytes) -> tuple[bytes, bytes]:
    """The README and the table of an input, which may be any bytes."""
    length = int.from_bytes(content[:4], "little")
    return content[4 : 4 + length], content[4 + length :]


def data_folders() -> Iterator[bytes]:
    """Small parquet tables of pictures, each with a README."""
    cells = [{"bytes": picture, "path": None} for picture in list(pictures())[:1]] * 4
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table({"image": pa.array(cells, kind), "label": pa.array([0, 1, 0, 1], pa.int8())})
    texts = table.set_column(1, "label", pa.array(["cat", "bat"] * 2).dictionary_encode())
    lists = table.append_column("more", pa.array([[1], [], None, [2, 3]], pa.list_(pa.int16())))
    types = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "bat"]}}
    typed = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": types}})})
    for each, options in (
        (table, {"compression": "none"}), (texts, {"compression": "snappy"}),
        (lists, {"data_page_version": "2.0"}), (typed, {"compression": "zstd", "row_group_size": 2}),
    ):  # fmt: skip
        written = io.BytesIO()
        parquet.write_table(each, written, **options)
        yield joined(_README, written.getvalue())


def altered_data(draw: Random, content: bytes) -> bytes:
    """A README and a table of which one is altered: text, options, bytes, or cells and types as written."""
    readme, table = parted(content)
    match draw.randrange(6):
        case 0:
            readme = altered_text(draw, readme)
        case 1:
            option = draw.choice(
                ["data_dir: {}", "columns: [{}]", "sep: {}", "features:\n  - name: label\n    dtype: {}"]
            )
            value = json.dumps(draw.choice([*_VALUES, *_TYPES]))
            readme = readme.replace(b"\n---", f"\n  {option.format(value)}\n---".encode())
        case 2:
            fields = [{"name": name, "dtype": draw.choice(_TYPES)} for name in ("image", "label", "more")]
            info = json.dumps({"features": fields[: draw.randrange(4)]})
            readme = b"---\ndataset_info: " + info.encode() + b"\n---\n"
        case 3:
            table = altered_numbers(draw, table)
        case 4:
            table = altered_text(draw, table)
        case _:
            table = _altered_table(draw, table)
    return joined(readme, table)


def _altered_table(draw: Random, content: bytes) -> bytes:
    """A parquet table with a cell, a type or its description altered, written anew."""
    table = parquet.read_table(io.BytesIO(content))
    rows = table.to_pylist()
    match draw.randrange(4):
        case 0:
            path = draw.choice([*PATHS, "/dev/zero", "http://127.0.0.1:1/a.png", "hf://datasets/a/b"])
            rows[0]["image"] = {"bytes": draw.choice([None, b""]), "path": path.replace("\0", "")}
        case 1:
            picture = altered_picture(draw, rows[0]["image"]["bytes"])
            rows = [row | {"image": {"bytes": picture, "path": None}} for row in rows]
        case 2:
            types = json.loads(
                (table.schema.metadata or {}).get(b"huggingface", b'{"info": {"features": {}}}')
            )
            described = json.dumps(altered_value(draw, types)).encode()
            table = table.replace_schema_metadata({b"huggingface": described})
        case _:
            name = draw.choice(table.column_names)
            for row in rows:
                row[name] = draw.choice([None, 0, -1, 2**62, "", "x", b"\0", [], [None], {}, 0.5, True])
            table = None
    written = io.BytesIO()
    changed = pa.Table.from_pylist(rows, None if table is None else table.schema)
    parquet.write_table(changed, written, compression=draw.choice(["none", "zstd"]))
    return written.getvalue()
