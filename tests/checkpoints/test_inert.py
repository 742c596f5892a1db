"""foreign_classes="inert": the tensors of files that weights_only refuses, and placeholders for the
rest."""

import pickle
from collections import Counter, OrderedDict, defaultdict
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from checkpoints.torch_files import assert_same, inert, older_bytes, zip_bytes
from metanet.checkpoints import load_checkpoint
from metanet.errors import CheckpointError

DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.complex128,
]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.head = nn.Linear(4, 2, bias=False)
        self.register_buffer("scratch", torch.ones(2), persistent=False)
        self.register_buffer("absent", None)
        self.note = Fraction(1, 3)


@pytest.fixture(params=[True, False], ids=["zip", "older"])
def save(request, tmp_path):
    """Saves to a file in either format and gives its path."""

    def save(content):
        torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=request.param)
        return tmp_path / "x.pt"

    return save


class TestTensors:
    def test_every_bit_of_every_dtype(self, save):
        state = {}
        for dtype in DTYPES:
            raw = torch.randint(
                0, 2 if dtype is torch.bool else 256, (3, 4 * dtype.itemsize), dtype=torch.uint8
            )
            state[str(dtype)] = raw.view(dtype)
        assert_same(inert(save(state)), state)

    def test_dtypes_without_a_storage_class(self, tmp_path):
        dtypes = [torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2]
        state = {str(dtype): torch.arange(48, dtype=torch.uint8).view(dtype) for dtype in dtypes}
        torch.save(state, tmp_path / "x.pt")
        assert_same(inert(tmp_path / "x.pt"), state)

    def test_views_tied_strided_and_empty_tensors(self, save):
        base = torch.randn(4, 6)
        parameter = nn.Parameter(torch.randn(2))
        parameter.mark = "trainable"  # torch writes parameters with attributes in another way
        state = {
            "tied": base,
            "tied_too": base,
            "row": base[1],
            "transposed": base.T,
            "step": base[1:, ::2],
            "expanded": torch.tensor([1.0, 2.0]).expand(3, 2),
            "channels_last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
            "parameter": nn.Parameter(torch.randn(2)),
            "marked": parameter,
            "buffer": nn.Buffer(torch.randn(2)),
            "conjugate": torch.randn(2, 2, dtype=torch.complex64).conj(),
            "negative": torch.randn(2, dtype=torch.complex64).conj().imag,
            "scalar": torch.tensor(2.0),
            "empty": torch.empty(0),
            "empty_too": torch.empty(0, 3),
        }
        assert_same(inert(save(state)), state)

    def test_agrees_with_torch_on_plain_files(self, save):
        model = nn.TransformerEncoderLayer(8, 2, 16)
        path = save(OrderedDict(model.state_dict()))
        checkpoint = inert(path)
        assert_same(checkpoint, torch.load(path, weights_only=True))
        assert checkpoint.foreign == ()

    def test_reads_when_asked_and_in_other_processes(self, save, monkeypatch):
        path = save({"a": torch.zeros(100_000), "b": torch.arange(3), "x": Fraction(1)})
        checkpoint = inert(path)
        sent = pickle.dumps(checkpoint)
        assert len(sent) < 2_000
        assert_same(pickle.loads(sent), {"a": torch.zeros(100_000), "b": torch.arange(3)})
        read = []
        monkeypatch.setattr(
            type(checkpoint._read.file),
            "_fill",
            lambda self, memory, start: read.append(len(memory)),
        )
        checkpoint["b"]
        assert read == [24]

    def test_bytes_of_another_order_are_refused(self, tmp_path):
        state = pickle.dumps({"w": 1}, 2)
        (tmp_path / "x.pt").write_bytes(zip_bytes(state).replace(b"little", b"bigbig"))
        with pytest.raises(CheckpointError, match="not little-endian|CRC"):
            inert(tmp_path / "x.pt")
        (tmp_path / "y.pt").write_bytes(
            older_bytes(state).replace(b"little_endian\x94\x88", b"little_endian\x94\x89")
        )
        content = older_bytes(state)
        place = content.index(b"\x88", content.index(b"little_endian"))
        (tmp_path / "y.pt").write_bytes(content[:place] + b"\x89" + content[place + 1 :])
        with pytest.raises(CheckpointError, match="not little-endian"):
            inert(tmp_path / "y.pt")


class TestForeign:
    def test_a_lightning_checkpoint_with_objects(self, save):
        state = {"model.w": torch.randn(2), "model.b": torch.randn(2)}
        path = save(
            {
                "state_dict": OrderedDict(state),
                "hyper_parameters": {
                    "ratio": Fraction(1, 2),
                    "best": np.float64(0.5),
                    "table": np.arange(3),
                },
                "counts": Counter("abc"),
                "callbacks": {"kinds": {int, Net}},
            }
        )
        with pytest.raises(CheckpointError, match="foreign_classes=.inert."):
            load_checkpoint(path)
        checkpoint = inert(path)
        assert_same(checkpoint, state)
        assert {"fractions.Fraction", "collections.Counter", f"{__name__}.Net"} <= set(
            checkpoint.foreign
        )
        assert any(name.endswith("multiarray.scalar") for name in checkpoint.foreign)
        assert sorted(checkpoint.foreign) == list(checkpoint.foreign)

    def test_a_pickled_module_gives_its_state_dict(self, save):
        model = Net()
        checkpoint = inert(save(model))
        assert_same(checkpoint, model.state_dict())
        assert {f"{__name__}.Net", "torch.nn.modules.linear.Linear"} <= set(checkpoint.foreign)

    def test_a_pickled_module_under_a_key(self, save):
        model, averaged = Net(), Net()
        path = save({"epoch": 3, "model": model, "ema": averaged})
        assert_same(inert(path), model.state_dict())
        assert_same(inert(path, key="ema"), averaged.state_dict())

    def test_a_state_dict_in_a_foreign_mapping(self, save):
        state = defaultdict(list, {"w": torch.randn(2), "b": torch.randn(3)})
        assert_same(inert(save(state)), state)

    def test_an_entry_that_is_no_tensor_is_skipped(self, save):
        checkpoint = inert(save({"w": torch.ones(1), "x": Fraction(1), "n": 3}))
        assert list(checkpoint) == ["w"]
        assert checkpoint.skipped == ("x", "n")

    def test_a_sparse_tensor_is_a_placeholder(self, tmp_path):
        torch.save({"w": torch.ones(1), "s": torch.eye(2).to_sparse()}, tmp_path / "x.pt")
        checkpoint = inert(tmp_path / "x.pt")
        assert checkpoint.skipped == ("s",)
        assert "torch._utils._rebuild_sparse_tensor" in checkpoint.foreign

    def test_safetensors_have_none(self, tmp_path):
        from metanet.checkpoints import save_checkpoint

        save_checkpoint(tmp_path / "x.safetensors", {"w": torch.ones(1)})
        assert inert(tmp_path / "x.safetensors").foreign == ()
