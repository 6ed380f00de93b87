"""What a stranger may do to a file: to its bytes, JSON values and tensor headers, then seal it again."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

from tombola import files

# What stands in the text for what JSON writers refuse to write.
_RAW = {
    "@nan@": "NaN",
    "@infinity@": "-Infinity",
    "@deep list@": "[" * 200_000,
    "@closed deep list@": "[" * 50_000 + "]" * 50_000,
    "@deep object@": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "@digits@": "9" * 5_000,
    "@surrogate@": '"\\ud800"',
}
PATHS = (
    "../../outside", "../outside", "/etc/passwd", "..", ".", "a\0b", "CON", "NUL.json", "~", "a" * 5_000,
    "\x1b[2J", "objects/../../outside", "file:///etc/passwd", "\\\\host\\share", "a\nb",
)  # fmt: skip
_VALUES = st.one_of(
    st.sampled_from([None, True, False, "", [], {}, [[]], [None], {"": {}}, "é" * 300]),
    st.sampled_from([0, 1, -1, 7, 2**31, 2**53, 2**63 - 1, 2**63, 2**70, 10**400, 0.5, -0.0, 1e308]),
    st.sampled_from([[2**40] * 3, [-1, -1], [2**60], [2**32, 2**32], [0, 2**62], [1.5], ["3"]]),
    st.sampled_from([{"job": path} for path in PATHS]),
    st.sampled_from([{"job": path, "call": value} for path in PATHS[:2] for value in (None, {}, [], path)]),
    st.sampled_from([{"data": path} for path in PATHS] + [{"data": None}, {"data": []}]),
    st.sampled_from(
        [{"value": path, "type": kind} for path in PATHS[:3] for kind in ("Ticket", "os.system", 1)]
    ),
    st.sampled_from([{"float": "nan"}, {"float": []}, {"tensor": "value"}, {"tensor": []}, {"plain": 1}]),
    st.sampled_from([{"__reduce__": ["os.system", "true"]}, "resnet18", "convnet", "train", "initialize"]),
    st.sampled_from(PATHS),
    st.sampled_from(sorted(_RAW)),
    st.integers(),
    st.text(max_size=20),
).map(copy.deepcopy)  # they are altered in their turn


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container within a JSON value, with each of its keys."""
    found, pending = [], [value]
    while pending:
        each = pending.pop()
        keys = list(each) if isinstance(each, dict) else range(len(each)) if isinstance(each, list) else ()
        for key in keys:
            found.append((each, key))
            pending.append(each[key])
    return found


