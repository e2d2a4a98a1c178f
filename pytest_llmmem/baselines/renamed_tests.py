"""Guesses which tests were renamed: there is a baseline without its test, and a test without a baseline."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from pytest_llmmem.baselines.tolerance import parse_tolerance
from pytest_llmmem.baselines.tolerated_changes import changes_between
from pytest_llmmem.baselines.values import Baseline

_CLOSE: Final = parse_tolerance("5% + 1MB")
"""Tighter than a run's tolerance: two small tests have nothing to do with each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A baseline that seems to belong to a test of another name."""

    old: str
    new: str
    why: str

    def sentence(self) -> str:
        return (
            f"{self.new} has no baseline, and {self.old} has one and no test ({self.why}): "
            "if it was renamed, rename it in the baselines file too"
        )


def without_test(
    known: Iterable[str], collected: Collection[str], is_file: Callable[[str], bool], *, whole_files: bool
) -> tuple[str, ...]:
    """The baselines of removed tests: the file is gone, or it was collected without any test of the function.

    ``collected`` has every node id that was collected, the deselected too; ``whole_files`` is whether they are all that is
    in their files. ``is_file`` says whether a file is there, by its path below the root. A file that is there and was not
    collected tells nothing, and other parameters, such as another model, may come back.
    """
    files = {_file(nodeid) for nodeid in collected} if whole_files else set()
    functions = {_without_parameters(nodeid) for nodeid in collected}
    absent = (nodeid for nodeid in known if _without_parameters(nodeid) not in functions)
    return tuple(nodeid for nodeid in absent if _file(nodeid) in files or not is_file(_file(nodeid)))


def moves(gone: Mapping[str, Baseline], new: Mapping[str, Baseline]) -> tuple[Move, ...]:
    """Match each new test with the one baseline that fits: by the function's name, else by its numbers.

    Where two fit, or one fits two tests, nothing is offered.
    """
    offers = [offer for nodeid, baseline in new.items() if (offer := _move(nodeid, baseline, gone))]
    claimed = [offer.old for offer in offers]
    return tuple(offer for offer in offers if claimed.count(offer.old) == 1)


def _move(nodeid: str, baseline: Baseline, gone: Mapping[str, Baseline]) -> Move | None:
    named = [old for old in gone if _function(old) == _function(nodeid)]
    close = [old for old in gone if _is_close(gone[old], baseline)]
    both = [old for old in named if old in close]
    for fits, why in (
        (both, "the same function name, close numbers"),
        (named, "the same function name"),
        ([] if named else close, "close numbers"),
    ):
        if len(fits) == 1:
            return Move(old=fits[0], new=nodeid, why=why)
    return None


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def _function(nodeid: str) -> str:
    """The function's name, without its parameters."""
    return _without_parameters(nodeid).rpartition("::")[2]


def _without_parameters(nodeid: str) -> str:
    file, _, name = nodeid.partition("::")
    return f"{file}::{name.partition('[')[0]}"


def _is_close(old: Baseline, new: Baseline) -> bool:
    """All measures within the tolerance, whatever their error: that would let any two small tests be close."""
    return all(
        abs(change.difference_bytes) <= _CLOSE.bytes(change.before_bytes)
        for change in changes_between(old, new, _CLOSE)
    )
