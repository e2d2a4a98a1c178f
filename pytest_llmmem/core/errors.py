"""The exceptions of this project.

Each message has the place, the given value, the accepted values and the fix, so it is clear without a traceback.

    LlmmemError
    ├── SettingError      an option or an ini value
    ├── MarkerError       a marker on one test
    ├── DeviceError       a GPU that a test needs, and that is not here
    ├── SourceError       a ``--llm-model`` value that cannot become a folder
    ├── CheckpointError   a folder that is not a (whole) checkpoint
    ├── StepError         a training or inference step that cannot be run or predicted
    ├── BaselineError     a file of baselines, or a report to compare with, that cannot be used
    ├── BaselineExceeded  a test used more than its baseline allows
    ├── BudgetExceeded    a test, or a ``memory_budget`` block, used more than its limit
    └── WorkerCrashed     the worker died: for ``xfail(raises=WorkerCrashed)``
"""

from pytest_llmmem.core.printable import printable


class LlmmemError(Exception):
    """The root: catching it catches all of ours and nothing else."""

    __module__ = "pytest_llmmem"


class SettingError(LlmmemError):
    """An option or an ini value that cannot be used."""


class MarkerError(LlmmemError):
    """A marker that cannot be used; it fails the test that carries it."""


class DeviceError(LlmmemError):
    """A GPU that a test needs is not here; skips the test, or fails it with ``--llm-require-gpu``."""


class _PrintableError(LlmmemError):
    """Names and texts from files of others are in its sentence, and nothing that a terminal would obey."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class SourceError(_PrintableError):
    """A model source that cannot become a folder."""


class CheckpointError(_PrintableError):
    """A folder that is not a checkpoint, or not a whole one."""


class StepError(_PrintableError):
    """A step that cannot be run or predicted: a model without a loss, an adapter without modules, too long a sequence."""


class BaselineError(LlmmemError):
    """A file of baselines, or a report to compare with, that cannot be read, believed or written."""


class BaselineExceeded(LlmmemError):  # noqa: N818 -- as below
    """A test used more than its baseline and the tolerance allow."""

    __module__ = "pytest_llmmem"


class BudgetExceeded(LlmmemError):  # noqa: N818 -- reads as the sentence it is in a traceback
    """A test, or a ``memory_budget`` block, used more than its limit."""

    __module__ = "pytest_llmmem"


class WorkerCrashed(LlmmemError):  # noqa: N818 -- named after what happened; the public name for ``xfail(raises=...)``
    """The worker of a test died, left without a report, or was ended from outside."""

    __module__ = "pytest_llmmem"
