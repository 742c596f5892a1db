"""The mistakes of new users: each ends in one message that says what was given, what is allowed,
and what to do."""

import re
import sys
from pathlib import Path

import pytest
import torch

import metanet
from metanet import cli
from metanet.zoo.networks import mlp

MLP = "arch=metanet.zoo.networks:mlp arch_args.widths=[5] input_shape=[1,8,8]"
PAIR = f"a=a.safetensors b=b.safetensors {MLP}"
BOTH = "models=[a.safetensors,b.safetensors] out=o"
ZOO = "zoo=folder path=. input_shape=[1,8,8] zoo.arch=metanet.zoo.networks:mlp zoo.arch_args.widths=[5]"

# command line -> words of the message; MLP and the like stand for what is right
MISTAKES = [
    # the command, and words that are no key=value
    ("trian seed=1", ["no command 'trian'", "train, predict", "Did you mean train?"]),
    ("mreg models=[a]", ["no command 'mreg'", "Did you mean merge?"]),
    (
        "inspect timm:resnet18",
        ["timm:resnet18", "expected key=value", "did you mean arch=timm:resnet18?"],
    ),
    (
        "graph --checkpoint a.safetensors",
        ["--checkpoint a.safetensors", "write checkpoint=a.safetensors"],
    ),
    (
        "train --epochs=3",
        ["--epochs=3", "no options with dashes", "write epochs=3", "train --help"],
    ),
    (
        "merge a.safetensors b.safetensors out=o",
        ["a.safetensors: expected key=value", "models=[a.safetensors,...]"],
    ),
    ("inspect arch", ["arch: give it a value, arch=VALUE"]),
    ("train seed = 3", ["seed = 3", "no spaces around =", "write seed=3"]),
    ("train seed =3", ["seed =3", "write seed=3"]),
    ("train seed==3", ["seed==3", "one = only", "write seed=3"]),
    ("train 'seed'=3", ["keys stand without quotes", "write seed=3"]),
    ("train =3", ["=3", "a key is missing"]),
    ("train seed=[1", ["seed=[1", "the opening [ is not closed"]),
    ("train seed=1]", ["seed=1]", "the closing ] has no opening ["]),
    (
        "merge models=[a.safetensors,b.safetensors out=o",
        ["models=[a.safetensors", "the opening [ is not closed"],
    ),
    # keys and groups
    ("train lr=1e-3", ["unknown key 'lr'", "did you mean optim.optimizer.lr?"]),
    ("train epochs=3", ["unknown key 'epochs'", "trainer.max_epochs"]),
    ("train trainer.lr=1e-3", ["unknown key 'trainer.lr'", "trainer has: ", "optim.optimizer.lr"]),
    (
        "train model=gmn model.widht=3",
        ["unknown key 'model.widht'", "model has: ", "did you mean model.width?"],
    ),
    (f"merge {BOTH} weights=[0.3,0.7]", ["unknown key 'weights'", "did you mean method.weights?"]),
    (f"align {PAIR} out=o metod=weight", ["unknown key 'metod'", "the top level has: ", "matcher"]),
    ("train matcher=weight", ["unknown key 'matcher'", "the top level has: "]),
    ("train +arch=a:b", ["unknown key 'zoo.arch'", "a:b", "arch is a value of zoo=folder"]),
    (
        f"merge {BOTH} method=linaer",
        ["method=linaer", "choose from", "did you mean method=linear?"],
    ),
    ("train zoo=digit_tiny", ["zoo=digit_tiny", "choose from", "did you mean zoo=digits_tiny?"]),
    (
        "train model=digits_tiny",
        ["model=digits_tiny", "digits_tiny is a choice of zoo: zoo=digits_tiny"],
    ),
    ("train experiment=inr_clasification", ["did you mean experiment=inr_classification?"]),
    (f"align {PAIR} out=o matcher=wieght", ["matcher=wieght", "did you mean matcher=weight?"]),
    ("train ~model", ["there is no model", "give model=NAME"]),
    # types and ranges
    ("train trainer.max_epochs=ten", ["trainer.max_epochs=ten", "give a whole number -1 or more"]),
    ("train seed=abc", ["seed=abc", "a whole number from 0 to 4294967295"]),
    ("train seed=-1", ["seed=-1", "from 0"]),
    ("train optim.optimizer.lr=-1", ["optim.optimizer.lr=-1", "give a number 0 or more"]),
    (
        "train +optim.optimizer.betas=[2,3]",
        ["optim.optimizer.betas=[2, 3]", "each a number from 0 to 1"],
    ),
    ("train model.name=resnet", ["model.name=resnet", "there is no model 'resnet'", "probed_gmn"]),
    ("train model.dropout=2", ["model.dropout=2", "a number from 0 to 1"]),
    ("train model.probes=-4", ["model.probes=-4", "a whole number 0 or more"]),
    ("train +model.depth=3", ["model.depth=3", "probed_gmn has no depth", "It takes probes"]),
    ("train task.batch_size=0", ["task.batch_size=0", "a whole number 1 or more"]),
    ("train task.loss_kind=l2", ["task.loss_kind='l2'", "huber, mse or bce"]),
    ("train trainer.devices=1.5", ["trainer.devices=1.5", "a list, each a whole number"]),
    ("train +trainer.epochs=3", ["trainer.epochs=3", "Trainer has no epochs"]),
    ("train logger.mode=onlin", ["logger.mode=onlin", "choose from offline, online, disabled"]),
    ("zoo zoo.networks=0", ["zoo.networks", "at least 1"]),
    ("zoo zoo.architectures=[cnn5]", ["zoo.architectures", "cnn5", "mlp2_tanh"]),
    (
        "train device=cdua",
        ["device=cdua", "choose from auto, cpu, cuda, mps", "did you mean cuda?"],
    ),
    (
        f"graph checkpoint=a.safetensors {MLP} format=npz",
        ["format=npz", "choose from safetensors, pt"],
    ),
    (
        f"barrier {PAIR} data=data.safetensors metrics=[acuracy]",
        ["no metric 'acuracy'", "did you mean accuracy?"],
    ),
    (f"barrier {PAIR} data=data.safetensors points=1", ["points=1", "3 or more"]),
    (f"barrier {PAIR} data=data.safetensors loss=mse2", ["no loss 'mse2'", "did you mean mse?"]),
    (
        f"barrier {PAIR} data=data.safetensors statistics=kep",
        ["statistics=kep", "did you mean keep?"],
    ),
    (f"merge {BOTH} out_dtype=bf16", ["out_dtype=bf16", "bfloat16"]),
    (f"merge {BOTH} method.weights=[1,2,3]", ["weights has 3 values for 2 models"]),
    (f"merge {BOTH} max_shard_size=5XB", ["max_shard_size", "5XB", "5GB"]),
    (f"align {PAIR} out=o matcher.restarts=0", ["matcher.restarts=0", "a whole number 1 or more"]),
    # sweeps and resuming
    (f"align {PAIR} out=o matcher=weight,activation", ["add -m to run each"]),
    ("train seed=1,2", ["seed=1,2", "add -m", "[1,2]"]),
    ("train -m seed=0,abc", ["seed=abc", "a whole number"]),
    ("train -m resume=full", ["can't be swept (-m)"]),
    ("train resume=nowhere", ["can't resume nowhere", "there is no such folder"]),
    ("train resume=full", ["can't resume full", "it is no run"]),
    # files
    ("predict", ["no value for", "checkpoint", "run", "run=VALUE"]),
    (
        f"predict run=folder checkpoint=a.safetensors {MLP}",
        ["run=folder", "no finished training run"],
    ),
    (
        f"predict run=nowhere checkpoint=a.safetensors {MLP}",
        ["run=nowhere", "there is no such file or folder"],
    ),
    (
        f"graph checkpoint=c.safetensors {MLP}",
        ["checkpoint 'c.safetensors' does not exist", "a.safetensors"],
    ),
    (f"graph checkpoint=empty.safetensors {MLP}", ["empty.safetensors", "is empty"]),
    (f"graph checkpoint=folder {MLP}", ["folder", "without a checkpoint"]),
    (
        f"graph checkpoint=wide.safetensors {MLP}",
        ["does not fit", "1.weight is (7, 64), expected (5, 64)"],
    ),
    (
        f"align a=a.safetensors b=wide.safetensors {MLP} out=o",
        ["wide.safetensors", "does not fit", "expected (5, 64)"],
    ),
    (
        "merge models=[a.safetensors,wide.safetensors] out=o",
        ["not of one architecture", "1.weight is (7, 64)"],
    ),
    ("merge models=a.safetensors out=o", ["give a list of checkpoints, models=[a.safetensors,B]"]),
    (
        f"align {PAIR} out=full",
        ["out=full", "is not empty", "give a folder that does not exist yet"],
    ),
    (f"graph checkpoint=a.safetensors {MLP} out=a.safetensors", ["out=a.safetensors is a file"]),
    (f"align {PAIR} out=a.safetensors/o", ["out=a.safetensors/o", "a.safetensors is a file"]),
    (f"inspect {MLP} out=folder", ["out=folder is a folder; give a file"]),
    # references
    ("inspect arch=resnet18", ["'resnet18' names no network", "timm:NAME"]),
    ("inspect arch=nowhere:mlp", ["there is no module nowhere"]),
    ("inspect arch=raises:mlp", ["importing raises failed: ValueError: half done"]),
    ("inspect arch=metanet.zoo.networks:mpl", ["has no mpl; did you mean mlp?"]),
    ("inspect arch=nets_of_a_beginner:no_module", ["returned int, expected a torch.nn.Module"]),
    ("inspect arch=nets_of_a_beginner:needs", ["missing a required argument: 'width'"]),
    (
        "inspect arch=metanet.zoo.networks:mlp arch_args.width=3",
        ["arch_args.width=3", "unexpected keyword", "widths"],
    ),
    ("inspect arch=metanet.zoo.networks:mlp", ["nothing says what", "Give input_shape="]),
    ("inspect arch=metanet.zoo.networks:mlp input_shape=28x28", ["input_shape=28x28", "[1,28,28]"]),
    ("inspect arch=metanet.zoo.networks:mlp input_shape=[3]", ["mat1 and mat2", "input_shape="]),
    (f"inspect {MLP} explain=foo", ["no tensor 'foo'", "1.weight"]),
    # data and tables
    (f"barrier {PAIR}", ["no value for data: give data=VALUE"]),
    (
        f"barrier {PAIR} data=images",
        ["data=images", "there is no such folder or file", "a folder of images"],
    ),
    (f"barrier {PAIR} data=a.safetensors", ["no inputs and no targets"]),
    (f"barrier {PAIR} data=folder", ["data=folder has no subfolders"]),
    (f"barrier {PAIR} data=nan.csv", ["is text", "data=package.module:factory"]),
    (
        f"barrier {PAIR} data=short.safetensors",
        ["inputs (4, 1, 8, 8) and targets (3,)", "one row a sample"],
    ),
    ("train zoo=folder", ["no value for zoo.input_shape, zoo.label, zoo.path, zoo.table"]),
    (
        f"train {ZOO} table=nan.csv label=quality nan=error",
        ["column 'quality'", "'nan' in line 2", "zoo.nan=drop"],
    ),
    (f"train {ZOO} table=good.csv label=accuracy", ["has no column 'accuracy'", "path, quality"]),
    (f"train {ZOO} table=nowhere.csv label=quality", ["zoo.table", "nowhere.csv"]),
    # what a method needs
    (
        f"merge {BOTH} method=ties",
        ["method 'ties' merges what models changed of a base", "give base="],
    ),
    (f"merge {BOTH} matcher=weight", ["matcher=weight needs the network", "give arch="]),
    (
        f"align {PAIR} out=o matcher=activation",
        ["matcher=activation runs the networks: give data="],
    ),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """What a beginner has lying about."""
    monkeypatch.chdir(tmp_path)
    for name, width in (("a", 5), ("b", 5), ("wide", 7)):
        metanet.save_checkpoint(f"{name}.safetensors", mlp(widths=[width]).state_dict())
    for rows, name in ((4, "data"), (3, "short")):
        metanet.save_checkpoint(
            f"{name}.safetensors",
            {"inputs": torch.zeros(4, 1, 8, 8), "targets": torch.zeros(rows, dtype=torch.long)},
        )
    Path("empty.safetensors").touch()
    Path("folder").mkdir()
    Path("full").mkdir()
    Path("full/mine.txt").touch()
    Path("raises.py").write_text("raise ValueError('half done')\n")
    Path("nets_of_a_beginner.py").write_text(
        "import torch\ndef no_module(): return 5\ndef needs(width): return torch.nn.Linear(width, 2)\n"
    )
    Path("nan.csv").write_text("path,quality\na.safetensors,nan\nb.safetensors,0.5\n")
    Path("good.csv").write_text("path,quality\na.safetensors,0.25\nb.safetensors,0.5\n")


def test_there_are_many_and_of_every_command():
    assert len(MISTAKES) >= 54
    assert {line.split()[0] for line, _ in MISTAKES} > set(cli.COMMANDS)


@pytest.mark.parametrize(
    ("line", "words"), MISTAKES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_ends_in_one_message(line, words, folder, capsys):
    code = cli.main(line.split(" "))
    err = capsys.readouterr().err
    assert code in (1, 2), err
    assert err.startswith("metanet"), "nothing comes before the message"
    assert [word for word in words if word not in err] == [], err
    assert "Traceback" not in err
    assert len(err) < 2000
    assert (
        err.count("metanet: ") + len(re.findall(rf"^metanet {line.split()[0]}: ", err, re.M)) == 1
    ), "one message"


def test_all_mistakes_come_at_once(folder, capsys):
    line = (
        "train lr=1 trainer.max_epochs=ten seed=abc model.name=resnet task.batch_size=0 "
        "optim.optimizer.lr=-1 trainer.devices=1.5 zoo.networks=-3 logger.mode=on device=tpu"
    )
    assert cli.main(line.split()) == 1
    err = capsys.readouterr().err
    assert "10 mistakes:" in err
    given = [
        "max_epochs=ten",
        "seed=abc",
        "resnet",
        "batch_size=0",
        "lr=-1",
        "devices=1.5",
        "networks",
        "on:",
        "tpu",
    ]
    assert [word for word in given if word not in err] == [], err
    assert len(err) < 2000
    assert not Path("outputs").exists(), "no run directory for a run that can't be"


def test_what_a_resumed_run_names_is_not_imported(folder, capsys):
    """The record of a stranger's run is data: whether its code may run is decided later, by who is
    asked."""
    Path("run/.hydra").mkdir(parents=True)
    Path("run/.hydra/overrides.yaml").write_text(
        "[zoo=folder, zoo.arch=raises:mlp, arch=raises:mlp]\n"
    )
    for command in ("train", "inspect"):
        assert cli.main([command, "resume=run", "lr=1"]) == 1
        assert "half done" not in capsys.readouterr().err
    assert "raises" not in sys.modules


def test_a_new_matcher_is_checked_without_another_line(folder, capsys, monkeypatch):
    from metanet.alignment import MATCHERS, matcher

    def lazy(problem, *, rounds: int = 3, greedy: bool = True):
        """Does nothing."""

    monkeypatch.setattr(MATCHERS, "_entries", dict(MATCHERS))
    matcher("lazy")(lazy)
    line = f"align {PAIR} out=o ++matcher={{name:lazy,rounds:many,greedy:5,depth:1}}"
    assert cli.main(line.split()) == 1
    err = capsys.readouterr().err
    assert "matcher.rounds=many: give a whole number 1 or more" in err
    assert "matcher.greedy=5: give true or false" in err
    assert "matcher.depth=1: lazy has no depth" in err


def test_each_of_several_mistakes_is_told_of_its_own_word(calls, capsys):
    words = ["model.nme=x", "zoo=digit_tiny", "seed=abc", "expriment=wide"]
    assert cli.main(["train", *words]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("4 mistakes:")
    assert any(
        "zoo=digit_tiny: choose from" in line and "did you mean zoo=digits_tiny?" in line
        for line in lines
    )
    assert any("unknown key 'model.nme' in model.nme=x" in line for line in lines)
    assert any("unknown key 'expriment'" in line for line in lines)
    assert any("seed=abc: give a whole number" in line for line in lines)
