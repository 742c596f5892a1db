"""Folders of shards: the layout of Hugging Face, one tensor in memory at a time, and never a mix of
old and new."""

import json
import os
import subprocess
import sys
import textwrap
import weakref

import pytest
import torch

from metanet.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from metanet.errors import CheckpointError

STATE = {f"layer.{i}": torch.full((25,), float(i)) for i in range(5)}  # 100 bytes each
OLD = {f"layer.{i}": torch.full((25,), -1.0) for i in range(5)}


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def assert_same(checkpoint, state):
    assert list(checkpoint) == list(state)
    for name, tensor in state.items():
        assert torch.equal(checkpoint[name], tensor)
        assert checkpoint[name].dtype is tensor.dtype


def shard_names(count):
    return [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]


class TestLayout:
    def test_shards_are_as_full_as_the_limit_allows(self, tmp_path):
        save_checkpoint(tmp_path / "out", STATE, max_shard_size=250)
        assert files(tmp_path / "out") == [*shard_names(3), "model.safetensors.index.json"]
        index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
        first, second, third = shard_names(3)
        assert index == {
            "metadata": {"total_size": 500},
            "weight_map": dict(zip(STATE, [first, first, second, second, third], strict=True)),
        }
        assert_same(load_checkpoint(tmp_path / "out"), STATE)

    def test_a_tensor_larger_than_the_limit_has_a_file_of_its_own(self, tmp_path):
        state = {"a": torch.ones(2), "large": torch.ones(100), "b": torch.ones(2)}
        save_checkpoint(tmp_path, state, max_shard_size=16)
        assert [len(load_checkpoint(tmp_path / name)) for name in shard_names(3)] == [1, 1, 1]
        assert_same(load_checkpoint(tmp_path), state)

    def test_one_file_if_that_is_enough(self, tmp_path):
        save_checkpoint(tmp_path, STATE, {"epoch": 1})
        assert files(tmp_path) == ["model.safetensors"]
        assert load_checkpoint(tmp_path).metadata == {"epoch": 1}
        save_checkpoint(tmp_path / "empty", {})
        assert list(load_checkpoint(tmp_path / "empty")) == []

    def test_metadata_stands_in_the_index(self, tmp_path):
        metadata = {"epoch": 3, "nested": {"größe": [None]}}
        save_checkpoint(tmp_path, STATE, metadata, max_shard_size=100)
        assert load_checkpoint(tmp_path).metadata == metadata

    @pytest.mark.parametrize(
        ("size", "count"),
        [
            (250, 3),
            ("250", 3),
            ("0.3KB", 2),
            ("0.3kb", 2),
            ("0.4 KiB", 2),
            ("5GB", 1),
            ("1TB", 1),
            ("1e9", None),
        ],
    )
    def test_sizes_as_numbers_or_text(self, size, count, tmp_path):
        if count is None:
            with pytest.raises(
                CheckpointError, match="max_shard_size='1e9': give bytes, or a text such as '5GB'"
            ):
                save_checkpoint(tmp_path, STATE, max_shard_size=size)
        else:
            save_checkpoint(tmp_path, STATE, max_shard_size=size)
            assert len(list(tmp_path.glob("*.safetensors"))) == count

    @pytest.mark.parametrize("size", [0, -1, "", "GB", "5 XB", "1.2.3", True])
    def test_other_sizes_are_refused(self, size, tmp_path):
        with pytest.raises(CheckpointError, match=f"max_shard_size={size!r}: give bytes"):
            save_checkpoint(tmp_path / "out", STATE, max_shard_size=size)
        assert files(tmp_path) == []

    def test_which_paths_are_folders(self, tmp_path):
        save_checkpoint(tmp_path / "new" / "folder", STATE)
        save_checkpoint(tmp_path / "version.1", STATE, max_shard_size="5GB")
        save_checkpoint(tmp_path / "version.1", STATE)
        assert (
            files(tmp_path / "new" / "folder")
            == files(tmp_path / "version.1")
            == ["model.safetensors"]
        )
        with pytest.raises(
            CheckpointError, match=r"x.safetensors' in shards \(max_shard_size=5\): give a folder"
        ):
            save_checkpoint(tmp_path / "x.safetensors", STATE, max_shard_size=5)
        with pytest.raises(
            CheckpointError,
            match="a folder with a dot in its name is taken for one if max_shard_size",
        ):
            save_checkpoint(tmp_path / "version.2", STATE)

    def test_transformers_reads_it(self, tmp_path):
        from transformers import BertConfig, BertModel

        config = BertConfig(
            hidden_size=8,
            intermediate_size=8,
            num_attention_heads=2,
            num_hidden_layers=1,
            vocab_size=9,
        )
        state = {
            name: torch.randn_like(tensor)
            for name, tensor in BertModel(config).state_dict().items()
        }
        config.save_pretrained(tmp_path)
        save_checkpoint(tmp_path, state, {"of": "ours"}, max_shard_size=500)
        assert len(files(tmp_path)) > 5
        model, report = BertModel.from_pretrained(tmp_path, output_loading_info=True)
        assert not any(report.values())
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, state[name])


