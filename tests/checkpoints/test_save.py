"""save_checkpoint and atomic_write: bit for bit, and all or nothing."""

import json
import os
import subprocess
import sys
import textwrap

import pytest
import safetensors.torch
import torch

from metanet.checkpoints import atomic_write, load_checkpoint, save_checkpoint
from metanet.errors import CheckpointError, MetanetError

DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
]


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


class TestRoundTrip:
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_every_bit_of_every_dtype(self, dtype, tmp_path):
        size = torch.empty(0, dtype=dtype).element_size()
        bits = torch.randint(0, 2 if dtype is torch.bool else 256, (6, 4 * size), dtype=torch.uint8)
        tensor = bits.view(dtype)  # NaN payloads and subnormal numbers included
        save_checkpoint(tmp_path / "x.safetensors", {"w": tensor})
        back = load_checkpoint(tmp_path / "x.safetensors")
        assert back.dtypes["w"] is back["w"].dtype is dtype
        assert back["w"].shape == tensor.shape
        assert torch.equal(back["w"].view(torch.uint8), bits)

    def test_tied_viewed_strided_and_empty_tensors(self, tmp_path):
        base = torch.randn(4, 6)
        tensors = {
            "tied": base,
            "tied_too": base,
            "row": base[1],
            "transposed": base.T,
            "step": base[:, ::2],
            "expanded": torch.tensor([1.0, 2.0]).expand(3, 2),
            "channels_last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
            "parameter": torch.nn.Parameter(torch.randn(2)),
            "conjugate": torch.randn(2, 2, dtype=torch.complex64).conj(),
            "scalar": torch.tensor(2.0),
            "empty": torch.empty(0),
            "empty_too": torch.empty(0, 3),
        }
        save_checkpoint(tmp_path / "x.safetensors", tensors)
        back = load_checkpoint(tmp_path / "x.safetensors")
        assert list(back) == list(tensors)  # their order too
        for name, tensor in tensors.items():
            assert torch.equal(back[name], tensor), name
            assert back.shapes[name] == tensor.shape
        assert (
            tmp_path / "x.safetensors"
        ).stat().st_size < 4096  # "row" didn't take all of "tied" along

    def test_tensors_are_left_as_they_were(self, tmp_path):
        weight = torch.randn(3, 2).T.requires_grad_()
        save_checkpoint(tmp_path / "x.safetensors", {"w": weight})
        assert weight.requires_grad
        assert not weight.is_contiguous()

    def test_a_checkpoint_can_be_written_over_itself(self, tmp_path):
        save_checkpoint(tmp_path / "x.safetensors", {"w": torch.arange(3)}, {"a": 1})
        checkpoint = load_checkpoint(tmp_path / "x.safetensors")
        save_checkpoint(tmp_path / "x.safetensors", checkpoint, checkpoint.metadata)
        assert load_checkpoint(tmp_path / "x.safetensors")["w"].tolist() == [0, 1, 2]
        assert files(tmp_path) == ["x.safetensors"]

    def test_metadata_is_one_json_string(self, tmp_path):
        metadata = {"epoch": 3, "scores": [0.5, None], "nested": {"größe": "ü"}}
        save_checkpoint(tmp_path / "x.safetensors", {"w": torch.ones(1)}, metadata)
        assert load_checkpoint(tmp_path / "x.safetensors").metadata == metadata
        with safetensors.safe_open(tmp_path / "x.safetensors", "pt") as file:
            raw = file.metadata()
        assert raw["format"] == "pt"
        assert json.loads(raw["metanet"]) == metadata

    def test_foreign_metadata_is_handed_on(self, tmp_path):
        safetensors.torch.save_file(
            {"w": torch.ones(1)}, tmp_path / "x.safetensors", {"author": "them"}
        )
        assert load_checkpoint(tmp_path / "x.safetensors").metadata == {"author": "them"}

    def test_makes_folders_and_takes_the_umasks_rights(self, tmp_path):
        path = tmp_path / "a" / "b" / "x.safetensors"
        save_checkpoint(path, {"w": torch.ones(1)})
        (tmp_path / "plain").touch()
        assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("mapping", "metadata", "message"),
    [
        ({"w": 3}, None, "'w' is int, expected name -> tensor"),
        ({1: torch.ones(1)}, None, "1 is Tensor, expected name -> tensor"),
        (
            {"w": torch.empty(2, device="meta")},
            None,
            "on meta; safetensors holds dense tensors with data",
        ),
        ({"w": torch.eye(2).to_sparse()}, None, "torch.sparse_coo"),
        ({"w": torch.ones(2, dtype=torch.complex128)}, None, "torch.complex128"),
        ({"w": torch.ones(1)}, {"f": object()}, "the metadata is no JSON"),
        ({"w": torch.ones(1)}, 3, "the metadata is no JSON"),
        ({"__metadata__": torch.ones(1)}, None, "a tensor can't be called __metadata__"),
        ({"\ud800": torch.ones(1)}, None, "names and metadata must be text"),
    ],
)
def test_what_cannot_be_written_is_refused(mapping, metadata, message, tmp_path):
    with pytest.raises(CheckpointError, match=message) as caught:
        save_checkpoint(tmp_path / "x.safetensors", mapping, metadata)
    assert "x.safetensors" in str(caught.value)
    assert files(tmp_path) == []


