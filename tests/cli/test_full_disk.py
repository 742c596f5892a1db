"""Disks that are full, and places that can't be written: one message with the path and advice, and nothing lost."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("small_disks.py")


def unshared(kind: str) -> list[dict]:
    """In a mount namespace, where one may have file systems of one's own."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-Urm", "true"], capture_output=True).returncode:
        pytest.skip("this system gives no mount namespace (unshare -Urm)")
    return results_of(kind, "unshare", "-Urm")


def results_of(kind: str, *before: str) -> list[dict]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1"}
    words = [*before, sys.executable, str(PROGRAM), kind]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(result: dict, why: str) -> None:
    """What holds of every command that had no room."""
    where = f"{result['name']}, {result['room']} bytes: {result['said'][-1500:]}"
    assert result["code"] == 1, where
    assert result["whole"] and not result["lost"], where
    assert result["hidden"] == [], where
    assert "Traceback" not in result["said"] and "[Errno" not in result["said"], where
    (message,) = [line for line in result["said"].splitlines() if line.startswith("metanet ")]
    assert why in message and "/" in message, where
    assert any(advice in message for advice in ("make room", "free some space", "hoose another", "give another")), where
    assert ("wait in" in message) is result["waiting"], "what is said to wait is there, and nothing else"


def test_every_command_where_files_may_not_grow():
    found = results_of("limit")
    assert len({each["name"] for each in found}) >= 10
    for result in found:
        check(result, "File too large") if "disk is full" not in result["said"] else check(result, "disk is full")


def test_every_command_on_a_full_file_system():
    found = unshared("full")
    failed = [each for each in found if each["code"]]
    assert len(failed) >= 8, "most have no room"
    for result in failed:
        check(result, "disk is full" if "disk is full" in result["said"] else "No space left on device")
    for result in found:
        assert result["whole"] and not result["lost"]


def test_every_command_on_a_read_only_file_system():
    for result in unshared("read-only"):
        check(result, "Read-only file system")
