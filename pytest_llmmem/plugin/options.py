"""Declarations at the start of pytest: options, ini keys, and the markers' names. It imports nothing expensive."""

from typing import Any, Final, Literal, NamedTuple

import pytest

REPORT_SUFFIXES: Final = ("trace.json", ".json", ".html", ".md")
"""File endings that ``--llm-report`` accepts; the first match decides."""


class Option(NamedTuple):
    """One setting on its three surfaces: ``--llm-NAME``, ini ``llm_NAME``, and the field of ``Settings``."""

    name: str
    help: str
    choices: tuple[str, ...] = ()
    default: str | None = None
    metavar: str | None = None
    repeatable: bool = False
    is_switch: bool = False
    """Given without a value, or as ``true`` in the ini file."""

    @property
    def flag(self) -> str:
        return f"--llm-{self.name.replace('_', '-')}"

    @property
    def ini(self) -> str:
        return f"llm_{self.name}"

    def value(self, config: pytest.Config) -> tuple[Any, str]:
        """The given value and its source: command line over ini over default."""
        given = config.getoption(self.ini)
        if given is not None:
            return given, self.flag
        given = config.getini(self.ini)
        if given:
            return given, f"ini {self.ini}"
        return ([] if self.repeatable else False if self.is_switch else self.default), "default"


OPTIONS: Final = (
    Option("model", "model to load: a folder, a Hub id (org/name@revision) or synthetic:PRESET; repeat for several, "
           "each test with loaded_model or model_checkpoint runs with each", metavar="SOURCE", repeatable=True),
    Option("load", "how the checkpoint becomes a model: a strategy such as default, float16, int8 or offload; repeat for "
           "several, each test with loaded_model runs with each", metavar="STRATEGY", repeatable=True),
    Option("loader", "load with a function of your own, from a path to anything that holds tensors; with --llm-load besides, "
           "tests run with each", metavar="MODULE:FUNCTION"),
    Option("device", "where loaded_model puts the model, such as cuda:0 (default: where the strategy leaves it)",
           metavar="DEVICE"),
    Option("trust_remote_code", "run the code that a checkpoint brings along", is_switch=True),
    Option("isolate", "which tests run in a worker: those with our markers or fixtures, all, or none",
           choices=("marked", "all", "none"), default="marked"),
    Option("worker", "how a worker is made", choices=("auto", "fork", "spawn"), default="auto"),
    Option("preload", "module that is imported before workers are forked, so that no test pays for it; repeat for several",
           metavar="MODULE", repeatable=True),
    Option("timeout", "end an isolated test from outside after so many seconds", metavar="SECONDS"),
    Option("max_ram", "budget of every isolated test without a max_ram marker", metavar="LIMIT"),
    Option("max_vram", "budget of every isolated test without a max_vram marker on each GPU, where there is one",
           metavar="LIMIT"),
    Option("require_gpu", "a test that needs a GPU fails where there is none, instead of being skipped", is_switch=True),
    Option("vram_snapshot", "write torch's history of GPU memory, for pytorch.org/memory_viz, of each test that needs a GPU",
           metavar="FOLDER"),
    Option("max_disk", "what every isolated test without a max_disk marker may write to disk", metavar="LIMIT"),
    Option("on_breach", "a test over its budget may finish (until twice the budget), or is stopped at once",
           choices=("finish", "stop"), default="finish"),
    Option("enforce", "how budgets are enforced where the marker does not say",
           choices=("watch", "rlimit", "cgroup", "job"), default="watch"),
    Option("reserve", "memory that must stay free on the machine, or the growing test is stopped "
           "(default: the larger of 512MiB and 5%%)", metavar="SIZE"),
    Option("scope", "scope of loaded_model: tests that share a model share a worker",
           choices=("function", "class", "module", "session"), default="function"),
    Option("ranks", "workers in which a test runs at once when its load needs several processes, as tensor_parallel does",
           metavar="N"),
    Option("malloc", "glibc's mmap threshold in the worker: as it is, or fixed for peaks that repeat",
           choices=("default", "steady"), default="default"),
    Option("baseline", "file of baselines to compare every test with (default: llm-baselines.json in the root folder, "
           "if it is there)", metavar="FILE"),
    Option("baseline_update", "write what the tests use now as their baselines, and compare nothing", is_switch=True),
    Option("tolerance", "how far a peak may move from its baseline", metavar="TOLERANCE", default="5% + 16MB"),
    Option("repeat", "run each isolated test so many times; the median counts, and the spread is known",
           metavar="N", default="1"),
    Option("skip_check", "of the checks in pytest_llmmem.checks and step_checks, leave this one out; repeat for several",
           metavar="ID", repeatable=True),
    Option("report", "write the session's record to a file, the kind by its ending: "
           + ", ".join(REPORT_SUFFIXES), metavar="PATH", repeatable=True),
)  # fmt: skip


