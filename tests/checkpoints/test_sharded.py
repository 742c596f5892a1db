"""Shards with an index: read lazily, and never from anywhere but the index's folder."""

import json
import pickle

import pytest
import torch

from checkpoints.torch_files import assert_same, inert
from metanet.checkpoints import load_checkpoint, save_checkpoint
from metanet.errors import CheckpointError

STATE = {
    "b.weight": torch.randn(3, 2),
    "a.bias": torch.arange(3),
    "c": torch.randn(4, dtype=torch.bfloat16),
}
WHERE = {"b.weight": 1, "a.bias": 2, "c": 1}
FORMATS = {
    "safetensors": (
        "model-0000{}-of-00002.safetensors",
        "model.safetensors.index.json",
        save_checkpoint,
    ),
    "torch": (
        "pytorch_model-0000{}-of-00002.bin",
        "pytorch_model.bin.index.json",
        lambda path, s: torch.save(s, path),
    ),
}


@pytest.fixture(params=FORMATS)
def index(request, tmp_path):
    """The index of a sharded checkpoint; ``write(name, state)`` beside it writes a shard."""
    name, index, write = FORMATS[request.param]
    for i in (1, 2):
        write(tmp_path / name.format(i), {key: STATE[key] for key in STATE if WHERE[key] == i})
    weight_map = {key: name.format(i) for key, i in WHERE.items()}
    (tmp_path / index).write_text(
        json.dumps({"metadata": {"total_size": 56}, "weight_map": weight_map})
    )
    return tmp_path / index


def change(index, **entries):
    content = json.loads(index.read_text())
    content["weight_map"].update(entries)
    index.write_text(json.dumps(content))


def shard(index, number):
    (path,) = index.parent.glob(f"*-0000{number}-of-*")
    return path


def rewrite(path, state):
    save_checkpoint(path, state) if path.suffix == ".safetensors" else torch.save(state, path)


class TestReading:
    def test_by_the_index_or_the_folder(self, index):
        for path in (index, index.parent, str(index)):
            checkpoint = load_checkpoint(path)
            assert_same(checkpoint, STATE)
            assert checkpoint.metadata == {"total_size": 56}
            assert repr(checkpoint).endswith("3 tensors, 13 values)")

    def test_no_data_is_read_before_it_is_asked_for(self, index, monkeypatch):
        read = []
        monkeypatch.setattr(
            torch.Tensor, "clone", lambda tensor: read.append(tensor.shape) or tensor + 0
        )
        monkeypatch.setattr(
            "metanet.checkpoints._bytes.FileBytes.tensor",
            lambda file, start, shape, dtype: read.append(shape) or torch.zeros(shape, dtype=dtype),
        )
        checkpoint = load_checkpoint(index)
        assert dict(checkpoint.shapes) == {name: tensor.shape for name, tensor in STATE.items()}
        assert dict(checkpoint.dtypes) == {name: tensor.dtype for name, tensor in STATE.items()}
        assert "c" in checkpoint
        assert read == []
        checkpoint["c"]
        assert read == [(4,)]

    def test_goes_to_another_process(self, index):
        assert_same(pickle.loads(pickle.dumps(load_checkpoint(index))), STATE)

    def test_prefixes_are_taken_off_all_shards_together(self, index):
        for number in (1, 2):
            path = shard(index, number)
            rewrite(
                path,
                {
                    f"module.{name}": tensor
                    for name, tensor in STATE.items()
                    if WHERE[name] == number
                },
            )
        content = json.loads(index.read_text())
        content["weight_map"] = {
            f"module.{name}": file for name, file in content["weight_map"].items()
        }
        index.write_text(json.dumps(content))
        assert_same(load_checkpoint(index), STATE)
        assert "module.c" in load_checkpoint(index, unwrap=False)

    def test_shards_may_be_links_as_in_the_cache_of_the_hub(self, index):
        blobs = index.parent / "blobs"
        blobs.mkdir()
        for number in (1, 2):
            path = shard(index, number)
            path.rename(blobs / f"{number}")
            path.symlink_to(f"blobs/{number}")
        assert_same(load_checkpoint(index), STATE)

    def test_what_the_index_does_not_list_is_left_out_with_a_warning(self, index):
        rewrite(
            shard(index, 2), {"a.bias": STATE["a.bias"], "more": torch.ones(1), "c": torch.zeros(4)}
        )
        with pytest.warns(UserWarning, match="left out more, c, which its index does not"):
            checkpoint = load_checkpoint(index)
        assert_same(checkpoint, STATE)
        assert checkpoint.skipped == ("more", "c")

    @pytest.mark.parametrize("index", ["torch"], indirect=True)
    def test_foreign_objects_in_a_shard(self, index):
        torch.save({"a.bias": STATE["a.bias"], "x": pytest.raises}, shard(index, 2))
        with pytest.raises(
            CheckpointError, match=r"00002-of-00002.bin' holds an object of type \S+raises"
        ):
            load_checkpoint(index)
        checkpoint = inert(index.parent)
        assert_same(checkpoint, STATE)
        assert len(checkpoint.foreign) == 1
        assert checkpoint.skipped == ("x",)


