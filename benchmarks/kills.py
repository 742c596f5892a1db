"""Nothing is lost: SIGKILL before every file-system event of everything that writes, and at random
moments.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python benchmarks/kills.py
        [--only NAME ...] [--at-most 40] [--random 300] [--out kills.csv]

A process with everything imported forks for each kill. A preloaded library (``_kills.c``, compiled
at the start; it needs a C compiler) counts what the child does to files and kills it before the
n-th. Then a reader looks at every final name: it must hold all of what was there before, or all of
what an undisturbed run leaves. The same is run again, as a user would, and must end with the
undisturbed result (numbers to 1e-6) and no hidden file left. ``--at-most`` spreads so many kills
evenly over the events of each case; the rows of ``kills.csv`` say of how many. Random moments lie
within the time that the undisturbed run takes. The check of a command line, which is as long as all
the rest of a small command, is left out of what is killed: that it does nothing to files is seen
first.
"""

import argparse
import contextlib
import csv
import ctypes
import gc
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
COLUMNS = ("case", "kills", "events", "killed", "old", "new", "losses", "leftovers")
_SHIM = "METANET_KILLS_SHIM"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--at-most", type=int, default=10**6)
    parser.add_argument("--random", type=int, default=300)
    parser.add_argument("--out", default=str(HERE / "kills.csv"))
    args = parser.parse_args()
    if _SHIM not in os.environ:
        return _with_shim()
    work = Path(tempfile.mkdtemp(prefix="kills-"))
    try:
        rows = measure(work, args.only, args.at_most, args.random, Path(args.out))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return int(any(row["losses"] or row["leftovers"] for row in rows))


def _with_shim() -> int:
    """This program again, with the library before all others."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        print("kills.py needs a C compiler (cc)", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        shim = Path(folder) / "kills.so"
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", shim, HERE / "_kills.c", "-ldl"], check=True
        )
        more = {
            _SHIM: str(shim),
            "LD_PRELOAD": str(shim),
            "WANDB_MODE": "disabled",
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.run([sys.executable, *sys.argv], env={**os.environ, **more}).returncode


def measure(
    work: Path, only: list[str], at_most: int, moments: int, out: Path
) -> list[dict[str, Any]]:
    """One row for the events of each case, and one for random moments; written as they come."""
    from _kill_cases import CASES, make_inputs

    inputs = work / "inputs"
    inputs.mkdir()
    make_inputs(inputs)
    os.environ["METANET_DATA"] = str(work / "data")
    os.environ["METANET_STATE"] = str(work / "folder/state")  # what is trusted, a file like others
    log = work / "log"
    names = [name for name in CASES if not only or name in only]
    # Once: makes the zoo that training reads, and imports and caches whatever is imported and
    # cached at first use.
    for name in names:
        _warm(work, inputs, CASES[name])
    gc.freeze()  # so that children don't copy what they never change
    rows: list[dict[str, Any]] = []
    for name in names:
        rows += _measured(
            work, inputs, log, name, CASES[name], at_most, math.ceil(moments / len(names))
        )
        with open(out, "w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
    return rows


def _measured(
    work: Path, inputs: Path, log: Path, name: str, case: Any, at_most: int, moments: int
) -> list[dict[str, Any]]:
    inputs = _prepared(work, inputs, log, case)
    old, new, events, seconds = _undisturbed(work, inputs, log, case)
    kinds = ("before events", "at random moments")
    first, second = (
        {"case": name, "kills": each, "events": events, **dict.fromkeys(COLUMNS[3:], 0)}
        for each in kinds
    )
    count = min(events, at_most)
    for point in sorted({1 + i * events // count for i in range(count)}):
        _one(work, inputs, log, case, old, new, first, f"before event {point}", point, None)
    print(first, flush=True)
    draw = random.Random(0)
    for _ in range(moments):
        after = draw.uniform(0, seconds)
        _one(work, inputs, log, case, old, new, second, f"after {after:.3f} s", 0, after)
    print(second, flush=True)
    return [first, second]


def _undisturbed(work: Path, inputs: Path, log: Path, case: Any) -> tuple[Any, Any, int, float]:
    """What is there before and after, the events, and the seconds it takes; twice, with the check
    and without."""
    found = []
    for check in (True, False):
        folder = _folder(work, inputs)
        old = case.state(folder)
        status, events, seconds = _in_child(folder, log, case.run, check=check)
        if status:
            raise RuntimeError(f"exit {status} without any kill:\n{log.read_text()}")
        found.append(events)
    if len(set(found)) > 1:
        raise RuntimeError(
            f"the check of the command line does something to files: {found} events with and without it"
        )
    return old, case.state(folder), events, seconds


def _one(
    work: Path, inputs: Path, log: Path, case: Any, old: Any, new: Any, row: dict[str, Any], when: str,
    point: int, after: float | None,
) -> None:  # fmt: skip
    """Kill once, look, run again, look again."""
    folder = _folder(work, inputs)
    status, *_ = _in_child(folder, log, case.run, point, after)
    row["killed"] += status == -signal.SIGKILL
    try:
        # the reader may finish what was stopped, so it looks at a copy
        copy = folder.with_name("copy")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy, symlinks=True)
        found = case.state(copy)
        for name, value in found.items():
            if (
                name not in case.volatile
                and not _same(value, new.get(name))
                and not _same(value, old.get(name))
            ):
                raise AssertionError(f"{name} is neither old nor new: {value}")
        if missing := set(old) - set(found):
            raise AssertionError(f"{', '.join(missing)} is lost")
        done = _same(_lasting(case, found), _lasting(case, new))
        row["new" if done else "old"] += 1
        status, *_ = _in_child(folder, log, case.again or case.run)
        found = case.state(folder)
        if (status and not done) or not _same(_lasting(case, found), _lasting(case, new)):
            raise AssertionError(
                f"run again: exit {status}, {found} instead of {new}\n{log.read_text()[-3000:]}"
            )
    except Exception as error:
        row["losses"] += 1
        traceback.print_exc()
        print(f"LOSS: {row['case']}, {when}: {type(error).__name__}: {error}", flush=True)
        return
    left = [str(path.relative_to(folder)) for path in folder.rglob(".*") if path.name != ".hydra"]
    if left:
        row["leftovers"] += 1
        print(f"LEFT: {row['case']}, {when}: {left}", flush=True)


def _lasting(case: Any, state: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name not in case.volatile}


def _same(a: Any, b: Any) -> bool:
    """Equal, numbers to 1e-6, also where they stand in text."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    with contextlib.suppress(TypeError, ValueError):
        return math.isclose(float(a), float(b), rel_tol=1e-6, abs_tol=1e-6) or (a != a and b != b)
    return a == b


