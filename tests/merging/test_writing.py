"""save_merged: shards beside the output, all or nothing, and on from where a killed merge
stopped."""

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections import namedtuple

import pytest
import torch
from safetensors.torch import save_file

import metanet
from metanet.errors import CheckpointError, MetanetError
from metanet.merging import save_merged

NAMES = [f"layers.{k}.weight" for k in range(6)]


@pytest.fixture
def pair(tmp_path):
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for seed, path in enumerate(paths):
        generator = torch.Generator().manual_seed(seed)
        save_file({name: torch.randn(8, 8, generator=generator) for name in NAMES}, path)
    return paths


def write(pair, out, **more):
    merged = metanet.merge(pair)
    return save_merged(
        out, merged, recipe=merged.recipe, max_shard_size=600, **more
    )  # two tensors a shard


def expected(pair):
    a, b = map(metanet.load_checkpoint, pair)
    return {name: torch.lerp(a[name], b[name], 0.5) for name in a}


def check(out, pair):
    found = metanet.load_checkpoint(out)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected(pair).items())
    assert sorted(found) == NAMES


def hidden(folder):
    return [path for path in folder.iterdir() if path.name.startswith(".")]


def test_shards_index_files_and_hashes(pair, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    hashes = write(
        pair, tmp_path / "out",
        files=lambda found: {"README.md": "\n".join(found.values()).encode(),
            "t.json": tmp_path / "tokenizer.json"},
    )  # fmt: skip
    check(tmp_path / "out", pair)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md", *(f"model-0000{k}-of-00003.safetensors" for k in (1, 2, 3)),
        "model.safetensors.index.json", "t.json",
    ]  # fmt: skip
    assert hashes == {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in pair}
    assert (tmp_path / "out/README.md").read_text().split() == list(hashes.values())
    assert hidden(tmp_path) == []


def test_one_file_and_inputs_in_memory(tmp_path):
    merged = metanet.merge([{"w": torch.zeros(2)}, {"w": torch.ones(2)}])
    assert save_merged(tmp_path / "out", merged, recipe=merged.recipe) == {}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.safetensors"]


def test_an_empty_folder_is_taken_and_others_are_not(pair, tmp_path):
    (tmp_path / "empty").mkdir()
    write(pair, tmp_path / "empty")
    check(tmp_path / "empty", pair)
    before = {path.name: path.read_bytes() for path in (tmp_path / "empty").iterdir()}
    for out, what in ((tmp_path / "empty", "is not empty"), (pair[0], "is a file")):
        with pytest.raises(MetanetError, match=what):
            write(pair, out)
    assert {path.name: path.read_bytes() for path in (tmp_path / "empty").iterdir()} == before


def test_a_killed_merge_goes_on_from_its_finished_shards(pair, tmp_path):
    program = textwrap.dedent("""
        import os, signal, sys
        import metanet
        from metanet.merging import save_merged
        merged = metanet.merge(sys.argv[1:3])
        real = merged._read
        def read(name):
            if name == "layers.3.weight":
                os.kill(os.getpid(), signal.SIGKILL)
            return real(name)
        merged._read = read
        save_merged(sys.argv[3], merged, recipe=merged.recipe, max_shard_size=600)
    """)
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", program, *map(str, pair), str(out)])
    assert done.returncode == -signal.SIGKILL
    assert not out.exists()
    work, lock = sorted(hidden(tmp_path))
    assert lock.name == ".out.lock"  # void: nobody holds it
    assert [path.name for path in work.glob("model*")] == ["model-00001-of-00003.safetensors"]
    assert list(work.glob(".*.partial.*")) != []  # half a shard
    first = (work / "model-00001-of-00003.safetensors").stat()

    read = []
    merged = metanet.merge(pair)
    real = merged._read
    merged._read = lambda name: read.append(name) or real(name)
    save_merged(out, merged, recipe=merged.recipe, max_shard_size=600)
    check(out, pair)
    assert sorted(read) == NAMES[2:]
    kept = (out / "model-00001-of-00003.safetensors").stat()
    assert (kept.st_ino, kept.st_mtime_ns) == (first.st_ino, first.st_mtime_ns)
    assert sorted(path.name for path in out.iterdir()) == [
        *(f"model-0000{k}-of-00003.safetensors" for k in (1, 2, 3)), "model.safetensors.index.json"
    ]  # fmt: skip
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("change", ["options", "inputs"])
def test_another_merge_does_not_take_its_shards(change, pair, tmp_path):
    merged = metanet.merge(pair)
    real = merged._read
    merged._read = lambda name: real(name) if name < "layers.3" else 1 / 0
    with pytest.raises(ZeroDivisionError):
        save_merged(tmp_path / "out", merged, recipe=merged.recipe, max_shard_size=600)
    assert len(hidden(tmp_path)) == 1
    if change == "inputs":
        save_file({name: torch.ones(8, 8) for name in NAMES}, pair[0])
        write(pair, tmp_path / "out")
        check(tmp_path / "out", pair)
    else:
        other = metanet.merge(pair, weights=[1.0, 0.0])
        save_merged(tmp_path / "out", other, recipe=other.recipe, max_shard_size=600)
        first = metanet.load_checkpoint(pair[0])
        assert all(
            torch.equal(t, first[n]) for n, t in metanet.load_checkpoint(tmp_path / "out").items()
        )


def test_a_full_disk_is_told_before_and_while(pair, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        usage = namedtuple("usage", "total used free")
        patch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
        with pytest.raises(
            MetanetError,
            match=r"out: No space left on device; 1,536 bytes needed, 1,000 bytes free",
        ):
            write(pair, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with monkeypatch.context() as patch:
        real = os.fsync
        calls = []

        def full(handle):
            calls.append(handle)
            if len(calls) > 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(handle)

        patch.setattr(os, "fsync", full)
        with pytest.raises(MetanetError, match="No space left"):
            write(pair, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    write(pair, tmp_path / "out")
    check(tmp_path / "out", pair)


def test_inputs_changed_meanwhile(pair, tmp_path):
    merged = metanet.merge(pair)
    save_file({name: torch.zeros(8, 8) for name in NAMES}, pair[1])
    os.utime(pair[1], (0, 0))  # the clock of files may not have moved on
    with pytest.raises(CheckpointError, match="was replaced or changed since it was opened"):
        save_merged(tmp_path / "out", merged, recipe=merged.recipe)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../x", "a/b", "model.safetensors"])
def test_files_stay_in_the_folder(name, pair, tmp_path):
    merged = metanet.merge(pair)
    with pytest.raises(MetanetError, match="no plain name, or taken"):
        save_merged(tmp_path / "out", merged, recipe=merged.recipe, files={name: b""})
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "x").exists()
