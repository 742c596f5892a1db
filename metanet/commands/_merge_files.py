"""What ``metanet merge`` writes beside the weights: configuration, tokenizer, model card, recipe."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .._cli.folders import folder_of
from .._cli.overrides import key_of, typed
from .._cli.recipe import CONFIG_FILE, DIGESTS
from ..checkpoints import PARTS, Checkpoint
from ..errors import listed
from ..merging import Inputs, Merged, model_card
from ._carrying import carried, read_config
from ._configuration import says_tied
from ._vocabulary import Vocabulary, vocabulary_of

CARD_FILE = "README.md"
_SHOWN = 3  # names of tensors in a warning


@dataclass(frozen=True)
class Beside:
    """What lies beside the weights.

    Attributes:
        files: path in the folder -> its bytes, or the file to copy.
        parts: sub-folders of a pipeline that the merge has weights for, as ``PART/``.
        warnings: what whoever uses the result should know.
        library: what loads it, as the Hub calls it; ``None`` where nothing says so.
    """

    files: Mapping[str, bytes | Path]
    parts: Sequence[str]
    warnings: Sequence[str]
    library: str | None

    def with_card(
        self,
        options: Mapping[str, Any],
        merged: Merged,
        recipe: Mapping[str, Any],
        hashes: Mapping[str, str],
    ) -> dict[str, bytes | Path]:
        """The files, the model card and the recipe.

        Args:
            options: of the command.
            merged: the result.
            recipe: what it depends on.
            hashes: of the files that were read, for the recipe.
        """
        chosen = {key: value for key, value in options.items() if key not in ("paths", "recipe")}
        card = model_card(
            recipe,
            title=Path(options["out"]).absolute().name,
            hashes=hashes,
            report=merged.report,
            alignments=merged.alignments,
            library=self.library,
            notes=self.warnings,
            command=_command(),
            config=_as_yaml(_given(chosen)),
        )
        config = _as_yaml(chosen | {DIGESTS: dict(hashes)})  # the card has them in a table
        return {**self.files, CARD_FILE: card.encode(), CONFIG_FILE: config.encode()}


def written_beside(
    options: Mapping[str, Any],
    named: Checkpoint,
    merged: Merged,
    inputs: Inputs,
    others: Sequence[str],
) -> Beside:
    """Configuration, tokenizer and the like, and what is to be said of the result.

    Args:
        options: of the command.
        named: the result by the names of the files.
        merged: the result.
        inputs: what was merged.
        others: names of the result that are none of the network's.

    Raises:
        MetanetError: no network could use the result, or a part of a pipeline would be lost.
    """
    stored = inputs.stored if inputs.stored_base is None else (inputs.stored_base, *inputs.stored)
    first = stored[0]
    layers = _layers(options["slices"])
    parts = [f"{part}/" for part in first.metadata.get(PARTS, {})]
    carrying = carried(
        stored,
        out_dtype=options["out_dtype"],
        layers=layers,
        vocabulary=_vocabulary(named, merged, inputs, stored),
        parts=folders_of(parts),
    )
    warnings = list(carrying.warnings)
    changed = _changed(named, first)
    if changed and layers is None:
        warnings.append(
            f"{len(changed)} tensors have other shapes than in the inputs: {listed(changed, _SHOWN)}"
        )
    if others:
        warnings.append(
            f"{len(others)} tensors are none of the network's and stay as they are: "
            f"{listed(others, _SHOWN)}"
        )
    library = carrying.library
    if library is None and str(options["arch"]).startswith("timm:"):
        library = "timm"
    return Beside(carrying.files, parts, tuple(warnings), library)


def _layers(slices: Sequence[Mapping[Any, Sequence[int]]] | None) -> list[int] | None:
    """For every layer of the result the one that it comes from: ``[{0: [0, 2]}, {1: [1, 3]}]`` ->
    ``[0, 1, 1, 2]``."""
    if slices is None:
        return None
    layers: list[int] = []
    for piece in slices:
        first, behind = next(iter(piece.values()))
        layers += range(first, behind)
    return layers


def _changed(named: Checkpoint, first: Checkpoint) -> list[str]:
    """Tensors of the result that have other shapes in the first input."""
    shared = [name for name in named.shapes if name in first.shapes]
    return [name for name in shared if named.shapes[name] != first.shapes[name]]


def _vocabulary(
    named: Checkpoint, merged: Merged, inputs: Inputs, stored: Sequence[Checkpoint]
) -> Vocabulary:
    """That of the result, against the input whose configuration goes with it."""
    for checkpoint in stored:
        folder = folder_of(checkpoint)
        if folder is not None:
            tied = says_tied(read_config(folder))
            return vocabulary_of(named, merged, inputs, checkpoint, tied)
    return vocabulary_of(named, merged, inputs, stored[0], None)


def folders_of(files: Iterable[str]) -> list[str]:
    """The sub-folders that files lie in, each once."""
    folders = [name.rpartition("/")[0] for name in files if "/" in name]
    return list(dict.fromkeys(folders))


def _given(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The options that say something."""
    given = {key: value for key, value in chosen.items() if value not in (None, {})}
    given.pop("data_args", None)
    if chosen["data"] is not None:
        given["data_args"] = chosen["data_args"]
    return given


def _as_yaml(tree: Mapping[str, Any]) -> str:
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def _command() -> str:
    """The command line, as a person would type it."""
    from hydra.core.hydra_config import HydraConfig

    overrides = HydraConfig.get().overrides.task
    # what a recipe says is among them, in full
    words = [shlex.quote(typed(override)) for override in overrides if key_of(override) != "recipe"]
    return " ".join(["metanet merge", *words])
