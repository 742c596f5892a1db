"""What mergekit makes of small random checkpoints: the numbers that tests/merging/test_mergekit.py
compares with.

    PYTHON benchmarks/merge_outputs.py [tests/merging/mergekit.safetensors]

with a Python that has mergekit 0.1.5 (it needs nothing of metanet). Three models and a base, in
float32 and in bfloat16, go through the command ``mergekit-pytorch``; bfloat16 with ``dtype:
float32`` and ``out_dtype: bfloat16``, so that it, too, is computed in float32. Inputs and outputs
are stored with the settings of each case and the versions.

mergekit has no seed for a tensor: what DARE and DELLA drop depends on the order in which tensors
are merged. So its source of randomness is replaced here by numbers that belong to seed, model and
name, drawn as metanet draws them; all else is mergekit's. No two changes of a tensor are equal:
mergekit leaves to chance which of them counts as larger.

Where mergekit 0.1.5 is wrong, or a matter of chance, and what metanet does instead:

| method         | mergekit                                               | metanet                          |
|----------------|--------------------------------------------------------|----------------------------------|
| all            | computes in the stored dtype unless dtype: says        | float32 or float64 always        |
|                | otherwise: SCE and Model Stock make NaN of float16     |                                  |
|                | weights of some hundreds                               |                                  |
| dare_*, della* | other elements are dropped when tensors come in        | seed and name say which          |
|                | another order, or when one is left out                 |                                  |
| ties, della*,  | of equal changes at a threshold (bfloat16 has many),   | those that come first            |
| breadcrumbs*   | those that an unstable sort puts first                 |                                  |
| della*         | kernels: ranks along the second axis alone, among the  | ranks in each output channel     |
|                | input channels                                         |                                  |
| della*         | scalars, rows of one element: an error ends the merge  | density is the chance            |
| sce            | models count alike where the mean squares of their     | by their squares, always         |
|                | changes sum to under 1e-6, as in many fine-tunes       |                                  |
| sce            | equal variances at the threshold: any of them          | those that come first            |
| model_stock    | cosines shrink where the product of two norms is under | cosines of any norms             |
|                | 1e-6, as of biases and single rows of fine-tunes       |                                  |
| model_stock    | filter_wise, kernels: the last axis alone, three       | angles of output channels        |
|                | numbers of a 3x3 convolution                           |                                  |
| multislerp     | three models or more: an error ends the merge at a     | zeros; the base                  |
|                | tensor of zeros, or one that none changed              |                                  |
| multislerp     | a step in the tangent space that is zero but for       | no such step                     |
|                | rounding                                               |                                  |
| karcher        | norms under 1e-5 in all models: zeros                  | the mean of any norms            |
| slerp          | norms under 1e-8 count as 1: equal tensors grow        | equal tensors stay               |
| nuslerp        | nuslerp_row_wise makes vectors of the columns          | dim: the axis of the vectors     |
| nuslerp        | vectors that are nearly opposite: roundings of         | cosines in float64               |
|                | float32, times 100 and more                            |                                  |
| nuslerp        | weights of sum 0 count as equal                        | an error                         |
| arcee_fusion   | quartiles of a million elements drawn without a seed,  | of all elements                  |
|                | where a tensor has more                                |                                  |
| linear, slerp, | equal models change by a rounding                      | they stay, bit for bit           |
| multislerp,    |                                                        |                                  |
| karcher, ties  |                                                        |                                  |
"""

import contextlib
import hashlib
import io
import json
import sys
import tempfile
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SHAPES = {
    "matrix": (12, 16),
    "vector": (24,),
    "kernel": (4, 3, 3, 3),
    "zero": (16,),
    "agreed": (20,),
    "frozen": (20,),
}
NAMES = {
    "weight": "weights",
    "lambda": "scale",
    "normalize_weights": "normalize",
    "nuslerp_flatten": "flatten",
}


@dataclass(frozen=True)
class Case:
    """One merge.

    Attributes:
        method: the same name in both.
        given: mergekit's parameters; a list has a value for each model.
        models: how many there are.
        base: whether there is one besides.
        only: tensors to compare, where mergekit is wrong on the others; all if empty.
    """

    method: str
    given: dict[str, Any] = field(default_factory=dict)
    models: int = 3
    base: bool = True
    only: tuple[str, ...] = ()

    def options(self) -> dict[str, Any]:
        """As metanet calls them."""
        named = {NAMES.get(name, name): value for name, value in self.given.items()}
        if (columns := named.pop("nuslerp_row_wise", None)) is not None:
            named["dim"] = 0 if columns else -1
        return named


