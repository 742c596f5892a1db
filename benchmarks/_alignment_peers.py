"""One tool aligns one pair of networks, in a process of its own: ``python _alignment_peers.py TOOL
FOLDER OPTIONS``.

The folder holds ``a.safetensors`` and ``b.safetensors`` (names and layouts of PyTorch) and
``axes.json`` (the group of every axis of every parameter, for a peer that has no specification of
this network). The tool moves ``b`` onto ``a`` and writes ``moved.safetensors`` and ``told.json``.
Options are JSON: ``network``, ``seed``, ``path`` of a checkout.

A tool is one function ``(network, a, b, options) -> (moved, told)`` with ``@tool``. Every
environment runs this file, so that only what all have is imported at the top. Each tool is warmed
up, untimed, before it is timed: compilation and imports count for nobody.
"""

import contextlib
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

Arrays = dict[str, np.ndarray]
TOOLS: dict[
    str, Callable[[str, Arrays, Arrays, dict[str, Any]], tuple[Arrays, dict[str, Any]]]
] = {}


def tool(name: str) -> Callable:
    def register(function: Callable) -> Callable:
        TOOLS[name] = function
        return function

    return register


def main() -> None:
    name, folder, options = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    a, b = (load_file(folder / f"{side}.safetensors") for side in "ab")
    options["axes"] = json.loads((folder / "axes.json").read_text())
    moved, told = TOOLS[name](options["network"], a, b, options)
    save_file(
        {key: np.ascontiguousarray(value) for key, value in moved.items()},
        folder / "moved.safetensors",
    )
    (folder / "told.json").write_text(json.dumps(told))


@contextlib.contextmanager
def timed(told: dict[str, Any]) -> Iterator[None]:
    """Seconds on the clock, and of the processor in all threads: the second counts little of what
    others run."""
    wall, own = time.perf_counter(), time.process_time()
    yield
    told |= {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - own}


# ---------------------------------------------------------------- metanet


@tool("metanet")
def metanet_weight(
    network: str, a: Arrays, b: Arrays, options: dict[str, Any]
) -> tuple[Arrays, dict[str, Any]]:
    """``metanet.align(method="weight")``; the first trace of a process waits for imports, and is
    not timed."""
    if not options.get("lapx"):
        sys.modules["lap"] = None  # as where it is not installed
    import torch
    from _alignment_networks import EXAMPLES, NETWORKS

    import metanet

    small = torch.nn.Sequential(torch.nn.Linear(3, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2))
    arch = metanet.trace(small, torch.randn(4, 3))
    metanet.align(arch.spec.sample()(small.state_dict()), to=small, arch=arch)
    x, y = ({k: torch.from_numpy(v) for k, v in side.items()} for side in (a, b))
    start = time.perf_counter()
    with torch.device("meta"):
        arch = metanet.trace(NETWORKS[network](), torch.zeros(EXAMPLES[network]))
    told: dict[str, Any] = {
        "prepare": time.perf_counter() - start,
        "threads": torch.get_num_threads(),
    }
    with timed(told):
        found = metanet.align(y, to=x, arch=arch, seed=options["seed"])
    told |= {"groups": len(arch.spec.groups), "steps": len(found.objective) - 1}
    told["version"] = f"metanet {version('metanet')}, torch {torch.__version__}"
    if options.get("lapx"):
        told["version"] += f", lapx {version('lapx')}"
    return {k: v.numpy() for k, v in found(y).items()}, told


# ---------------------------------------------------------------- git-re-basin, JAX


@tool("git-re-basin")
def git_re_basin(
    network: str, a: Arrays, b: Arrays, options: dict[str, Any]
) -> tuple[Arrays, dict[str, Any]]:
    """``weight_matching`` of a checkout, with its own specification of the MLP and ResNet50, in
    Flax's layout.

    It has none of ResNet18, which gets the groups that ``axes.json`` names. It does not know
    running statistics: they are moved here as the norm's scale is, so that outputs can be compared.
    Warmed up by one pass over all groups.
    """
    import jax

    jax.tree_map = jax.tree_util.tree_map  # gone from current JAX
    sys.path.insert(0, str(Path(options["path"]) / "src"))
    import weight_matching as theirs
    from jax import numpy as jnp
    from jax import random

    specs = {
        "mlp": lambda: theirs.mlp_permutation_spec(3),
        "resnet50": theirs.resnet50_permutation_spec,
    }
    names = {
        key: flax_name(network, key)
        for key in a
        if not key.rpartition(".")[2].startswith(("running_", "num_"))
    }
    if network in specs:
        spec = specs[network]()
    else:
        axes = {flax: flax_order(options["axes"][key]) for key, flax in names.items()}
        spec = theirs.permutation_spec_from_axes_to_perm({k: tuple(v) for k, v in axes.items()})
    if set(names.values()) != set(spec.axes_to_perm):
        raise AssertionError(
            f"names differ: {sorted(set(names.values()) ^ set(spec.axes_to_perm))[:8]}"
        )
    x, y = (
        {flax: jnp.asarray(flax_layout(side[key])) for key, flax in names.items()}
        for side in (a, b)
    )
    told: dict[str, Any] = {"groups": len(spec.perm_to_axes), "prepare": 0.0}
    theirs.weight_matching(random.PRNGKey(options["seed"]), spec, x, y, max_iter=1, silent=True)
    out = io.StringIO()
    with contextlib.redirect_stdout(out), timed(told):
        found = theirs.weight_matching(random.PRNGKey(options["seed"]), spec, x, y)
    told |= {
        "steps": len(out.getvalue().splitlines()),
        "threads": int(os.environ["OMP_NUM_THREADS"]),
    }
    told["version"] = (
        f"git-re-basin {options['commit'][:10]}, jax {version('jax')}, scipy {version('scipy')}"
    )
    applied = theirs.apply_permutation(spec, found, y)
    moved = dict(b)
    for key, flax in names.items():
        moved[key] = torch_layout(np.asarray(applied[flax]))
        scale = key.removesuffix(".weight")
        if scale + ".running_mean" in b and (group := spec.axes_to_perm[flax][0]) is not None:
            for statistic in (scale + ".running_mean", scale + ".running_var"):
                moved[statistic] = b[statistic][np.asarray(found[group])]
    return moved, told


