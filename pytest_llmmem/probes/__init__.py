"""The operating system's numbers about processes and the machine; read-only.

This is the one platform switch for measuring: every platform's file offers the same names.

    open_memory(pid, libraries)     readings of one process; ``read()`` is ``None`` once it is gone
    mappings() -> Mappings          what this process has mapped for itself: its libraries, and what a fork inherits
    mapped_files() -> Spans         all that this process has mapped from files
    count_pages(pid, spans, kind)   how much of some mappings is resident as pages of that kind
    count_unreclaimable() -> int    what this process holds, counted page by page
    reset_mark() -> bool            reset our own high-water mark; whether there is one to reset
    shared_once(pids) -> Tree       several processes, every shared page counted once
    descendants(pid) -> tuple       process ids below a process
    shares_memory(pid, other)       whether two processes are one in memory
    command(pid) -> tuple           the program and the arguments that a process runs
    environment(pid) -> dict        what a process was started with
    open_files(pid) -> set          names of the files that a process has open or mapped
    has_memory(pid) -> bool         whether a process lives and has not given up its memory
    mark_error_bytes() -> int       how far the high-water mark can be off on this machine
    host_memory() -> HostMemory     what is there and what is left, containers included
    faulted_bytes() -> int          an upper bound of the pages that this process has copied
    written_bytes(pid) -> int       what a process has written to storage
    oom_kills_on_host() -> int      the kernel's count of OOM kills since boot
    private_maps() -> list          what this process has mapped for itself and can write to
    gpu_files_open(pid) -> bool     whether a process has a GPU open
    gpu_files_there() -> bool       whether there is one to open
    swap_bytes() -> int             swap of the machine
"""

import sys
from typing import Final

if sys.platform == "linux":
    from pytest_llmmem.probes.linux import (
        METHOD,
        Memory,
        gpu_files_open,
        gpu_files_there,
        host_memory,
        mark_error_bytes,
        oom_kills_on_host,
        open_memory,
        reset_mark,
        swap_bytes,
        written_bytes,
    )
    from pytest_llmmem.probes.linux_faults import faulted_bytes
    from pytest_llmmem.probes.linux_pages import (
        count_pages,
        count_unreclaimable,
        mapped_files,
        mappings,
        private_maps,
        shared_once,
    )
    from pytest_llmmem.probes.linux_processes import (
        command,
        descendants,
        environment,
        has_memory,
        open_files,
        shares_memory,
    )
else:
    from pytest_llmmem.probes.portable import (
        command,
        count_pages,
        descendants,
        environment,
        faulted_bytes,
        gpu_files_open,
        gpu_files_there,
        has_memory,
        mapped_files,
        mappings,
        mark_error_bytes,
        oom_kills_on_host,
        open_files,
        private_maps,
        reset_mark,
        shares_memory,
        swap_bytes,
        written_bytes,
    )

    if sys.platform == "win32":
        from pytest_llmmem.probes.windows import (
            METHOD,
            Memory,
            count_unreclaimable,
            host_memory,
            open_memory,
            shared_once,
        )
    else:
        from pytest_llmmem.probes.macos import (
            METHOD,
            Memory,
            count_unreclaimable,
            host_memory,
            open_memory,
            shared_once,
        )

INTERVAL_S: Final = 0.002
"""Time between two samples. A shorter interval costs too much CPU for its gain: see ``docs/numbers.md``."""

__all__ = [
    "INTERVAL_S",
    "METHOD",
    "Memory",
    "command",
    "count_pages",
    "count_unreclaimable",
    "descendants",
    "environment",
    "faulted_bytes",
    "gpu_files_open",
    "gpu_files_there",
    "has_memory",
    "host_memory",
    "mapped_files",
    "mappings",
    "mark_error_bytes",
    "oom_kills_on_host",
    "open_files",
    "open_memory",
    "private_maps",
    "reset_mark",
    "shared_once",
    "shares_memory",
    "swap_bytes",
    "written_bytes",
]
