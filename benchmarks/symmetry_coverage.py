"""How far the derivation of symmetries reaches: every family of timm and transformers, all
classifiers of torchvision.

    OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 python
    benchmarks/symmetry_coverage.py
        [--only PATTERN ...] [--redo PATTERN ...] [--failed] [--jobs 1] [--limit 300] [--memory 16]
        [--summary] [--dry]

Each network is built with random weights, traced on two examples of different sizes and verified in
float64 on both, in a process of its own with a time limit, so the sweep always ends. Rows go to
``symmetry_coverage.csv`` beside this file as they come; a second call goes on where the first one
stopped. Patterns are as in a shell, and stand for some part of ``source/family/model/``. What the
columns mean is told by ``COLUMNS``.
"""

import argparse
import csv
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from fnmatch import fnmatch
from pathlib import Path

from _coverage_row import run
from _families import Case, cases
from tqdm import tqdm

from metanet.checkpoints import atomic_write

# Forked from a server that has imported the libraries once: importing takes longer than most
# networks do.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
)
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["_coverage_row"])

SOURCES = ("timm", "torchvision", "transformers")
UNBUILT = tuple(f"failed: {stage}" for stage in ("build", "example inputs", "forward"))
"""Rows of networks that do not run in plain PyTorch here: no small configuration or no inputs were
found for them."""

COLUMNS = {
    "source": "timm, torchvision or transformers",
    "family": "the module that registers a timm network, the folder in transformers",
    "model": "the name there (a configuration type of transformers)",
    "status": "ok; unsound; unseen axes (without a reason); failed: STAGE; time limit: "
    "STAGE; too large to verify here",
    "parameters": "entries of all parameters",
    "traced": "yes, or empty",
    "warnings": "number of warnings",
    "ops": "recorded operations of the first example, dead ones removed",
    "ops without rule": "and how often each was called",
    "groups": "of neurons that may be permuted",
    "keyed groups": "those of them with one permutation per index of another group",
    "tensors": "parameters and buffers with two or more dimensions, tied ones once; "
    "each is in one of the next five",
    "movable": "have an axis that moves",
    "pinned, legitimate": "cannot move: all axes are inputs, outputs, tokens, "
    "places (_coverage_row.LEGITIMATE)",
    "never read": "the examples do not use them",
    "not movable": "the rest, where precision is lost",
    "not movable, names": "first three",
    "not movable, reasons": "the reasons that are not legitimate",
    "change": "largest relative change of the output in float64 under legal relabellings, first example",
    "change on check": "on the second example",
    "axes checked": "illegal relabellings tried",
    "unseen, reason known": "of them, those the output does not show, for a reason that was measured",
    "unseen, no reason": "without one",
    "unseen": "first three without a reason",
    "record s": "seconds of the recorded forward pass",
    "analysis s": "seconds of the analysis of this recording",
    "verify s": "seconds of both verifications",
    "peak GB": "resident memory",
    "error": "first line",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", metavar="PATTERN", default=["*"], help="leave all others as they are"
    )
    parser.add_argument(
        "--redo",
        nargs="+",
        metavar="PATTERN",
        default=[],
        help="measure these again, and nothing else",
    )
    parser.add_argument(
        "--failed",
        action="store_true",
        help="measure again what was measured and is not ok, and nothing else",
    )
    parser.add_argument("--jobs", type=int, default=1, help="networks at the same time")
    parser.add_argument("--limit", type=float, default=300, help="seconds for each")
    parser.add_argument("--memory", type=float, default=16, help="GB for each")
    parser.add_argument(
        "--axes", type=int, default=40, help="illegal relabellings that are tried for each"
    )
    parser.add_argument(
        "--probes", type=int, default=12, help="as in metanet.verify: fewer are faster"
    )
    parser.add_argument(
        "--verify-up-to",
        type=float,
        default=200e6,
        help="parameters; float64 copies need the memory",
    )
    parser.add_argument(
        "--csv", type=Path, default=Path(__file__).with_suffix(".csv"), help="another file"
    )
    parser.add_argument(
        "--summary",
        action="store_true",
        help="print the summary of the CSV and draw the plot, only",
    )
    parser.add_argument(
        "--dry",
        action="store_true",
        help="only build and run every network; the CSV stays as it is",
    )
    args = parser.parse_args()
    rows = load(args.csv)
    if not args.summary:
        rows = sweep(rows, args)
    if not args.dry:
        plot(rows, args.csv.with_suffix(".png"))
    print(summary(rows))
    for row in rows:
        if args.dry and row["status"] in UNBUILT:
            print(
                f"  {row['source']}/{row['family']}/{row['model']}: {row['status']}. {row['error']}"
            )


def load(path: Path) -> list[dict[str, str]]:
    """The rows so far. A source without rows gets one for each of its networks: the CSV is also the
    list of work."""
    rows = []
    if path.exists():
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
    for source in SOURCES:
        if not any(row["source"] == source for row in rows):
            rows += [{**dict.fromkeys(COLUMNS, ""), **vars(case)} for case in cases(source)]
            save(rows, path)
    return rows


