"""A session that is itself a rank of a launch: its workers, its reports, and the children of its tests."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_llmmem.plugin.run.same_collection import compare_collections
from tests.conftest import Run, needs

pytestmark = needs("forked workers")

RANKS = """
    import os, pathlib, pytest, torch
    import torch.distributed as dist

    pytestmark = pytest.mark.in_worker(timeout=60)

    @pytest.mark.parametrize("number", range(4))
    def test_sum(number):
        dist.init_process_group("gloo")
        ones = torch.ones(3)
        dist.all_reduce(ones)
        assert ones.tolist() == [2.0] * 3
        # the worker goes without a word to the others, as one that dies does
        pathlib.Path(f"ran-{number}-{dist.get_rank()}").touch()

    @pytest.mark.llm_load("tensor_parallel")
    def test_a_rank_holds_its_part_in_as_many_bits(loaded_model):
        assert loaded_model.nbytes < 0.8 * loaded_model.checkpoint.weights_bytes
        assert loaded_model.bits_per_parameter == 16
"""


@needs("torch", "transformers")
def test_workers_of_two_ranks_meet_each_other_and_no_dead_ones(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_ranks=RANKS)
    options = ["-p", "no:randomly", "-p", "no:cacheprovider", "--llm-model=synthetic:tiny-llama"]
    report = ["--llm-report=report.json", "--llm-baseline=baselines.json", "--llm-baseline-update"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "pytest"]

    done = subprocess.run(
        [*launcher, *options, *report], cwd=pytester.path, capture_output=True, text=True, timeout=250, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(pytester.path.glob("ran-*"))) == 8
    assert done.stdout.count("llmmem: wrote ") == done.stdout.count("baselines.json: ") == 1
    assert Path(pytester.path, "baselines.json").exists()
    tests = json.loads(Path(pytester.path, "report.json").read_text(encoding="utf-8"))["tests"]
    assert [test["outcome"] for test in tests] == ["passed"] * 5


DIFFERS = """
    import os, pytest, torch
    import torch.distributed as dist

    @pytest.mark.in_worker(timeout=60)
    @pytest.mark.parametrize("number", range(2 + int(os.environ["RANK"])))
    def test_sum(number):
        dist.init_process_group("gloo")
        dist.barrier()
        open("ran", "w").close()
"""


ONE_HAS_NONE = """
    import os, pytest, torch
    import torch.distributed as dist

    if os.environ["RANK"] == "1":
        def test_nothing(): pass
    else:
        @pytest.mark.in_worker(timeout=60)
        def test_sum():
            dist.init_process_group("gloo")
            dist.barrier()
            open("ran", "w").close()
"""


@needs("torch")
@pytest.mark.parametrize(
    ("tests", "differs"),
    [
        (DIFFERS, "isolated test 3 is none on rank 0, and test_ranks.py::test_sum[2] on rank 1"),
        (ONE_HAS_NONE, "isolated test 1 is test_ranks.py::test_sum on rank 0, and none on rank 1"),
    ],
    ids=["one more", "none at all"],
)
def test_ranks_that_collect_different_tests_end_with_one_error(
    pytester: pytest.Pytester, tests: str, differs: str
) -> None:
    pytester.makepyfile(test_ranks=tests)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "pytest"]

    done = subprocess.run(
        [*launcher, "-p", "no:randomly"], cwd=pytester.path, capture_output=True, text=True, timeout=100, check=False
    )

    assert done.returncode == 1
    assert f"the ranks of this launch run different tests: {differs}" in done.stdout + done.stderr
    assert not Path(pytester.path, "ran").exists()


LAUNCHES = """
    import os, pytest, subprocess, sys
    HOLDS = "import time; block = b'x' * 20_000_000; time.sleep(0.5)"

    @pytest.mark.in_worker
    def test_plain():
        subprocess.run([sys.executable, "-c", HOLDS], check=True)
    @pytest.mark.in_worker
    def test_launch():
        ranks = [
            subprocess.Popen([sys.executable, "-c", HOLDS], env=os.environ | {"RANK": rank, "MASTER_PORT": "4321"})
            for rank in "01"
        ]
        assert not any(each.wait() for each in ranks)
"""


def test_a_child_that_inherits_the_rank_of_the_session_is_no_rank(
    run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "1234"}.items():
        monkeypatch.setenv(name, value)

    ran = run(LAUNCHES)

    assert ran["test_plain"].ranks == ()
    assert [each.rank for each in ran["test_launch"].ranks] == [0, 1]


def test_only_the_first_rank_writes(
    run: Callable[..., Run], pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")

    ran = run("import pytest\n@pytest.mark.in_worker\ndef test_it(): pass")

    ran.result.assert_outcomes(passed=1)
    assert not Path(pytester.path, "report.json").exists()
    assert "memory of isolated tests" not in ran.text


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"launch": 1}'])
def test_a_file_of_somebody_else_is_no_other_rank(tmp_path: Path, text: str) -> None:
    for name in ("own", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "other" / "llmmem-collected.json").write_text(text)

    compare_collections(tmp_path / "own", ["test_it"], {"RANK": "1", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "none"})


LAUNCHER = """
    import pytest, subprocess, sys

    RANK = "import os; block = b'x' * (40_000_000 * (1 + int(os.environ['RANK']))); import time; time.sleep(1)"

    @pytest.mark.in_worker(timeout=100)
    @pytest.mark.max_ram("200MB")
    def test_launch(tmp_path):
        script = tmp_path / "rank.py"
        script.write_text(RANK)
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
        subprocess.run([*launcher, str(script)], check=True, capture_output=True)

    @pytest.mark.in_worker(timeout=100)
    def test_pool():
        import multiprocessing
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            pool.map(bytearray, [30_000_000, 30_000_000])
"""


@needs("torch")
def test_a_launcher_and_its_ranks_are_told_apart(run: Callable[..., Run]) -> None:
    ran = run(LAUNCHER, timeout_s=120)

    launched = ran["test_launch"].children
    assert launched is not None
    ranks = {each.rank: each for each in launched.each if each.rank is not None}
    assert ranks.keys() == {0, 1}
    assert ranks[1].peak_bytes - ranks[0].peak_bytes == pytest.approx(40_000_000, rel=0.1)
    (launcher,) = [each for each in launched.each if "torch.distributed.run" in each.command]
    assert launcher.rank is None
    assert launcher.peak_bytes > 50_000_000, "it imports torch"
    ran.result.stdout.fnmatch_lines_random(
        ["  * MB  rank 1: python* -u *", "  * MB  python* -m torch.distributed.run *"]
    )
    pool = ran["test_pool"].children
    assert pool is not None
    assert {each.rank for each in pool.each} == {None}, "nothing that it was started with says so"
