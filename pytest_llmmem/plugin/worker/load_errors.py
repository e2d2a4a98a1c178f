"""Errors of a load, shown as what happened and the user's own frames: the functions of the libraries have hundreds of lines."""

from collections.abc import Iterator
from types import TracebackType
from typing import Final

import pytest

from pytest_llmmem.core.stacks import Frame
from pytest_llmmem.models.loading.load_model import load_model

_LOADING: Final = load_model.__code__


def without_libraries(
    excinfo: "pytest.ExceptionInfo[BaseException]", config: pytest.Config
) -> "pytest.ExceptionInfo[BaseException]":
    """The same error, without the frames of libraries where it was raised while ``loaded_model`` was loaded.

    ``--full-trace`` shows them, as it shows all that pytest hides.
    """
    error = excinfo.value
    if config.getoption("fulltrace") or not any(trace.tb_frame.f_code is _LOADING for trace in _traces(error)):
        return excinfo
    for each in (error, *_causes(error)):
        each.__traceback__ = _shortened(each)
    return pytest.ExceptionInfo.from_exception(error)


def _shortened(error: BaseException) -> TracebackType | None:
    shortened = None
    for trace in reversed(list(_traces(error))):
        frame = Frame(trace.tb_frame.f_code.co_filename, "", "")
        if frame.is_users or frame.is_machinery:  # pytest hides its own frames and ours by itself
            shortened = TracebackType(shortened, trace.tb_frame, trace.tb_lasti, trace.tb_lineno)
    return shortened


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exceptions that are shown above this one."""
    seen = {id(error)}
    while (cause := error.__cause__ or (None if error.__suppress_context__ else error.__context__)) is not None:
        if id(cause) in seen:
            return
        seen.add(id(cause))
        yield cause
        error = cause


def _traces(error: BaseException) -> Iterator[TracebackType]:
    trace = error.__traceback__
    while trace is not None:
        yield trace
        trace = trace.tb_next