def save(rows: Iterable[dict[str, str]], path: Path) -> None:
    with atomic_write(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def sweep(rows: list[dict[str, str]], args: argparse.Namespace) -> list[dict[str, str]]:
    """Measure what is still to do, in the order of the rows."""

    def matches(row: dict[str, str], patterns: Sequence[str]) -> bool:
        return any(
            fnmatch(f"{row['source']}/{row['family']}/{row['model']}/", f"*{p}*") for p in patterns
        )

    def due(row: dict[str, str]) -> bool:
        if args.dry or not matches(row, args.only):
            return matches(row, args.only)
        if args.redo or args.failed:
            return matches(row, args.redo) or (args.failed and row["status"] not in ("", "ok"))
        return not row["status"]

    todo = [n for n, row in enumerate(rows) if due(row)]
    rows = [dict(row) for row in rows]
    with ThreadPoolExecutor(args.jobs) as pool, tqdm(total=len(todo), unit="network") as bar:
        waiting = {pool.submit(measure, case_of(rows[n]), args): n for n in todo}
        try:
            for done in as_completed(waiting):
                n = waiting[done]
                rows[n] = {**dict.fromkeys(COLUMNS, ""), **vars(case_of(rows[n])), **done.result()}
                if not args.dry:
                    save(rows, args.csv)
                bar.update()
                bar.set_postfix_str(f"{rows[n]['model']}: {rows[n]['status']}")
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    return [rows[n] for n in todo] if args.dry else rows


def case_of(row: dict[str, str]) -> Case:
    return Case(source=row["source"], family=row["family"], model=row["model"])


def measure(case: Case, args: argparse.Namespace) -> dict[str, str]:
    """One row, from a process of its own, which starts with the libraries imported already."""
    here, there = _CONTEXT.Pipe(duplex=False)
    options = {
        "axes": args.axes,
        "probes": args.probes,
        "memory": args.memory,
        "verify_up_to": args.verify_up_to,
        "dry": args.dry,
    }
    process = _CONTEXT.Process(target=run, args=(case, options, there))
    process.start()
    there.close()
    row, deadline, ended = {"stage": "start"}, time.monotonic() + args.limit, "died"
    while (left := deadline - time.monotonic()) > 0 and here.poll(left):
        try:
            row = here.recv()
        except EOFError:
            break
    else:
        ended = "time limit"
        process.kill()
    process.join()
    stage = row.pop("stage")
    if "status" not in row:  # it did not get to say how it ended
        error = f"{args.limit:.0f} s" if ended == "time limit" else f"exit code {process.exitcode}"
        row |= {"status": f"{ended}: {stage}", "error": error}
    return {name: str(value) for name, value in row.items()}


def summary(rows: Sequence[dict[str, str]]) -> str:
    """What the rows say, by source."""
    lines = []
    for source in SOURCES:
        mine = [r for r in rows if r["source"] == source and r["status"]]
        run = [r for r in mine if r["status"] not in UNBUILT]
        if not mine:
            continue
        traced = [r for r in run if r["traced"]]
        verified = [r for r in traced if r["change"]]
        sound = [r for r in verified if small(r["change"]) and small(r["change on check"])]
        tensors, movable, pinned, unread, stuck = (
            sum(int(r[c] or 0) for r in traced)
            for c in ("tensors", "movable", "pinned, legitimate", "never read", "not movable")
        )
        judged = movable + stuck
        lines += [
            f"{source}: {len(run)} networks of {len({r['family'] for r in run})} families",
            f"  recorded              {share(len(traced), len(run))}",
            f"  sound on both inputs  {share(len(sound), len(verified))} of those verified",
            f"  verified entirely ok  {share(sum(r['status'] == 'ok' for r in run), len(run))}",
            f"  tensors with an axis that moves  {share(movable, judged)}; besides, {pinned} of "
            f"{tensors} are inputs, outputs, tokens or places throughout, "
            f"{unread} are never read",
        ]
        lines += [
            f"  {n} x {status}" for status, n in Counter(r["status"] for r in mine).most_common()
        ]
    calls: Counter[str] = Counter()
    for row in rows:
        calls.update(
            name.partition(" x")[0] for name in filter(None, row["ops without rule"].split("; "))
        )
    if calls:
        lines.append("operations without a rule, networks with them:")
        lines += [f"  {name} {n}" for name, n in calls.most_common()]
    slow = sorted((r for r in rows if r["analysis s"]), key=lambda r: -float(r["analysis s"]))[:5]
    if slow:
        lines.append("slowest analyses:")
        lines += [
            f"  {r['model']} {float(r['analysis s']):.3f} s, {r['ops']} operations" for r in slow
        ]
    short = [r for r in rows if r["status"] not in ("", "ok", "runs", *UNBUILT)]
    if short:
        lines.append("what falls short:")
        for r in short:
            why = (
                r["error"]
                or r["unseen"]
                or f"changes {r['change']}, on check {r['change on check']}"
            )
            lines.append(f"  {r['source']}/{r['family']}/{r['model']}: {r['status']}. {why}")
    return "\n".join(lines)


def share(part: int, whole: int) -> str:
    return f"{part} of {whole}" + (f" ({part / whole:.1%})" if whole else "")


def small(change: str) -> bool:
    """A change that is rounding; empty where there was no second example."""
    return not change or float(change) < 1e-10


def plot(rows: Sequence[dict[str, str]], path: Path) -> None:
    """Seconds of analysis against the number of operations."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    points = [
        (int(r["ops"]), float(r["analysis s"]), r["source"])
        for r in rows
        if r["analysis s"] and int(r["ops"])
    ]
    if not points:
        return
    for source in SOURCES:
        mine = [(ops, seconds) for ops, seconds, s in points if s == source]
        axes.scatter([o for o, _ in mine], [s for _, s in mine], s=12, alpha=0.7, label=source)
    each = sorted(seconds / ops for ops, seconds, _ in points)[len(points) // 2]
    ends = [min(points)[0], max(points)[0]]
    axes.plot(
        ends,
        [each * o for o in ends],
        color="grey",
        linewidth=1,
        label=f"linear, {1e6 * each:.0f} µs each",
    )
    axes.set(xscale="log", yscale="log", xlabel="recorded operations", ylabel="seconds of analysis")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
