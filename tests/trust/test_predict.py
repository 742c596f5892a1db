"""predict run=DIR in a stranger's folder: model.json is data."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import metanet
from metanet import cli, trust
from metanet.errors import MetanetError
from metanet.tasks import predict, train
from metanet.trust import TrustError, trusting
from metanet.zoo import networks
from tasks.conftest import compose_train

from .conftest import forget, untouched

GADGET = {
    "_target_": "metanet.zoo.Population.build",
    "self": {
        "_target_": "metanet.zoo.Population", "architecture": "a", "ref": "os:system",
        "arch_args": {"command": "touch canary"}, "input_shape": [1], "state": {}, "rows": [],
    },
}  # fmt: skip


def make_zoo(folder: Path, factory, count: int = 12) -> None:
    folder.mkdir()
    lines = ["path,quality"]
    for i in range(count):
        torch.manual_seed(i)
        metanet.save_checkpoint(folder / f"{i}.safetensors", factory().state_dict())
        lines.append(f"{i}.safetensors,{i / count}")
    (folder / "table.csv").write_text("\n".join(lines))


def trained(folder: Path, *overrides: str) -> Path:
    train(compose_train(
        "zoo=folder", f"zoo.path={folder}", "zoo.table=table.csv", "zoo.label=quality",
        "zoo.input_shape=[1,8,8]", "logger=none", "trainer.log_every_n_steps=1", "trainer.max_epochs=1",
        "trainer.enable_progress_bar=false", "task.val=0.25", "task.test=0.25",
        "device=cpu", f"paths.run_dir={folder.parent / 'run'}", *overrides,
    ))  # fmt: skip
    return folder.parent / "run"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run on networks of metanet's own."""
    here = tmp_path_factory.mktemp("made")
    make_zoo(here / "zoo", lambda: networks.mlp([3]))
    small = ("model=gmn", "model.width=8", "model.layers=1")
    return trained(
        here / "zoo", "zoo.arch=metanet.zoo.networks:mlp", "+zoo.arch_args.widths=[3]", *small
    )


@pytest.fixture
def run(made, place):
    shutil.copytree(made, place / "run")
    metanet.save_checkpoint(place / "one.safetensors", networks.mlp([3]).state_dict())
    return place / "run"


def edit(run, change):
    path = run / "model/model.json"
    description = json.loads(path.read_text())
    change(description)
    path.write_text(json.dumps(description))


def ask(**options) -> str:
    given = {
        "run": "run",
        "checkpoint": "one.safetensors",
        "arch": None,
        "arch_args": {},
        "input_shape": None,
    }
    return predict(OmegaConf.create({**given, **options}))


def old_task(node):
    """How earlier versions named the task."""

    def change(description):
        description["meta"]["task"] = {"_target_": node["_target_"], "label": "a"}
        description["meta"]["config"]["task"] = node

    return change


def in_meta(key, value):
    return lambda description: description["meta"].__setitem__(key, value)


def architecture(**changes):
    def change(description):
        (entry,) = description["meta"]["architectures"].values()
        entry.update(changes)

    return change