class TestOneTensorAtATime:
    @pytest.mark.parametrize("limit", [None, 150])
    def test_a_checkpoint_is_read_tensor_by_tensor(self, limit, tmp_path):
        """Each tensor is gone when the next is read, and none is read twice."""
        alive, read = [], []

        def compute(name):
            assert not [each for each in alive if each() is not None]
            tensor = torch.full((25,), float(name[-1]))
            alive.append(weakref.ref(tensor))
            read.append(name)
            return tensor

        computed = Checkpoint(
            tmp_path,
            compute,
            {name: tensor.shape for name, tensor in STATE.items()},
            {name: tensor.dtype for name, tensor in STATE.items()},
        )
        save_checkpoint(tmp_path / "out", computed, max_shard_size=limit)
        assert read == list(STATE)
        assert_same(load_checkpoint(tmp_path / "out"), STATE)

    def test_a_tensor_that_is_not_what_was_announced(self, tmp_path):
        shapes = {name: tensor.shape for name, tensor in STATE.items()}
        computed = Checkpoint(
            tmp_path, lambda name: torch.ones(3), shapes, dict.fromkeys(shapes, torch.float32)
        )
        with pytest.raises(
            CheckpointError, match=r"layer.0 was announced as \(25,\) torch.float32, and is \(3,\)"
        ):
            save_checkpoint(tmp_path / "out", computed, max_shard_size=100)
        assert files(tmp_path / "out") == []


class TestReplacing:
    @pytest.mark.parametrize("new", [100, 250, None])
    @pytest.mark.parametrize("old", [100, 250, None])
    def test_only_the_new_one_is_left(self, old, new, tmp_path):
        (tmp_path / "config.json").write_text("{}")
        (tmp_path / "other.safetensors").write_text("somebody else's")
        save_checkpoint(tmp_path, OLD, max_shard_size=old)
        save_checkpoint(tmp_path, STATE, max_shard_size=new)
        assert_same(load_checkpoint(tmp_path), STATE)
        checkpoint = {100: 6, 250: 4, None: 1}[new]
        assert len(files(tmp_path)) == checkpoint + 2
        save_checkpoint(tmp_path, load_checkpoint(tmp_path), max_shard_size=old)  # over itself
        assert_same(load_checkpoint(tmp_path), STATE)

    def test_names_go_back_to_the_usual_ones(self, tmp_path):
        for expected in (True, False, True):
            save_checkpoint(tmp_path, STATE, max_shard_size=250)
            assert ((tmp_path / shard_names(3)[0]).exists()) is expected
            assert len(files(tmp_path)) == 4

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    @pytest.mark.parametrize("old", [100, 250, None])
    def test_a_failure_leaves_the_old_one_and_nothing_else(self, error, old, tmp_path):
        save_checkpoint(tmp_path, OLD, max_shard_size=old)
        before = files(tmp_path)

        def fail(name):
            if name == "layer.4":
                raise error
            return STATE[name]

        broken = Checkpoint(
            tmp_path,
            fail,
            {name: t.shape for name, t in STATE.items()},
            dict.fromkeys(STATE, torch.float32),
        )
        with pytest.raises(error):
            save_checkpoint(tmp_path, broken, max_shard_size=100)
        assert files(tmp_path) == before
        assert_same(load_checkpoint(tmp_path), OLD)

    def test_a_swap_that_fails_leaves_the_old_one(self, tmp_path, monkeypatch):
        save_checkpoint(tmp_path, OLD, max_shard_size=100)
        before = files(tmp_path)

        def fail(*names):
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(os, "rename", fail)
        with pytest.raises(CheckpointError, match="can't write .*Input/output error") as caught:
            save_checkpoint(tmp_path, STATE, max_shard_size=100)
        assert ".partial." not in str(caught.value)
        assert files(tmp_path) == before
        assert_same(load_checkpoint(tmp_path), OLD)

    @pytest.mark.parametrize("failing", range(6))
    def test_a_move_that_fails_is_made_up_for_by_the_next_reader(
        self, failing, tmp_path, monkeypatch
    ):
        """Five shards and the index: after the swap the new one counts."""
        save_checkpoint(tmp_path, OLD, max_shard_size=100)
        calls, replace = [], os.replace

        def fail(*names):
            calls.append(names)
            if len(calls) == failing + 2:  # the first writes the index beside
                raise OSError(30, "Read-only file system")
            replace(*names)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", fail)
            with pytest.raises(
                CheckpointError, match="can't be moved from .model.complete to their places"
            ):
                save_checkpoint(tmp_path, STATE, max_shard_size=100)
        assert_same(load_checkpoint(tmp_path), STATE)
        assert len(files(tmp_path)) == 6

    def test_a_sync_that_fails_after_the_swap_keeps_the_new_one(self, tmp_path, monkeypatch):
        def failing_fsync(handle):
            if (tmp_path / ".model.complete").exists():
                raise OSError(5, "Input/output error")

        save_checkpoint(tmp_path, OLD, max_shard_size=100)
        monkeypatch.setattr(os, "fsync", failing_fsync)
        with pytest.raises(CheckpointError, match="Input/output error"):
            save_checkpoint(tmp_path, STATE, max_shard_size=100)
        assert_same(load_checkpoint(tmp_path), STATE)

    def test_two_writers_of_one_folder_do_not_mix(self, tmp_path):
        """The second starts and ends while the first is in the middle; the one that ends last
        stays, whole."""

        def read(name):
            if name == "layer.2":
                save_checkpoint(tmp_path, OLD, max_shard_size=100)
                assert_same(load_checkpoint(tmp_path), OLD)
            return STATE[name]

        slow = Checkpoint(
            tmp_path,
            read,
            {name: t.shape for name, t in STATE.items()},
            dict.fromkeys(STATE, torch.float32),
        )
        save_checkpoint(tmp_path, slow, max_shard_size=100)
        assert_same(load_checkpoint(tmp_path), STATE)
        assert len(files(tmp_path)) == 6

    def test_files_that_a_damaged_index_names_are_left(self, tmp_path):
        (tmp_path / "model.safetensors.index.json").write_text(
            '{"weight_map": {"a": "../outside.safetensors"}}'
        )
        (tmp_path.parent / "outside.safetensors").touch()
        save_checkpoint(tmp_path, STATE, max_shard_size=250)
        assert (tmp_path.parent / "outside.safetensors").exists()
        assert_same(load_checkpoint(tmp_path), STATE)


