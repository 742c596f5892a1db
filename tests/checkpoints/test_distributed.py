"""Folders of torch.distributed.checkpoint: torch's own reader gives the same tensors; nothing in
them runs."""

import io
import pickle

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from metanet.checkpoints import load_checkpoint, save_checkpoint
from metanet.errors import CheckpointError

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(TypedStorage|torch.distributed|no_dist|single process).*"
)


def saved(content, folder):
    dcp.save(content, checkpoint_id=str(folder), no_dist=True)
    return load_checkpoint(folder)


def assert_same(checkpoint, state):
    assert sorted(checkpoint) == sorted(state)
    for name, tensor in state.items():
        assert checkpoint.shapes[name] == tensor.shape
        assert checkpoint.dtypes[name] is checkpoint[name].dtype is tensor.dtype
        assert torch.equal(checkpoint[name], tensor), name


STATE = {
    "a.weight": torch.randn(4, 3),
    "a.bias": torch.randn(4).bfloat16(),
    "steps": torch.tensor(7),
    "mask": torch.tensor([True, False]),
    "empty": torch.empty(0, 2),
}


def test_a_state_dict(tmp_path):
    assert_same(saved(STATE, tmp_path), STATE)


def test_the_model_among_what_a_trainer_keeps(tmp_path):
    net = torch.nn.Linear(3, 4)
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    checkpoint = saved(
        {"model": net.state_dict(), "optim": optimizer.state_dict(), "epoch": 3}, tmp_path
    )
    assert_same(checkpoint, net.state_dict())
    assert "optim.state.0.exp_avg" in checkpoint.skipped
    moments = load_checkpoint(tmp_path, key="optim")
    assert torch.equal(moments["state.1.exp_avg"], optimizer.state_dict()["state"][1]["exp_avg"])
    save_checkpoint(tmp_path / "again.safetensors", checkpoint)
    assert_same(load_checkpoint(tmp_path / "again.safetensors"), net.state_dict())


def sharded(folder, boxes, sizes=(4, 6), name="w", file="__0_0.distcp", cut=0):
    """A folder written by hand, with torch's own classes: one tensor in several boxes, of one file
    each."""
    whole = torch.arange(float(torch.Size(sizes).numel())).reshape(sizes)
    chunks, places = [], {}
    for number, (offsets, extent) in enumerate(boxes):
        part = whole[tuple(slice(o, o + n) for o, n in zip(offsets, extent, strict=True))].clone()
        content = io.BytesIO()
        torch.save(part, content)
        place = file.replace("0_0", f"{number}_0")
        (folder / place.rpartition("/")[2]).write_bytes(b"padding" + content.getvalue())
        chunks.append(ChunkStorageMetadata(torch.Size(offsets), torch.Size(extent)))
        info = _StorageInfo(place, 7, len(content.getvalue()) - cut)
        places[MetadataIndex(name, torch.Size(offsets))] = info
    properties = TensorProperties(dtype=torch.float32)
    described = {name: TensorStorageMetadata(properties, torch.Size(sizes), chunks)}
    (folder / ".metadata").write_bytes(pickle.dumps(Metadata(described, None, places)))
    return whole


def test_a_tensor_in_parts(tmp_path):
    whole = sharded(tmp_path, [((0, 0), (2, 6)), ((2, 0), (2, 4)), ((2, 4), (2, 2))])
    mine = load_checkpoint(tmp_path)
    assert_same(mine, {"w": whole})
    torchs = {"w": torch.zeros(4, 6)}
    dcp.load(torchs, checkpoint_id=str(tmp_path), no_dist=True)
    assert torch.equal(mine["w"], torchs["w"])


@pytest.mark.parametrize(
    ("boxes", "more", "message"),
    [
        ([((0, 0), (2, 6))], {}, "the parts of w are not as large"),
        ([((0, 0), (2, 6)), ((3, 0), (2, 6))], {}, "part outside of it"),
        ([((0, 0), (4, 6))], {"file": "../x/__0_0.distcp"}, "parts are files in the folder"),
        ([((0, 0), (4, 6))], {"cut": -1000}, "ends behind the end of"),
        ([((0, 0), (4, 6))], {"cut": 10**6}, "ends behind the end of|takes more than"),
    ],
    ids=["missing", "outside", "elsewhere", "too long", "negative"],
)
def test_what_does_not_add_up_is_refused(boxes, more, message, tmp_path):
    sharded(tmp_path, boxes, **more)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path)


def test_parts_that_overlap_leave_a_hole(tmp_path):
    sharded(tmp_path, [((0, 0), (3, 6)), ((2, 0), (1, 6))])
    with pytest.raises(CheckpointError, match="do not cover it"):
        load_checkpoint(tmp_path)["w"]


def test_a_damaged_part_is_named(tmp_path):
    sharded(tmp_path, [((0, 0), (4, 6))])
    file = tmp_path / "__0_0.distcp"
    content = bytearray(file.read_bytes())
    content[40:90] = bytes(50)
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="w can't be read from __0_0.distcp"):
        load_checkpoint(tmp_path)["w"]


class Canary:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_the_metadata_runs_nothing(tmp_path):
    sharded(tmp_path, [((0, 0), (4, 6))])
    metadata = pickle.loads((tmp_path / ".metadata").read_bytes())
    metadata.planner_data = Canary(tmp_path / "canary")
    (tmp_path / ".metadata").write_bytes(pickle.dumps(metadata))
    load_checkpoint(tmp_path)
    assert not (tmp_path / "canary").exists()
    (tmp_path / ".metadata").write_bytes(pickle.dumps(Canary(tmp_path / "canary")))
    with pytest.raises(CheckpointError, match="damaged, or not of torch.distributed.checkpoint"):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "canary").exists()


def test_a_part_runs_nothing(tmp_path):
    sharded(tmp_path, [((0, 0), (4, 6))])
    file = tmp_path / "__0_0.distcp"
    content = io.BytesIO()
    torch.save(Canary(tmp_path / "canary"), content)
    assert len(content.getvalue()) < file.stat().st_size
    file.write_bytes(b"padding" + content.getvalue().ljust(file.stat().st_size - 7, b"\0"))
    with pytest.raises(CheckpointError, match="can't be read"):
        load_checkpoint(tmp_path)["w"]
    assert not (tmp_path / "canary").exists()


def test_parts_that_are_all_the_same_bytes_do_not_fill_the_memory(tmp_path):
    part = io.BytesIO()
    torch.save(torch.zeros(1, 2**18), part)
    (tmp_path / "__0_0.distcp").write_bytes(part.getvalue())
    offsets = [torch.Size((row, 0)) for row in range(300)]
    chunks = [ChunkStorageMetadata(offset, torch.Size((1, 2**18))) for offset in offsets]
    info = _StorageInfo("__0_0.distcp", 0, len(part.getvalue()))
    whole = TensorStorageMetadata(
        TensorProperties(dtype=torch.float32), torch.Size((300, 2**18)), chunks
    )
    places = {MetadataIndex("w", offset): info for offset in offsets}
    (tmp_path / ".metadata").write_bytes(pickle.dumps(Metadata({"w": whole}, None, places)))
    with pytest.raises(
        CheckpointError, match=r"w is \(300, 262144\) of torch.float32, 314,572,800 bytes"
    ):
        load_checkpoint(tmp_path)
