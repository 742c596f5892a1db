"""Files of both torch formats made by hand, and what reading one must give."""

import io
import pickle
import zipfile

import torch

from metanet.checkpoints import load_checkpoint


def older_bytes(payload, keys=(), data=b""):
    """A file of the older format with a pickle of ours in it."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    head = [pickle.dumps(each, 2) for each in (0x1950A86A20F9469CFC6C, 1001, system)]
    return b"".join([*head, payload, pickle.dumps(list(keys), 2), data])


def zip_bytes(payload, records=(), **kwargs):
    """A zip file with a pickle of ours in it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", payload, **kwargs)
        archive.writestr("archive/byteorder", b"little")
        archive.writestr("archive/version", b"3\n")
        for name, content in records:
            archive.writestr(f"archive/{name}", content)
    return file.getvalue()


FORMATS = {"zip": zip_bytes, "older": older_bytes}


def inert(path, **kwargs):
    return load_checkpoint(path, foreign_classes="inert", **kwargs)


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def assert_same(checkpoint, state):
    assert list(checkpoint) == list(state)
    for name, tensor in state.items():
        assert checkpoint.shapes[name] == checkpoint[name].shape == tensor.shape, name
        assert checkpoint.dtypes[name] is checkpoint[name].dtype is tensor.dtype, name
        assert torch.equal(
            bits(checkpoint[name]), bits(tensor.detach().resolve_conj().resolve_neg())
        ), name
