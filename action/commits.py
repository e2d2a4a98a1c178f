"""The Hub's models among the lines of $MODEL: what a cache of them is called, and the folders that it keeps.

Prints outputs of a step: ``key``, ``models`` and ``folders``; nothing when there are none. A branch becomes the commit
that it stands at, so that the key is another when the model is. Folders and synthetic models need no cache.
"""  # noqa: INP001 -- a script of the action, not part of the package

import hashlib
import os
import sys
from pathlib import Path

from pytest_llmmem.core.errors import LlmmemError
from pytest_llmmem.models.sources.hub import HubModel
from pytest_llmmem.models.sources.source import parse_source


def main() -> None:
    """Raises ``SystemExit`` with a sentence for a line that names no model."""
    lines = [line.strip() for line in os.environ["MODEL"].splitlines() if line.strip()]
    try:
        targets = [parse_source(line, base=Path.cwd()).target for line in lines]
    except LlmmemError as error:
        sys.exit(f"::error title=llmmem::{error}")
    models = sorted({str(target): target for target in targets if isinstance(target, HubModel)}.items())
    if not models:
        return
    try:
        commits = [_commit(model) for _, model in models]
    except Exception as error:  # noqa: BLE001 -- what the client lets through is its HTTP library's
        sys.stderr.write(f"::warning title=llmmem::the Hub does not say which commit, so nothing is cached: {error}\n")
        return
    digest = hashlib.sha256("\n".join(sorted(commits)).encode()).hexdigest()
    _output("key", f"llmmem-{digest[:32]}")
    _output("models", "\n".join(name for name, _ in models))
    _output("folders", "\n".join(sorted({_folder(model) for _, model in models})))


def _commit(model: HubModel) -> str:
    from huggingface_hub import HfApi

    commit = HfApi().model_info(model.repo, revision=model.revision).sha
    sys.stderr.write(f"{model} is {commit}\n")
    return f"{model.repo}@{commit}"


def _folder(model: HubModel) -> str:
    from huggingface_hub.constants import HF_HUB_CACHE

    return str(Path(HF_HUB_CACHE, f"models--{model.repo.replace('/', '--')}"))


def _output(name: str, text: str) -> None:
    sys.stdout.write(f"{name}<<END\n{text}\nEND\n")


if __name__ == "__main__":
    main()
