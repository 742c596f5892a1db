"""One merge by one program, in the interpreter that has it: prints seconds and peak memory as JSON.

python _merge_contender.py PROGRAM METHOD BASE A B OUT. What is imported before the clock starts is
what a second merge of the same process would find imported. The peak is that of the process,
imports included.
"""

import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path


def read_and_write(method: str, base: Path, a: Path, b: Path, out: Path) -> Callable[[], None]:
    """Read all inputs, each as a whole, and write the bytes of one."""

    def run() -> None:
        for path in (a, b) if method == "linear" else (base, a, b):
            content = path.read_bytes()
        out.with_suffix(".safetensors").write_bytes(content)

    return run


def copy_in_pieces(method: str, base: Path, a: Path, b: Path, out: Path) -> Callable[[], None]:
    """The same, 16 MiB at a time in memory that is used again, which no program can undercut."""

    def run() -> None:
        memory = memoryview(bytearray(2**24))
        inputs = [
            path.open("rb", buffering=0)
            for path in ((a, b) if method == "linear" else (base, a, b))
        ]
        with out.with_suffix(".safetensors").open("wb", buffering=0) as file:
            while counts := [each.readinto(memory) for each in inputs]:
                if not counts[-1]:
                    break
                file.write(memory[: counts[-1]])

    return run


def load_and_average(method: str, base: Path, a: Path, b: Path, out: Path) -> Callable[[], None]:
    import torch
    from safetensors.torch import load_file, save_file

    def run() -> None:
        one, other = load_file(a), load_file(b)
        save_file(
            {name: torch.lerp(one[name], other[name], 0.5) for name in one},
            out.with_suffix(".safetensors"),
        )

    return run


def metanet(method: str, base: Path, a: Path, b: Path, out: Path) -> Callable[[], None]:
    import metanet.merging

    def run() -> None:
        merged = metanet.merge(
            [a, b], method, **({} if method == "linear" else {"base": base, "density": 0.2})
        )
        metanet.save_checkpoint(out.with_suffix(".safetensors"), merged)

    return run


def metanet_command(method: str, base: Path, a: Path, b: Path, out: Path) -> Callable[[], None]:
    """What the command does: SHA-256 of all inputs too."""
    import metanet.merging

    def run() -> None:
        merged = metanet.merge(
            [a, b], method, **({} if method == "linear" else {"base": base, "density": 0.2})
        )
        metanet.merging.save_merged(out, merged, recipe=merged.recipe)

    return run


def mergekit(method: str, base: Path, a: Path, b: Path, out: Path) -> Callable[[], None]:
    from mergekit.scripts.merge_raw_pytorch import main

    each = {"weight": 1.0} if method == "linear" else {"weight": 1.0, "density": 0.2}
    config = {
        "merge_method": method, "dtype": "float32",
        "models": [{"model": str(path), "parameters": each} for path in (a, b)],
    }  # fmt: skip
    if method != "linear":
        config["base_model"] = str(base)
    path = out.with_suffix(".json")  # JSON is YAML
    path.write_text(json.dumps(config))
    return lambda: main.main([str(path), str(out), "--quiet"], standalone_mode=False)


def sd_mecha(method: str, base: Path, a: Path, b: Path, out: Path) -> Callable[[], None]:
    import sd_mecha as mecha
    import torch
    from sd_mecha.extensions.builtin.merge_methods import linear

    first, *models = [mecha.model(path) for path in (base, a, b)]
    if method == "linear":
        recipe = mecha.weighted_sum(*models, alpha=0.5)
    else:
        # As add_difference_ties is made, which itself ends with an error for networks that sd-mecha
        # doesn't know.
        changes = [linear.subtract(model, first) for model in models]
        recipe = linear.add_difference(first, mecha.ties_sum(*changes, k=0.2), alpha=1.0)
    return lambda: mecha.merge(
        recipe,
        output=out.with_suffix(".safetensors"),
        merge_dtype=torch.float32,
        output_dtype=torch.float32,
    )


_ALL = (
    read_and_write,
    copy_in_pieces,
    load_and_average,
    metanet,
    metanet_command,
    mergekit,
    sd_mecha,
)
PROGRAMS = {program.__name__: program for program in _ALL}


def main() -> None:
    program, method, *paths = sys.argv[1:]
    run = PROGRAMS[program](method, *map(Path, paths))
    begin, busy = time.perf_counter(), time.process_time()
    run()
    seconds, busy = time.perf_counter() - begin, time.process_time() - busy
    peak = next(
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    known = {"mergekit": "mergekit", "sd_mecha": "sd-mecha"}
    told = {
        "seconds": seconds, "processor": busy, "gib": int(peak.split()[1]) / 2**20,
        "version": f"{known[program]} {version(known[program])}" if program in known else "",
    }  # fmt: skip
    print(json.dumps(told))


if __name__ == "__main__":
    main()
