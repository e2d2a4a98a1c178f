"""Python stacks as faulthandler writes them, with frames classified by the owner of their code."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from types import FrameType
from typing import Final, Literal

At = Literal["the crossing", "the end"]
"""Moment at which a stack was taken: as a limit was crossed, or at death."""

_FRAME: Final = re.compile(r'  File "(?P<file>.*)", line (?P<line>\d+|\?\?\?) in (?P<function>.*)')
_MACHINERY: Final = re.compile(
    r"/(_pytest|pluggy|pytest_llmmem|execnet|xdist)/|/pytest/__main__\.py$|/bin/(pytest|py\.test)$"
    r"|<frozen (runpy|importlib\b)|^<string>$|-packages/pytest_\w+(/|\.py$)"
)
_DEPTH: Final = 100
"""faulthandler writes so many frames of a thread, the innermost (``MAX_FRAME_DEPTH`` in CPython's ``traceback.c``). Python
3.13 does not say that there are more."""
_ALONE: Final = "Stack "
"""The beginning of its dump of one thread."""
_REST: Final = re.compile(r"Outer end behind (\d+) frames ")
_LIBRARY: Final = re.compile(r"/(site|dist)-packages/|/lib/python3|^[A-Za-z]:/.*/Lib/|/python3\d+\.zip/")
_EXCEPTION: Final = re.compile(r"^Windows fatal exception: (.*)\n", re.MULTILINE)
_BREAKPOINT: Final = 0x80000003
"""Exception with which our supervisor has the stacks written and the process ended."""
_EXCEPTION_CODES: Final = {
    "access violation": 0xC0000005,
    "page error": 0xC0000006,
    "float divide by zero": 0xC000008E,
    "float overflow": 0xC0000091,
    "int divide by zero": 0xC0000094,
    "integer overflow": 0xC0000095,
    "stack overflow": 0xC00000FD,
}
"""Exception codes by the names that faulthandler writes (``faulthandler_exc_handler``)."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One line of a stack."""

    file: str
    line: str
    function: str

    @property
    def _path(self) -> str:
        return self.file.replace("\\", "/")

    @property
    def is_machinery(self) -> bool:
        """Whether it is pytest's or our own: never what the reader looks for."""
        return _MACHINERY.search(self._path) is not None

    @property
    def is_pytests(self) -> bool:
        """Whether its thread runs the test; our own frames are in threads of a load too."""
        return "/_pytest/" in self._path

    @property
    def is_users(self) -> bool:
        """Whether it is neither a library's nor the standard library's."""
        return not self.is_machinery and not self.file.startswith("<") and not _LIBRARY.search(self._path)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A Python stack, without pytest's frames and our own, and what of it is missing."""

    frames: tuple[Frame, ...] = ()
    """Innermost first."""
    cut: int | None = 0
    """The number of frames missing between its ends; ``None`` when the outer end is missing, however long it is."""
    at: At = "the end"

    @property
    def users_first(self) -> tuple[Frame, ...]:
        """The user's frames, then what they were calling."""
        return self.users + tuple(frame for frame in self.frames if not frame.is_users)

    @property
    def users(self) -> tuple[Frame, ...]:
        return tuple(frame for frame in self.frames if frame.is_users)


NO_STACK: Final = Stack()


def rest_of_stack(innermost: FrameType | None) -> str:
    """The outer end of a stack, which faulthandler's dump leaves out, in the same form; it may have no frames."""
    frames = []
    while innermost is not None:
        frames.append((innermost.f_code, innermost.f_lineno))
        innermost = innermost.f_back
    outer = frames[_DEPTH:]
    missing = max(0, len(outer) - _DEPTH)
    lines = (f'  File "{code.co_filename}", line {line} in {code.co_name}' for code, line in outer[missing:])
    return "\n".join((f"Outer end behind {missing} frames (most recent call first):", *lines, ""))


def stack_text(innermost: FrameType | None) -> str:
    """A whole stack in the form of faulthandler's dump of one thread, and its outer end behind it."""
    lines, frame = [f"{_ALONE}(most recent call first):"], innermost
    while frame is not None and len(lines) <= _DEPTH:
        lines.append(f'  File "{frame.f_code.co_filename}", line {frame.f_lineno} in {frame.f_code.co_name}')
        frame = frame.f_back
    return "\n".join((*lines, rest_of_stack(innermost)))


def without_handled(dump: str, died_of: int | None) -> str:
    """The dump without the stacks of Windows exceptions that were handled: of those the process did not die.

    faulthandler writes a stack for each exception when it is raised. ``died_of`` is the exit status.
    """
    fatal = {died_of, _BREAKPOINT} - {None}
    sections = _EXCEPTION.split(dump)
    kept = [sections[0]]
    for exception, rest in zip(sections[1::2], sections[2::2], strict=True):
        # behind the exception's own stacks there may be what was written later
        later = re.search(r"^(?:Stack |Fatal Python error)", rest, re.MULTILINE)
        if _exception_code(exception) in fatal:
            kept.append(rest)
        elif later is not None:
            kept.append(rest[later.start() :])
    return "".join(kept)


def _exception_code(text: str) -> int | None:
    text = text.strip()
    if text.startswith("code 0x"):
        return int(text.removeprefix("code 0x"), 16)
    return _EXCEPTION_CODES.get(text)


def has_both_ends(dump: str) -> bool:
    """Whether an outer end was written, though it may have no frames."""
    return any(section.missing is not None for section in _sections(dump))


def parse_stack(dump: str, *, at: At = "the end", crashed: bool = True) -> Stack:
    """The stack that matters of what faulthandler has written, and ``rest_of_stack`` beside it.

    At a crossing that is the first of the main thread alone. At the end it is the thread at fault, which faulthandler marks
    ``Current thread``; else the one that pytest runs the test in. In a process that was ended from outside and has not
    ``crashed``, the mark is on whichever thread received the signal, and the test's own thread comes first.
    """
    sections = _sections(dump)
    alone = [section for section in sections if section.header.startswith(_ALONE)]
    threads = [section for section in sections if "hread 0x" in section.header]
    outer = next((section for section in sections if section.missing is not None and section.frames), None)
    chosen = (
        next(iter(alone), None)
        if at == "the crossing"
        else _at_fault(threads, crashed=crashed) or next(reversed(alone), None)
    )
    if chosen is None:
        return Stack(at=at)
    frames, cut = chosen.frames, None if chosen.is_cut else 0
    if chosen.is_cut and outer is not None:
        frames, cut = chosen.frames + outer.frames, outer.missing
    return Stack(frames=tuple(frame for frame in frames if not frame.is_machinery), cut=cut, at=at)


@dataclass(slots=True)
class _Section:
    """One thread of a dump, or the outer end of one."""

    header: str
    frames: list[Frame] = field(default_factory=list)

    @property
    def is_cut(self) -> bool:
        """Whether there are more, beyond what faulthandler writes."""
        return len(self.frames) >= _DEPTH

    @property
    def missing(self) -> int | None:
        """The number of frames between an outer end and what faulthandler wrote; ``None`` for a thread."""
        match = _REST.match(self.header)
        return int(match[1]) if match else None


def _sections(dump: str) -> list[_Section]:
    sections: list[_Section] = []
    for line in dump.splitlines():
        if "(most recent call first)" in line:
            sections.append(_Section(line))
        elif sections and (match := _FRAME.match(line)):
            sections[-1].frames.append(Frame(match["file"], match["line"], match["function"]))
    return sections


def _at_fault(threads: Sequence[_Section], *, crashed: bool) -> _Section | None:
    current = next((thread for thread in reversed(threads) if thread.header.startswith("Current thread")), None)
    running = next((thread for thread in threads if any(frame.is_pytests for frame in thread.frames)), None)
    first, second = (current, running) if crashed else (running, current)
    return first or second or next((thread for thread in reversed(threads) if thread.frames), None)


def stack_heading(at: str, cut: int | None) -> str:
    """``"at the crossing, yours first; 57 frames in the middle are cut"``."""
    missing = "the outer end is cut" if cut is None else f"{cut} frames in the middle are cut" if cut else ""
    return "; ".join(filter(None, (f"at {at}, yours first", missing)))


def elided(lines: Sequence[str], own: int, *, most: int) -> list[str]:
    """At most so many lines of a stack whose first ``own`` are the user's: of these both ends are kept."""
    if len(lines) <= most:
        return list(lines)
    if own <= most:
        return [*lines[:most], f"and {len(lines) - most} more"]
    outer = most // 3
    inner = most - outer
    more = [f"and {len(lines) - own} more"] if len(lines) > own else []
    return [*lines[:inner], f"… {own - most} more of yours", *lines[own - outer : own], *more]