def cases() -> list[Case]:
    uneven, signed = [0.5, 0.3, 0.9], [0.7, -0.2, 0.4]
    rows = (
        "matrix",
        "vector",
        "zero",
        "agreed",
        "frozen",
    )  # long enough that none nearly opposes its counterpart
    some = ("matrix", "vector", "kernel", "agreed")  # tensors that every model changes
    out = [
        Case("linear", {"weight": 1.0}, base=False),
        Case("linear", {"weight": uneven}, base=False),
        Case("linear", {"weight": signed, "normalize": False}, base=False),
        *(Case("slerp", {"t": t}, 2, False) for t in (0.0, 0.3, 0.5, 1.0)),
        Case("multislerp", {"weight": [0.5, 0.9]}, 2, False),
        Case("multislerp", {"weight": [0.5, 0.9]}, 2),
        Case("multislerp", {"weight": uneven}, 3, False, (*some, "frozen")),
        Case("multislerp", {"weight": uneven, "normalize_weights": False}, 3, True, some),
        Case("nuslerp", {"weight": [0.5, 0.9]}, 2, False),
        Case("nuslerp", {"weight": [0.5, 0.9]}, 2),
        *(
            Case(
                "nuslerp",
                {"weight": [0.5, 0.9], "nuslerp_flatten": False, "nuslerp_row_wise": columns},
                2,
                base,
                rows,
            )
            for columns in (False, True)
            for base in (False, True)
        ),
        Case("karcher", {}, 3, False),
        Case("karcher", {}, 2, False),
        Case("karcher", {"max_iter": 1, "tol": 1e-3}, 3, False),
        Case("model_stock", {}),
        Case("model_stock", {}, 2),
        Case("model_stock", {"filter_wise": True}, only=rows),
        *(Case("sce", {"select_topk": share}) for share in (1.0, 0.4, 0.1, 0.0)),
        *(Case("nearswap", {"t": t}, 1) for t in (1e-4, 0.05)),
        Case("passthrough", {}, 1, False),
        Case("passthrough", {"scale": 0.3}, 1, False),
        Case("arcee_fusion", {}, 1),
        Case("ram", {}),
        Case("ram", {"epsilon": 0.05}),
        Case("ramplus_tl", {}),
        Case("ramplus_tl", {"r": 0.5, "alpha": 3.0, "epsilon": 0.02}),
        Case("task_arithmetic", {"weight": uneven}),
        Case("task_arithmetic", {"weight": signed, "lambda": 0.6}),
        Case("task_arithmetic", {"weight": signed, "normalize": True}),
    ]
    ranked: dict[str, tuple[str, ...]] = dict.fromkeys(
        ("ties", "dare_ties", "dare_linear", "breadcrumbs", "breadcrumbs_ties"), ()
    )
    ranked |= {"della": rows, "della_linear": rows}
    for method in ranked:
        out += [
            Case(method, {"weight": 1.0}),
            Case(method, {"weight": uneven, "density": 0.5}, only=ranked[method]),
            Case(
                method,
                {"weight": signed, "density": [0.3, 0.6, 0.8], "lambda": 0.6},
                only=ranked[method],
            ),
            Case(
                method,
                {"weight": uneven, "density": 0.4, "normalize": True, "rescale": True},
                only=ranked[method],
            ),
            Case(
                method,
                {"weight": uneven, "density": 0.4, "normalize": False, "rescale": False},
                only=ranked[method],
            ),
        ]
        if method.startswith("della"):
            out.append(
                Case(
                    method, {"weight": uneven, "density": 0.5, "epsilon": 0.3}, only=ranked[method]
                )
            )
        if method.startswith("breadcrumbs"):
            out.append(Case(method, {"weight": uneven, "density": 0.7, "gamma": 0.2}))
    return out


def inputs(dtype: torch.dtype) -> dict[str, dict[str, torch.Tensor]]:
    """The base and three models, of which each changed two thirds of the elements."""
    generator = torch.Generator().manual_seed(0)

    def normal(shape: tuple[int, ...], scale: float) -> torch.Tensor:
        return scale * torch.randn(shape, generator=generator)

    def changed(tensor: torch.Tensor, share: float) -> torch.Tensor:
        """No two changes are equal as stored: mergekit sorts equal ones in whatever order the
        processor's sort does."""
        kept = torch.rand(tensor.shape, generator=generator) < share
        out = tensor.clone()
        while True:
            sizes = (out.float() - tensor.float()).abs().flatten()
            seen, index, counts = sizes.unique(return_inverse=True, return_counts=True)
            again = (((counts[index] > 1) | (seen[index] == 0)) & kept.flatten()).reshape(
                tensor.shape
            )
            if not again.any():
                return out
            out = torch.where(again, tensor + normal(tuple(tensor.shape), 0.1).to(dtype), out)

    base = {name: normal(shape, 0.05).to(dtype) for name, shape in SHAPES.items()}
    base["zero"].zero_()
    agreed = changed(base["agreed"], 1.0)
    out = {"base": base}
    for k in range(3):
        out[f"model{k}"] = {n: changed(tensor, 0.67) for n, tensor in base.items()}
        out[f"model{k}"] |= {"zero": base["zero"], "frozen": base["frozen"], "agreed": agreed}
    return out


