"""One way to load a checkpoint: built in, of a team's hook, or a function of the user's own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pytest_llmmem.models.loading import own_loader
from pytest_llmmem.models.loading.request import LoadRequest, installed


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """One way to load."""

    name: str
    """The name for ``--llm-load`` and ``@pytest.mark.llm_load``."""

    summary: str
    """One line for tables."""

    load: Callable[[LoadRequest], Any]
    """Loads and returns the model."""

    call: Callable[[LoadRequest], str] | None = None
    """The equivalent user code as text. ``None``: the ``from_pretrained`` call that was made, or ``load`` itself."""

    dtype: str | None = None
    """The dtype that it casts weights to, such as ``"float16"``. ``None``: the caller's, or else the library's choice."""

    bits: int | None = None
    """Bits of each weight that it quantizes. ``None``: it quantizes nothing."""

    libraries: tuple[str, ...] = ()
    """Libraries imported before the load, so that their import does not count as its memory."""

    unavailable: Callable[[], str | None] = lambda: None
    """The reason that it is unavailable; ``None`` if it is available. Imports nothing that initializes an accelerator."""

    offered: bool = True
    """Whether ``llmmem try`` tries it."""

    merges_adapter: bool = False
    """Whether it merges an adapter's weights into the base model's."""
    needs_ranks: bool = False
    """Whether it spreads the model over several processes: ``--llm-ranks`` sets their number."""


def needs(*libraries: str) -> Callable[[], str | None]:
    """A function for ``Strategy.unavailable``: names the first of these libraries, or transformers, that is not installed."""

    def missing() -> str | None:
        absent = [name for name in ("transformers", *libraries) if not installed(name)]
        return f"needs {' and '.join(absent)}: pip install {' '.join(absent)}" if absent else None

    return missing


def loader_strategy(function: own_loader.Loader, options: Mapping[str, Any] | None = None) -> Strategy:
    """A strategy that calls a function of the user's own; ``options`` are its further arguments."""
    arguments = options or {}

    def load(request: LoadRequest) -> Any:
        __tracebackhide__ = True
        return own_loader.call_loader(function, request, arguments)

    return Strategy(
        name=own_loader.name_of(function),
        summary="a loader of your own",
        load=load,
        call=lambda request: own_loader.written_call(function, request, arguments),
    )
