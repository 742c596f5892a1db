"""``metanet COMMAND --help``: every value with its comment, and only what the command has."""

import re
import subprocess
import sys

import pytest

from metanet import cli
from metanet._cli.help import comments_of
from metanet.config import conf_dir

GROUPS = {
    "train": {"task", "model", "zoo", "optim", "trainer", "logger", "experiment", "debug"},
    "predict": set(),
    "inspect": set(),
    "graph": set(),
    "align": {"matcher"},
    "barrier": {"matcher", "logger"},
    "merge": {"method", "matcher"},
    "zoo": {"zoo"},
}


def help_of(capsys, *args):
    assert cli.main([*args, "--help"]) == 0
    return capsys.readouterr().out


def values(text):
    """``key -> comment`` of the lines of values; a comment may go on in the lines below."""
    found = re.findall(
        r"^  ([a-z][\w.]*): (?:.*?)(?:  # (.*))?$", text.partition("\nAlso:")[0], re.M
    )
    return {key: comment for key, comment in found if key != "choices"}


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_key_has_its_comment_and_groups_are_those_of_the_command(command, capsys):
    text = help_of(capsys, command)
    assert text.startswith(f"metanet {command}: ")
    shown = values(text)
    assert "device" in shown
    assert [key for key, comment in shown.items() if not comment] == []
    assert set(re.findall(r"^([a-z]+)=\w", text, re.M)) == GROUPS[command]
    assert "_target_" not in text


@pytest.mark.parametrize(
    "path", sorted(conf_dir().glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_no_file_has_a_value_without_a_comment(path, capsys):
    group, name = path.parent.name, path.stem
    command = {"matcher": "align", "method": "merge", "zoo": "zoo"}.get(group, "train")
    shown = values(help_of(capsys, command, f"{group}={name}"))
    assert [key for key, comment in shown.items() if not comment] == []


def test_the_choices_of_a_group_and_what_is_chosen(capsys):
    text = help_of(capsys, "merge", "method=ties")
    assert "method=ties " in text
    assert "method.density: 1.0" in text
    assert re.search(r"^    passthrough +# \S", text, re.M)  # with its summary
    assert "probed_gmn" not in text


def test_a_wrong_choice_is_a_message(capsys):
    assert cli.main(["merge", "method=tis", "--help"]) == 1
    assert "method/tis" in capsys.readouterr().err


def test_comments_go_on_in_the_next_line_and_come_from_parents(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/gmn.yaml").write_text(
        "# A model.\nname: gmn\nwidth: 8   # features,\n           # of all\nb: 1\n"
    )
    (tmp_path / "model/wide.yaml").write_text(
        "defaults: [gmn, _self_]\nwidth: 64\nb: 2  # its own\n"
    )
    assert comments_of(tmp_path, "model/gmn")["width"] == "features, of all"
    assert comments_of(tmp_path, "model/wide") | {"defaults": ""} == {
        "defaults": "", "name": "", "width": "features, of all", "b": "its own",
    }  # fmt: skip


def test_nothing_heavy_is_imported():
    code = (
        "import sys, metanet.cli as c; c.main(['train', '--help']); print('MODULES', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "lightning", "wandb"} & set(done.stdout.partition("MODULES")[2].split())