def altered(draw: Any, value: Any) -> Any:
    """A JSON value with one to three of its parts replaced, removed, renamed or added."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        inner = places(value)
        if not inner or draw(st.integers(0, 30)) == 0:
            return draw(_VALUES)
        container, key = draw(st.sampled_from(inner))
        what = draw(st.sampled_from(["replace", "replace", "replace", "remove", "rename", "add"]))
        if what == "remove":
            del container[key]
        elif what == "replace" or isinstance(container, list):
            container[key] = draw(_VALUES)
        else:
            name = draw(
                st.one_of(
                    st.sampled_from(PATHS),
                    st.text(max_size=8),
                    st.sampled_from([k for _, k in inner if isinstance(k, str)] or [""]),
                )
            )
            container[name] = container.pop(key) if what == "rename" else draw(_VALUES)
    return value


def text_of(draw: Any, value: Any) -> str:
    """JSON text of an altered value, which may be none: what writers refuse is put in, keys stand twice."""
    text = json.dumps(value)
    for word, raw in _RAW.items():
        text = text.replace(json.dumps(word), raw)
    if draw(st.integers(0, 15)) == 0 and text.startswith("{") and len(text) > 2:
        text = text[:-1] + ", " + text[1:]
    return text


def altered_bytes(draw: Any, content: bytes) -> bytes:
    """Content with bits flipped, cut short, spliced, or with another length at its head."""
    whole = bytearray(content)
    what = draw(st.sampled_from(["flip", "cut", "head", "splice", "extend"]))
    if what == "head":
        length = draw(
            st.sampled_from([0, 1, 2, 7, 2**20, 2**31, 2**40, 2**60, 2**63, 2**64 - 1, len(content)])
        )
        return struct.pack("<Q", length) + bytes(whole[8:])
    place = draw(st.integers(0, max(0, len(whole) - 1)))
    if what == "cut":
        return bytes(whole[:place])
    if what == "extend":
        return bytes(whole) + draw(st.binary(min_size=1, max_size=64))
    if what == "splice":
        whole[place : place + draw(st.integers(0, 40))] = draw(st.binary(max_size=40))
    for _ in range(draw(st.integers(1, 4)) if what == "flip" and whole else 0):
        whole[draw(st.integers(0, len(whole) - 1))] ^= 1 << draw(st.integers(0, 7))
    return bytes(whole)


def altered_tensors(draw: Any, content: bytes) -> bytes:
    """A tensor file with its description, header or checksums altered, and sealed as its writer would."""
    (length,) = struct.unpack("<Q", content[:8])
    header, body = json.loads(content[8 : 8 + length]), content[8 + length :]
    metadata = header.pop("__metadata__")
    what = draw(st.sampled_from(["description", "description", "tensors", "checksums", "metadata", "body"]))
    if what == "description":
        metadata["description"] = text_of(draw, altered(draw, json.loads(metadata["description"])))
    elif what == "checksums":
        metadata["checksums"] = text_of(draw, altered(draw, json.loads(metadata["checksums"])))
    elif what == "metadata":
        metadata = altered(draw, metadata)
    elif what == "tensors":
        header = altered_header(draw, header)
    else:
        body = altered_bytes(draw, body) if body else body
    if what in ("tensors", "body") and isinstance(header, dict):
        metadata["checksums"] = json.dumps(fitting_checksums(header, body))
    if isinstance(metadata, dict) and draw(st.integers(0, 9)):
        parts = [str(metadata.get(key, "")) for key in ("kind", "description", "checksums")]
        metadata["seal"] = hashlib.sha256("\0".join(parts).encode(errors="replace")).hexdigest()
    written = text_of(draw, {"__metadata__": metadata, **header} if isinstance(header, dict) else header)
    raw = written.encode(errors="replace")
    return struct.pack("<Q", len(raw)) + raw + body


def altered_header(draw: Any, header: dict[str, Any]) -> Any:
    """A header of tensors with types, shapes, places or names of some altered."""
    name = draw(st.sampled_from(sorted(header)))
    what = draw(st.sampled_from(["type", "shape", "place", "name", "drop", "any"]))
    if what == "any":
        return altered(draw, header)
    if what == "drop":
        del header[name]
    elif what == "name":
        header[draw(st.sampled_from([*PATHS[:4], *sorted(header), "mask.", "kept.x", "state.x"]))] = (
            header.pop(name)
        )
    elif what == "type":
        kinds = ["F64", "F32", "F16", "BF16", "I64", "I32", "U8", "BOOL", "C64", "F8_E4M3", "F4", "X"]
        _fit(header[name], draw(st.sampled_from(kinds)), draw)
    elif what == "shape":
        shape = header[name]["shape"]
        header[name]["shape"] = draw(
            st.sampled_from([[], [1, *shape], shape[::-1], [-1], [2**60], [0], [2**32, 2**32], None, [2**70]])
        )
    else:
        begin, end = header[name]["data_offsets"]
        header[name]["data_offsets"] = draw(
            st.sampled_from([[end, begin], [0, 2**60], [begin, end + 8], [-1, end], [begin, begin], []])
        )
    return header


def _fit(entry: dict[str, Any], kind: str, draw: Any) -> None:
    """Give a tensor another type, mostly with a shape that still fits its bytes."""
    sizes = {"F64": 8, "I64": 8, "C64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2}
    count = (entry["data_offsets"][1] - entry["data_offsets"][0]) // sizes.get(kind, 1)
    entry["dtype"] = kind
    if draw(st.integers(0, 3)):
        entry["shape"] = [count]


def fitting_checksums(header: dict[str, Any], body: bytes) -> dict[str, str]:
    """Checksums that fit whatever the header now says, as far as it can be read."""
    from safetensors.torch import load

    raw = json.dumps(header).encode(errors="replace")
    try:
        return {
            name: files.checksum(value)
            for name, value in load(struct.pack("<Q", len(raw)) + raw + body).items()
        }
    except Exception:  # then the reader will not get as far as that either
        return {}


def altered_archive(draw: Any, content: bytes) -> bytes:
    """An export with members altered, renamed, added or linked elsewhere, under a manifest that fits."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(members.pop("manifest.json"))
    name = draw(st.sampled_from(sorted(members)))
    what = draw(
        st.sampled_from(
            ["member", "member", "rename", "add", "drop", "manifest", "link", "twice", "misdeclare", "stream"]
        )
    )
    if what == "member":
        members[name] = altered_file(draw, name, members[name])
    elif what == "rename":
        members[draw(_MEMBERS)] = members.pop(name)
    elif what == "add":
        members[draw(_MEMBERS)] = members[name]
    elif what == "drop":
        del members[name]
    manifest["checksums"] = {each: hashlib.sha256(raw).hexdigest() for each, raw in members.items()}
    if what == "manifest":
        manifest = altered(draw, manifest)
    written = io.BytesIO()
    method = draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    with zipfile.ZipFile(written, "w", method) as archive:
        for each, raw in members.items():
            info = zipfile.ZipInfo(each or "x")
            info.filename = each  # as it is, whatever it is
            info.compress_type = method
            if what == "link" and each == name:
                info.external_attr = 0o120777 << 16
                raw = b"../../outside"
            archive.writestr(info, raw)
            if what == "twice" and each == name:
                archive.writestr(info, raw)
        archive.writestr("manifest.json", text_of(draw, manifest))
        if what == "misdeclare":
            misdeclare(lambda values: draw(st.sampled_from(values)), archive)
    if what == "stream":
        return altered_bytes(draw, written.getvalue())
    return written.getvalue()


