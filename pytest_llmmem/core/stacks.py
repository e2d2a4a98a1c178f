"""Python stacks as faulthandler writes them, told apart by whose code they are in."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

_FRAME: Final = re.compile(r'  File "(?P<file>.*)", line (?P<line>\d+|\?\?\?) in (?P<function>.*)')
_MACHINERY: Final = re.compile(
    r"/(_pytest|pluggy|pytest_llmmem|execnet|xdist)/|/pytest/__main__\.py$|/bin/(pytest|py\.test)$|<frozen runpy>|^<string>$"
    r"|-packages/pytest_\w+(/|\.py$)"
)
_LIBRARY: Final = ("/site-packages/", "/dist-packages/", "/lib/python3", "\\lib\\")


@dataclass(frozen=True, slots=True)
class Frame:
    """One line of a stack."""

    file: str
    line: str
    function: str

    @property
    def is_machinery(self) -> bool:
        """Whether it is pytest's or our own: never what the reader looks for."""
        return _MACHINERY.search(self.file) is not None

    @property
    def is_pytests(self) -> bool:
        """Whether its thread runs the test; our own frames are in threads of a load too."""
        return "/_pytest/" in self.file.replace("\\", "/")

    @property
    def is_users(self) -> bool:
        """Whether it is neither a library's nor the standard library's."""
        return not self.is_machinery and not self.file.startswith("<") and not any(p in self.file for p in _LIBRARY)

    def shown(self, root: str) -> str:
        """``file:line in function``, the file below ``root`` or below its package's folder."""
        parts = PurePath(self.file).parts
        for marker in ("site-packages", "dist-packages"):
            if marker in parts:
                parts = parts[parts.index(marker) + 1 :]
        path = PurePath(*parts)
        if path.is_relative_to(root):
            path = path.relative_to(root)
        return f"{path}:{self.line} in {self.function}"


def parse_stack(dump: str) -> tuple[Frame, ...]:
    """The frames of the thread that matters, innermost first, without pytest's and our own.

    In a crash that is the one at fault, which faulthandler marks ``Current thread``; else the one that pytest runs the
    test in.
    """
    threads: list[list[Frame]] = []
    current: list[Frame] | None = None
    for line in dump.splitlines():
        if "(most recent call first)" in line:
            threads.append([])
            if line.startswith("Current thread"):
                current = threads[-1]
        elif threads and (match := _FRAME.match(line)):
            threads[-1].append(Frame(match["file"], match["line"], match["function"]))
    running = next((frames for frames in threads if any(frame.is_pytests for frame in frames)), None)
    chosen = current or running or next((frames for frames in reversed(threads) if frames), [])
    return tuple(frame for frame in chosen if not frame.is_machinery)


def users_first(frames: Sequence[Frame]) -> tuple[Frame, ...]:
    """The user's frames, innermost first, then what they were calling."""
    users = tuple(frame for frame in frames if frame.is_users)
    return users + tuple(frame for frame in frames if not frame.is_users)
