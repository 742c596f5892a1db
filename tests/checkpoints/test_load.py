"""load_checkpoint: the formats, what is taken off them, and what is wrong with a file that can't be
read."""

import io
import os
import pickle
import struct
import warnings
from collections import OrderedDict
from fractions import Fraction
from pathlib import Path

import pytest
import safetensors.torch
import torch

from metanet.checkpoints import READERS, Checkpoint, load_checkpoint, reader
from metanet.checkpoints._state_dicts import WRAPPERS
from metanet.errors import CheckpointError, MetanetError


@pytest.fixture
def state():
    return OrderedDict(
        [
            ("z.weight", torch.randn(3, 2)),
            ("a.bias", torch.randn(3, dtype=torch.float64)),
            ("a.steps", torch.tensor(7)),
        ]
    )


def assert_same(checkpoint, state):
    assert set(checkpoint) == set(state)
    for name, tensor in state.items():
        assert torch.equal(checkpoint[name], tensor)
        assert checkpoint[name].dtype is tensor.dtype
        assert checkpoint.shapes[name] == tensor.shape
        assert checkpoint.dtypes[name] is tensor.dtype


def save(state, path):
    safetensors.torch.save_file(state, path) if path.suffix == ".safetensors" else torch.save(
        state, path
    )


class TestFormats:
    @pytest.mark.parametrize("name", ["x.safetensors", "x.pt", "x.pth", "x.bin", "x.ckpt"])
    def test_reads(self, name, state, tmp_path):
        save(state, tmp_path / name)
        checkpoint = load_checkpoint(str(tmp_path / name))
        assert isinstance(checkpoint, Checkpoint)
        assert_same(checkpoint, state)
        assert repr(checkpoint).endswith(f"{name}': 3 tensors, 10 values)")

    def test_reads_the_older_torch_format(self, state, tmp_path):
        torch.save(state, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
        assert_same(load_checkpoint(tmp_path / "x.pt"), state)

    def test_torch_files_keep_their_order(self, state, tmp_path):
        torch.save(state, tmp_path / "x.pt")
        assert list(load_checkpoint(tmp_path / "x.pt")) == list(state)

    def test_an_unknown_name_is_a_key_error(self, state, tmp_path):
        torch.save(state, tmp_path / "x.pt")
        with pytest.raises(KeyError, match="nope"):
            load_checkpoint(tmp_path / "x.pt")["nope"]

    def test_a_new_format_is_one_function(self, tmp_path, monkeypatch):
        monkeypatch.setattr(READERS, "_entries", {**READERS})

        @reader("one", "one-number files (.one)", accepts=lambda path: path.suffix == ".one")
        def read(path, options):
            number = torch.tensor(float(path.read_text()))
            return Checkpoint(
                path, lambda name: number.clone(), {"n": number.shape}, {"n": number.dtype}
            )

        (tmp_path / "x.one").write_text("2.5")
        assert load_checkpoint(tmp_path / "x.one")["n"] == 2.5

    def test_special_cases_are_asked_first(self, tmp_path, monkeypatch):
        monkeypatch.setattr(READERS, "_entries", {**READERS})

        @reader(
            "mine", "folders with mine.txt", lambda path: (path / "mine.txt").is_file(), first=True
        )
        def read(path, options):
            return Checkpoint(path, torch.tensor, {}, {})

        (tmp_path / "mine.txt").touch()
        assert len(load_checkpoint(tmp_path)) == 0

    def test_a_reader_must_fit(self, monkeypatch):
        monkeypatch.setattr(READERS, "_entries", {**READERS})
        message = "reader 'two' in .*test_load.py: read takes .path.; it must take .path, options."
        with pytest.raises(MetanetError, match=message):

            @reader("two", "x", accepts=lambda path: False)
            def read(path):
                pass

        with pytest.raises(MetanetError, match="there are two .* named 'torch': in "):
            reader("torch", "x", accepts=lambda path: False)(lambda path, options: None)


class TestLaziness:
    def test_opening_and_asking_about_tensors_reads_none(self, state, tmp_path, monkeypatch):
        save(state, tmp_path / "x.safetensors")
        checkpoint = load_checkpoint(tmp_path / "x.safetensors")
        read = []
        monkeypatch.setattr(checkpoint, "_read", lambda name: read.append(name) or torch.zeros(1))
        assert len(checkpoint) == 3
        assert "z.weight" in checkpoint
        assert "nope" not in checkpoint
        assert dict(checkpoint.shapes) == {name: tensor.shape for name, tensor in state.items()}
        assert set(checkpoint.dtypes.values()) == {torch.float32, torch.float64, torch.int64}
        repr(checkpoint)
        assert read == []
        checkpoint["a.bias"]
        assert read == ["a.bias"]

    @pytest.mark.parametrize("name", ["x.safetensors", "x.pt"])
    def test_changing_a_tensor_changes_neither_the_file_nor_the_next_reading(
        self, name, state, tmp_path
    ):
        save(state, tmp_path / name)
        checkpoint = load_checkpoint(tmp_path / name)
        checkpoint["z.weight"].add_(1)
        assert torch.equal(checkpoint["z.weight"], state["z.weight"])

    @pytest.mark.parametrize("name", ["x.safetensors", "x.pt"])
    def test_goes_to_another_process_by_its_path(self, name, state, tmp_path, monkeypatch):
        state["large"] = torch.zeros(100_000)
        save(state, tmp_path / name)
        monkeypatch.chdir(tmp_path)
        checkpoint = load_checkpoint(name)
        checkpoint["large"]
        sent = pickle.dumps(checkpoint)
        assert len(sent) < 10_000
        monkeypatch.chdir("/")
        assert_same(pickle.loads(sent), state)

    @pytest.mark.parametrize("name", ["x.safetensors", "x.pt"])
    def test_a_file_that_was_replaced_is_noticed(self, name, state, tmp_path):
        save(state, tmp_path / name)
        checkpoint = pickle.loads(pickle.dumps(load_checkpoint(tmp_path / name)))
        save({"z.weight": torch.zeros(3, 2)}, tmp_path / name)
        with pytest.raises(
            CheckpointError,
            match=f"{name}' was replaced or changed since it was opened: load it again",
        ):
            checkpoint["z.weight"]
        (tmp_path / name).unlink()
        with pytest.raises(CheckpointError, match=f"{name}' can't be read: No such file"):
            checkpoint["z.weight"]

    @pytest.mark.parametrize("name", ["x.safetensors", "x.pt"])
    def test_leaves_no_file_open_and_no_page_mapped(self, name, tmp_path, monkeypatch):
        monkeypatch.setattr("metanet.checkpoints._torch._MAPPED", 4096)
        save({"w": torch.zeros(100_000)}, tmp_path / name)
        checkpoint = load_checkpoint(tmp_path / name)
        assert not checkpoint["w"].any()
        assert str(tmp_path / name) not in Path("/proc/self/maps").read_text()
        assert str(tmp_path / name) not in [
            os.path.realpath(each) for each in Path("/proc/self/fd").iterdir()
        ]
        assert not checkpoint["w"].any()  # mapped anew

    def test_parameters_come_without_gradients(self, tmp_path):
        torch.save({"w": torch.nn.Parameter(torch.ones(2))}, tmp_path / "x.pt")
        tensor = load_checkpoint(tmp_path / "x.pt")["w"]
        assert type(tensor) is torch.Tensor
        assert not tensor.requires_grad

    def test_shapes_are_read_only(self, state, tmp_path):
        save(state, tmp_path / "x.safetensors")
        with pytest.raises(TypeError):
            load_checkpoint(tmp_path / "x.safetensors").shapes["z.weight"] = ()


class TestWrappers:
    @pytest.mark.parametrize(
        "path", [*((name,) for name in WRAPPERS), ("model", "state_dict"), ("generator",)]
    )
    def test_finds_the_state_dict(self, path, state, tmp_path):
        content = state
        for key in reversed(path):
            optimizer = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}
            content = {"loss": torch.tensor(0.5), key: content, "epoch": 3, "optimizer": optimizer}
        torch.save(content, tmp_path / "x.pt")
        assert_same(load_checkpoint(tmp_path / "x.pt"), state)

    def test_averaged_weights_are_read_when_asked_for(self, state, tmp_path):
        averaged = {name: tensor + 1 for name, tensor in state.items()}
        torch.save({"ema": {"net": averaged, "decay": 0.9}, "model": state}, tmp_path / "x.pt")
        assert_same(load_checkpoint(tmp_path / "x.pt"), state)
        assert_same(load_checkpoint(tmp_path / "x.pt", key="ema"), averaged)
        assert_same(load_checkpoint(tmp_path / "x.pt", key="ema.net"), averaged)
        with pytest.raises(CheckpointError, match=r"has no entry 'emma'; it has ema, model"):
            load_checkpoint(tmp_path / "x.pt", key="emma")
        with pytest.raises(CheckpointError, match=r"no entry '0' in a float"):
            load_checkpoint(tmp_path / "x.pt", key="ema.decay.0")

    def test_an_entry_called_model_may_be_something_else(self, state, tmp_path):
        torch.save({"model": {"name": "resnet"}, "state_dict": state}, tmp_path / "x.pt")
        assert_same(load_checkpoint(tmp_path / "x.pt"), state)

    def test_a_modules_extra_state_is_no_state_dict(self, tmp_path):
        torch.save(
            {"w": torch.ones(1), "w._extra_state": {"scale": torch.ones(1)}}, tmp_path / "x.pt"
        )
        checkpoint = load_checkpoint(tmp_path / "x.pt")
        assert list(checkpoint) == ["w"]
        assert checkpoint.skipped == ("w._extra_state",)

    @pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
    @pytest.mark.parametrize(
        "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."]
    )
    def test_takes_prefixes_off(self, prefix, suffix, state, tmp_path):
        wrapped = {f"{prefix}{name}": tensor for name, tensor in state.items()}
        save(wrapped, tmp_path / f"x{suffix}")
        assert_same(load_checkpoint(tmp_path / f"x{suffix}"), state)
        assert_same(load_checkpoint(tmp_path / f"x{suffix}", unwrap=False), wrapped)

    def test_takes_off_the_prefix_of_a_compiled_part(self, tmp_path):
        torch.save(
            {"encoder._orig_mod.weight": torch.ones(1), "head.weight": torch.ones(1)},
            tmp_path / "x.pt",
        )
        assert list(load_checkpoint(tmp_path / "x.pt")) == ["encoder.weight", "head.weight"]

    def test_leaves_a_module_that_is_called_module(self, tmp_path):
        torch.save({"module.weight": torch.ones(1), "head": torch.ones(1)}, tmp_path / "x.pt")
        assert list(load_checkpoint(tmp_path / "x.pt")) == ["module.weight", "head"]

    def test_names_that_would_collide_are_refused(self, tmp_path):
        torch.save({"_orig_mod.w": torch.ones(1), "w": torch.zeros(1)}, tmp_path / "x.pt")
        with pytest.raises(CheckpointError, match="two tensors have one name"):
            load_checkpoint(tmp_path / "x.pt")

    def test_says_what_is_no_tensor(self, tmp_path):
        torch.save({"w": torch.ones(1), "epoch": 3, "name": "x"}, tmp_path / "x.pt")
        checkpoint = load_checkpoint(tmp_path / "x.pt")
        assert list(checkpoint) == ["w"]
        assert checkpoint.skipped == ("epoch", "name")


