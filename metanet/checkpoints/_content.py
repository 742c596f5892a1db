"""What the bytes of a file are, whatever it is called."""

import os
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ..documents import check_regular
from ..errors import CheckpointError
from ._bytes import ZIP_ERRORS

_HEAD = 4_096  # bytes that are looked at
_RECORDS = 100_000  # records of a zip archive that are looked at
_SAFETENSORS = 2**40  # bytes that a header may claim to have; a longer one is no header


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a file is.

    Attributes:
        name: a word for programs: ``"safetensors"``, ``"torch"`` (zip), ``"torch-old"``,
            ``"unknown"``, ...
        says: for messages, after "it is": "a web page", "a Git LFS pointer, which stands for the
            file".
        advice: what to do about it; empty where metanet reads it.
    """

    name: str
    says: str
    advice: str = ""


def _kind(name: str, says: str, advice: str = "") -> Kind:
    return Kind(name=name, says=says, advice=advice)


_AGAIN = "download the file itself"
_UNPACK = "unpack it, and give what is in it"
_NUMPY = "convert it: {name: torch.from_numpy(array)} into metanet.save_checkpoint"

SAFETENSORS = _kind("safetensors", "a safetensors file")
TORCH = _kind("torch", "a torch file")
TORCH_OLD = _kind("torch-old", "a torch file of the older format")
UNKNOWN = _kind("unknown", "of no format that metanet knows")
EMPTY = _kind("empty", "empty (0 bytes): its writing was cut off", "restore or remake it")
TORCHSCRIPT = _kind(
    "torchscript", "a TorchScript archive", "load it with torch.jit.load and save its state_dict()"
)
_ZIP = _kind("zip", "a zip archive, but not one of torch", _UNPACK)
_NPZ = _kind("npz", "an archive of NumPy arrays (npz)", _NUMPY)
_KERAS = _kind("keras", "a Keras model", "convert it with the library that wrote it")
_TAR = _kind(
    "tar",
    "a tar archive",
    f"{_UNPACK}; one that PyTorch before 0.1.10 wrote: load and save it with that",
)
_PICKLE = _kind(
    "pickle",
    "a Python pickle that torch.save did not write",
    "load it where it was made and torch.save its tensors",
)

# Magic bytes: where they stand, what they are, what they mean.
_MAGIC: tuple[tuple[int, bytes, Kind], ...] = (
    (
        0,
        b"version https://git-lfs",
        _kind("lfs", "a Git LFS pointer, which stands for the file", "run `git lfs pull`"),
    ),
    (0, b"\x1f\x8b", _kind("gzip", "compressed by gzip", "unpack it: gunzip")),
    (0, b"BZh", _kind("bzip2", "compressed by bzip2", "unpack it: bunzip2")),
    (0, b"\xfd7zXZ\0", _kind("xz", "compressed by xz", "unpack it: unxz")),
    (0, b"\x28\xb5\x2f\xfd", _kind("zstd", "compressed by Zstandard", "unpack it: unzstd")),
    (0, b"7z\xbc\xaf\x27\x1c", _kind("7z", "a 7-Zip archive", _UNPACK)),
    (0, b"Rar!\x1a\x07", _kind("rar", "a RAR archive", _UNPACK)),
    (257, b"ustar", _TAR),
    (0, b"\x93NUMPY", _kind("npy", "a NumPy array (npy)", _NUMPY)),
    (
        0,
        b"\x89HDF\r\n\x1a\n",
        _kind("hdf5", "an HDF5 file (Keras)", "read it with h5py and save its arrays"),
    ),
    (
        0,
        b"GGUF",
        _kind("gguf", "a GGUF file of llama.cpp", "use the safetensors that it was made from"),
    ),
    (
        0,
        b"ggml",
        _kind("ggml", "a GGML file of llama.cpp", "use the safetensors that it was made from"),
    ),
    (
        0,
        b"ggjt",
        _kind("ggml", "a GGML file of llama.cpp", "use the safetensors that it was made from"),
    ),
    (
        4,
        b"TFL3",
        _kind("tflite", "a TensorFlow Lite model", "convert it with the library that wrote it"),
    ),
    (0, b"%PDF-", _kind("pdf", "a PDF document", _AGAIN)),
    (0, b"\x89PNG\r\n", _kind("image", "a PNG image", _AGAIN)),
    (0, b"\xff\xd8\xff", _kind("image", "a JPEG image", _AGAIN)),
    (0, b"\x7fELF", _kind("program", "a program", _AGAIN)),
)
_WEB = _kind("html", "a web page", f"the download gave a page instead of the file: {_AGAIN}")
_XML = _kind("xml", "an XML document, perhaps the error of a server", _AGAIN)
_JSON = _kind(
    "json", "JSON text", "give the checkpoint beside it, or the index of its shards by its own name"
)
_ONNX = _kind(
    "onnx", "an ONNX model", "use the checkpoint that it was exported from, or onnx.numpy_helper"
)
_OLD_MAGIC = (
    b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # the number that files of torch's older format start with
)


def kind_of(path: str | os.PathLike) -> Kind:
    """What the bytes of a regular file are; its name is not looked at.

    Args:
        path: the file.

    Raises:
        CheckpointError: no such file, no regular one, or it can't be read.
    """
    path = Path(path)
    check_regular(path, error=CheckpointError)
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
        size = path.stat().st_size
        return _archive(path) if head.startswith(b"PK\x03\x04") else _of_bytes(head, size)
    except OSError as error:
        raise CheckpointError(
            f"checkpoint '{path}' can't be read: {error.strerror or error}"
        ) from error


def _of_bytes(head: bytes, size: int) -> Kind:
    if not head:
        return EMPTY
    for place, magic, kind in _MAGIC:
        if head.startswith(magic, place):
            return kind
    if _is_safetensors(head, size):
        return SAFETENSORS
    if head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return TORCH_OLD if _OLD_MAGIC in head[:32] else _PICKLE
    # ir_version, then the producer's name or the graph: protobuf has no magic bytes
    if re.match(
        rb"\x08[\x01-\x20](\x12.?(pytorch|onnx|tf2onnx|skl2onnx|keras|paddle|torch)|:)",
        head,
        re.DOTALL,
    ):
        return _ONNX
    return _of_text(head)


def _of_text(head: bytes) -> Kind:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:200].lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head")):
        return _WEB
    if start.startswith((b"<?xml", b"<error>")):
        return _XML
    if re.match(rb'\{\s*("[^"\0]*"\s*:|\})', head.lstrip()):
        return _JSON
    return UNKNOWN


def _is_safetensors(head: bytes, size: int) -> bool:
    """The length of a header, and the brace that it starts with."""
    length = int.from_bytes(head[:8], "little")
    return (
        len(head) > 8
        and 2 <= length < _SAFETENSORS
        and head[8:].lstrip()[:1] == b"{"
        and head[7] == 0
    )


def _archive(path: Path) -> Kind:
    """Which of the formats that are zip archives."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [record.filename for record in archive.infolist()[:_RECORDS]]
    except ZIP_ERRORS:
        return TORCH  # cut off, most likely: its reader says so
    inner = {name.partition("/")[2] for name in names}
    if "data.pkl" in inner:
        return TORCHSCRIPT if any(name.startswith("code/") for name in inner) else TORCH
    if "model.weights.h5" in names:
        return _KERAS
    return _NPZ if names and all(name.endswith(".npy") for name in names) else _ZIP
