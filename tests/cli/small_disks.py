"""Run commands where there is little room, or none to write: a program for test_full_disk.py.

    python small_disks.py {limit | limit,full,read-only} [NAME ...]

``limit``: no file of the process may grow beyond some bytes (``setrlimit``), which works
everywhere. The others mount a small file system and have to run in a mount namespace of their own
(``unshare -Urm``). The names are those of benchmarks/_kill_cases.py; default: all commands. Prints
a line of JSON for each kind and command.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from _kill_cases import CASES, Case, make_inputs

COMMANDS = [name for name in CASES if not name.startswith(("save_", "nn."))]
LIMIT, ROOM = 1500, 24 * 2**10  # bytes of a file, and of a disk


def in_child(folder: Path, run: Callable[[], Any], limit: int | None = None) -> tuple[int, str]:
    """The exit code, and what was printed: through a pipe, which has no limit."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        code = 99
        try:
            os.chdir(folder)
            os.dup2(writing, 1)
            os.dup2(writing, 2)
            os.close(reading)
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            code = run() or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    os.close(writing)
    with open(reading) as file:
        said = file.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def report(kind: str, name: str, case: Case, folder: Path, old: Any, code: int, said: str) -> None:
    whole = True
    try:
        found = case.state(folder)
    except Exception:
        found, whole = {}, False
    hidden = [
        path.name
        for path in folder.rglob(".*")
        if path.name != ".hydra" and not path.name.startswith(".out.")
    ]
    lost = whole and not set(old) <= set(found)
    print(json.dumps({
        "kind": kind, "name": name, "code": code, "said": said, "whole": whole, "lost": lost,
        "hidden": hidden, "folder": str(folder), "waiting": any(folder.glob(".out.*/model*.safetensors")),
    }), flush=True)  # fmt: skip


def prepared(parent: Path, inputs: Path, case: Case) -> tuple[Path, Any]:
    folder = parent / "folder"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(inputs, folder)
    if case.prepare is not None:
        code, said = in_child(folder, case.prepare)
        assert code == 0, said
    return folder, case.state(folder)


def main(kinds: Sequence[str], names: Sequence[str]) -> None:
    work = Path(tempfile.mkdtemp())
    os.environ["METANET_DATA"] = str(work / "data")
    os.environ["METANET_STATE"] = str(work / "state")
    (work / "inputs").mkdir()
    make_inputs(work / "inputs")
    if any(name.startswith(("train", "predict")) for name in names):
        from metanet.tasks import train  # noqa: F401  # once here, not in every child
    for name in names:
        for kind in kinds:
            _without_room(kind, name, CASES[name], work)
    shutil.rmtree(work, ignore_errors=True)


def _without_room(kind: str, name: str, case: Case, work: Path) -> None:
    if kind == "limit":
        folder, old = prepared(work, work / "inputs", case)
        report(kind, name, case, folder, old, *in_child(folder, case.run, LIMIT))
        return
    small = work / "small"
    small.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", small], check=True)
    folder, old = prepared(small, work / "inputs", case)
    if kind == "full":
        (small / "filler").write_bytes(bytes(max(0, shutil.disk_usage(small).free - ROOM)))
    else:
        subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    report(kind, name, case, folder, old, *in_child(folder, case.run))
    subprocess.run(["umount", small], check=True)


if __name__ == "__main__":
    main(sys.argv[1].split(","), sys.argv[2:] or COMMANDS)
