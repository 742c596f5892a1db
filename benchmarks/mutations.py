"""Files of every format, changed at random: does each end in a value or in one of our errors, in
time and in memory?

    OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 nice python benchmarks/mutations.py [--mutations
    50000]

All formats unless ``--formats NAME ...`` names some. Each mutation is drawn from the name of its
format and its number: ``--formats NAME --only NUMBER`` shows one again. They run in processes of
their own, which an alarm ends after five seconds. Counted are: a value; one of our errors; any
other exception; a process that died; one that was still at it after five seconds; more memory than
three times the file and 256 MiB; a message of more than 2,000 characters. Where another program
reads the format too (safetensors, ``torch.load``), its verdict and its tensors are compared. The
table goes to ``mutations.csv`` beside this file, what is wrong to the terminal.

Where ours refuses what the other takes, its message must be one of ``MEANT``, which says why; how
many there were of each goes to ``mutations_stricter.csv``. Anything else is "unexplained", and so
is what ours alone takes.
"""

import argparse
import csv
import json
import os
import random
import re
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import _resident
import torch
from _hostile_formats import FORMATS, Format
from _mutating import mutated

from metanet import MetanetError

SECONDS = 5
WAITING = 90  # seconds without a sign of life after which a process is ended
SPARE = 256 * 2**20
READY = "ready\n"
NOTHING = {"message": 0, "compared": "", "seconds": 0.0, "MiB": 0.0}
COLUMNS = (
    "format", "mutations", "value", "our error", "other exception", "crash", "hang", "memory", "long message",
    "compared", "same verdict", "stricter", "unexplained", "longest, s", "most memory, MiB",
)  # fmt: skip
WRONG = ("other exception", "crash", "hang", "memory", "long message", "unexplained")
MEANT = {
    r"its metadata 'metanet' is (damaged|no JSON)":
        "metadata of ours that are damaged: they are part of what we give",
    r"its header is damaged or no JSON: the key .* stands there twice":
        "a name twice: the library takes the last",
    r"has dtype (F4|F6_\w+|F8_E8M0), which": "numbers of less than a byte, which torch can't count with",
    r"which a file of [\d,]+ bytes does not hold":
        "tensors of far more memory than the file, or sizes beyond 2^63",
    r"its header is .*\n.*shape\[\d+\]: .* less than 9223372036854775808":
        "empty tensors of sizes beyond 2^63",
    r"its header is .*\n.*Input should be a valid (dictionary|string|list|dictionary or \w+), got":
        "an entry as a list, a dtype as an object: spellings that the library takes by accident",
    r"expected a state dict|no tensors at its top|several state dicts":
        "torch reads any content, we state dicts",
    r"\(Refused: its storage .* of [\d,]+ values has [\d,]+ bytes\)": "a storage larger than its record",
    r"\(Refused: its record .* of two sizes\)":
        "a stored record of two sizes: which one is right can't be known",
    r"\(Refused: its record .* ends behind the file\)": "a record that ends behind the file",
    r"\(Refused: it has two records of one name\)":
        "two records of one name: which one is meant can't be known",
    r"\(Refused: it has several data\.pkl\)":
        "two contents in one archive: which one is meant can't be known",
    r"\(Refused: it has no data\.pkl\)": "the content is in no folder, or has another name",
    r"\(Refused: it lacks the record .*\)": "a record under a name that torch alone takes for it",
    r"\(Refused: its record .* is not where its directory says\)": "the head of a record is damaged",
    r"\(Refused: its records can't be listed: .*\)": "the directory of the archive is damaged",
    r"\(Refused: its record .* is damaged, or another than .*\)":
        "a record that its directory does not describe",
    r"\(Refused: its record (.* inflates to [\d,]+ bytes, not [\d,]+)?\)":
        "compressed bytes of another number than the directory says",
    r"\(BadZipFile: Bad CRC-32 .*\)": "a record that differs from its checksum, which torch does not look at",
    r"\(error: Error -3 while decompressing .*\)":
        "compressed bytes that are damaged: torch takes what it has got",
    r"is a Python pickle that torch\.save did not write":
        "an older file whose first number is spelt otherwise",
    r"\(Refused: its storage .* is not among those that it has\)":
        "torch leaves the storage as the memory was",
    r"\(UnpicklingError: it numbers an object":
        "a pickle with a number that makes the unpickler take gigabytes",
    r"\(UnpicklingError: its containers stand more than":
        "a pickle that nests so deep that the stack is at risk",
    r"\(UnpicklingError: its keys would take long to hash": "a pickle with keys that take hours",
    r"\(UnpicklingError: what it makes would take more than":
        "a pickle that takes far more memory than the file",
}  # fmt: skip
"""What a message of ours says -> why we refuse there what another program takes."""


