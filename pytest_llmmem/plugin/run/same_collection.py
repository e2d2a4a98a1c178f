"""The sessions of one ``torchrun -m pytest`` compare what they have collected: a rank that runs another test waits for ever.

Nobody waits for the others here. Each session writes its tests into its own folder, and looks into those of the ranks that
have collected before it: the last one sees all.
"""

import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from pytest_llmmem.core.errors import SettingError
from pytest_llmmem.core.launch import rank_of
from pytest_llmmem.workers.session_folders import SessionFolder

_LAUNCH: Final = "TORCHELASTIC_RUN_ID"
"""Variable in the environment of each process that ``torchrun`` starts."""
_NAME: Final = "llmmem-collected.json"


def compare_collections(folder: Path, tests: Sequence[str], environment: Mapping[str, str]) -> None:
    """Raise ``SettingError`` when another rank of this launch runs other tests, or the same in another order.

    ``folder`` is this session's own, next to those of the others.
    """
    rank = rank_of(environment)
    if rank is None or _LAUNCH not in environment:
        return
    # all ranks have one parent, the launcher, which may start them again
    launch = [os.getppid(), environment[_LAUNCH], environment.get("TORCHELASTIC_RESTART_COUNT", "")]
    written = folder / f"{_NAME}.new"
    written.write_text(json.dumps({"launch": launch, "rank": rank, "tests": list(tests)}), encoding="utf-8")
    written.replace(folder / _NAME)
    for other, others_tests in _others(folder.parent, launch, rank):
        for place, (here, there) in enumerate(itertools.zip_longest(tests, others_tests), start=1):
            if here != there:
                first, second = sorted([(rank, here or "none"), (other, there or "none")])
                msg = (
                    f"the ranks of this launch run different tests: isolated test {place} is {first[1]} on rank {first[0]}, and "
                    f"{second[1]} on rank {second[0]}: collect the same tests in the same order on each, and give a plugin "
                    "that shuffles them one seed (-p no:randomly, or --randomly-seed)"
                )
                raise SettingError(msg)


def compare_empty_collection(environment: Mapping[str, str]) -> None:
    """The same for a session that runs no isolated test, and so has no folder.

    It may end before the others have collected: what it has written stays for them, and a later session removes it.
    """
    if rank_of(environment) is None or _LAUNCH not in environment:
        return
    folder = SessionFolder.create()
    try:
        compare_collections(folder.path, [], environment)
    finally:
        folder.abandon()


def _others(folders: Path, launch: Sequence[object], rank: int) -> Iterator[tuple[int, list[str]]]:
    """The other ranks of the launch, with their tests."""
    for file in folders.glob(f"*/{_NAME}"):
        try:
            known = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # of another user, or gone by now
            continue
        if isinstance(known, dict) and known.get("launch") == launch and known["rank"] != rank:
            yield known["rank"], known["tests"]
