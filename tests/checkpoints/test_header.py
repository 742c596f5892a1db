"""What a safetensors file must fulfil before any of its bytes is used, and agreement with
safetensors itself."""

import json
import struct

import pytest
import safetensors
import safetensors.torch
import torch

from metanet.checkpoints import load_checkpoint, save_checkpoint
from metanet.checkpoints._safetensors import DTYPES
from metanet.errors import CheckpointError


def entry(begin, end, shape=None, dtype="U8"):
    return {
        "dtype": dtype,
        "shape": [end - begin] if shape is None else shape,
        "data_offsets": [begin, end],
    }


def file_of(header, data=b"abcdefgh"):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


DAMAGED = [
    (b"1234567", "its header's length takes 8 bytes"),
    (struct.pack("<Q", 3) + b"{}", "its header should have 3 bytes"),
    (struct.pack("<Q", 2**63) + b"{}", "its header should have 9,223,372,036,854,775,808 bytes"),
    (file_of(b"{'a': 1}"), "its header is damaged or no JSON: Expecting"),
    (file_of(b"\xff\xfe"), "its header is damaged or no JSON: 'utf-8' codec"),
    (file_of(b"[" * 100_000), "its header is no JSON that metanet reads: it is nested too deep"),
    (file_of(b"[]"), "its header is no JSON object"),
    (
        file_of(b'{"a": {}, "a": {}}'),
        "its header is damaged or no JSON: the key 'a' stands there twice",
    ),
    (file_of({"a": 3}), r"its header is damaged .*:\n  a: Input should be .*, got 3"),
    (
        file_of({"a": {"dtype": "U8", "shape": [8]}}),
        r"its header is .*\n  a.data_offsets: Field required",
    ),
    (
        file_of({"a": {**entry(0, 8), "data_offsets": [0, 8, 9]}}),
        r"its header is .*\n  a.data_offsets: List should have at most 2",
    ),
    (
        file_of({"a": entry(0, 8, [-8])}),
        r"its header is .*\n  a.shape\[0\]: .* greater than or equal to 0, got -8",
    ),
    (
        file_of({"a": entry(0, 8, [True, 8])}),
        r"its header is .*\n  a.shape\[0\]: .* integer, got True",
    ),
    (file_of({"a": entry(0, 8, [8.0])}), r"its header is .*\n  a.shape\[0\]: .* integer, got 8.0"),
    (file_of({"a": entry(0, 8, "8")}), r"its header is .*\n  a.shape: .* list, got '8'"),
    (
        file_of({"a": entry(0, 0, [2**70, 0])}),
        r"its header is .*\n  a.shape\[0\]: .* less than 9223372036854775808",
    ),
    (file_of({"a": entry(0, 8, [3, 2])}), r"a has 8 bytes, its shape \[3, 2\] of U8 takes 6"),
    (file_of({"a": entry(0, 8, [2**62, 2**62, 4])}), "a has 8 bytes"),
    (file_of({"a": entry(8, 0, [])}), "a has -8 bytes"),
    (file_of({"a": entry(0, 5), "b": entry(4, 8)}), "b starts at byte 4 of the data, expected 5"),
    (file_of({"a": entry(0, 4), "b": entry(0, 4)}), "b starts at byte 0 of the data, expected 4"),
    (file_of({"a": entry(0, 4), "b": entry(5, 8)}), "b starts at byte 5 of the data, expected 4"),
    (file_of({"a": entry(1, 8)}), "a starts at byte 1 of the data, expected 0"),
    (file_of({"a": entry(0, 80)}), "its header and tensors take"),
    (file_of({"a": entry(0, 7)}), "its header and tensors take"),
    (
        file_of({"a": entry(0, 8), "__metadata__": {"epoch": 3}}),
        r"its metadata is damaged .*\n  epoch: .* string, got 3",
    ),
]


