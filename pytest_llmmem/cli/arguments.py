"""Common parts of the commands: the model as first argument, and its checkpoint."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pytest_llmmem.core.errors import SourceError
from pytest_llmmem.core.printable import printable

if TYPE_CHECKING:
    from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A folder, a Hub id (org/name@revision), or synthetic:PRESET.")
]
Loads = Annotated[
    list[str] | None,
    typer.Option("--load", metavar="STRATEGY", help="How to load it, as --llm-load takes it; repeat for several."),
]
Loader = Annotated[
    str | None,
    typer.Option(
        "--loader", metavar="MODULE:FUNCTION", help="A function of your own that loads it, as --llm-loader takes it."
    ),
]
Ranks = Annotated[
    int | None,
    typer.Option(
        "--ranks", metavar="N", help="Processes over which the model is spread: for tensor_parallel, fsdp and others."
    ),
]
Device = Annotated[
    str | None, typer.Option("--device", metavar="DEVICE", help="Where to load it, as --llm-device takes it: cuda:0.")
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run the code that the checkpoint brings along.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead, and nothing else.")]


def checkpoint_of(model: str) -> "Checkpoint":
    """Read the headers of a model, after fetching or making it if necessary. Raises ``SourceError``, ``CheckpointError``."""
    from pytest_llmmem.models.sources.cache import cache_folder
    from pytest_llmmem.models.sources.source import open_checkpoint, parse_source

    with naming_argument(f"MODEL {model}", source=model):
        return open_checkpoint(parse_source(model, base=Path.cwd()), cache=cache_folder())


@contextmanager
def naming_argument(argument: str, *, source: str) -> Generator[None]:
    """Have a ``SourceError`` about a source name the argument that it came from, and not the option of pytest."""
    try:
        yield
    except SourceError as error:
        msg = str(error).replace(printable(f"--llm-model={source}"), argument, 1)
        raise SourceError(msg) from None