class Evil:
    """Makes a folder when it is unpickled."""

    folder = ""

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def torch_bytes(content, **kwargs):
    file = io.BytesIO()
    torch.save(content, file, **kwargs)
    return file.getvalue()


def safetensors_bytes():
    return safetensors.torch.save({"w": torch.arange(8.0)})


def torchscript_bytes():
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), file)
    return file.getvalue()


WEIGHTS = {"w": torch.arange(8.0)}
BROKEN = {
    "empty.safetensors": (lambda: b"", "is empty"),
    "empty.pt": (lambda: b"", "is empty"),
    "short.safetensors": (lambda: safetensors_bytes()[:-4], "no whole safetensors file.*cut off"),
    "header.safetensors": (lambda: safetensors_bytes()[:20], "no whole safetensors file.*20 bytes"),
    "longer.safetensors": (lambda: safetensors_bytes() + b"x", "no whole safetensors file"),
    "huge.safetensors": (lambda: struct.pack("<Q", 2**60) + b"{}", "no whole safetensors file"),
    "text.safetensors": (lambda: b"not what it should be", "no whole safetensors file"),
    "pointer.safetensors": (
        lambda: b"version https://git-lfs.github.com/spec/v1\noid ...",
        "Git LFS pointer.*lfs pull",
    ),
    "pointer.pt": (
        lambda: b"version https://git-lfs.github.com/spec/v1\noid ...",
        "Git LFS pointer",
    ),
    "short.pt": (lambda: torch_bytes(WEIGHTS)[:-30], "damaged, cut off"),
    "older.pt": (
        lambda: torch_bytes(WEIGHTS, _use_new_zipfile_serialization=False)[:-8],
        "damaged, cut off",
    ),
    "text.pt": (lambda: b"not what it should be", "not written by torch.save"),
    "pickle.pt": (lambda: pickle.dumps({"w": 1}), "a Python pickle that torch.save did not write"),
    "evil.pt": (
        lambda: torch_bytes({"w": Evil()}),
        r"object of type (posix|nt)\.mkdir.*could run code.*foreign_classes=.inert.* reads its tensors",
    ),
    "evil-older.pt": (
        lambda: torch_bytes({"w": Evil()}, _use_new_zipfile_serialization=False),
        r"object of type (posix|nt)\.mkdir",
    ),
    "foreign.pt": (lambda: torch_bytes({"w": Fraction(1)}), r"object of type fractions\.Fraction"),
    "module.pt": (
        lambda: torch_bytes(torch.nn.Linear(1, 1)),
        r"torch\.nn\.modules\.linear\.Linear.*state_dict",
    ),
    "script.pt": (torchscript_bytes, "TorchScript"),
    "list.pt": (lambda: torch_bytes([torch.ones(1)]), "holds a list, expected a state dict"),
    "numbers.pt": (
        lambda: torch_bytes({"epoch": 3, "lr": 0.1}),
        "no tensors at its top level, only epoch, lr",
    ),
    "several.pt": (
        lambda: torch_bytes({"gen": WEIGHTS, "disc": WEIGHTS}),
        r"several state dicts, gen, disc.*key='gen'",
    ),
    "x.npz": (lambda: b"PK", r"unknown suffix '.npz'; known: .*\.ckpt.*\.safetensors"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named_with_its_reason(name, tmp_path, monkeypatch):
    monkeypatch.setattr(Evil, "folder", str(tmp_path / "it ran"))
    make, reason = BROKEN[name]
    (tmp_path / name).write_bytes(make())
    with pytest.raises(CheckpointError, match=reason) as caught:
        load_checkpoint(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert not (tmp_path / "it ran").exists()
    assert "weights_only" not in str(
        caught.value
    )  # torch's own advice is to switch the protection off


def test_a_missing_file_shows_what_the_folder_has(tmp_path):
    torch.save(WEIGHTS, tmp_path / "best.pt")
    with pytest.raises(CheckpointError, match=r"last.pt' does not exist; its folder has best.pt"):
        load_checkpoint(tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match=r"does not exist: nor does its folder '.*runs'"):
        load_checkpoint(tmp_path / "runs" / "last.pt")


def test_a_key_is_for_files_with_keys(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(safetensors_bytes())
    with pytest.raises(CheckpointError, match="key='ema' is for torch files"):
        load_checkpoint(tmp_path / "x.safetensors", key="ema")


def test_what_can_be_done_with_foreign_classes(tmp_path):
    with pytest.raises(MetanetError, match="foreign_classes='allow': give one of refuse, inert"):
        load_checkpoint(tmp_path / "x.pt", foreign_classes="allow")


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_a_nested_tensor_is_named(layout, tmp_path):
    """Its rows have lengths of their own, so that it has no shape to go by."""
    rows = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=layout)
    torch.save({"state_dict": {"a.weight": torch.ones(2), "b.rows": rows}}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "x.pt")
    assert "x.pt" in str(caught.value) and len(str(caught.value)) < 2_000
    if layout is torch.strided:
        assert "b.rows is nested; metanet reads dense tensors" in str(caught.value)
