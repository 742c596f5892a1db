"""What files are is told by their bytes: other formats are named, with what to do, and names count
for nothing."""

import gzip
import io
import json
import os
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import torch

from checkpoints.test_header import entry, file_of
from metanet.checkpoints import kind_of, load_checkpoint, save_checkpoint
from metanet.errors import CheckpointError


def tar_bytes():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("pickle"), io.BytesIO(b""))
    return file.getvalue()


def npz_bytes():
    file = io.BytesIO()
    np.savez(file, w=np.ones(2))
    return file.getvalue()


def zip_bytes():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "hello")
    return file.getvalue()


OTHERS = {
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n",
        "Git LFS pointer.*`git lfs pull`",
    ),
    "html": (b"\n<!DOCTYPE html><html>404</html>", "a web page.*[Dd]ownload the file itself"),
    "xml": (b"<?xml version='1.0'?><Error/>", "XML document"),
    "json": (b'{"error": "not found"}', "JSON text"),
    "gzip": (gzip.compress(b"abc"), "gzip.*gunzip"),
    "tar": (tar_bytes(), "tar archive.*PyTorch before 0.1.10"),
    "npz": (npz_bytes(), "NumPy arrays.*torch.from_numpy"),
    "zip": (zip_bytes(), "zip archive.*npack it"),
    "npy": (b"\x93NUMPY\x01\x00", "NumPy array"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(8), "HDF5.*h5py"),
    "gguf": (b"GGUF\x03\0\0\0", "GGUF"),
    "onnx": (b"\x08\x07\x12\x07pytorch\x1a\x051.9", "ONNX"),
    "pickle": (pickle.dumps({"w": [1.0]}), "pickle that torch.save did not write"),
    "empty": (b"", r"empty \(0 bytes\)"),
}


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".bin"])
@pytest.mark.parametrize("name", OTHERS)
def test_another_format_is_named(name, suffix, tmp_path):
    content, reason = OTHERS[name]
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    assert kind_of(path).name == name
    with pytest.raises(CheckpointError, match=f"x{suffix}' is .*{reason}") as caught:
        load_checkpoint(path)
    assert "cut off while it was written or copied" not in str(caught.value)


@pytest.mark.parametrize("older", [False, True])
def test_a_renamed_file_is_read(older, tmp_path):
    torch.save(
        {"w": torch.arange(3)}, tmp_path / "x.safetensors", _use_new_zipfile_serialization=not older
    )
    save_checkpoint(tmp_path / "y.safetensors", {"w": torch.arange(3)})
    (tmp_path / "y.safetensors").rename(tmp_path / "y.pt")
    for name in ("x.safetensors", "y.pt"):
        assert torch.equal(load_checkpoint(tmp_path / name)["w"], torch.arange(3)), name


def test_an_intact_header_beyond_the_limit_is_called_intact(tmp_path, monkeypatch):
    monkeypatch.setattr("metanet.checkpoints._safetensors.MAX_HEADER", 100)
    (tmp_path / "x.safetensors").write_bytes(
        file_of({f"tensor{i}": entry(i, i + 1) for i in range(8)})
    )
    with pytest.raises(
        CheckpointError, match=r"is intact, but its header has .* bytes.*max_shard_size"
    ) as caught:
        load_checkpoint(tmp_path / "x.safetensors")
    assert "cut off" not in str(caught.value)


def test_pipes_and_devices_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "zero.pt").symlink_to("/dev/zero")
    for name in ("pipe.safetensors", "pipe.pt", "zero.pt"):
        with pytest.raises(CheckpointError, match=f"{name}': it is no regular file"):
            load_checkpoint(tmp_path / name)
    folder = tmp_path / "folder"
    save_checkpoint(folder, {"a": torch.ones(3), "b": torch.ones(3)}, max_shard_size=12)
    shard = next(folder.glob("*-00001-*"))
    shard.unlink()
    os.mkfifo(shard)
    with pytest.raises(CheckpointError, match="no regular file"):
        load_checkpoint(folder)
    shard.unlink()
    shard.symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match="no regular file"):
        load_checkpoint(folder)
    (folder / "model.safetensors.index.json").unlink()
    os.mkfifo(folder / "model.safetensors.index.json")
    with pytest.raises(CheckpointError, match="no regular file"):
        load_checkpoint(folder / "model.safetensors.index.json")


def test_messages_stay_short_whatever_the_names(tmp_path):
    long = "layer." * 200_000
    save_checkpoint(tmp_path / "x.safetensors", {f"{long}{i}": torch.ones(1) for i in range(12)})
    checkpoint = load_checkpoint(tmp_path / "x.safetensors")
    for call in (
        lambda: checkpoint.fit({"w": torch.ones(2)}),
        lambda: checkpoint.fit({f"{long}{i}": torch.ones(2) for i in range(12)}),
        lambda: checkpoint.fit({"w": torch.ones(2)}, prefix="no"),
    ):
        with pytest.raises(CheckpointError) as caught:
            call()
        assert len(str(caught.value)) <= 2_000
    torch.save({long: {"w": torch.ones(1)}, f"{long}2": {"w": torch.ones(1)}}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="several state dicts") as caught:
        load_checkpoint(tmp_path / "x.pt")
    assert len(str(caught.value)) <= 2_000
    (tmp_path / "y.safetensors").write_bytes(file_of({long: {**entry(0, 8), "shape": [9]}}))
    with pytest.raises(CheckpointError, match="has 8 bytes") as caught:
        load_checkpoint(tmp_path / "y.safetensors")
    assert len(str(caught.value)) <= 2_000


def test_half_characters_can_be_printed():
    assert str(CheckpointError("a name: \ud800")).encode() == b"a name: \\ud800"


def test_bytes_of_bools_become_true_or_false(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(
        file_of({"b": entry(0, 8, dtype="BOOL")}, bytes(range(8)))
    )
    flags = load_checkpoint(tmp_path / "x.safetensors")["b"]
    assert flags.view(torch.uint8).tolist() == [0, 1, 1, 1, 1, 1, 1, 1]
    torch.save({"b": torch.arange(8, dtype=torch.uint8).view(torch.bool)}, tmp_path / "x.pt")
    for how in ("refuse", "inert"):
        assert (
            load_checkpoint(tmp_path / "x.pt", foreign_classes=how)["b"].view(torch.uint8).sum()
            == 7
        )


def test_json_of_metadata_keeps_nan(tmp_path):
    save_checkpoint(tmp_path / "x.safetensors", {"w": torch.ones(1)}, {"loss": float("nan")})
    loss = load_checkpoint(tmp_path / "x.safetensors").metadata["loss"]
    assert loss != loss
    assert json.dumps(loss) == "NaN"