def flax_name(network: str, key: str) -> str:
    """The name of a parameter in the checkout's specifications; any, where it has none."""
    place, _, kind = key.rpartition(".")
    if network == "mlp":
        return f"Dense_{int(place) // 2}/{'kernel' if kind == 'weight' else 'bias'}"
    if network != "resnet50":
        return key
    kind = {"weight": "scale"}.get(kind, kind)
    if place == "fc":
        return "dense/kernel" if kind == "scale" else "dense/bias"
    parts = place.split(".")
    if len(parts) == 1:
        prefix, (what, number) = "layers_0", (place[:-1], 1)
    elif parts[2] == "downsample":
        prefix, (what, number) = (
            f"{_block(parts)}/ResNetSkipConnection_0",
            ("bn" if parts[3] == "1" else "conv", 1),
        )
    else:
        prefix, (what, number) = _block(parts), (parts[2][:-1], int(parts[2][-1]))
    last = f"BatchNorm_0/{kind}" if what == "bn" else "Conv_0/kernel"
    return f"{prefix}/ConvBlock_{number - 1}/{last}"


def _block(parts: list[str]) -> str:
    return f"blockgroups_{int(parts[0][-1]) - 1}/blocks_{parts[1]}"


def flax_layout(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.transpose(flax_order(list(range(array.ndim)))))


def flax_order(axes: list) -> list:
    """Axes of a weight of PyTorch, (out, in, ...), in Flax's order, (..., in, out)."""
    return axes if len(axes) < 2 else [*axes[2:], axes[1], axes[0]]


def torch_layout(array: np.ndarray) -> np.ndarray:
    return array if array.ndim < 2 else np.moveaxis(array, (-1, -2), (0, 1))


# ---------------------------------------------------------------- rebasin


@tool("rebasin")
def rebasin(
    network: str, a: Arrays, b: Arrays, options: dict[str, Any]
) -> tuple[Arrays, dict[str, Any]]:
    """``rebasin`` of PyPI: traces by itself. Warmed up by one pass over all groups of copies."""
    import torch
    from _alignment_networks import EXAMPLES
    from rebasin import PermutationCoordinateDescent

    with torch.no_grad():
        x = torch.randn(EXAMPLES[network])
        PermutationCoordinateDescent(loaded(network, a), loaded(network, b), x).rebasin(1)
        torch.manual_seed(options["seed"])
        model = loaded(network, b)
        start = time.perf_counter()
        descent = PermutationCoordinateDescent(loaded(network, a), model, x)
        told: dict[str, Any] = {
            "prepare": time.perf_counter() - start,
            "threads": torch.get_num_threads(),
        }
        with timed(told):
            descent.rebasin()
    told["version"] = f"rebasin {version('rebasin')}, torch {torch.__version__}"
    return {k: v.numpy() for k, v in model.state_dict().items()}, told


def loaded(network: str, state: Mapping[str, np.ndarray]) -> Any:
    """The module, in eval mode, with these weights."""
    import torch
    from _alignment_networks import NETWORKS

    module = NETWORKS[network]().eval()
    module.load_state_dict(
        {k: torch.from_numpy(np.array(v)) for k, v in state.items()}, strict=True
    )
    return module


# ---------------------------------------------------------------- sinkhorn-rebasin


@tool("sinkhorn-rebasin")
def sinkhorn_rebasin(
    network: str, a: Arrays, b: Arrays, options: dict[str, Any]
) -> tuple[Arrays, dict[str, Any]]:
    """``sinkhorn-rebasin`` of PyPI, as its examples do: from the identity, AdamW, 50 steps, each
    looked at.

    The loss is the squared distance, which all are compared by. Rates are those of its examples:
    0.1 for the MLP, 10 for a ResNet. The best of the permutations looked at counts.
    """
    import torch
    from _alignment_networks import EXAMPLES
    from rebasin import RebasinNet
    from rebasin.loss import DistL2Loss

    torch.manual_seed(options["seed"])
    start = time.perf_counter()
    net = RebasinNet(loaded(network, b), input_shape=EXAMPLES[network])
    net.identity_init()
    told: dict[str, Any] = {
        "prepare": time.perf_counter() - start,
        "threads": torch.get_num_threads(),
    }
    told["version"] = f"sinkhorn-rebasin {version('sinkhorn-rebasin')}, torch {torch.__version__}"
    distance = DistL2Loss(loaded(network, a))
    optimizer = torch.optim.AdamW(net.p.parameters(), lr=0.1 if network == "mlp" else 10.0)
    best, least = dict(b), float("inf")
    with timed(told):
        for _ in range(options.get("steps", 50)):
            net.train()
            loss = distance(net())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            net.eval()
            with torch.no_grad():
                hard = net()
                if (now := float(distance(hard))) < least:
                    best, least = (
                        {k: v.detach().clone().numpy() for k, v in hard.state_dict().items()},
                        now,
                    )
    told |= {"groups": len(net.p), "steps": options.get("steps", 50)}
    return best, told


if __name__ == "__main__":
    main()
