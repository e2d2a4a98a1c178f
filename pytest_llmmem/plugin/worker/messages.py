"""Messages from pytest in a worker to pytest in the parent."""

import contextlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

from pytest_llmmem.core.launch import Rank
from pytest_llmmem.core.record_parts import TrialRecord
from pytest_llmmem.core.stacks import Frame
from pytest_llmmem.core.steps import StepMemory
from pytest_llmmem.diagnosis import frames_of
from pytest_llmmem.diagnosis.cuda import CudaOutOfMemory
from pytest_llmmem.models.loading.tie_faults import TieFaults
from pytest_llmmem.plugin.collect.loads import Load

_KEPT: Final = 2000
"""Characters of a long message that are kept, at each of its ends."""

ItemKey = tuple[str, int]
"""A node id, and which of the items with that id is meant."""


def text_of(value: object, make: Callable[[object], str] = str) -> str:
    """``str``, or ``repr``, of something of the test's own, whatever its method does."""
    try:
        text = make(value)
        return str.__str__(text)  # exactly a string: a class of the test's own would not leave the process
    except BaseException as error:  # noqa: BLE001 -- the test has a result, and it must not be this one
        return f"<{type(value).__name__} without a text: making it raised {type(error).__name__}>"


@dataclass(frozen=True, slots=True)
class Job:
    """The item to run, and the next item of the same worker."""

    item: ItemKey
    following: ItemKey | None
    number: int
    """No other job of the session has it; on each rank of a distributed launch it is the same."""
    trials: tuple[TrialRecord, ...] = ()
    """Earlier trials of ``first_load_that_fits``."""
    caps: tuple[tuple[str, int], ...] = ()
    """Devices, each with the bytes beyond which torch's allocator refuses."""
    vram_history: str | None = None
    """The file that torch's history of GPU memory is to be written to."""
    rank: Rank | None = None
    """Rank of this worker, if several run the item at once; ``None`` for a single worker."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Load the model of an item once, and nothing else."""

    item: ItemKey
    load: Load
    rank: Rank | None = None
    """Rank of this worker, if several workers load the model together; ``None`` for a single worker."""


@dataclass(frozen=True, slots=True)
class Reported:
    """A report, made portable by pytest's own hook."""

    data: dict[str, Any]
    failed_subtests: int = 0
    """Number of failed subtests of its test so far."""


@dataclass(frozen=True, slots=True)
class Warned:
    """A warning that pytest has recorded; classes do not travel, names do."""

    text: str
    categories: tuple[tuple[str, str], ...]
    """The class and its bases, the closest first, each by module and qualified name."""
    filename: str
    lineno: int
    when: str
    nodeid: str
    location: Any

    @classmethod
    def of(cls, message: warnings.WarningMessage, when: str, nodeid: str, location: Any) -> Self:
        categories = tuple((kind.__module__, kind.__qualname__) for kind in message.category.__mro__[:-1])
        return cls(text_of(message.message), categories, message.filename, message.lineno, when, nodeid, location)

    def rebuild(self, find: Callable[[str, str], type | None]) -> warnings.WarningMessage:
        """The warning with the closest of its classes that can be found, and that makes the same text."""
        for module, name in self.categories:
            category = find(module, name)
            if isinstance(category, type) and issubclass(category, Warning):
                # a class of the user's own may want other arguments
                with contextlib.suppress(Exception):
                    message = category(self.text)
                    if str(message) == self.text:
                        return warnings.WarningMessage(message, category, self.filename, self.lineno)
        return warnings.WarningMessage(Warning(self.text), Warning, self.filename, self.lineno)


@dataclass(frozen=True, slots=True)
class Aborted:
    """``pytest.exit``, Ctrl-C or ``session.shouldstop`` inside the test: the whole session is to end."""

    kind: Literal["exit", "interrupt", "stop"]
    reason: str
    returncode: int | None = None


@dataclass(frozen=True, slots=True)
class Raised:
    """An exception that ended a phase of the test."""

    type: str
    """Class name with its module, unless it is built in or of this package: ``"torch.OutOfMemoryError"``."""
    text: str
    stack: tuple[Frame, ...] = ()
    """Innermost first."""

    @classmethod
    def of(cls, error: BaseException) -> "Raised":
        kind = type(error)
        own = kind.__module__.partition(".")[0] == "pytest_llmmem"
        plain = own or kind.__module__ in {"builtins", "__main__", "_pytest.outcomes"}
        module = "" if plain else f"{kind.__module__}."
        return cls(f"{module}{kind.__qualname__}", _ends_of(text_of(error)), frames_of(error))

    @property
    def out_of_vram(self) -> CudaOutOfMemory | None:
        """The numbers, when it is memory of a GPU that was refused."""
        return CudaOutOfMemory.of_error(self.type, self.text)

    @property
    def line(self) -> str:
        """``"ValueError: ..."``, the first line of it."""
        first = (self.text.strip().splitlines() or [""])[0]
        return f"{self.type}: {first}" if first else self.type


def _ends_of(text: str) -> str:
    """A message that is not too long to be kept: of one that quotes another process's traceback, the last line says most."""
    return text if len(text) <= 2 * _KEPT else f"{text[:_KEPT]}\n…\n{text[-_KEPT:]}"


@dataclass(frozen=True, slots=True)
class Loaded:
    """``loaded_model`` is there; sizes in bytes."""

    load: str
    dtype: str
    nbytes: int
    mapped_bytes: int | None
    """Weights that are mapped and not resident yet."""
    kept_bytes: int | None
    """Freed by the load, and kept by the C library."""
    bits_per_parameter: float | None
    quantized_fraction: float
    disk_bytes: int
    """Left in the offload folder."""
    on_disk_bytes: int
    """Weights that are read from disk at each use."""
    call: str
    hints: tuple[str, ...] = ()
    """Arguments that do nothing in the installed versions."""


@dataclass(frozen=True, slots=True)
class AtEnd:
    """``loaded_model`` at the end of the test."""

    mapped_bytes: int | None
    """Weights that are mapped and not resident."""
    tie_faults: TieFaults


@dataclass(frozen=True, slots=True)
class Stepped:
    """Memory of training or inference steps; a later message of the same name replaces it."""

    memory: StepMemory


@dataclass(frozen=True, slots=True)
class Unusable:
    """A strategy cannot be used with what is installed."""

    reason: str
