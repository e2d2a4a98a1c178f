"""Models on the Hugging Face Hub: the files that a load needs, and their download."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from pytest_llmmem.core.errors import SourceError
from pytest_llmmem.core.printable import excerpt

_WEIGHTS: Final = (
    ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model-*-of-*.bin", "pytorch_model.bin.index.json"),
)
"""Weight file patterns by format, in transformers' order of preference."""

_BESIDES: Final = ("*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken", "*.py")
"""Config, tokenizer, and the code of models that bring their own."""

_INDEX: Final = "*.index.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubModel:
    """A repository of the Hub."""

    repo: str
    """``org/name``."""

    revision: str | None
    """A branch, a tag or a commit; ``None`` for the newest."""

    def __str__(self) -> str:
        """The repository and revision, as the user writes them."""
        return f"{self.repo}@{self.revision}" if self.revision else self.repo


def files_to_fetch(names: Sequence[str]) -> tuple[str, ...]:
    """Files of a repository that one load reads: weights in a single format, config, tokenizer, code.

    Empty when the repository has no weights that transformers loads.
    """
    for patterns in _WEIGHTS:
        weights = tuple(name for name in names if _matches(name, patterns))
        if weights:
            besides = (name for name in names if _matches(name, _BESIDES) and not fnmatch(name, _INDEX))
            return (*weights, *besides)
    return ()


def fetch(model: HubModel) -> Path:
    """The model's folder in the Hub's cache, downloaded if needed. The Hub client handles offline mode and credentials.

    Raises ``SourceError`` when it is neither reachable nor in the cache.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        names = HfApi().list_repo_files(model.repo, revision=model.revision)
    except Exception as error:  # noqa: BLE001 -- the client passes on errors of its HTTP library, which differs between versions
        try:
            return Path(snapshot_download(model.repo, revision=model.revision, local_files_only=True))
        except LocalEntryNotFoundError:
            raise _unreachable(model, error) from None
    wanted = files_to_fetch(names)
    if not wanted:
        msg = f"--llm-model={model}: no model*.safetensors and no pytorch_model*.bin in it: use a repository with such weights"
        raise SourceError(msg)
    try:
        return Path(snapshot_download(model.repo, revision=model.revision, allow_patterns=list(wanted)))
    except Exception as error:
        raise _unreachable(model, error) from error


def fetch_config(model: HubModel) -> Path:
    """The folder with the model's ``config.json`` in the Hub's cache. Downloads nothing else. Raises the errors of ``fetch``."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(model.repo, "config.json", revision=model.revision)).parent
    except Exception as error:
        raise _unreachable(model, error) from error


def _unreachable(model: HubModel, error: Exception) -> SourceError:
    from huggingface_hub.errors import HfHubHTTPError

    answer = "gives no such model" if isinstance(error, HfHubHTTPError) else "cannot be reached"
    why = excerpt((str(error).strip().splitlines() or [type(error).__name__])[0], limit=500)
    return SourceError(
        f"--llm-model={model}: there is no such folder, and the Hub {answer} ({why}): fetch it beforehand and set "
        "HF_HOME to that cache, or name a folder, or a stand-in that needs no network, such as 'synthetic:tiny-llama'"
    )


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return "/" not in name and any(fnmatch(name, pattern) for pattern in patterns)
