"""Files of every format, changed at random: does each end in a value or in one of our errors, in time and in memory?

    OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 nice python benchmarks/mutations.py [--mutations 50000]

All formats unless ``--formats NAME ...`` names some. Each mutation is drawn from the name of its format and its number:
``--formats NAME --only NUMBER`` shows one again. They run in processes of their own, which an alarm ends after five
seconds. Counted are: a value; one of our errors; any other exception; a process that died; one that was still at it
after five seconds; more memory than three times the file and 256 MiB; a message of more than 2,000 characters. Where
another program reads the format too (safetensors, ``torch.load``), its verdict and its tensors are compared. The table
goes to ``mutations.csv`` beside this file, what is wrong to the terminal.

Differences that are meant, counted as "stricter": see ``MEANT``.
"""

import argparse
import csv
import json
import os
import random
import re
import resource
import select
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from _hostile_formats import FORMATS, Format
from _mutating import mutated

from metanet import MetanetError

SECONDS = 5
WAITING = 90  # seconds without a sign of life after which a process is ended
SPARE = 256 * 2**20
COLUMNS = (
    "format", "mutations", "value", "our error", "other exception", "crash", "hang", "memory", "long message",
    "compared", "same verdict", "stricter", "unexplained",
)  # fmt: skip
MEANT = {
    r"stands there twice": "a name given twice: the library silently takes the last one",
    r"dtype (F4|F6_\w+|F8_E8M0),": "numbers of less than a byte, which torch can't count with",
    r"U?\w* is \(.*which a file of|less than 9223372036854775808": "empty tensors of sizes beyond 2^63",
    r"valid (dictionary|string|list), got": "an entry as a list, a dtype as an object: spellings by accident",
    r"expected a state dict|no tensors at its top|several state dicts": "torch reads anything, we state dicts",
    r"its storage .* values has|of two sizes|two records of one name|ends behind the file": "torch reads beside it",
    r"is (sparse|quantised|nested|without data|of the class)": "tensors that are not dense",
    r"records can't be listed|no data.pkl|several data.pkl|lacks the record|where its directory": "a damaged archive",
    r"record .* is damaged, or another|Bad CRC-32|while decompressing": "torch reads it as far as it goes",
    r"damaged or no JSON": "metadata of ours that is no JSON",
    r"pickle that torch.save did not write": "the number that older files start with, spelt otherwise",
    r"is not among those that it has": "torch leaves the storage as the memory was",
    r"numbers an object|containers stand more|would take more than": "pickles that take the stack or the memory",
    r"metadata 'metanet'": "metadata of ours that are damaged",
}
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
        """Put mutation ``number`` in place of its file, all else as it was; gives the size of the file."""
        rng = random.Random(f"{self.name} {number}")
        for file, content in self.contents.items():
            (self.folder / file).write_bytes(content)
        file = rng.choice(list(self.contents))
        content = mutated(self.contents[file], self.format.files[file], rng, self.all)
        (self.folder / file).write_bytes(content)
        return len(content)


def verdict(sound: Sound, number: int, compare: bool = True) -> dict[str, Any]:
    """What becomes of one mutation, in this process.

    Returns:
        ``verdict`` (a column), ``detail``, ``message`` (its length), and ``compared`` (``""``, ``"same verdict"``,
        ``"stricter"`` or ``"unexplained"``).
    """
    size = sound.change(number)
    before = _peak()
    signal.signal(signal.SIGPROF, _alarm)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of its own work: other programs may hold it up
    value, detail, message = None, "", ""
    try:
        value = sound.format.read(sound.folder)
        what = "value"
    except MetanetError as error:
        what, message = "our error", str(error)
    except _Hang:
        what = "hang"
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        what, detail = (
            "other exception",
            f"{type(error).__name__} at {place.filename}:{place.lineno}: {str(error)[:200]}",
        )
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if _peak() - before > 3 * size + SPARE:
        what, detail = "memory", f"{(_peak() - before) / 2**20:,.0f} MiB"
    compared = ""
    if compare and sound.format.reference is not None and what in ("value", "our error"):
        compared, why = _compared(sound.format, sound.folder, what, value, message)
        detail = detail or why
    return {"number": number, "verdict": what, "detail": detail, "message": len(message), "compared": compared}


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
        different = [name for name, tensor in value.items() if not _same(tensor, (other or {}).get(name))]
        return ("unexplained", f"other values in {different[:3]}") if different else ("same verdict", "")
    if not accepted:
        return "same verdict", ""
    why = next((why for pattern, why in MEANT.items() if re.search(pattern, message)), None)
    return ("stricter", "") if why else ("unexplained", f"refused here, read there: {message[:300]}")


