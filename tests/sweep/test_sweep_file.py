"""``sweep.toml``: what is read from it, and what is said of a mistake."""

import sys
from pathlib import Path

import pytest

from pytest_llmmem.core.errors import SettingError
from pytest_llmmem.sweep.example import example
from pytest_llmmem.sweep.sweep_file import SweepFile, read_sweep_file
from tests.capabilities import is_there

WHOLE = """\
models = [
  "synthetic:tiny-llama",
  "./mine",
]
loads = ["default", "int8"]
tests = ["tests/test_loading.py"]
arguments = ["-k", "slow", "-k", "fast"]
max_ram = "1.1 * weights + 1GB"
memory = "6GB"
timeout = 300
cell_timeout = 1200.5
cpus = 2
gpus = 0.5
ranks = 2

[env.old]
python = "envs/old/bin/python"
variables = { HF_HOME = "/data/hf" }

[env."new-5.23"]
"""


def read(folder: Path, text: str) -> SweepFile:
    (folder / "mine").mkdir(exist_ok=True)
    (folder / "sweep.toml").write_text(text)
    return read_sweep_file(folder / "sweep.toml")


def test_every_key_is_read(tmp_path: Path) -> None:
    sweep = read(tmp_path, WHOLE)

    assert [model.label for model in sweep.models] == ["tiny-llama", "mine"]
    assert sweep.loads == ("default", "int8")
    assert sweep.tests == ("tests/test_loading.py",)
    assert sweep.arguments == ("-k", "slow", "-k", "fast")
    assert sweep.max_ram is not None
    assert sweep.max_ram.text == "1.1 * weights + 1GB"
    assert (sweep.memory_bytes, sweep.timeout_s, sweep.cell_timeout_s) == (6 * 10**9, 300, 1200.5)
    assert (sweep.cpus, sweep.gpus, sweep.ranks) == (2, 0.5, 2)
    old, new = sweep.environments
    assert (old.name, old.python) == ("old", str(tmp_path / "envs/old/bin/python"))
    assert old.variables == {"HF_HOME": "/data/hf"}
    assert (new.name, new.python) == ("new-5.23", sys.executable)


def test_models_alone_are_enough(tmp_path: Path) -> None:
    sweep = read(tmp_path, 'models = ["synthetic:tiny-llama"]')

    assert sweep.loads == ("default",)
    assert [(each.name, each.python) for each in sweep.environments] == [("current", sys.executable)]


def test_the_example_can_be_used_and_names_the_checkpoints_that_are_there(tmp_path: Path) -> None:
    checkpoint = tmp_path / ('zoo/a "b"' if is_there("quotes in file names") else "zoo/a 'b'")
    checkpoint.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (checkpoint / name).touch()

    sweep = read(tmp_path, example(tmp_path))

    assert checkpoint in [model.target for model in sweep.models]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("models = [", "line 1: this is no TOML ("),
        ("\nmodels = []", "line 2: models: 'models' is missing or empty: write some, like models = "),
        ("loads = ['default']", "line 1: models: 'models' is missing or empty"),
        ("models = [\n 'synthetic:tiny-llama',\n 'synthetic:nope',\n]", "line 3: models: 'synthetic:nope': there is no preset 'nope'"),
        ("models = ['nowhere']", "line 1: models: 'nowhere': there is no folder"),
        ("models = 'synthetic:tiny-llama'", "line 1: models: 'synthetic:tiny-llama' is not a list of texts: write models = ["),
        ("models = ['./mine']\n\nloads = ['flaot16']", "line 3: loads: 'flaot16' is not a strategy: write some of default,"),
        ("models = ['./mine']\nloads = []", "line 2: loads: 'loads' is empty"),
        ("models = ['./mine']\nchecks = ['lod']", "line 2: checks: 'lod' is not a check: write some of integrity,"),
        ("models = ['./mine']\nchecks = ['load']\ntests = ['t.py']", "line 2: checks: a cell runs ready-made checks or tests"),
        ("models = ['./mine']\ntimeout = 0", "line 2: timeout: 0 cannot be used: write seconds above zero, like 600"),
        ("models = ['./mine']\nmemory = 8", 'line 2: memory: 8 is not a memory size: write a text like "8GB"'),
        ("models = ['./mine']\nmemory = '8GBB'", "line 2: memory: '8GBB' is not a memory size: write a number and a unit"),
        ("models = ['./mine']\nmax_ram = '50% host'", "line 2: max_ram: '50% host' is another size on each node"),
        ("models = ['./mine']\nranks = true", "line 2: ranks: True is not a count"),
        ("models = ['./mine']\nmodel = 1", "line 2: model: there is no key 'model' here: write one of models,"),
        ("models = ['./mine']\n[env.a]\npyhton = 'x'", "line 3: env.a.pyhton: there is no key 'pyhton' here: write one of python"),
        ("models = ['./mine']\n[env.a]\n[env.b]\npython = 3", "line 4: env.b.python: 3 is not a path: name an interpreter"),
        ("models = ['./mine']\n[env.a]\nvariables = { A = 1 }", "line 3: env.a.variables: {'A': 1} are not environment variables"),
        ("models = ['./mine']\n[env.'a/b']", "line 2: env.a/b: 'a/b' is not a name of an environment"),
        ("models = ['./mine']\nenv = 3", "line 2: env: 'env' is not a table of environments"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line_and_the_fix(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(SettingError) as told:
        read(tmp_path, text)

    assert str(told.value).startswith(f"{tmp_path / 'sweep.toml'} {complaint}")
    assert "\n" not in str(told.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"nope\.toml: it cannot be read .*llmmem sweep --init"):
        read_sweep_file(tmp_path / "nope.toml")