# What a directory may say of a member; sizes that text and tensors may have, and one more.
_SIZES = [0, 1, 2**10, 2**16, 2**26, 2**26 + 1, 2**31, 2**32 - 1, 2**34, 2**34 + 1, 2**62]
_DECLARED: dict[str, list[int]] = {
    "file_size": _SIZES, "compress_size": _SIZES, "CRC": [0, 1, 2**32 - 1],
    "flag_bits": [1, 8, 0x20, 0x40, 0x800],
    "compress_type": [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, 9, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 93],
    "header_offset": [0, 1, 2**20, 2**32 - 1, 2**62],
}  # fmt: skip


def misdeclare(choose: Callable[[Sequence[Any]], Any], archive: zipfile.ZipFile) -> None:
    """Have the directory of an archive, which is written when that is closed, say what is false of a member.

    choose: one of several values. A size may be nearly true, or a place that of another member.
    """
    info, other = choose(archive.infolist()), choose(archive.infolist())
    field = choose(list(_DECLARED))
    true = getattr(info, field)
    nearly = [max(0, true - 1), true + 1, true // 2, 2 * true, getattr(other, field)]
    fits = 2 ** {"CRC": 32, "flag_bits": 16, "compress_type": 16}.get(field, 63)
    setattr(info, field, choose([*_DECLARED[field], *nearly]) % fits)


_MEMBERS = st.sampled_from(
    [
        *PATHS[:7], "jobs/../../outside", "jobs/" + "a" * 64 + "/../../x", "data/...json",
        "jobs/" + "0" * 64 + "/job.json", "objects/" + "0" * 64 + ".safetensors", "data/../x.json",
        "/data/x.json", "data/\x1b[2J.json",
        "jobs/" + "A" * 64 + "/job.json", "data/con.json", "jobs\\x", "data/a\nb.json", "data/.json",
    ]
)  # fmt: skip


def altered_file(draw: Any, name: str, content: bytes) -> bytes:
    """Any file of a store, altered in a way that suits it."""
    if draw(st.integers(0, 5)) == 0:
        return altered_bytes(draw, content)
    if name.endswith(".json"):
        return text_of(draw, altered(draw, json.loads(content))).encode(errors="replace")
    if name.endswith((".safetensors", ".ticket", ".run", "checkpoint")):
        return altered_tensors(draw, content)
    return altered_bytes(draw, content)