def _same(one: torch.Tensor, other: Any) -> bool:
    if not isinstance(other, torch.Tensor) or (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    bits = [x.detach().contiguous().reshape(-1).view(torch.uint8) for x in (one, other)]
    return torch.equal(*bits) if one.dtype is not torch.bool else torch.equal(bits[0].ne(0), bits[1].ne(0))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# ---------------------------------------------------------------- processes


def run(name: str, numbers: range) -> Iterator[dict[str, Any]]:
    """The verdicts of some mutations of one format, each process going on where the one before ended."""
    at = numbers.start
    while at < numbers.stop:
        folder = Path(tempfile.mkdtemp(prefix="mutations"))
        reading, writing = os.pipe()
        process = os.fork()
        if process == 0:
            os.close(reading)
            _work(name, range(at, numbers.stop), folder, writing)
        os.close(writing)
        ended = ""
        with os.fdopen(reading) as lines:
            while True:
                ready, _, _ = select.select([lines], [], [], WAITING)
                line = lines.readline() if ready else ""
                if not line:
                    ended = "crash" if ready else "hang"
                    break
                yield json.loads(line)
                at += 1
        if ended == "hang":
            os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        shutil.rmtree(folder, ignore_errors=True)
        if at < numbers.stop and status != 0:
            yield {"number": at, "verdict": ended, "detail": f"status {status}", "message": 0, "compared": ""}
            at += 1


def _work(name: str, numbers: range, folder: Path, writing: int) -> None:
    """In a process of its own: one line for each mutation; a new process after one that left memory behind."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.chdir(folder)
    sound = Sound(name, folder)
    with os.fdopen(writing, "w", buffering=1) as lines:
        for number in numbers:
            result = verdict(sound, number)
            print(json.dumps(result), file=lines)
            if result["verdict"] in ("memory", "hang"):
                break
        lines.flush()
    os._exit(0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=50_000, help="of all formats together")
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), metavar="NAME", help=", ".join(FORMATS))
    parser.add_argument("--only", type=int, metavar="NUMBER", help="one mutation of one format, with its traceback")
    parser.add_argument("--csv", type=Path, default=Path(__file__).with_suffix(".csv"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if args.only is not None:
        return _show(args.formats[0], args.only)
    rows, wrong = [], 0
    for index, name in enumerate(args.formats):
        share = args.mutations // len(args.formats) + (index < args.mutations % len(args.formats))
        counts: Counter[str] = Counter()
        for result in run(name, range(share)):
            counts[result["verdict"]] += 1
            counts["compared"] += bool(result["compared"])
            counts[result["compared"]] += 1
            counts["long message"] += result["message"] > 2_000
            if result["verdict"] not in ("value", "our error") or result["compared"] == "unexplained":
                wrong += 1
                print(f"{name} {result['number']}: {result['verdict']} {result['detail']}", flush=True)
        rows.append({"format": name, "mutations": share, **{column: counts[column] for column in COLUMNS[2:]}})
        print("  ".join(f"{column} {value}" for column, value in rows[-1].items()), flush=True)
    with args.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return int(wrong > 0)


def _show(name: str, number: int) -> int:
    folder = Path(tempfile.mkdtemp(prefix="mutations"))
    sound = Sound(name, folder)
    sound.change(number)
    print(f"the file is in {folder}")
    print(sound.format.read(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