def _prepared(work: Path, inputs: Path, log: Path, case: Any) -> Path:
    """A copy of the inputs with what is there before: made once, where it will be, as runs know
    their place."""
    folder, prepared = _folder(work, inputs), work / "prepared"
    if case.prepare is not None and _in_child(folder, log, lambda: case.prepare() and 0)[0]:
        raise RuntimeError(f"can't prepare:\n{log.read_text()}")
    shutil.rmtree(prepared, ignore_errors=True)
    return folder.rename(prepared)


def _folder(work: Path, inputs: Path) -> Path:
    folder = work / "folder"
    shutil.rmtree(folder, ignore_errors=True)
    return shutil.copytree(inputs, folder)


def _warm(work: Path, inputs: Path, case: Any) -> None:
    """Run it in this process, from which all others are forked."""
    folder = work / "warm"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(inputs, folder)
    before = os.getcwd()
    os.chdir(folder)
    try:
        with (
            open(os.devnull, "w") as nowhere,
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            if case.prepare is not None:
                case.prepare()
            case.run()
    finally:
        os.chdir(before)


def _in_child(
    folder: Path,
    log: Path,
    run: Callable[[], int],
    point: int = 0,
    after: float | None = None,
    check: bool = False,
) -> tuple[int, int, float]:
    """Run in a child: its exit code (negative: a signal), its events, and the seconds it took.

    Args:
        folder: where.
        log: for what it prints.
        run: what it does.
        point: it is killed before this event.
        after: it is killed so many seconds after it began.
        check: with the check of the command line.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.chdir(folder)
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            if not check:
                sys.modules["metanet.cli"]._check = lambda *_: None
            events = _armed(point)
            os.write(writing, b"go ")
            began = time.perf_counter()
            code = run() or 0
            os.write(writing, f"{events()} {time.perf_counter() - began}".encode())
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    os.close(writing)
    with open(reading, "rb", buffering=0) as file:
        if file.read(3) and after is not None:
            time.sleep(after)
            os.kill(child, signal.SIGKILL)  # ended or not: nobody has waited for it
        events, seconds = (file.read() or b"0 0").split()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), int(events), float(seconds)


def _armed(point: int) -> Callable[[], int]:
    """Let the preloaded library count, and kill before the event of this number."""
    shim = ctypes.CDLL(os.environ[_SHIM])
    shim.kills_count.restype = ctypes.c_long
    shim.kills_arm(ctypes.c_long(point))
    return shim.kills_count


if __name__ == "__main__":
    sys.exit(main())
