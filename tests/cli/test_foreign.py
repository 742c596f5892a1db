"""resume=DIR in a stranger's folder: what its overrides.yaml may say, and what needs the user's
word.

``evil.py`` lies in the current folder and leaves a canary when it is imported.
"""

import os
import sys
from pathlib import Path

import pytest
import yaml

from metanet import cli, trust
from metanet._cli.foreign import doubtful

EVIL = """
from pathlib import Path
Path("canary").touch()
class Callback:
    def on_run_start(self, config, **kwargs): Path("canary").touch()
    def __getattr__(self, name): return lambda *args, **kwargs: None
"""
GADGET = (
    "{_target_: metanet.zoo.Population.build, self: {_target_: metanet.zoo.Population, architecture: a, "
    "ref: 'os:system', arch_args: {command: 'touch canary'}, input_shape: [1], state: {}, rows: []}}"
)
ATTACKS = {
    "reference": "zoo.arch=evil:net",
    "reference added": "+zoo.arch='os:system'",
    "own model": "model.name=evil:Net",
    "callbacks of the trainer": f"+trainer.callbacks=[{GADGET}]",
    "target": "optim.optimizer._target_=evil.Callback",
    "target in a tree": "optim.optimizer={_target_: evil.Callback}",
    "target deep in a tree": "task.unseen=[{a: {_target_: evil.Callback}}]",
    "partial": "optim.optimizer._partial_=true",
    "hydra callback": "+hydra.callbacks.evil={_target_: evil.Callback}",
    "hydra launcher": "hydra.launcher._target_=evil.Callback",
    "hydra launcher group": "hydra/launcher=joblib",
    "hydra sweeper": "hydra.sweeper._target_=evil.Callback",
    "search path": "hydra.searchpath=[file:///tmp]",
    "run directory": "hydra.run.dir=elsewhere",
    "sub-directory": "hydra.output_subdir=../../elsewhere",
    "log file": "hydra.job_logging.handlers.file.filename=victim",
    "log handler": "+hydra.job_logging.handlers.x={class: logging.FileHandler, filename: victim}",
    "change of folder": "hydra.job.chdir=true",
    "environment set": "+hydra.job.env_set={LD_PRELOAD: x}",
    "mode": "hydra.mode=MULTIRUN",
    "environment read": "task.label=${oc.env:SECRET}",
    "environment read into a name": "+note=${oc.env:SECRET}",
    "environment read late": "task.label='\\${oc.env:SECRET}'",
    "written elsewhere": "paths.run_dir=elsewhere",
    "lightning writes elsewhere": "trainer.default_root_dir=elsewhere",
    "zoo made elsewhere": "zoo.root=elsewhere",
    "files read": "zoo.path=/etc",
    "table read": "zoo.table=/etc/passwd",
    "uploaded": "logger.mode=online",
    "configuration outside": "model=../../evil",
    "absolute configuration": "model=/tmp/evil",
    "a group outside": "/tmp=evil",
    "a group above": "model/../model=gmn",
    "configuration into a package": "model@hydra=gmn",
    "added configuration": "+experiment=wide",
    "deleted": "~trainer.gradient_clip_val",
    "sweep": "seed=1,2",
    "flag": "--multirun",
    "configuration folder": "--config-dir=/tmp",
    "processes": "trainer.devices=100",
    "no override": "=",
    "deep": "task.label=" + "[" * 5000,
}  # fmt: skip
PLAIN = [
    "model=other", "zoo=pair", "experiment=null", "seed=3", "device=cpu", "optim.optimizer.lr=0.5",
    "model.width=8", "optim.optimizer.betas=[0.8,0.9]", "trainer.max_epochs=2",
    "trainer.precision=16-mixed", "task.label=accuracy", "task.label='test accuracy_2'".replace(" ", "_"),
    "trainer.gradient_clip_val=null", "zoo.networks=8", "model.gmn={width: 8}",
]  # fmt: skip


