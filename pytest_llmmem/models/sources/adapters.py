"""PEFT adapters: a folder that adds a few weights to a base model. The adapter or the user names the base model."""

from pathlib import Path
from typing import Final

from pytest_llmmem.core.errors import CheckpointError, SourceError
from pytest_llmmem.core.printable import excerpt
from pytest_llmmem.models.checkpoints.foreign_json import read_object

CONFIG: Final = "adapter_config.json"
_OPTION: Final = "base="


def split_base(text: str) -> tuple[str, str | None]:
    """The folder and the base of ``"./adapter?base=org/name"``; the base is ``None`` where none is written."""
    folder, mark, query = text.partition("?")
    if not mark or not query.startswith(_OPTION):
        return text, None
    return folder, query.removeprefix(_OPTION)


def is_adapter(folder: Path) -> bool:
    """Whether the folder has an adapter, and no model of its own."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def base_of(folder: Path, *, text: str) -> str:
    """The adapter's base model: a folder, or a Hub id. Raises ``SourceError`` where the adapter names none."""
    try:
        base = read_object(folder / CONFIG).value.get("base_model_name_or_path")
    except CheckpointError as error:
        msg = f"--llm-model={text}: {error}"
        raise SourceError(msg) from None
    if not isinstance(base, str) or not base:
        msg = (
            f"--llm-model={text}: this is an adapter, and its {CONFIG} names no base model ({excerpt(repr(base))}): "
            f"write it, as in '{text}?base=org/name' or '{text}?base=./folder'"
        )
        raise SourceError(msg)
    return base