class _Hang(BaseException):
    pass


def _alarm(*_: Any) -> None:
    raise _Hang


class Sound:
    """The sound files of one format, and their mutations."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.format, self.folder = name, FORMATS[name], folder
        self.format.make(folder)
        self.contents = {file: (folder / file).read_bytes() for file in self.format.files}
        self.all = b"".join(self.contents.values())

    def change(self, number: int) -> int:
        """Put mutation ``number`` in place of its file, all else as it was; gives the size of the
        file."""
        rng = random.Random(f"{self.name} {number}")
        for file, content in self.contents.items():
            (self.folder / file).write_bytes(content)
        file = rng.choice(list(self.contents))
        content = mutated(self.contents[file], self.format.files[file], rng, self.all)
        (self.folder / file).write_bytes(content)
        if self.format.mend is not None and rng.random() < 0.7:
            self.format.mend(self.folder)
        return len(content)


def verdict(sound: Sound, number: int, compare: bool = True) -> dict[str, Any]:
    """What becomes of one mutation, in this process.

    Returns:
        ``verdict`` (a column), ``detail``, ``message`` (its length), and ``compared`` (``""``,
        ``"same verdict"``, ``"stricter"`` or ``"unexplained"``).
    """
    size = sound.change(number)
    before = _resident.start()
    value, message, what, detail, seconds = _read(sound)
    taken = _resident.peak() - before
    if taken > 3 * size + SPARE:
        what, detail = "memory", f"{taken / 2**20:,.0f} MiB"
    compared = ""
    if compare and sound.format.reference is not None and what in ("value", "our error"):
        compared, why = _compared(sound.format, sound.folder, what, value, message)
        detail = detail or why
    return {
        "number": number, "verdict": what, "detail": detail, "message": len(message), "compared": compared,
        "seconds": seconds, "MiB": taken / 2**20,
    }  # fmt: skip


def _read(sound: Sound) -> tuple[Any, str, str, str, float]:
    """Value, message, verdict, its detail, and seconds of work: those of other programs don't
    count."""
    value, message, detail = None, "", ""
    signal.signal(signal.SIGPROF, _alarm)
    begin = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        value = sound.format.read(sound.folder)
        what = "value"
    except MetanetError as error:
        what, message = "our error", str(error)
    except _Hang:
        what = "hang"
    except BaseException as error:  # panics of libraries in Rust are no Exception
        place = traceback.extract_tb(error.__traceback__)[-1]
        what = "other exception"
        detail = f"{type(error).__name__} at {place.filename}:{place.lineno}: {str(error)[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    seconds = time.process_time() - begin
    return value, message, "hang" if seconds > SECONDS else what, detail, seconds


def _compared(format: Format, folder: Path, what: str, value: Any, message: str) -> tuple[str, str]:
    """The verdict and the tensors of another program beside ours."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            other = format.reference(folder)
        accepted = isinstance(other, Mapping) and bool(other)
    except Exception:
        other, accepted = None, False
    if what == "value":
        if not accepted and value:
            return "unexplained", "read here, refused there"
        different = [
            name for name, tensor in value.items() if not _same(tensor, (other or {}).get(name))
        ]
        return (
            ("unexplained", f"other values in {different[:3]}")
            if different
            else ("same verdict", "")
        )
    if not accepted:
        return "same verdict", ""
    why = next((why for pattern, why in MEANT.items() if re.search(pattern, message)), None)
    return (
        ("stricter", why) if why else ("unexplained", f"refused here, read there: {message[:300]}")
    )