ATTACKS = {
    "any class as the task": old_task(GADGET),
    "any class inside the task": old_task(
        {"_target_": "metanet.tasks.AccuracyPrediction", "label": GADGET}
    ),
    "a method that writes": old_task({"_target_": "metanet.SymmetrySpec.save", "path": "victim"}),
    "a task of code": in_meta("task", {"reference": "evil:Task", "arguments": {}}),
    "a command as the task": in_meta(
        "task", {"reference": "os:system", "arguments": {"command": "touch canary"}}
    ),
    "an unknown task": in_meta("task", {"name": "evil", "arguments": {}}),
    "arguments of a task": in_meta(
        "task", {"name": "accuracy_prediction", "arguments": {"evil": 1}}
    ),
    "a target in arguments": in_meta(
        "task", {"name": "accuracy_prediction", "arguments": {"label": GADGET}}
    ),
    "attributes through the scale": in_meta("scale", {"describe": "x"}),
    "a class through the scale": in_meta(
        "scale", {"mean": 0.0, "std": 1.0, "loss_kind": "mse", "__class__": "x"}
    ),
    "a model of code": lambda d: d.update(model="evil_net", reference="evil:Net"),
    "a command as the model": lambda d: d.update(model="x", reference="os:system"),
    "an architecture of code": architecture(ref="evil:cnn", arch_args={}),
    "a command as the architecture": architecture(
        ref="os:system", arch_args={"command": "touch canary"}
    ),
    "code beside an open module": architecture(
        ref="metanet.zoo.networks:torch.hub.load", arch_args={}
    ),
    "sizes of an architecture": architecture(arch_args={"widths": [2**40]}),
    "sizes that a machine has": architecture(arch_args={"widths": [10**5, 10**5]}),
    "layers of an architecture": architecture(arch_args={"widths": [3] * 5000}),
    "a folder as the architecture": architecture(ref="/tmp", arch_args={}),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_of_an_attack_happens(name, run):
    edit(run, ATTACKS[name])
    with pytest.raises(MetanetError) as caught:
        ask()
    assert len(str(caught.value)) < 2000
    assert untouched()


def test_a_sound_run_answers_and_finds_its_architecture(run):
    """The twin: of the same folder, unedited."""
    assert ask().startswith("quality: ")
    assert (
        ask() == ask(arch="metanet.zoo.networks:mlp", arch_args={"widths": [3]}) == ask(arch="mlp")
    )


def test_it_is_asked_by_what_the_command_graph_reads_too(run, place):
    """Prefixes and wrappers: one fit for all commands, and the answer is that of the plain file."""
    plain = metanet.load_checkpoint(place / "one.safetensors")
    compiled = {f"_orig_mod.{name}": tensor for name, tensor in plain.items()}
    parallel = {f"module.{name}": tensor for name, tensor in plain.items()}
    metanet.save_checkpoint(place / "compiled.safetensors", compiled)
    metanet.save_checkpoint(place / "parallel.safetensors", parallel)
    torch.save({"state_dict": parallel, "epoch": 3}, place / "wrapped.pt")
    answer = ask()
    assert answer == ask(), "asked twice"
    for name in ("compiled.safetensors", "parallel.safetensors", "wrapped.pt"):
        assert ask(checkpoint=name) == answer, name


@pytest.mark.parametrize("shape", ["abc", 8, [1, 8, -8], [1, 8, 0.5]])
def test_a_shape_that_is_none_is_refused_in_the_words_of_graph(shape, run):
    with pytest.raises(MetanetError, match="input_shape="):
        ask(input_shape=shape)


def test_tied_names_with_different_values_are_refused(run, place, monkeypatch):
    """As the command graph does: whichever was read, the other would be lost."""

    def tied(widths):
        network = networks.mlp(widths)
        network.again = network[1]
        return network

    monkeypatch.setattr(networks, "tied", networks.open_to_files(tied), raising=False)
    state = tied([3]).state_dict()
    state["again.weight"] = state["again.weight"] + 1
    metanet.save_checkpoint(place / "one.safetensors", state)
    with pytest.raises(MetanetError, match="are one tensor in the network"):
        ask(arch="metanet.zoo.networks:tied", arch_args={"widths": [3]})


def test_a_run_from_before_tasks_were_registered(run):
    node = {"_target_": "metanet.tasks.AccuracyPrediction", "label": "quality", "batch_size": 4}
    said = ask()
    edit(run, old_task(node))
    assert ask() == said
    edit(
        run,
        lambda d: [
            d["meta"].pop("architectures"),
            d["meta"].update(input_shapes={"mlp": [1, 8, 8]}),
        ],
    )
    with pytest.raises(MetanetError, match="did not record its architectures: give arch=REF"):
        ask()
    assert ask(arch="metanet.zoo.networks:mlp", arch_args={"widths": [3]}).startswith("quality: ")


@pytest.mark.parametrize("value", [2**62, 2**40, 10**9])
@pytest.mark.parametrize("argument", ["layers", "width", "out_dim", "probes", "max_io"])
def test_sizes_are_bounded_by_the_tensors(argument, value, run):
    edit(run, lambda d: d["arguments"].__setitem__(argument, value))
    with pytest.raises(MetanetError, match=argument):
        ask()


@pytest.mark.parametrize("layers", [3000, 5000, 20_000])
def test_loops_end_when_the_layers_outgrow_the_tensors(layers, run):
    """Counts that the numbers alone would allow."""
    edit(run, lambda d: d["arguments"].__setitem__("layers", layers))
    with pytest.raises(
        MetanetError, match="sizes that are not those of its tensors|arguments.layers"
    ):
        ask()


@pytest.mark.parametrize("shape", [[2**30], [2**20, 2**20], [0], [-1], [1] * 9, ["8"], [8.5]])
def test_examples_of_absurd_shapes_are_not_made(shape, run):
    edit(run, architecture(input_shape=shape))
    with pytest.raises(MetanetError, match="input_shape"):
        ask()


def test_many_examples_of_large_shapes_are_made_at_the_users_word_only(run, monkeypatch):
    monkeypatch.setattr("metanet.tasks._predict._LARGEST_EXAMPLE", 100)
    with pytest.raises(MetanetError, match=r"more than 100 numbers.*input_shape=\[1, 8, 8\]"):
        ask()
    assert ask(input_shape=[1, 8, 8]).startswith("quality: ")


def test_which_architecture_is_said_where_none_or_several_fit(run, place):
    def more(description):
        known = description["meta"]["architectures"]
        known["tanh"] = {**known["mlp"], "arch_args": {"widths": [3], "activation": "tanh"}}
        known["other"] = {**known["mlp"], "arch_args": {"widths": [5]}}

    edit(run, more)
    with pytest.raises(
        MetanetError, match=r"(?s)fits 2 of the architectures.*arch=mlp.*arch=tanh"
    ) as caught:
        ask()
    assert "arch=other" not in str(caught.value)
    assert ask(arch="tanh").startswith("quality: ")
    metanet.save_checkpoint(place / "one.safetensors", networks.mlp([9]).state_dict())
    with pytest.raises(
        MetanetError, match=r"(?s)fits none of the architectures.*arch=mlp.*arch=other"
    ):
        ask()


def test_a_checkpoint_that_diverged_is_refused(run, place):
    state = networks.mlp([3]).state_dict()
    state["1.weight"][0, 0] = float("nan")
    metanet.save_checkpoint(place / "one.safetensors", state)
    with pytest.raises(MetanetError, match=r"1 values of 1.weight are NaN or infinite"):
        ask()


class TestCodeOfOnesOwn:
    """A metanetwork and networks that are the user's: trained here, asked here, and taken
    elsewhere."""

    @pytest.fixture
    def own(self, place, monkeypatch):
        import evil

        make_zoo(place / "zoo", evil.cnn)
        own = (
            "model=own",
            "model.name=evil:Net",
            "+model.width=8",
            "+model.layers=1",
            "zoo.arch=evil:cnn",
        )
        run = trained(place / "zoo", *own)
        metanet.save_checkpoint(place / "one.safetensors", evil.cnn().state_dict())
        forget(monkeypatch)
        (place / "canary").unlink()
        return run

    def test_what_was_trained_here_can_be_asked(self, own):
        assert ask().startswith("quality: ")

    def test_elsewhere_it_needs_the_users_word(self, own, place, monkeypatch):
        own.rename(place / "theirs")
        with pytest.raises(TrustError, match="evil:Net"):
            ask(run="theirs")
        assert untouched()
        with trusting(place / "theirs"):
            assert ask(run="theirs").startswith("quality: ")
        forget(monkeypatch)
        assert ask(run="theirs").startswith("quality: "), "it is remembered"

    def test_or_its_names_on_the_command_line(self, own, place):
        own.rename(place / "theirs")
        with pytest.raises(TrustError, match="'evil:cnn'"):
            ask(run="theirs", model_class="evil:Net")
        named = ["model=evil:Net", "arch=evil:cnn", "input_shape=[1,8,8]"]
        assert cli.main(["predict", "run=theirs", "checkpoint=one.safetensors", *named]) == 0

    def test_a_model_that_nobody_can_import(self, own):
        edit(own, lambda d: d.update(model="gone", reference=None))
        with pytest.raises(
            MetanetError, match=r"holds a model 'gone', known are.*model=package.module:CLASS"
        ):
            ask()


def test_trust_is_not_given_by_a_file(run):
    edit(
        run,
        lambda d: [
            d.update(model="evil_net", reference="evil:Net"),
            d["meta"]["config"].update(trust=True),
        ],
    )
    with pytest.raises(TrustError):
        ask()
    assert untouched() and not trust.is_known(run)
