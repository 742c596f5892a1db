"""Changes to a sound file that a broken disk, a bad download or somebody hostile could make."""

import copy
import io
import json
import pickletools
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import yaml

DEEP = "[" * 5_000 + "]" * 5_000
STRANGE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**53, 2**62, 2**63, 2**64, -(2**63), 10**400, 0.5, -0.0, 1e308,
    "", "x", "../x", "a\0b", "/dev/zero", "\ud800", "\u202e\u0000", "é", "e\u0301", "x" * 100_000, [], {},
    [[]], [0], [-1], [2**62, 2**62],
    {"a": 1}, ["x"], [None], [1.5], "float32", "F4", "permutation", ["relu"], [0] * 1_000,
)  # fmt: skip


def mutated(content: bytes, kind: str, rng: random.Random, other: bytes = b"") -> bytes:
    """One change to a file.

    Args:
        content: of the sound file.
        kind: ``"bytes"``, or what its structure is: ``"json"``, ``"yaml"``, ``"safetensors"``,
            ``"zip"``, ``"pickle"`` (the older format of torch), ``"one pickle"``.
        rng: source of randomness.
        other: the content of some other file, of which a piece may be put in.
    """
    structural = _STRUCTURAL.get(kind)
    if structural is not None and rng.random() < 0.6:
        return structural(content, rng)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        content = _changed_bytes(content, rng, other)
    return content


def _changed_bytes(content: bytes, rng: random.Random, other: bytes) -> bytes:
    size = len(content)
    at = rng.randrange(min(size, 4_096) if rng.random() < 0.7 else size) if size else 0
    length = rng.choice((1, 1, 2, 4, 8, 64, 512))
    noise = rng.randbytes(length)
    piece = other[(start := rng.randrange(len(other) or 1)) : start + length]
    extreme = struct.pack("<Q", rng.choice((0, 2**31 - 1, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1)))[
        : rng.choice((2, 4, 8))
    ]
    flipped = bytes([content[at] ^ 1 << rng.randrange(8)]) if size else b""
    return rng.choice((
        content[:at] + flipped + content[at + 1 :],
        content[:at] + noise[:1] + content[at + 1 :],
        content[:at] + noise + content[at:],
        content[:at] + content[at + length :],
        content[:at],
        content[:at] + content[at : at + length] * 2 + content[at + length :],
        content[:at] + piece + content[at + len(piece) :],
        content[:at] + bytes(length) + content[at + length :],
        content[:at] + extreme + content[at + len(extreme) :],
        content[at:],
        content + noise,
        b"\xef\xbb\xbf" + content,
    ))  # fmt: skip