def heads(probabilities: torch.Tensor, number: int, name: str, seed: int = 0) -> torch.Tensor:
    """Ones with these probabilities, a matter of seed, number of the model and name alone, drawn as
    metanet does.

    In each row, the first draw is for the element of lowest probability: DELLA's ranks, and DARE's
    order as it is.
    """
    digest = hashlib.sha256(f"{seed} {number} {name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
    count = probabilities.numel()
    bits = torch.empty((count + 1) // 2, dtype=torch.int64).random_(
        -(2**63), None, generator=generator
    )
    uniform = (bits.view(torch.int32)[:count].double() / 2**32 + 0.5).reshape(probabilities.shape)
    ranked, order = probabilities.sort(dim=-1, stable=True)
    return torch.empty_like(probabilities).scatter_(
        -1, order, (uniform < ranked).to(probabilities.dtype)
    )


def replace_randomness() -> None:
    """Let mergekit's Bernoulli masks come from :func:`heads`: the models of a tensor are drawn for
    in their order."""
    from mergekit.merge_methods.generalized_task_arithmetic import (
        GeneralizedTaskArithmeticMerge as Generalized,
    )

    now: dict[str, Any] = {}
    merge_group = Generalized.merge_group

    def named(self: Any, group: Any, /, **parameters: Any) -> torch.Tensor:
        now.update(name=group.metadata.name, number=0)
        return merge_group(self, group, **parameters)

    def bernoulli(probabilities: torch.Tensor) -> torch.Tensor:
        now["number"] += 1
        return heads(probabilities, now["number"] - 1, now["name"])

    Generalized.merge_group = named
    torch.bernoulli = bernoulli


def merged(case: Case, folder: Path, dtype: str) -> dict[str, torch.Tensor]:
    """By the command ``mergekit-pytorch``."""
    from mergekit.scripts.merge_raw_pytorch import main

    models = [
        {"model": str(folder / f"model{k}.safetensors"), "parameters": {}}
        for k in range(case.models)
    ]
    config: dict[str, Any] = {"merge_method": case.method, "models": models, "parameters": {}}
    for name, value in case.given.items():
        if isinstance(value, list):
            for model, each in zip(models, value, strict=True):
                model["parameters"][name] = each
        else:
            config["parameters"][name] = value
    if case.base:
        config["base_model"] = str(folder / "base.safetensors")
    if case.method == "slerp":
        config["base_model"] = models[0]["model"]
    if dtype == "bfloat16":
        config |= {"dtype": "float32", "out_dtype": "bfloat16"}
    path, out = folder / "config.yaml", folder / "out"
    path.write_text(yaml.safe_dump(config))
    with contextlib.redirect_stderr(io.StringIO()):  # its bars
        main([str(path), str(out)], standalone_mode=False)
    return load_file(out / "model.safetensors")


def run() -> None:
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "tests/merging/mergekit.safetensors")
    replace_randomness()
    stored: dict[str, torch.Tensor] = {}
    for dtype in DTYPES:
        given = inputs(DTYPES[dtype])
        stored |= {
            f"{dtype}.{who}.{name}": t.clone()
            for who, state in given.items()
            for name, t in state.items()
        }
        for number, case in enumerate(cases()):
            with tempfile.TemporaryDirectory() as name:
                for who, state in given.items():
                    chosen = {n: t.clone() for n, t in state.items() if n in (case.only or SHAPES)}
                    save_file(chosen, Path(name) / f"{who}.safetensors")
                made = merged(case, Path(name), dtype)
            # One vector for each case: headers of hundreds of small tensors would be larger than
            # the numbers.
            stored[f"{dtype}.case{number}"] = torch.cat(
                [made[n].flatten() for n in case.only or SHAPES]
            )
    settings = [
        {
            "method": c.method,
            "options": c.options(),
            "models": c.models,
            "base": c.base,
            "names": c.only or [*SHAPES],
        }
        for c in cases()
    ]
    versions = {name: version(name) for name in ("mergekit", "torch")}
    save_file(stored, target, {"cases": json.dumps(settings), **versions})
    print(
        f"{target}: {len(settings)} cases in {len(DTYPES)} dtypes, "
        f"{target.stat().st_size / 1000:.0f} kB, {versions}"
    )


if __name__ == "__main__":
    run()
