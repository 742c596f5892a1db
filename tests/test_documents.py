"""JSON from files ends in a value of the declared shape or in one short message."""

import os

import pytest

from metanet.documents import Document, parse_json, read_json, validated
from metanet.errors import CheckpointError, MetanetError


class Entry(Document):
    name: str
    shape: list[int]


HOSTILE = {
    "nested": b"[" * 1_000_000,
    "nested objects": b'{"a":' * 200_000,
    "not a number": b'{"a": NaN}',
    "infinity": b"[-Infinity]",
    "half a character": b'"\\ud800"',
    "no UTF-8": b'"\xff"',
    "byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "a long integer": b"1" * 100_000,
    "cut off": b'{"a": [1, 2',
    "empty": b"",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_json_is_refused(content):
    with pytest.raises(MetanetError, match=r"^x\.json ") as caught:
        parse_json(content, "x.json")
    assert len(str(caught.value)) < 300


def test_sound_json_is_read_as_it_is():
    assert parse_json('{"ä": ["\\ud83d\\ude00", 1.5e3, null]}'.encode(), "x") == {
        "ä": ["\U0001f600", 1500.0, None]
    }


def test_a_key_given_twice_is_refused_where_keys_are_names():
    content = b'{"a": 1, "b": 2, "a": 3}'
    assert parse_json(content, "x") == {"a": 3, "b": 2}
    with pytest.raises(MetanetError, match="'a' stands there twice"):
        parse_json(content, "x", unique=True)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(MetanetError, match="no regular file"):
        read_json(tmp_path / "pipe.json")
    with pytest.raises(MetanetError, match="no such file"):
        read_json(tmp_path / "none.json")
    with pytest.raises(MetanetError, match="no such file"):
        read_json(str(tmp_path / "a\0b.json"))


def test_what_is_too_large_is_not_read(tmp_path):
    (tmp_path / "a.json").write_text("[1, 2, 3]")
    assert read_json(tmp_path / "a.json", largest=9) == [1, 2, 3]
    with pytest.raises(CheckpointError, match="larger than 8 bytes"):
        read_json(tmp_path / "a.json", largest=8, error=CheckpointError)


def test_mistakes_are_named_by_place():
    assert validated(Entry, {"name": "a", "shape": [1]}, "x").shape == [1]
    with pytest.raises(MetanetError) as caught:
        validated(list[Entry], [{"name": 3, "shape": [1, True], "more": 0}], "index.json")
    text = str(caught.value)
    assert all(
        place in text
        for place in ("index.json", "[0].name", "[0].shape[1]", "[0].more", "got True")
    )


def test_many_mistakes_make_a_short_message():
    with pytest.raises(MetanetError, match="and 9994 more") as caught:
        validated(dict[str, int], {f"{'k' * 500}{i}": "v" * 5000 for i in range(10_000)}, "x")
    assert len(str(caught.value)) < 2000
