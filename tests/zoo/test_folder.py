"""A zoo of one's own."""

import json

import numpy as np
import pytest
import torch

from metanet.checkpoints import Checkpoint, save_checkpoint
from metanet.errors import MetanetError
from metanet.zoo import FolderZoo, ZooError, networks

ARCH = "metanet.zoo.networks:mlp"
OPTIONS = {"arch": ARCH, "arch_args": {"widths": [3]}, "input_shape": [1, 8, 8], "label": "score"}


@pytest.fixture
def folder(tmp_path):
    """Two checkpoints in a sub-folder, one beside it, and a table."""
    torch.manual_seed(0)
    for name in ("run1/a.safetensors", "run1/b.safetensors", "c.safetensors"):
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(path, networks.mlp((3,)).state_dict())
    write(
        tmp_path / "mine",
        "path,score,step",
        "run1/a.safetensors,0.5,1",
        "run1/b.safetensors,0.25,2",
        "c.safetensors,1e-3,3",
    )
    return tmp_path / "mine"


def write(folder, *lines):
    (folder / "table.csv").write_text("\n".join(lines) + "\n")


def load(folder, **options):
    return FolderZoo(**{"path": str(folder), "table": "table.csv", **OPTIONS, **options}).load(
        progress=False
    )


def test_one_architecture(folder):
    zoo = load(folder)
    assert zoo.name == "mine" and len(zoo) == 3
    assert zoo.table["score"].tolist() == [0.5, 0.25, 1e-3]
    assert zoo.table["step"].dtype == np.int64
    assert zoo.table["id"].tolist() == ["run1/a.safetensors", "run1/b.safetensors", "c.safetensors"]
    assert zoo.table["run"].tolist() == ["run1", "run1", "c.safetensors"]
    population = zoo.populations["mlp"]
    assert list(population.state) == list(networks.mlp((3,)).state_dict())
    module = population.build()
    module.load_state_dict(population.state_dict(2))
    from metanet.checkpoints import load_checkpoint

    assert torch.equal(module[1].weight, load_checkpoint(folder / "c.safetensors")["1.weight"])
    assert population.example().shape == (2, 1, 8, 8)


def test_several_architectures_and_runs(folder):
    save_checkpoint(folder / "d.safetensors", networks.cnn((3,)).state_dict())
    write(
        folder,
        "path,score,run,architecture,id",
        f"c.safetensors,1,x,{ARCH},first",
        "d.safetensors,0,7,metanet.zoo.networks:cnn,second",
        "run1/a.safetensors,1,x,,third",
    )
    with pytest.raises(MetanetError, match="widths"):  # arch_args go to every factory
        load(folder)
    save_checkpoint(folder / "c.safetensors", networks.mlp().state_dict())
    save_checkpoint(folder / "run1/a.safetensors", networks.mlp().state_dict())
    save_checkpoint(folder / "d.safetensors", networks.cnn().state_dict())
    zoo = load(folder, arch_args={})
    assert zoo.table["run"].tolist() == ["x", "7", "x"]
    assert zoo.table["id"].tolist() == ["first", "second", "third"]
    assert zoo.table["architecture"].tolist() == ["mlp", "cnn", "mlp"]
    assert zoo.table["score"].dtype == np.int64  # all whole: classes
    assert zoo.populations["mlp"].rows.tolist() == [0, 2] and zoo.populations[
        "cnn"
    ].rows.tolist() == [1]


