"""The program of a spawned worker: ``python -m pytest_llmmem.measuring.spawned``, started by ``measure`` alone."""

import os
import pickle
import runpy
import sys
import types
from typing import Final

from pytest_llmmem import probes
from pytest_llmmem.measuring.call import NotImported, run_calls, write_output_to
from pytest_llmmem.measuring.sources import SpawnedCall, script
from pytest_llmmem.workers import child
from pytest_llmmem.workers.spawned import spawn_arguments

_MAIN: Final = "__mp_main__"
"""Name that ``multiprocessing`` gives a script in its children: code below ``if __name__ == "__main__"`` does not run."""


def main() -> None:
    """Serve the caller, then leave."""
    given = spawn_arguments()
    if given is None:
        raise SystemExit("this program is started by pytest_llmmem.measure, and not by hand")
    if sys.platform != "win32":
        for descriptor in given.streams:
            os.close(descriptor)
    write_output_to(1)
    child.serve(given.channel, given.files.stacks, _run, malloc="steady", mappings=probes.mappings())
    os._exit(0)


def _run(job: SpawnedCall, connection: child.ParentConnection) -> None:
    sys.path[:] = job.path
    try:
        if job.main is not None:
            _import_main(job.main)
        calls = pickle.loads(job.pickled)  # noqa: S301 -- from our parent
    except BaseException as error:  # noqa: BLE001 -- whatever a module raises at import
        connection.send(NotImported(f"{type(error).__name__}: {error}"))
        return
    run_calls(calls, connection)


def _import_main(path: str) -> None:
    """Run a script as a module, and let it stand for ``__main__``, as ``multiprocessing`` does."""
    module = types.ModuleType(_MAIN)
    script.append(path)
    module.__dict__.update(runpy.run_path(path, run_name=_MAIN))
    script.clear()
    sys.modules["__main__"] = sys.modules[_MAIN] = module


if __name__ == "__main__":
    main()
