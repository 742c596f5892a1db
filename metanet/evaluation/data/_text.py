"""A text file, in windows of tokens for a causal language model."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...documents import read_bytes
from ...errors import MetanetError, brief
from ...sources import offline
from ._batches import Samples

_LARGEST = 2**30  # bytes of text
_WINDOW = 512  # tokens, or the longest that the network takes if that is less


def text_file(
    path: Path, model: nn.Module, arch: str, tokenizer: Any = None, window: Any = None
) -> Samples:
    """A text's tokens in windows that follow each other; the last one, which is not full, is left
    out.

    Args:
        tokenizer: a folder that has one; by default the folder of the network.
        window: tokens of each.

    Raises:
        MetanetError: the network is no causal language model of transformers, no tokenizer, or no
            text.
    """
    _require_causal(path, model)
    ids = _tokens(path, arch, tokenizer)
    whole: Any = model.config
    config = whole.get_text_config()
    if len(ids) < 2:
        raise MetanetError(f"data={path} has {len(ids)} tokens: there is nothing to predict")
    if int(ids.max()) >= config.vocab_size:
        raise MetanetError(
            f"data={path}: the tokenizer gives tokens up to {int(ids.max())}, "
            f"but the network knows {config.vocab_size}"
        )
    longest = getattr(config, "max_position_embeddings", None) or _WINDOW
    window = min(_WINDOW, longest) if window is None else window
    if not isinstance(window, int) or not 2 <= window <= longest:
        raise MetanetError(
            f"data_args.window={window}: give a number of tokens from 2 to {longest}"
        )
    window = min(window, len(ids))
    windows = ids[: len(ids) // window * window].view(-1, window)

    def batch(rows: Tensor) -> dict[str, Any]:
        tokens = windows[rows]
        return {"input_ids": tokens, "labels": tokens.clone(), "use_cache": False}

    return len(windows), batch


def _causal(model: nn.Module) -> set[str]:
    """Names of the classes of transformers that predict the next token; none for other models."""
    if not (hasattr(model, "config") and type(model).__module__.startswith("transformers.")):
        return set()
    from transformers.models.auto import modeling_auto

    names: set[str] = set()
    for classes in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        names.update([classes] if isinstance(classes, str) else classes)
    return names


def _require_causal(path: Path, model: nn.Module) -> None:
    if type(model).__name__ not in _causal(model):
        raise MetanetError(
            f"data={path} is text, for causal language models of transformers (arch=hf:FOLDER); "
            f"{type(model).__name__} is none. Data of another form: data=package.module:factory"
        )


def _tokens(path: Path, arch: str, tokenizer: Any) -> Tensor:
    from transformers import AutoTokenizer

    folder = Path(tokenizer or arch.removeprefix("hf:")).expanduser()
    if not folder.is_dir():
        raise MetanetError(
            f"data={path} is text and needs a tokenizer: {folder} is no folder; "
            "give data_args.tokenizer=FOLDER"
        )
    try:
        with offline():  # a tokenizer's configuration may name others
            read = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # its files are read by several libraries, which check little
        raise _no_tokenizer(folder, error) from error
    try:
        text = read_bytes(path, largest=_LARGEST).decode("utf-8")
    except UnicodeDecodeError as error:
        raise MetanetError(
            f"data={path} is no text in UTF-8 ({error.reason} at byte {error.start}). An image "
            "folder, a .safetensors file and package.module:factory are the other forms of data="
        ) from error
    try:
        return torch.tensor(
            read(text, add_special_tokens=False, verbose=False)["input_ids"], dtype=torch.long
        )
    except Exception as error:  # what its files say is met only now
        raise _no_tokenizer(folder, error) from error


def _no_tokenizer(folder: Path, error: Exception) -> MetanetError:
    first = brief((str(error).strip() or type(error).__name__).splitlines()[0], 300)
    return MetanetError(f"the folder {folder} has no tokenizer that can be read: {first}")