def _same(one: torch.Tensor, other: Any) -> bool:
    if not isinstance(other, torch.Tensor) or (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    bits = [x.detach().contiguous().reshape(-1).view(torch.uint8) for x in (one, other)]
    return (
        torch.equal(*bits)
        if one.dtype is not torch.bool
        else torch.equal(bits[0].ne(0), bits[1].ne(0))
    )


# ---------------------------------------------------------------- processes


def run(name: str, numbers: range) -> Iterator[dict[str, Any]]:
    """The verdicts of some mutations of one format, each process going on where the one before
    ended."""
    at = numbers.start
    while at < numbers.stop:
        folder = Path(tempfile.mkdtemp(prefix="mutations"))
        reading, writing = os.pipe()
        process = os.fork()
        if process == 0:
            os.close(reading)
            _work(name, range(at, numbers.stop), folder, writing)
        os.close(writing)
        ended, made = "", False
        with os.fdopen(reading) as lines:
            while True:
                ready, _, _ = select.select([lines], [], [], WAITING)
                line = lines.readline() if ready else ""
                if not line:
                    ended = "crash" if ready else "hang"
                    break
                made = True
                if line != READY:
                    yield json.loads(line)
                    at += 1
        if ended == "hang":
            os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        shutil.rmtree(folder, ignore_errors=True)
        if not made:
            raise SystemExit(
                f"the sound files of {name} can't be made or read: see --formats '{name}' --only 0"
            )
        if at < numbers.stop and status != 0:
            yield {"number": at, "verdict": ended, "detail": f"status {status}"} | NOTHING
            at += 1


def _work(name: str, numbers: range, folder: Path, writing: int) -> None:
    """In a process of its own: one line for each mutation; a new process after one that left memory
    behind."""
    os.chdir(folder)
    try:
        sound = Sound(name, folder)
        sound.format.read(
            folder
        )  # imports what there is to import, whose memory is not that of a file
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    _resident.settle()
    _resident.limit()
    with os.fdopen(writing, "w", buffering=1) as lines:
        lines.write(READY)
        for number in numbers:
            result = verdict(sound, number)
            print(json.dumps(result), file=lines)
            if result["verdict"] in ("memory", "hang"):
                break
        lines.flush()
    os._exit(0)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mutations", type=int, default=50_000, help="of all formats together")
    parser.add_argument(
        "--formats", nargs="+", default=list(FORMATS), metavar="NAME", help=", ".join(FORMATS)
    )
    parser.add_argument(
        "--only", type=int, metavar="NUMBER", help="one mutation of one format, with its traceback"
    )
    parser.add_argument("--csv", type=Path, default=Path(__file__).with_suffix(".csv"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if args.only is not None:
        return _show(args.formats[0], args.only)
    rows: list[dict[str, Any]] = []
    why: Counter[tuple[str, str]] = Counter()
    for index, name in enumerate(args.formats):
        share = args.mutations // len(args.formats) + (index < args.mutations % len(args.formats))
        rows.append(_row(name, share, why))
        print("  ".join(f"{column} {value}" for column, value in rows[-1].items()), flush=True)
    _write(args.csv, COLUMNS, rows)
    classes = [
        {"format": name, "why stricter": text, "mutations": n}
        for (name, text), n in sorted(why.items())
    ]
    _write(
        args.csv.with_stem(f"{args.csv.stem}_stricter"),
        ("format", "why stricter", "mutations"),
        classes,
    )
    return int(any(row[column] for row in rows for column in WRONG))


def _row(name: str, share: int, why: Counter[tuple[str, str]]) -> dict[str, Any]:
    """The row of one format; what is wrong goes to the terminal, what is stricter into ``why``."""
    counts: Counter[str] = Counter()
    seconds, memory = 0.0, 0.0
    for result in run(name, range(share)):
        counts[result["verdict"]] += 1
        counts["compared"] += bool(result["compared"])
        counts[result["compared"]] += 1
        counts["long message"] += result["message"] > 2_000
        seconds, memory = max(seconds, result["seconds"]), max(memory, result["MiB"])
        if result["compared"] == "stricter":
            why[name, result["detail"]] += 1
        if result["verdict"] in WRONG or result["compared"] in WRONG or result["message"] > 2_000:
            print(f"{name} {result['number']}: {result['verdict']} {result['detail']}", flush=True)
    row = {"format": name, "mutations": share, **{column: counts[column] for column in COLUMNS[2:]}}
    return row | {"longest, s": f"{seconds:.1f}", "most memory, MiB": f"{memory:.0f}"}


def _write(path: Path, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _show(name: str, number: int) -> int:
    folder = Path(tempfile.mkdtemp(prefix="mutations"))
    sound = Sound(name, folder)
    sound.change(number)
    print(f"the file is in {folder}")
    print(sound.format.read(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