class TestBadInput:
    def test_a_missing_shard_is_named_with_its_tensors(self, index):
        name = shard(index, 1).name
        shard(index, 1).unlink()
        with pytest.raises(
            CheckpointError, match=rf"lacks its shard {name}, which has b.weight, c$"
        ):
            load_checkpoint(index)
        shard(index, 2).unlink()
        with pytest.raises(
            CheckpointError, match=rf"lacks its shard {name}.*; 2 of 2 shards are missing"
        ):
            load_checkpoint(index.parent)

    def test_a_missing_shard_of_many_tensors_is_short(self, index):
        change(index, **{f"layer.{i}": f"gone{shard(index, 1).suffix}" for i in range(2000)})
        with pytest.raises(
            CheckpointError, match=r"has layer.0, .*, layer.4 and 1,995 more tensors$"
        ):
            load_checkpoint(index)

    @pytest.mark.parametrize("keep", [0, 5, -3])
    def test_a_truncated_shard_is_named(self, index, keep):
        path = shard(index, 2)
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(CheckpointError, match=f"{path.name}' is (empty|no whole|damaged)"):
            load_checkpoint(index)

    @pytest.mark.parametrize(
        "place", ["/etc/{}", "../{}", "sub/{}", "..\\{}", "C:{}", "sub/../{}", "{}\0", ""]
    )
    def test_an_index_names_files_of_its_folder_only(self, index, place):
        """Even where the file is there and good."""
        outside = index.parent.parent / shard(index, 2).name
        outside.write_bytes(shard(index, 2).read_bytes())
        change(index, **{"a.bias": place.format(outside.name)})
        with pytest.raises(
            CheckpointError, match=r"its index says that a.bias is in '.*'; shards are files beside"
        ):
            load_checkpoint(index)
        outside.unlink()

    @pytest.mark.parametrize("value", [3, None, ["x.safetensors"], "x.py", "x.safetensors.bin.exe"])
    def test_an_index_names_checkpoints_only(self, index, value):
        change(index, **{"a.bias": value})
        with pytest.raises(
            CheckpointError,
            match="shards are files beside the index, named without a folder and ending|valid string",
        ):
            load_checkpoint(index)

    def test_an_index_of_safetensors_cannot_lead_to_pickles(self, tmp_path):
        torch.save({"w": torch.ones(1)}, tmp_path / "x.bin")
        index = tmp_path / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": {"w": "x.bin"}}))
        with pytest.raises(CheckpointError, match=r"w is in 'x.bin'; .* ending in .safetensors$"):
            load_checkpoint(index)

    def test_a_tensor_that_its_shard_lacks(self, index):
        change(index, lost=shard(index, 2).name)
        with pytest.raises(
            CheckpointError,
            match="index says that lost is in .*, which has no such tensor: .* versions",
        ):
            load_checkpoint(index)

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "is empty"),
            (b"{", "is damaged or no JSON"),
            (b"\xff", "is damaged or no JSON"),
            (b"[" * 100_000, "is no JSON"),
            (b"[]", r"is damaged .*\n.* valid dictionary, got \[\]"),
            (b"{}", r"is damaged .*\n  weight_map: Field required"),
            (b'{"weight_map": {}}', r"is damaged .*\n  weight_map: .* at least 1 item"),
            (
                b'{"weight_map": {"a": "x.safetensors"}, "weight_map": {}}',
                "is damaged .* 'weight_map' .* twice",
            ),
            (
                b'{"weight_map": ["x.safetensors"]}',
                r"is damaged .*\n  weight_map: .* valid dictionary",
            ),
        ],
    )
    def test_a_broken_index(self, index, content, reason):
        index.write_bytes(content)
        with pytest.raises(CheckpointError, match=f"{index.name}' {reason}"):
            load_checkpoint(index)

    def test_a_changed_shard_is_noticed(self, index):
        checkpoint = pickle.loads(pickle.dumps(load_checkpoint(index)))
        rewrite(shard(index, 1), {"c": torch.zeros(4)})
        with pytest.raises(
            CheckpointError, match="00001.* was replaced or changed since it was opened"
        ):
            checkpoint["c"]
        assert torch.equal(checkpoint["a.bias"], STATE["a.bias"])