def test_a_sparse_tensor_of_a_torch_file_is_refused(tmp_path):
    torch.save({"w": torch.ones(1), "s": torch.eye(2).to_sparse()}, tmp_path / "x.pt")
    with pytest.raises(
        CheckpointError,
        match=r"x.pt': s is sparse \(torch.sparse_coo\); metanet reads dense tensors",
    ):
        load_checkpoint(tmp_path / "x.pt")
    assert files(tmp_path) == ["x.pt"]


def test_a_header_longer_than_programs_take(tmp_path, monkeypatch):
    monkeypatch.setattr("metanet.checkpoints._safetensors.MAX_HEADER", 1000)
    with pytest.raises(
        CheckpointError, match="names and metadata take 2,0.. bytes; safetensors files take 1,000"
    ):
        save_checkpoint(tmp_path / "x.safetensors", {"w": torch.ones(1)}, {"long": "x" * 1900})
    assert files(tmp_path) == []


def test_only_safetensors_is_written(tmp_path):
    with pytest.raises(CheckpointError, match=r"x.pt': metanet writes checkpoints as .safetensors"):
        save_checkpoint(tmp_path / "x.pt", {"w": torch.ones(1)})


class TestAtomic:
    def test_appears_at_the_end_only(self, tmp_path):
        path = tmp_path / "deep" / "table.csv"
        with atomic_write(path) as temporary:
            assert temporary.parent == path.parent
            assert temporary.suffix == ".csv"
            temporary.write_text("new")
            assert not path.exists()
        assert path.read_text() == "new"
        assert files(tmp_path) == ["table.csv"]

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    def test_a_failure_leaves_the_old_file_and_nothing_else(self, error, tmp_path):
        path = tmp_path / "x.json"
        path.write_text("old")
        with pytest.raises(error), atomic_write(path) as temporary:  # noqa: PT012
            temporary.write_text("half")
            raise error
        assert path.read_text() == "old"
        assert files(tmp_path) == ["x.json"]

    def test_two_writers_do_not_meet(self, tmp_path):
        path = tmp_path / "x"
        with atomic_write(path) as first, atomic_write(path) as second:
            first.write_text("first")
            second.write_text("second")
        assert path.read_text() == "first"  # left last
        assert files(tmp_path) == ["x"]

    def test_writes_through_a_link(self, tmp_path):
        (tmp_path / "real").write_text("old")
        (tmp_path / "link").symlink_to(tmp_path / "real")
        with atomic_write(tmp_path / "link") as temporary:
            temporary.write_text("new")
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "real").read_text() == "new"

    def test_is_on_the_disk_before_it_has_its_name(self, tmp_path, monkeypatch):
        calls = []
        monkeypatch.setattr(os, "fsync", lambda handle: calls.append("fsync"))
        replace = os.replace
        monkeypatch.setattr(os, "replace", lambda *names: calls.append("rename") or replace(*names))
        with atomic_write(tmp_path / "x") as temporary:
            temporary.write_text("new")
        assert calls == ["fsync", "rename", "fsync"]

    def test_a_place_that_cannot_be_written_is_explained(self, tmp_path):
        (tmp_path / "file").touch()
        with (
            pytest.raises(MetanetError, match="can't write .*file/x: "),
            atomic_write(tmp_path / "file" / "x"),
        ):
            pass

    def test_other_errors_of_the_block_pass_through(self, tmp_path):
        with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "x"):
            (tmp_path / "nowhere").read_text()
        assert files(tmp_path) == []


def test_a_full_disk_leaves_the_old_file_and_says_what_is_needed(tmp_path):
    """A real one: the system refuses to let any file of the process grow beyond 100 kB."""
    program = f"""
        import resource, signal
        import torch
        from metanet.checkpoints import atomic_write, save_checkpoint
        from metanet.errors import CheckpointError, MetanetError

        path = {str(tmp_path / "x.safetensors")!r}
        save_checkpoint(path, {{"w": torch.arange(3)}})
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            save_checkpoint(path, {{"w": torch.zeros(100_000)}})
        except CheckpointError as error:
            print(error)
        try:
            with atomic_write(path + ".txt") as temporary:
                temporary.write_bytes(bytes(200_000))
        except MetanetError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True
    )
    assert done.stderr == ""
    first, second = done.stdout.splitlines()
    assert "x.safetensors" in first
    assert "400,000 bytes needed" in first
    assert "bytes free" in second
    assert load_checkpoint(tmp_path / "x.safetensors")["w"].tolist() == [0, 1, 2]
    assert files(tmp_path) == ["x.safetensors"]