def test_a_run_killed_at_any_moment_leaves_one_whole_checkpoint(tmp_path):
    """Killed (SIGKILL) before every file operation in turn: the folder then holds all of the old
    one or of the new."""
    program = """
        import os, shutil, signal, sys
        from pathlib import Path
        import torch
        from metanet.checkpoints import load_checkpoint, save_checkpoint

        folder = Path(sys.argv[1])
        old, new = ({f"layer.{i}": torch.full((25,), value) for i in range(4)} for value in (-1.0, 1.0))
        operations = ("rename", "replace", "fsync", "unlink", "mkdir", "rmdir")

        def kill_before(count):
            left = [count]
            for name in operations:
                def killed(*args, _original=getattr(os, name), **kwargs):
                    left[0] -= 1
                    if not left[0]:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return _original(*args, **kwargs)
                setattr(os, name, killed)

        for sizes in ((100, 100), (200, 100), (None, 100), (100, None)):
            for count in range(1, 100):
                shutil.rmtree(folder, ignore_errors=True)
                save_checkpoint(folder, old, max_shard_size=sizes[0])
                child = os.fork()
                if not child:
                    kill_before(count)
                    save_checkpoint(folder, new, max_shard_size=sizes[1])
                    os._exit(0)
                died = os.WIFSIGNALED(os.waitpid(child, 0)[1])
                found = {t[0].item() for t in load_checkpoint(folder).values()}
                save_checkpoint(folder, new, max_shard_size=sizes[1])
                left = len([each for each in folder.iterdir() if each.name.startswith(".")])
                print(sizes, count, died, left, sorted(found), flush=True)
                if not died:
                    break
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "out")],
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    lines = [line.split(") ")[1].split(maxsplit=3) for line in done.stdout.splitlines()]
    outcomes = [(died == "True", found) for _, died, _, found in lines]
    assert {found for died, found in outcomes if died} == {"[-1.0]", "[1.0]"}
    assert {left for _, _, left, _ in lines} == {"0"}, (
        "what a killed save leaves, the next one removes"
    )
    assert [found for died, found in outcomes if not died] == ["[1.0]"] * 4
    assert len(outcomes) > 40
