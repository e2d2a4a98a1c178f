"""Arguments and environment variables that a version of transformers accepts and ignores.

The wheels before and after each version boundary were checked.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

MajorMinor = tuple[int, int]
"""Major and minor version: no patch release changes an entry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """An argument of ``from_pretrained`` or ``save_pretrained``, or an environment variable."""

    name: str
    starts: MajorMinor = (0, 0)
    """The first version in which it has an effect."""
    ends: MajorMinor | None = None
    """The first version in which it has no effect again."""
    instead: str

    def hint(self, installed: MajorMinor, version: str) -> str | None:
        """The reason that the argument does nothing in the installed version; ``None`` where it has an effect."""
        if installed < self.starts:
            when = f"before transformers {self.starts[0]}.{self.starts[1]}"
        elif self.ends and installed >= self.ends:
            when = f"since transformers {self.ends[0]}.{self.ends[1]}"
        else:
            return None
        return f"{self.name} has no effect {when} (installed: {version}): {self.instead}"


_ARGUMENTS: Final = (
    _Known(name="low_cpu_mem_usage", ends=(4, 51), instead="leave it out"),
    _Known(name="_fast_init", ends=(4, 51), instead="leave it out"),
    _Known(name="offload_state_dict", ends=(4, 57), instead="leave it out"),
    _Known(name="from_tf", ends=(5, 0), instead="convert the checkpoint to safetensors with transformers 4.57"),
    _Known(name="from_flax", ends=(5, 0), instead="convert the checkpoint to safetensors with transformers 4.57"),
    _Known(name="safe_serialization", ends=(5, 0), instead="save_pretrained writes safetensors; leave it out"),
)

_VARIABLES: Final = (
    _Known(name="HF_ENABLE_PARALLEL_LOADING", starts=(4, 53), ends=(5, 0), instead="unset it"),
    _Known(name="HF_PARALLEL_LOADING_WORKERS", starts=(4, 53), ends=(5, 0), instead="unset it"),
    _Known(name="HF_DEACTIVATE_ASYNC_LOAD", starts=(5, 0), instead="unset it"),
)

_PLANS: Final = {"auto", "balanced", "balanced_low_0", "sequential"}


def noop_arguments(options: Mapping[str, Any], environ: Mapping[str, str], *, transformers: str) -> tuple[str, ...]:
    """A sentence for each option and environment variable that has no effect in that version.

    ``options`` are the arguments of ``from_pretrained``, from a test and from its strategy. An option that
    is ``None`` and a variable that is empty count as not given.
    """
    return (*_outlived(options, environ, transformers), *_unplanned(options))


def _outlived(options: Mapping[str, Any], environ: Mapping[str, str], version: str) -> Iterator[str]:
    installed = _parse(version)
    given = {name for name, value in options.items() if value is not None}
    given |= {name for name, value in environ.items() if value}
    for known in (*_ARGUMENTS, *_VARIABLES):
        if known.name in given and (hint := known.hint(installed, version)):
            yield hint


def is_plan(device_map: object) -> bool:
    """Whether a ``device_map`` is computed by accelerate, which then reads ``max_memory``."""
    return isinstance(device_map, str) and device_map in _PLANS


def _unplanned(options: Mapping[str, Any]) -> Iterator[str]:
    """Options that only a computed device map reads, where the device map is not computed."""
    device_map = options.get("device_map")
    if options.get("max_memory") is not None and not is_plan(device_map):
        yield "max_memory has no effect unless the device_map is worked out: pass device_map='auto' too"
    if options.get("offload_folder") is not None and device_map is None:
        yield "offload_folder has no effect without a device_map: pass device_map='auto' too"


def _parse(version: str) -> MajorMinor:
    """Parse ``"4.51.0.dev0"`` to ``(4, 51)``: what a release changes, the commits before it may have changed already.

    Raises ``ValueError`` for an invalid version.
    """
    from packaging.version import InvalidVersion, Version

    try:
        parsed = Version(version)
    except InvalidVersion:
        msg = f"{version!r} is no version of transformers: give transformers.__version__"
        raise ValueError(msg) from None
    return parsed.major, parsed.minor