MARKERS: Final = {
    "max_ram": "max_ram(limit, *, count='unreclaimable', on_breach=None, enforce=None, per=None): "
               "run the test in a measured worker and fail it when its memory grows beyond limit.",
    "max_vram": "max_vram(limit, *, device=None, count='reserved', on_breach=None, enforce=None, per=None): "
                "run the test in a measured worker and fail it when it uses more GPU memory than limit; skip it without a GPU.",
    "max_disk": "max_disk(limit, *, on_breach=None): "
                "run the test in a measured worker and fail it when it writes more than limit to disk.",
    "max_growth": "max_growth(limit, *, repeat=20, warmup=3): "
                  "call the test warmup times and then repeat times more, and fail it when a call leaves more memory than limit.",
    "llm_load": "llm_load(strategy='default', *, loader=None, **arguments): load the model of this test by strategy, or by a "
                "function; further arguments are from_pretrained's, or the function's.",
    "llm_train": "llm_train(*, batch_size=1, seq_len=512, optimizer='adamw', checkpointing=False, accumulation=1, lora=None, "
                 "lora_targets=(), precision=None, autocast=None, images=0, steps=2): train the model of this test for some "
                 "steps, as train_step does; max_ram and max_vram know its terms.",
    "llm_generate": "llm_generate(*, batch_size=1, prompt=128, new_tokens=16, cache_implementation=None, cache_config=None, "
                    "max_cache_len=None): generate text with the model of this test, as generate_step does; max_ram and "
                    "max_vram know its terms.",
    "llm_baseline": "llm_baseline(*, tolerance=None, only=None): "
                    "compare the test with its baseline by a tolerance, or by measures, of its own.",
    "in_worker": "in_worker(*, scope='function', timeout=None, ranks=None): "
                 "run the test in a measured worker, or in so many ranks; tests of one scope share it; "
                 "end it after timeout seconds.",
}  # fmt: skip
"""The lines of ``pytest --markers``; ``plugin.markers`` parses what tests write."""


def add_options(parser: pytest.Parser) -> None:
    """Declare every option and its ini twin."""
    group = parser.getgroup("llmmem", "memory of language model loads")
    for option in OPTIONS:
        text = option.help.replace("%%", "%")
        default = f" (default: {option.default})".replace("%", "%%") if option.default else ""
        help_ = option.help + default
        if option.is_switch:
            group.addoption(option.flag, dest=option.ini, action="store_true", default=None, help=help_)
            parser.addini(option.ini, f"{text} (see {option.flag})", type="bool", default=False)
            continue
        group.addoption(
            option.flag,
            dest=option.ini,
            action="append" if option.repeatable else "store",
            choices=option.choices or None,
            metavar=option.metavar,
            default=None,
            help=help_,
        )
        kind: Literal["linelist", "string"] = "linelist" if option.repeatable else "string"
        parser.addini(option.ini, f"{text} (see {option.flag})", type=kind, default=None)


def value_of(config: pytest.Config, name: str) -> Any:
    """The value of a setting, unchecked."""
    return next(option for option in OPTIONS if option.name == name).value(config)[0]


def is_any_given(config: pytest.Config) -> bool:
    """Whether the command line or the ini file sets one of our options."""
    return any(option.value(config)[1] != "default" for option in OPTIONS)