@pytest.fixture
def stranger(calls, tmp_path, monkeypatch):
    """A run's directory as it comes from elsewhere: nothing is remembered of it."""
    monkeypatch.setenv("METANET_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("SECRET", "hunter2")
    Path("evil.py").write_text(EVIL)
    monkeypatch.syspath_prepend(str(Path.cwd()))
    monkeypatch.delitem(sys.modules, "evil", raising=False)
    Path("victim").write_text("precious")
    Path("theirs/.hydra").mkdir(parents=True)

    def overrides(*given):
        Path("theirs/.hydra/overrides.yaml").write_text(yaml.safe_dump(list(given)))

    overrides()
    return overrides


@pytest.fixture
def own_zoo(monkeypatch):
    """What the stand-in ``zoo=pair`` names, a class of the user's own."""
    text = (
        "class Pair:\n    def __init__(self, size, arch=None, arch_args=None): self.size = size\n"
    )
    Path("stub_zoos.py").write_text(text)
    monkeypatch.syspath_prepend(str(Path.cwd()))
    monkeypatch.delitem(sys.modules, "stub_zoos", raising=False)
    monkeypatch.setenv("METANET_TRUSTED", "stub_zoos")


def untouched():
    return (
        not Path("canary").exists()
        and not Path("elsewhere").exists()
        and Path("victim").read_text() == "precious"
    )


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_of_an_attack_happens(name, stranger, calls, capsys):
    stranger("seed=3", ATTACKS[name])
    assert cli.main(["train", "resume=theirs"]) == 1
    message = capsys.readouterr().err
    assert "more than values" in message and f"trust={Path('theirs').absolute()}" in message
    assert len(message) < 2000 and "hunter2" not in message
    assert calls == [] and untouched()


@pytest.mark.parametrize("override", PLAIN)
def test_plain_values_are_taken(override, stranger):
    assert doubtful([override]) == []


def test_a_strangers_plain_run_goes_on(stranger, calls):
    stranger("model=other", "seed=3", "optim.optimizer.lr=0.5")
    assert cli.main(["train", "resume=theirs"]) == 0
    assert (calls[0].model.name, calls[0].seed, calls[0].optim.optimizer.lr) == ("other", 3, 0.5)


def test_with_the_users_word_it_is_done_and_remembered(stranger, calls):
    """The twin of the refusals: these overrides do what they say where nobody refuses them."""
    stranger(ATTACKS["hydra callback"], "+note=1")
    assert cli.main(["train", "resume=theirs", "trust=theirs"]) == 0
    assert Path("canary").exists() and calls[0].note == 1
    assert cli.main(["train", "resume=theirs"]) == 0
    stranger(ATTACKS["hydra callback"], "+note=1", ATTACKS["written elsewhere"])
    assert cli.main(["train", "resume=theirs"]) == 1, "what was added is asked about again"


def test_trust_is_for_the_command_line_to_give(stranger, calls):
    stranger("trust=true", ATTACKS["hydra callback"])
    assert cli.main(["train", "resume=theirs"]) == 1
    assert untouched()


def test_a_run_made_here_goes_on_as_it_is_until_it_is_changed(stranger, calls, own_zoo):
    assert cli.main(["train", "hydra.run.dir=mine", "+note=1", "zoo=pair", "zoo.size=3"]) == 0
    assert cli.main(["train", "resume=mine"]) == 0
    assert calls[-1].note == 1 and calls[-1].zoo.size == 3
    record = Path("mine/.hydra/overrides.yaml")
    record.write_text(
        yaml.safe_dump([*yaml.safe_load(record.read_text()), ATTACKS["hydra callback"]])
    )
    assert cli.main(["train", "resume=mine"]) == 1
    assert untouched()
    Path("mine").rename("moved")
    assert cli.main(["train", "resume=moved"]) == 1
    assert untouched()


@pytest.mark.parametrize(
    "name", ["error.txt", "train.log", ".hydra/config.yaml", "csv", "scatter.png"]
)
def test_links_out_of_the_folder_are_not_written_through(name, stranger, calls, capsys):
    Path("theirs", name).symlink_to(Path("victim").absolute())
    assert cli.main(["train", "resume=theirs"]) == 1
    assert "link that leads out" in capsys.readouterr().err
    assert calls == [] and untouched()


def test_circles_of_links_end(stranger, capsys):
    Path("theirs/a").symlink_to("a")
    assert cli.main(["train", "resume=theirs"]) == 1
    assert "link that leads out" in capsys.readouterr().err


def test_pipes_do_not_block(stranger, calls, capsys):
    os.mkfifo("theirs/train.log")
    assert cli.main(["train", "resume=theirs"]) == 1
    assert "neither a file nor a folder" in capsys.readouterr().err


DAMAGED = [
    b"\xff\xfe", b"[" * 5000, b"a: &a [*a]", b"!!python/object/apply:os.system [x]", b"- 1", b"- 2024-99-99",
    b"- 'x\n", b"null", b"- !!int x", b"x" * 2**21,
]  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED)
def test_damaged_records(content, stranger, calls, capsys):
    Path("theirs/.hydra/overrides.yaml").write_bytes(content)
    assert cli.main(["train", "resume=theirs"]) == 1
    message = capsys.readouterr().err
    assert "can't resume" in message and len(message) < 2000


def test_hydras_files_in_a_run_are_nothing_to_predict(stranger, calls):
    """predict run=DIR reads the model alone, whatever the run's .hydra says."""
    stranger(*ATTACKS.values())
    for name in ("config.yaml", "hydra.yaml"):
        Path("theirs/.hydra", name).write_text(f"hydra:\n  callbacks:\n    evil: {GADGET}\n")
    Path("x").touch()
    assert cli.main(["predict", "run=theirs", "checkpoint=x"]) == 0  # a stand-in, which is called
    assert len(calls) == 1
    assert untouched()
    assert trust.is_known("theirs") is False


def test_short_keys_of_a_zoo_reach_it(calls, own_zoo, capsys):
    """arch= and arch_args. are the zoo's in train, with a plus or without."""
    args = ["zoo=pair", "++zoo.arch=x", "arch=nets:cnn", "++zoo.arch_args={}", "arch_args.width=3"]
    assert cli.main(["train", *args]) == 0
    assert (calls[0].zoo.arch, calls[0].zoo.arch_args.width) == ("nets:cnn", 3)
    assert cli.main(["train", "zoo=pair", "+arch=nets:cnn"]) == 1, "a zoo without that key says so"
    assert "zoo.arch" in capsys.readouterr().err and len(calls) == 1
