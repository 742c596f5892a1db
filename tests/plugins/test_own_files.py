"""Files in the current folder, named by their modules, do what an installed package does."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from metanet import load_checkpoint
from metanet._cli import own, recipe
from metanet._cli.foreign import doubtful
from metanet.config import build
from metanet.errors import MetanetError

from .conftest import GARDEN

OF_MY_OWN = ("train", "model=my.petals", "task=my.vigour", "zoo=my.flowers", "logger=none")


@pytest.fixture
def my(metanet, tmp_path):
    """The garden's modules as loose files in the folder that commands run in."""
    shutil.copytree(GARDEN / "garden", tmp_path / "here" / "my", ignore=lambda *_: ["conf"])
    return metanet


def test_train_resume_and_predict(my, flowers):
    options = ("model.width=3", "task.batch_size=6", "zoo.networks=20", "trainer.max_epochs=2")
    done = my(*OF_MY_OWN, *options, "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    saved = json.loads(Path("run/model/model.json").read_text())
    assert saved["arguments"]["width"] == 3
    assert saved["meta"]["task"]["reference"] == "my.vigour:Vigour"
    done = my("train", "resume=run", "trainer.max_epochs=3")
    assert done.returncode == 0, done.stderr
    for words in ([], ["model=my.petals"]):  # remembered, or named again
        done = my("predict", "run=run", "checkpoint=a.safetensors", *words)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("vigour: ")

    # a stranger's run names code: nothing of it is imported
    Path("run").rename("strange")
    done = my("train", "resume=strange", "trainer.max_epochs=4")
    assert done.returncode == 1
    assert "'model=my.petals'" in done.stderr and "'task=my.vigour'" in done.stderr


def test_align_and_merge(my, flowers):
    words = ("arch=my.flowers:flower", "input_shape=[4]", "matcher=my.nearest", "matcher.power=1")
    done = my("align", "a=a.safetensors", "b=b.safetensors", *words, "out=moved")
    assert done.returncode == 0, done.stderr
    models = "models=[a.safetensors,b.safetensors,c.safetensors]"
    done = my("merge", models, "method=my.middle:middle", "method.share=0.5", "out=merged")
    assert done.returncode == 0, done.stderr
    assert "2.weight" in load_checkpoint("merged")
    done = my("merge", "recipe=merged/merge_config.yaml", "out=again")
    assert done.returncode == 1
    assert (
        "refers to code, method=my.middle:middle: a file can't make metanet run it" in done.stderr
    )


def test_a_sweep_over_ours_and_ones_own(my):
    done = my("train", "-m", "model=stat,my.petals", *OF_MY_OWN[2:], "trainer.max_epochs=1")
    assert done.returncode == 0, done.stderr
    assert "2 runs in" in done.stdout


def test_mistakes_and_help(my):
    done = my(*OF_MY_OWN[:1], "model=my.petal", "task=my.middle", "zoo=my.flowers")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "model=my.petal: there is no model 'my.petal'" in done.stderr
    assert "run from the folder that holds my/petal.py" in done.stderr
    assert "task=my.middle: " in done.stderr and "middle.py registers no task" in done.stderr
    done = my(*OF_MY_OWN, "model.wdth=3", "task.batch_size=many")
    assert "did you mean model.width?" in done.stderr
    assert "task.batch_size=many: give a whole number 1 or more" in done.stderr
    done = my(*OF_MY_OWN, "--help")
    assert "model.width: 16" in done.stdout and "zoo.networks: 24" in done.stdout
    assert not Path("outputs").exists()


# ---------------------------------------------------------------- in this process


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_what_is_registered_in_a_file_is_the_commands_only_to_name(here):
    """Files that ask for it, or build it, get nothing imported."""
    (here / "mine_not_named.py").write_text("raise RuntimeError('imported')\n")
    with pytest.raises(MetanetError, match="refused to build"):
        build({"_target_": "mine_not_named.Thing"})
    assert doubtful(["model=mine.not_named", "zoo=mine_not_named:x"]) == [
        "model=mine.not_named",
        "zoo=mine_not_named:x",
    ]
    config = {"models": ["a"], "method": {"name": "mine_not_named:x"}}
    (here / "merge_config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(MetanetError, match="refers to code, method=mine_not_named:x"):
        recipe.replayed([f"recipe={here / 'merge_config.yaml'}"])


def test_a_class_of_a_module_that_was_named_may_be_built(here):
    text = (
        "from metanet.zoo import register\n@register('plot')\nclass Plot:\n    def "
        "load(self, progress=True): ...\n"
    )
    (here / "my_plots.py").write_text(text)
    with pytest.raises(MetanetError, match="refused to build"):
        build({"_target_": "my_plots.Plot"})
    zoos = own.registry_of("zoo")
    own.announce(["zoo=my_plots:plot"])
    try:
        assert type(build({"_target_": "my_plots.Plot"})).__name__ == "Plot"
    finally:
        zoos.remove("plot")


@pytest.mark.parametrize(
    "words",
    [
        ["model=gmn"],
        ["model.width=3"],
        ["lr=0.5"],
        ["model=null"],
        ["~model"],
        ["zoo={a:b.c}"],
        ["model='"],
    ],
)
def test_other_words_are_nobodys_files(words):
    own.announce(words)


REPAIR_AND_LOSS = """
from pathlib import Path
from metanet.evaluation import loss
from metanet.merging.repairs import repair

Path("imported").touch()

@repair("mean_only")
def mean_only(now, goal):
    return goal.mean - now.mean, None

@loss("twice")
def twice(outputs, target):
    return 2 * (outputs - target).square().mean()
"""


def test_repairs_and_losses_by_their_module(my, flowers):
    Path("my/own.py").write_text(REPAIR_AND_LOSS)
    models = "models=[a.safetensors,b.safetensors]"
    for word, message in (
        ("repair=my.nowhere", "repair=my.nowhere: "),
        ("repair=my.own", "repair=my.own needs the network: give arch="),
        ("loss=my.nowhere", "loss=my.nowhere: "),
    ):
        done = my("merge", models, word, "out=merged")
        assert done.returncode == 1
        assert message in done.stderr
    done = my("merge", models, "loss=my.own", "out=merged")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("word", ["loss: my.own", "repair: my.own", "repair: my.own:mean_only"])
def test_a_recipe_imports_no_module_of_its_author(my, flowers, word):
    Path("my/own.py").write_text(REPAIR_AND_LOSS)
    Path("recipe.yaml").write_text(f"models: [a.safetensors, b.safetensors]\n{word}\n")
    done = my("merge", "recipe=recipe.yaml", "out=merged")
    assert done.returncode == 1
    assert "refers to code" in done.stderr and "a file can't make metanet run it" in done.stderr
    assert not Path("imported").exists()