@pytest.mark.parametrize(("content", "reason"), DAMAGED, ids=[reason for _, reason in DAMAGED])
def test_a_damaged_header_is_refused_with_its_reason(content, reason, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(
        CheckpointError,
        match=rf"no whole safetensors file \({reason}[\s\S]*; {len(content):,} bytes\)",
    ):
        load_checkpoint(path)
    with pytest.raises(safetensors.SafetensorError):  # we are no stricter than the library
        safetensors.safe_open(path, "pt")


def raw(text, data=b"abcdefgh"):
    return file_of(text.encode("utf-8", "surrogatepass"), data)


ENTRY = json.dumps(entry(0, 8))
HEADERS = {
    "plain": raw(f'{{"a": {ENTRY}}}'),
    "more fields": raw(f'{{"a": {ENTRY[:-1]}, "x": 1}}}}'),
    "UTF-16": file_of(f'{{"a": {ENTRY}}}'.encode("utf-16")),
    "UTF-16, no mark": file_of(f'{{"a": {ENTRY}}}'.encode("utf-16-le")),
    "UTF-32": file_of(f'{{"a": {ENTRY}}}'.encode("utf-32")),
    "byte order mark": file_of(b"\xef\xbb\xbf" + f'{{"a": {ENTRY}}}'.encode()),
    "Latin-1": file_of(f'{{"ä": {ENTRY}}}'.encode("latin-1")),
    "NaN": raw(f'{{"a": {ENTRY[:-1]}, "x": NaN}}}}'),
    "infinite": raw(f'{{"a": {ENTRY[:-1]}, "x": -Infinity}}}}'),
    "out of range": raw(f'{{"a": {ENTRY[:-1]}, "x": 1e999}}}}'),
    "half a character in a name": raw(f'{{"\\ud800": {ENTRY}}}'),
    "half a character in a field": raw(f'{{"a": {ENTRY[:-1]}, "x": "\\udc00"}}}}'),
    "half a character in metadata": raw(f'{{"__metadata__": {{"x": "\\ud800"}}, "a": {ENTRY}}}'),
    "half a character, encoded": raw(f'{{"\ud800": {ENTRY}}}'),
    "a whole pair": raw(f'{{"\\ud83d\\ude00": {ENTRY}}}'),
    "minus zero": raw('{"a": {"dtype": "U8", "shape": [8], "data_offsets": [-0, 8]}}'),
    "a fraction": raw('{"a": {"dtype": "U8", "shape": [8.0], "data_offsets": [0, 8]}}'),
    "an exponent": raw('{"a": {"dtype": "U8", "shape": [8e0], "data_offsets": [0, 8]}}'),
    "a leading zero": raw('{"a": {"dtype": "U8", "shape": [08], "data_offsets": [0, 8]}}'),
    "a field twice": raw(
        '{"a": {"dtype": "U8", "dtype": "U8", "shape": [8], "data_offsets": [0, 8]}}'
    ),
    "metadata twice": raw(f'{{"__metadata__": {{}}, "__metadata__": {{}}, "a": {ENTRY}}}'),
    "metadata null": raw(f'{{"__metadata__": null, "a": {ENTRY}}}'),
    "metadata a list": raw(f'{{"__metadata__": [], "a": {ENTRY}}}'),
    "metadata a number": raw(f'{{"__metadata__": {{"x": 1}}, "a": {ENTRY}}}'),
    "spaces": raw(f' \n{{"a": {ENTRY}}} \t\r\n '),
    "no-break space": raw(f'{{"a":\u00a0{ENTRY}}}'),
    "zeros behind": raw(f'{{"a": {ENTRY}}}\0\0'),
    "more behind": raw(f'{{"a": {ENTRY}}} {{}}'),
    "a comma too many": raw(f'{{"a": {ENTRY},}}'),
    "control character": raw(f'{{"a\x01": {ENTRY}}}'),
    "single quotes": raw("{'a': 1}"),
    "nothing": raw("{}", b""),
    "nothing, with data": raw("{}"),
    "an empty tensor inside": file_of({"a": entry(0, 4), "z": entry(4, 4, [0]), "b": entry(4, 8)}),
    "an empty tensor elsewhere": file_of(
        {"a": entry(0, 4), "z": entry(2, 2, [0]), "b": entry(4, 8)}
    ),
    "not aligned": file_of({"a": entry(0, 1), "b": entry(1, 5, [1], "F32")}, b"12345"),
    "overlapping": file_of({"a": entry(0, 5), "b": entry(4, 8)}),
    "with a hole": file_of({"a": entry(0, 3), "b": entry(4, 8)}),
    "sizes that overflow": file_of({"a": entry(0, 8), "z": entry(8, 8, [2**62, 2**62, 0])}),
    "a size beyond all": file_of({"a": entry(0, 8), "z": entry(8, 8, [2**64, 0])}),
    "another dtype": file_of({"a": entry(0, 8, None, "u8")}),
}


@pytest.mark.parametrize("name", HEADERS)
def test_the_verdict_is_that_of_the_library(name, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(HEADERS[name])
    try:
        theirs = safetensors.torch.load_file(tmp_path / "x.safetensors")
    except safetensors.SafetensorError:
        with pytest.raises(CheckpointError):
            load_checkpoint(tmp_path / "x.safetensors")
    else:
        ours = dict(load_checkpoint(tmp_path / "x.safetensors"))
        assert ours.keys() == theirs.keys() and all(
            torch.equal(ours[key], theirs[key]) for key in ours
        )


STRICTER = {
    "a name twice": raw(f'{{"a": {ENTRY}, "a": {ENTRY}}}'),
    "an entry as a list": raw('{"a": ["U8", [8], [0, 8]]}'),
    "a dtype as an object": raw(
        '{"a": {"dtype": {"U8": null}, "shape": [8], "data_offsets": [0, 8]}}'
    ),
    "half bytes": file_of({"a": entry(0, 8, [16], "F4")}),
}


@pytest.mark.parametrize("name", STRICTER)
def test_where_we_are_stricter_than_the_library(name, tmp_path):
    """It takes the last of two tensors of one name, and spellings that its parser allows by
    accident."""
    (tmp_path / "x.safetensors").write_bytes(STRICTER[name])
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "x.safetensors")


def test_every_cut_of_a_file_is_noticed(tmp_path):
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, {"a": torch.arange(3), "b": torch.ones(2, 2)}, {"epoch": 1})
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="x.safetensors"):
            load_checkpoint(path)


