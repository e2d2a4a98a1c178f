"""The environment of a session: machine, versions and settings."""

import platform
import sys

from pytest_llmmem.plugin.settings import Settings


def environment(settings: Settings) -> dict[str, str | int | float | None]:
    """Describe the environment; versions of libraries are read without importing them."""
    from importlib.metadata import PackageNotFoundError, version

    from pytest_llmmem import probes

    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    libraries = ("pytest-llmmem", "pytest", "torch", "transformers", "accelerate", "safetensors")
    host = probes.host_memory()
    return {
        "python": platform.python_version(),
        "platform": sys.platform,
        "kernel": platform.release(),
        "machine": platform.machine(),
        "host_bytes": host.total_bytes,
        "host_limited_by": host.limited_by,
        "malloc": settings.malloc,
        "isolate": settings.isolate,
        "mark_error_bytes": probes.mark_error_bytes(),
        **{name: installed(name) for name in libraries},
    }
