"""Who writes where: refused or waited for while it lives, void and cleaned up when it is dead."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from metanet.checkpoints import atomic_write, hold, settle, write_together
from metanet.errors import MetanetError

HOLDER = """
    import sys, time
    from metanet.checkpoints import hold
    sys.argv = ["metanet", "merge", "out=a b"]
    with hold({target!r}):
        print("held", flush=True)
        time.sleep(60)
"""
WRITER = """
    import sys, time
    from metanet.checkpoints import atomic_write, write_together
    with {writing}:
        print("writing", flush=True)
        time.sleep(60)
"""


def process(program: str) -> subprocess.Popen:
    """A process that has printed its first line."""
    words = [sys.executable, "-c", textwrap.dedent(program)]
    started = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert started.stdout.readline()
    return started


def kill(started: subprocess.Popen) -> None:
    started.send_signal(signal.SIGKILL)
    started.wait()
    started.stdout.close()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_second_is_told_who_the_first_is_and_a_dead_one_holds_nothing(tmp_path):
    target = tmp_path / "out"
    first = process(HOLDER.format(target=str(target)))
    try:
        with pytest.raises(MetanetError) as caught, hold(target):
            pass
        for said in (
            str(target),
            "merge 'out=a b'",
            f"process {first.pid} on {os.uname().nodename}",
            "since 20",
        ):
            assert said in str(caught.value)
    finally:
        kill(first)
    assert names(tmp_path) == [".out.lock"]
    with hold(target):
        pass
    assert names(tmp_path) == []


def test_whoever_waits_says_so_and_comes_next(tmp_path, caplog):
    first = process(HOLDER.format(target=str(tmp_path / "out")))
    threading.Timer(0.5, lambda: kill(first)).start()
    with hold(tmp_path / "out", wait=True):
        assert f"process {first.pid}" in caplog.text
        assert "waiting for it" in caplog.text


def test_a_thread_may_take_its_lock_again_and_another_may_not(tmp_path):
    refused = []

    def other():
        try:
            with hold(tmp_path / "out"):
                pass
        except MetanetError as error:
            refused.append(str(error))

    with hold(tmp_path / "out"), hold(tmp_path / "sub/../out"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(refused) == 1
    assert names(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"[]", b"{" * 10**6, b'{"pid": "x"}', b"\xff\xfe"])
def test_what_a_lock_file_says_is_data(content, tmp_path):
    import fcntl

    (tmp_path / ".out.lock").write_bytes(content)
    with open(tmp_path / ".out.lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(MetanetError, match="it has not said which"), hold(tmp_path / "out"):
            pass


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / ".out.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(MetanetError, match="can't write .*out"), hold(tmp_path / "out"):
        pass
    assert (tmp_path / "precious").read_text() == "mine"


WRITINGS = ["atomic_write({0!r} + '/x.csv')", "write_together({0!r}, 'x.csv')"]


@pytest.mark.parametrize("again", WRITINGS, ids=["file", "files"])
@pytest.mark.parametrize("writing", WRITINGS, ids=["file", "files"])
def test_leftovers_of_the_dead_are_removed_and_those_of_the_living_are_not(
    writing, again, tmp_path
):
    first = process(WRITER.format(writing=writing.format(str(tmp_path))))
    (left,) = names(tmp_path)
    try:
        with eval(again.format(str(tmp_path))):
            pass
        assert left in names(tmp_path)
    finally:
        kill(first)
    with atomic_write(tmp_path / "other.csv"):
        pass
    assert left in names(tmp_path), "what others left is not ours to judge"
    with eval(again.format(str(tmp_path))):
        pass
    assert not [name for name in names(tmp_path) if name.startswith(".")]


class TestTogether:
    def test_other_files_stay_and_outdated_ones_go(self, tmp_path):
        for name in ("a", "old", "other"):
            (tmp_path / name).write_text("old")
        with write_together(tmp_path, "pair", lambda: ["old", "a"]) as beside:
            for name in ("a", "b.json"):
                (beside / name).write_text("new")
            assert names(tmp_path)[1:] == ["a", "old", "other"]
        assert {name: (tmp_path / name).read_text() for name in names(tmp_path)} == {
            "a": "new", "b.json": "new", "other": "old",
        }  # fmt: skip

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    def test_an_exception_changes_nothing(self, error, tmp_path):
        (tmp_path / "a").write_text("old")
        with pytest.raises(error), write_together(tmp_path, "pair") as beside:  # noqa: PT012
            (beside / "a").write_text("new")
            raise error
        assert names(tmp_path) == ["a"]
        assert (tmp_path / "a").read_text() == "old"

    @pytest.mark.parametrize(
        "removed", ['["../outside"]', '["/etc/x"]', '[".."]', "[1]", "{", '"a"']
    )
    def test_a_strangers_folder_can_remove_nothing_outside(self, removed, tmp_path):
        (tmp_path / "outside").write_text("precious")
        waiting = tmp_path / "in/.pair.complete"
        waiting.mkdir(parents=True)
        (waiting / ".removed.json").write_text(removed)
        with pytest.raises(MetanetError):
            settle(tmp_path / "in", "pair")
        assert (tmp_path / "outside").read_text() == "precious"

    @pytest.mark.parametrize("name", ["pair.csv", "pair.json"])
    def test_what_was_saved_before_never_replaces_what_is_saved_later(self, name, tmp_path):
        (tmp_path / ".pair.complete").mkdir()
        (tmp_path / ".pair.complete" / name).write_text("older")
        with atomic_write(tmp_path / name) as temporary:
            temporary.write_text("newer")
        settle(tmp_path, "pair")
        assert (tmp_path / name).read_text() == "newer"
        assert names(tmp_path) == [name]

    def test_a_link_is_no_folder_of_finished_files(self, tmp_path):
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere/a").write_text("theirs")
        (tmp_path / "in").mkdir()
        (tmp_path / "in/.pair.complete").symlink_to(tmp_path / "elsewhere")
        assert not settle(tmp_path / "in", "pair")
        assert names(tmp_path / "elsewhere") == ["a"]
