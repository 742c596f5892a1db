"""How far parameter graphs reach: the networks of the symmetry benchmark that are small enough for
a neuron graph.

    OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 python benchmarks/graph_coverage.py
        [--only PATTERN ...] [--redo PATTERN ...] [--up-to 12e6] [--limit 120] [--summary]

Every network of ``symmetry_coverage.csv`` with at most ``--up-to`` parameters is traced, its graph
is made and checked (``metanet.testing.graph_problems``: one edge per entry, no node alone, values
back bit for bit, a transform of the parameters and of the graph give the same graph), in a process
of its own with a time limit. Rows go to ``graph_coverage.csv`` beside this file as they come; a
second call goes on where the first one stopped.
"""

import argparse
import csv
import multiprocessing
import os
import sys
import time
import warnings
from fnmatch import fnmatch
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tqdm import tqdm

from metanet.checkpoints import atomic_write

HERE = Path(__file__).parent
COLUMNS = (
    "source", "family", "model", "status", "parameters", "nodes", "edges", "constant edges", "blocks",
    "plain blocks", "origins", "not read", "not followed", "not followed, names", "trace s", "template s",
    "check s", "problems",
)  # fmt: skip
_CONTEXT = multiprocessing.get_context("forkserver")


def measure(case: dict[str, str], connection: Connection) -> None:
    """One row, sent in parts as far as it is known."""
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (what libraries print is no part of the row)
    warnings.simplefilter("ignore")
    import torch
    from _families import Case, build

    import metanet
    from metanet.graph import NodeType
    from metanet.testing import graph_problems

    torch.set_num_threads(1)
    torch.manual_seed(0)
    row: dict[str, Any] = {"status": "failed: build"}
    try:
        model = build(Case(source=case["source"], family=case["family"], model=case["model"]))
        row["parameters"] = sum(p.numel() for p in model.parameters())
        row["status"] = "failed: trace"
        start = time.perf_counter()
        arch = metanet.trace(model)
        row["trace s"] = round(time.perf_counter() - start, 2)
        row["status"] = "failed: template"
        connection.send(dict(row))
        start = time.perf_counter()
        template = arch.template
        unread = [w for w in arch.template_warnings if "no output depends on it" in w]
        lost = [w.partition(":")[0] for w in arch.template_warnings if w not in unread]
        row["template s"] = round(time.perf_counter() - start, 2)
        row |= {
            "nodes": template.num_nodes, "edges": template.num_edges, "blocks": len(template.blocks),
            "constant edges": sum(b.count for b in template.blocks if b.tensor is None),
            "plain blocks": sum(b.plain for b in template.blocks), "not read": len(unread),
            "origins": sum(r.count for r in template.nodes if r.type == NodeType.ORIGIN),
            "not followed": len(lost), "not followed, names": "; ".join(lost[:3]),
            "status": "failed: check",
        }  # fmt: skip
        connection.send(dict(row))
        start = time.perf_counter()
        problems = graph_problems(arch)
        row |= {
            "check s": round(time.perf_counter() - start, 2),
            "problems": "; ".join(problems)[:300],
        }
        row["status"] = "wrong" if problems else "ok"
    except Exception as error:  # a network that fails is a result
        row["problems"] = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"[
            :300
        ]
    connection.send(row)
    connection.close()


def one(case: dict[str, str], limit: float) -> dict[str, Any]:
    """The row of a network; what took too long is stopped."""
    here, there = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=measure, args=(case, there))
    process.start()
    there.close()
    row: dict[str, Any] = {"status": "failed: build"}
    end = time.monotonic() + limit
    while here.poll(max(0.0, end - time.monotonic())):
        try:
            row = here.recv()
        except EOFError:
            break
    else:
        row["status"] = row["status"].replace("failed", "time limit")
    process.kill()
    process.join()
    return {k: case[k] for k in ("source", "family", "model")} | row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=["*"], help="patterns of source/family/model")
    parser.add_argument("--redo", nargs="+", default=[], help="do these again")
    parser.add_argument("--up-to", type=float, default=12e6, help="parameters")
    parser.add_argument("--limit", type=float, default=120, help="seconds per network")
    parser.add_argument("--out", type=Path, default=HERE / "graph_coverage.csv")
    parser.add_argument("--summary", action="store_true", help="print what is known and stop")
    args = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    _CONTEXT.set_forkserver_preload(["_coverage_row"])
    with open(HERE / "symmetry_coverage.csv") as file:
        cases = [
            r for r in csv.DictReader(file) if r["traced"] and float(r["parameters"]) <= args.up_to
        ]
    known = {}
    if args.out.exists():
        with open(args.out) as file:
            known = {f"{r['source']}/{r['family']}/{r['model']}": r for r in csv.DictReader(file)}

    def name(case: dict[str, str]) -> str:
        return f"{case['source']}/{case['family']}/{case['model']}"

    def matches(case: dict[str, str], patterns: list[str]) -> bool:
        return any(fnmatch(name(case), f"*{p}*") for p in patterns)

    todo = [
        c
        for c in cases
        if matches(c, args.only) and (name(c) not in known or matches(c, args.redo))
    ]
    if not args.summary:
        for case in tqdm(todo, unit="network"):
            known[name(case)] = one(case, args.limit)
            with atomic_write(args.out) as temporary, open(temporary, "w", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
                writer.writeheader()
                writer.writerows(known[k] for k in sorted(known))
    for source in ("timm", "torchvision", "transformers"):
        rows = [r for r in known.values() if r["source"] == source]
        good = sum(r["status"] == "ok" for r in rows)
        followed = sum(r["status"] == "ok" and str(r["not followed"]) == "0" for r in rows)
        print(
            f"{source}: {good} of {len(rows)} graphs right, {followed} of them with every tensor followed"
        )
        for r in rows:
            if r["status"] != "ok":
                print(f"  {r['family']}/{r['model']}: {r['status']} {r.get('problems', '')}")


if __name__ == "__main__":
    main()