def test_checkpoint_of_another_architecture(folder):
    state = dict(networks.mlp((3, 3)).state_dict())
    save_checkpoint(folder / "run1/b.safetensors", state | {"extra": torch.zeros(1)})
    with pytest.raises(ZooError) as caught:
        load(folder)
    text = str(caught.value)
    assert "run1/b.safetensors does not fit metanet.zoo.networks:mlp(widths=[3])" in text
    assert "extra" in text and "5.weight" in text and "3.weight is (3, 3), expected (10, 3)" in text
    save_checkpoint(folder / "run1/b.safetensors", {"1.weight": state["1.weight"]})
    with pytest.raises(ZooError, match=r"(?s)missing .*1.bias.*3.weight"):
        load(folder)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("c.safetensors,high,1", r"'high' in column 'score', line 3"),
        ("../outside.safetensors,1,1", r"line 3 of .*'../outside.safetensors' leads out of"),
        ("/etc/passwd,1,1", r"line 3 of .*leads out of"),
        ("link.safetensors,1,1", r"line 3 of .*leads out of"),
        ("missing.safetensors,1,1", r"line 3 of .*there is no file"),
        ("c.safetensors,1", r"line 3 of .*does not have 3 fields"),
        ("c.safetensors,1,1,1", r"line 3 of .*does not have 3 fields"),
    ],
)
def test_bad_rows(folder, row, message):
    save_checkpoint(folder.parent / "outside.safetensors", {"a": torch.zeros(1)})
    (folder / "link.safetensors").symlink_to(folder.parent / "outside.safetensors")
    write(folder, "path,score,step", "run1/a.safetensors,0.5,1", row)
    with pytest.raises(ZooError, match=message):
        load(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "nowhere"}, "zoo.path: nowhere is not a folder"),
        ({"table": "other.csv"}, r"there is neither .*other.csv"),
        ({"label": "accuracy"}, r"no column 'accuracy' \(zoo.label\); it has path, score, step"),
        ({"arch": None}, "line 2 of .* names no architecture: set zoo.arch"),
        ({"input_shape": []}, "zoo.input_shape is empty"),
        ({"arch": "metanet.zoo.networks:mpl"}, "mlp"),
    ],
)
def test_bad_options(folder, options, message):
    with pytest.raises(MetanetError, match=message):
        load(folder, **options)


