"""All that is known of a test that failed, or that may not have done what it was meant to do."""

from dataclasses import dataclass

from pytest_llmmem.core.children import ChildrenRecord
from pytest_llmmem.core.endings import Ending
from pytest_llmmem.core.record_parts import AliveRecord
from pytest_llmmem.core.stacks import Frame


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFacts:
    """Facts from the checkpoint's headers, read after the test has ended."""

    weights_bytes: int
    dtype: str | None = None
    """The dtype of most bytes: ``"float16"``."""
    duplicates: tuple[str, ...] = ()
    """Weight files of a second format, which no load reads."""
    truncated: tuple[str, ...] = ()
    """Shard files that are shorter than their headers say, or that have no header any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadFacts:
    """The request of a load, and its result; ``None`` is unknown."""

    dtype: str | None = None
    """The dtype of the model: ``"float32"``."""
    asked_dtype: str | None = None
    """The dtype that was asked for; ``None`` when it was left to the library."""
    nbytes: int | None = None
    """Storage of the model in memory."""
    peak_bytes: int | None = None
    """Unreclaimable growth while it loaded."""
    kept_bytes: int | None = None
    """Freed memory that the C library kept when the load returned."""
    asked_bits: int | None = None
    """Bits of the quantization that was asked for: 8 or 4; ``None`` without one."""
    bits_per_parameter: float | None = None
    quantized_fraction: float | None = None
    """The share of the parameters that is stored in fewer bits, 0 to 1."""
    planned_host_bytes: int | None = None
    """Host memory that a plan of ``device_map`` was free to use; ``None`` without such a plan."""
    planned_disk_bytes: int | None = None
    """Bytes of weights that a plan of ``device_map`` put on disk; ``None`` without such a plan."""
    lost_ties: tuple[str, ...] = ()
    """Weights with memory of their own at the test's end, which the class ties to another and the checkpoint stores once."""
    stored_twice: tuple[str, ...] = ()
    """Tied weights that the checkpoint stores under both names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The facts that a diagnosis is derived from. ``None`` is unknown: nothing is concluded from it."""

    ending: Ending
    error_type: str | None = None
    """``"ValueError"``, with its module where it is not built in: ``"torch.OutOfMemoryError"``; ``None`` without an exception."""
    error_text: str = ""
    """The exception's whole message."""
    stack: tuple[Frame, ...] = ()
    """Frames of the exception, or of the death; innermost first."""
    place: str | None = None
    """Position in a load: ``"shard 2 of 6, `model.layers.11.mlp.down_proj.weight`"``."""
    checkpoint: CheckpointFacts | None = None
    load: LoadFacts | None = None
    alive: tuple[AliveRecord, ...] = ()
    """Memory of torch's objects as a budget was crossed, the largest first; empty when none was."""
    children: ChildrenRecord | None = None
    """The processes that the test had started, when all together held most."""
    host_available_bytes: int | None = None
    """Free on the machine before the test."""
    container_available_bytes: int | None = None
    """Left of the container's limit before the test; ``None`` when there is none, or it is unknown."""
    shm_total_bytes: int | None = None
    """The size of ``/dev/shm``."""
    shm_free_bytes: int | None = None
    """The free space in ``/dev/shm`` after the test."""

    @property
    def error_name(self) -> str | None:
        """The exception's class without its module, which libraries move about."""
        return self.error_type.rpartition(".")[2] if self.error_type else None

    @property
    def available_bytes(self) -> int | None:
        """The nearer of the machine's and the container's limits."""
        known = [size for size in (self.host_available_bytes, self.container_available_bytes) if size is not None]
        return min(known, default=None)

    def was_in(self, function: str) -> bool:
        """Whether the stack passed through ``"accelerate/utils/offload.py offload_weight"``, or a part of such a name."""
        return any(function in f"{frame.file} {frame.function}".replace("\\", "/") for frame in self.stack)


def frames_of(error: BaseException) -> tuple[Frame, ...]:
    """The stack that an exception has come through, innermost first."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(Frame(code.co_filename, str(trace.tb_lineno), code.co_name))
        trace = trace.tb_next
    return tuple(reversed(frames))
