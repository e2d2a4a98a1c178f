"""A loader of the user's own: any function from a path, or a ``LoadRequest``, to an object with tensors."""

import difflib
import importlib
import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.core.printable import excerpt
from pytest_llmmem.models.loading.request import LoadRequest
from pytest_llmmem.models.loading.tensor_walk import LEAVES

Loader = Callable[..., Any]


def import_loader(text: str) -> Loader:
    """Import the function named ``"package.module:function"``; a class or a method (``module:Class.load``) is accepted too.

    Raises ``ValueError`` with the reason.
    """
    module_name, _, path = text.partition(":")
    if not module_name or not path:
        msg = f"{text!r} does not name a function: write 'package.module:function'"
        raise ValueError(msg)
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        how = "put its folder on sys.path (ini: pythonpath = .)" if _is_absent(error, module_name) else "mend it"
        msg = f"{text!r}: {module_name} cannot be imported ({type(error).__name__}: {excerpt(error, limit=300)}): {how}"
        raise ValueError(msg) from error
    for name in path.split("."):
        if not hasattr(found, name):
            where = getattr(found, "__name__", module_name)
            msg = f"{text!r}: {where} has no {name!r}{_nearest(name, dir(found))}"
            raise ValueError(msg)
        found = getattr(found, name)
    return checked_loader(found)


def checked_loader(function: Any) -> Loader:
    """The function, if it can be called with a checkpoint. Raises ``ValueError`` with the reason."""
    if not callable(function):
        msg = f"{excerpt(repr(function))} is not a function: give one from a path to a model"
        raise ValueError(msg)  # noqa: TRY004 -- one error type for every invalid loader
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        msg = f"{name_of(function)} gives a {_awaited(function)}, and not a model: give a plain function"
        raise ValueError(msg)
    loader: Loader = function
    return loader


def check_options(function: Loader, options: Mapping[str, Any]) -> None:
    """Check arguments. Raises ``ValueError`` for keywords, or a number of arguments, that the function does not accept."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # a function in C has no signature and checks its arguments itself
    parameters = signature.parameters
    takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
    for name in options:
        if name not in parameters and not takes_any:
            msg = f"{name_of(function)} takes no argument {name!r}{_nearest(name, list(parameters)[1:])}"
            raise ValueError(msg)
    try:
        signature.bind(Path(), **options)
    except TypeError as error:
        msg = f"{name_of(function)}{signature} cannot be called with a path{_also(options)}: {error}"
        raise ValueError(msg) from None


def name_of(function: Loader) -> str:
    """``module:function``, as ``--llm-loader`` takes it."""
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return f"{getattr(function, '__module__', None) or type(function).__module__}:{name}"


def call_loader(function: Loader, request: LoadRequest, options: Mapping[str, Any]) -> Any:
    """Call the loader. Raises ``CheckpointError`` for a result that is not a model, and any error of the loader."""
    __tracebackhide__ = True
    model = function(_argument(function, request), **options)
    if inspect.isawaitable(model) or inspect.isgenerator(model):
        if inspect.iscoroutine(model):
            model.close()  # otherwise Python warns that it was never awaited
        kind = f"returned a {type(model).__name__}"
        msg = f"the loader {name_of(function)} {kind}: run it inside the loader, and return the model"
        raise CheckpointError(msg)
    if isinstance(model, (*LEAVES, os.PathLike)) or (isinstance(model, dict | list | tuple) and not model):
        kind = f"returned {excerpt(repr(model))}, which has no tensors"
        msg = f"the loader {name_of(function)} {kind}: return the model, or whatever holds them"
        raise CheckpointError(msg)
    return model


def written_call(function: Loader, request: LoadRequest, options: Mapping[str, Any]) -> str:
    """The call as text, as a user would write it."""
    given = (f"{name}={value!r}" for name, value in options.items())
    name = name_of(function).replace(":", ".")
    return f"{name}({', '.join((repr(str(request.checkpoint.path)), *given))})"


def _argument(function: Loader, request: LoadRequest) -> Path | str | LoadRequest:
    """The argument for the first parameter: the request if it is annotated so or named ``request``, text if annotated ``str``."""
    try:
        first = next(iter(inspect.signature(function).parameters.values()), None)
    except (TypeError, ValueError):
        return request.checkpoint.path
    wanted = first.annotation if first else None
    if (first and first.name == "request") or wanted is LoadRequest or wanted == "LoadRequest":
        return request
    return str(request.checkpoint.path) if wanted in {str, "str"} else request.checkpoint.path


def _is_absent(error: Exception, module_name: str) -> bool:
    return isinstance(error, ModuleNotFoundError) and error.name is not None and module_name.startswith(error.name)


def _awaited(function: Any) -> str:
    return "coroutine" if inspect.iscoroutinefunction(function) else "generator"


def _nearest(name: str, names: list[str]) -> str:
    public = [each for each in names if not each.startswith("__")]
    close = difflib.get_close_matches(name, public, n=1)
    if close:
        return f": did you mean {close[0]!r}?"
    return f": it has {', '.join(public[:12])}" if public else ""


def _also(options: Mapping[str, Any]) -> str:
    return f" and {', '.join(options)}" if options else ""