def test_empty_and_binary_tables(folder):
    write(folder, "path,score")
    with pytest.raises(ZooError, match="no rows"):
        load(folder)
    (folder / "table.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ZooError, match="UTF-8"):
        load(folder)


class TestTables:
    """What a table may say of its rows, and what other files are called."""

    @pytest.fixture
    def kinds(self, folder):
        for name, width in (("a", 3), ("b", 5), ("c", 5)):
            save_checkpoint(
                folder / f"{name}.safetensors",
                networks.mlp((width,), activation="tanh").state_dict(),
            )
        return folder

    @pytest.mark.parametrize(
        "lines",
        [
            ("path,score,arch_args", 'a.safetensors,1,"{""widths"": [3]}"',
                'b.safetensors,2,"{""widths"": [5]}"',
             'c.safetensors,3,"{""widths"":[5]}"'),
            ("path,score,arch_args.widths", "a.safetensors,1,[3]", "b.safetensors,2,[5]",
                "c.safetensors,3,[5]"),
        ],
    )  # fmt: skip
    def test_arguments_by_row(self, kinds, lines):
        write(kinds, *lines)
        zoo = load(kinds, arch_args={"activation": "tanh"})
        assert zoo.table["architecture"].tolist() == [
            "mlp(widths=[3])",
            "mlp(widths=[5])",
            "mlp(widths=[5])",
        ]
        assert zoo.populations["mlp(widths=[5])"].arch_args == {"activation": "tanh", "widths": [5]}
        assert zoo.populations["mlp(widths=[5])"].state["1.weight"].shape == (2, 5, 64)

    def test_text_and_empty_arguments(self, kinds):
        write(
            kinds,
            "path,score,arch_args.activation,arch_args.widths",
            "a.safetensors,1,tanh,[3]",
            "run1/a.safetensors,1,,[3]",
        )
        zoo = load(kinds, arch_args={})
        assert [p.arch_args for p in zoo] == [
            {"activation": "tanh", "widths": [3]},
            {"widths": [3]},
        ]

    def test_arguments_that_are_none(self, kinds):
        write(kinds, "path,score,arch_args", "a.safetensors,1,[3]")
        with pytest.raises(
            ZooError, match=r"line 2 of .*arch_args holds '\[3\]', expected a JSON object"
        ):
            load(kinds)
        write(kinds, "path,score,arch_args.width", "a.safetensors,1,3")
        with pytest.raises(MetanetError, match="width"):
            load(kinds)

    @pytest.mark.parametrize("value", ["[99999999999]", "[10000000]"])
    def test_sizes_that_a_table_states_are_bounded_by_the_checkpoint(self, kinds, value):
        write(kinds, "path,score,arch_args.widths", f"a.safetensors,1,{value}")
        with pytest.raises(
            MetanetError,
            match="sizes that are not those of its tensors|no network that can be made",
        ):
            load(kinds)

    def test_splits(self, folder):
        write(folder, "path,score,split", "c.safetensors,1,train", "run1/a.safetensors,1,valid")
        with pytest.raises(
            ZooError, match=r"line 3 of .*split says 'valid'; choose train, val, test, unseen"
        ):
            load(folder)

    @pytest.mark.parametrize(
        ("content", "kind"),
        [(b'{"path": "' + b"secret" * 10_000, "JSON"), (b"\xef\xbb\xbf [1]", "JSON"),
            (b"PAR1" + b"x" * 99, "Parquet"),
         (b"PK\x03\x04", "zip"), (b"\x1f\x8b", "gzip")],
    )  # fmt: skip
    def test_other_files_are_named_not_shown(self, folder, content, kind):
        (folder / "table.csv").write_bytes(content)
        with pytest.raises(ZooError, match=rf"table.csv is .*{kind}.*CSV") as caught:
            load(folder)
        assert "secret" not in str(caught.value)

    def test_messages_are_short(self, folder):
        write(folder, ",".join("x" * 5000 for _ in range(1000)))
        with pytest.raises(ZooError, match=r"no column 'path' .* and 980 more") as caught:
            load(folder)
        assert len(str(caught.value)) < 2000

    @pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
    def test_files_of_other_layouts_fit_by_the_common_rule(self, folder, prefix):
        """Wrappers and prefixes, in a file of torch and one of safetensors."""
        state = networks.mlp((3,)).state_dict()
        prefixed = {f"{prefix}{name}": tensor for name, tensor in state.items()}
        torch.save({"state_dict": prefixed}, folder / "wrapped.pt")
        save_checkpoint(folder / "prefixed.safetensors", prefixed)
        write(folder, "path,score", "wrapped.pt,1", "prefixed.safetensors,2")
        stored = load(folder).populations["mlp"].state
        assert list(stored) == list(state)
        for name, tensor in state.items():
            assert torch.equal(stored[name], torch.stack([tensor, tensor])), name

    def test_a_sharded_checkpoint_is_an_entry_by_its_index(self, folder):
        """Entries are files: the index stands for the shards beside it, as Hugging Face saves."""
        state = networks.mlp((3,)).state_dict()
        shards = {"1.": "one", "3.": "two"}
        weight_map = {name: f"{shards[name[:2]]}.safetensors" for name in state}
        (folder / "big").mkdir()
        for file in set(weight_map.values()):
            part = {name: state[name] for name in state if weight_map[name] == file}
            save_checkpoint(folder / "big" / file, part)
        index = folder / "big/model.safetensors.index.json"
        index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
        write(folder, "path,score", "big/model.safetensors.index.json,1")
        stored = load(folder).populations["mlp"].state
        assert all(torch.equal(stored[name][0], state[name]) for name in state)
        write(folder, "path,score", "big,1")
        with pytest.raises(ZooError, match="line 2 of .*there is no file"):
            load(folder)

    def test_no_tensor_is_read_to_know_its_shape(self, folder, monkeypatch):
        """A misfit is seen in the header."""
        read = []
        one = Checkpoint.__getitem__

        def noted(self, name):
            read.append((self.path.name, name))
            return one(self, name)

        monkeypatch.setattr(Checkpoint, "__getitem__", noted)
        save_checkpoint(folder / "c.safetensors", networks.mlp((5,)).state_dict())
        with pytest.raises(ZooError, match="c.safetensors does not fit"):
            load(folder)
        names = list(networks.mlp((3,)).state_dict())
        assert read == [(file, n) for file in ("a.safetensors", "b.safetensors") for n in names]