# ---------------------------------------------------------------- JSON


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a tree."""
    out, waiting = [], [value]
    while waiting:
        inside = waiting.pop()
        keys = (
            list(inside)
            if isinstance(inside, dict)
            else range(len(inside))
            if isinstance(inside, list)
            else ()
        )
        out += [(inside, key) for key in keys]
        waiting += [inside[key] for key in keys]
    return out


def changed_tree(tree: Any, rng: random.Random) -> Any:
    """A tree of JSON with one value, key or entry changed."""
    places = _places(tree)
    if not places:
        return copy.deepcopy(rng.choice(STRANGE))
    container, key = rng.choice(places)
    action, value = rng.randrange(8), copy.deepcopy(rng.choice(STRANGE))
    if action <= 2:
        container[key] = value
    elif action == 3:
        del container[key]
    elif isinstance(container, list):
        container.insert(key, rng.choice((value, container[key])))
    elif action == 4:
        container[rng.choice(("x", "", "\0", "k" * 10_000, "__class__", "self", "\u202e"))] = value
    elif action == 5:
        container[f"{key} "] = container.pop(key)
    elif action == 6:
        source, other = rng.choice(places)
        container[key] = (
            copy.deepcopy(source[other])
            if isinstance(source, dict) or other < len(source)
            else value
        )
    elif isinstance(container[key], int):
        container[key] += rng.choice((-1, 1, 2**31))
    return tree


def _json_text(tree: Any) -> bytes:
    try:
        return json.dumps(tree).encode()
    except (ValueError, RecursionError):  # a tree put into itself
        return b"null"


def _changed_json(content: bytes, rng: random.Random) -> bytes:
    action = rng.randrange(12)
    text = content.decode()
    if action == 0:
        return text.encode(rng.choice(("utf-16", "utf-32", "utf-8-sig")))
    if action == 1:
        number = next(iter(c for c in "0123456789" if c in text), "{")
        return text.replace(
            number,
            rng.choice(("NaN", "-Infinity", "1e999", DEEP, "9" * 5_000, "-0", '"\\ud800"')),
            1,
        ).encode()
    if action == 2 and text.startswith("{") and '":' in text:  # a key twice
        return (
            text[: text.index(":") + 1] + rng.choice(("0", "{}", "[]", '""')) + "," + text[1:]
        ).encode()
    tree = json.loads(content)
    for _ in range(rng.choice((1, 1, 2, 5))):
        tree = changed_tree(tree, rng) if isinstance(tree, (dict, list)) else tree
    return _json_text(tree)


def _changed_yaml(content: bytes, rng: random.Random) -> bytes:
    """One value changed, or a tag, an anchor or a nest put in."""
    if rng.random() < 0.7:
        try:
            return yaml.safe_dump(
                changed_tree(yaml.safe_load(content), rng), sort_keys=False
            ).encode()
        except (yaml.YAMLError, ValueError, RecursionError):
            return b""
    lines = content.decode().splitlines(keepends=True)
    odd = rng.choice((
        "x: !!python/object/apply:os.system [id]\n", "x: !!int a\n", "x: !!timestamp b\n", "x: !!binary c\n",
        "x: !!float {}\n", "x: &a [*a]\n", "x: *b\n", f"x: {DEEP}\n", "<<: [1]\n", "? {a: 1}\n: 2\n",
        "x: 2026-99-99\n", "x: 0x\n", "x: 1:99\n", "x: ${oc.env:HOME}\n", "x: ${x}\n", "- x\n",
        "%YAML 9.9\n---\n", "x: .inf\n",
        "x: !!set {a}\n", "x: 0b_\n", "x: 1_\n", "x: 0o9\n", "= : 1\n", "x: =\n",
    ))  # fmt: skip
    lines.insert(rng.randrange(len(lines) + 1), odd)
    return "".join(lines).encode()


def _changed_safetensors(content: bytes, rng: random.Random) -> bytes:
    (length,) = struct.unpack("<Q", content[:8])
    header = content[8 : 8 + length]
    inner = json.loads(header)
    metadata = inner.get("__metadata__", {})
    ours = [key for key, text in metadata.items() if text.startswith("{")]
    if ours and rng.random() < 0.6:
        key = rng.choice(ours)
        metadata[key] = _changed_json(metadata[key].encode(), rng).decode("utf-8", "replace")
        header = _json_text(inner)
    else:
        header = _changed_json(header, rng)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


# ---------------------------------------------------------------- pickles and archives

_BOMBS = (
    b")" + b"\x85" * 2_000, b"(" * 3_000, b"]" * 3_000, b"cos\nsystem\n", b"cbuiltins\ngetattr\n",
    b"\x82\x01", b"r\xff\xff\xff\x7f", b"X\xff\xff\xff\xff", b"\x8a\xff", b"0", b"R", b"b", b"s", b"t",
    b"\x81", b"Q", b"}", b"2", b"N", b".", b"}K\x01" + b"2\x86" * 40 + b"Ns0",
)  # fmt: skip


def changed_pickle(content: bytes, rng: random.Random) -> bytes:
    """A pickle with one operation changed, moved, left out or put in."""
    try:
        starts = [place for _, _, place in pickletools.genops(content)]
    except Exception:
        return content[: rng.randrange(len(content) or 1)]
    ends = [*starts[1:], len(content)]
    ops = [content[a:b] for a, b in zip(starts, ends, strict=True)]
    at, other = rng.randrange(len(ops)), rng.randrange(len(ops))
    action = rng.randrange(6)
    if action == 0:
        del ops[at]
    elif action == 1:
        ops.insert(at, ops[other])
    elif action == 2:
        ops[at], ops[other] = ops[other], ops[at]
    elif action == 3:
        ops.insert(at, rng.choice(_BOMBS))
    elif action == 4:
        ops[at] = rng.choice(_BOMBS)
    else:
        numbers = [i for i, op in enumerate(ops) if op[:1] in b"JKMhjqr" and len(op) > 1]
        at = rng.choice(numbers or [at])
        ops[at] = ops[at][:1] + rng.choice((b"\xff", b"\0", b"\x7f", b"\x01")) * (len(ops[at]) - 1)
    return b"".join(ops)


def _changed_older(content: bytes, rng: random.Random) -> bytes:
    """One of the pickles that a torch file of the older format starts with."""
    file, starts = io.BytesIO(content), [0]
    for _ in range(5):
        for _ in pickletools.genops(file):
            pass
        starts.append(file.tell())
    which = rng.choice((0, 1, 2, 3, 3, 3, 3, 4))
    return (
        content[: starts[which]]
        + changed_pickle(content[starts[which] : starts[which + 1]], rng)
        + content[starts[which + 1] :]
    )


def _changed_zip(content: bytes, rng: random.Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        records = [
            [info.filename, archive.read(info), info.compress_type] for info in archive.infolist()
        ]
    record = rng.choice(records)
    action = rng.randrange(8)
    if action <= 2:
        record = next(each for each in records if each[0].endswith("data.pkl"))
        record[1] = changed_pickle(record[1], rng)
    elif action == 3:
        records.remove(record)
    elif action == 4:
        record[0] = rng.choice(
            (record[0] + "x", "x/data.pkl", "../" + record[0], record[0].replace("/", "\\"))
        )
    elif action == 5:
        record[1] = record[1][: rng.randrange(len(record[1]) or 1)]
    elif action == 6:
        record[2] = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    else:
        records.insert(0, [record[0], record[1] * 2, record[2]])
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data, how in records:
            archive.writestr(zipfile.ZipInfo(name), data, compress_type=how)
    packed = file.getvalue()
    return _claimed_sizes(packed, rng) if rng.random() < 0.2 else packed


def _claimed_sizes(packed: bytes, rng: random.Random) -> bytes:
    """A size in the directory of an archive that is not the record's."""
    at = packed.rfind(b"PK\x01\x02")
    place = at + rng.choice((20, 24, 42))
    return (
        packed[:place]
        + struct.pack("<I", rng.choice((0, 2**31, 2**32 - 2, 1_000)))
        + packed[place + 4 :]
    )


_STRUCTURAL: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "json": _changed_json, "safetensors": _changed_safetensors, "zip": _changed_zip, "pickle": _changed_older,
    "yaml": _changed_yaml, "one pickle": changed_pickle,
}  # fmt: skip