def test_an_unknown_dtype_is_named(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(file_of({"a": entry(0, 8, [16], "F4")}))
    with pytest.raises(
        CheckpointError, match=r"a has dtype F4, which metanet doesn't know; known: BOOL, U8"
    ):
        load_checkpoint(tmp_path / "x.safetensors")


def test_metadata_that_is_not_ours_is_refused(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(
        file_of({"a": entry(0, 8), "__metadata__": {"metanet": "[1]"}})
    )
    with pytest.raises(
        CheckpointError, match="metadata 'metanet' is damaged.*\n.* dictionary, got \\[1\\]"
    ):
        load_checkpoint(tmp_path / "x.safetensors")


@pytest.mark.parametrize("ours", [True, False], ids=["written by us", "read by us"])
def test_agrees_with_safetensors_on_every_dtype(ours, tmp_path):
    path = tmp_path / "x.safetensors"
    tensors = {}
    for name, dtype in DTYPES.items():
        bits = torch.randint(
            0, 2 if dtype is torch.bool else 256, (5, 3 * dtype.itemsize), dtype=torch.uint8
        )
        tensors[name] = bits.view(dtype)
    tensors["scalar"], tensors["empty"] = torch.tensor(2.5), torch.empty(0, 3, dtype=torch.float64)
    if ours:
        save_checkpoint(path, tensors)
        back = safetensors.torch.load_file(path)
    else:
        safetensors.torch.save_file(tensors, path)
        back = dict(load_checkpoint(path))
    assert set(back) == set(tensors)
    for name, tensor in tensors.items():
        assert back[name].dtype is tensor.dtype
        assert back[name].shape == tensor.shape
        assert torch.equal(
            back[name].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8)
        ), name
        assert (
            back[name].data_ptr() % tensor.dtype.itemsize == 0
        )  # mapped by the library: aligned in the file
