"""Which worker runs a test, with whom, and why."""

import sys
from collections.abc import Callable

import pytest

from tests.conftest import Run, needs

linux = needs("forked workers")


def test_tests_of_one_scope_share_a_worker_each_with_its_own_peak(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import os, pytest
        pids = []
        @pytest.fixture(scope="module")
        def big(): return b"x" * 50_000_000
        @pytest.mark.in_worker(scope="module")
        class TestShared:
            def test_1(self, big): pids.append(os.getpid())
            def test_2(self, big): assert pids == [os.getpid()]
        @pytest.mark.in_worker
        def test_alone(): assert pids == []
        """
    )

    ran.result.assert_outcomes(passed=3)
    first, second = ran["test_1"].ram, ran["test_2"].ram
    assert first is not None
    assert second is not None
    assert first.peak_bytes > 49_000_000 > second.peak_bytes


@linux
def test_a_gpu_opened_at_collection_makes_auto_spawn_and_fork_refuse(
    run: Callable[..., Run], pytester: pytest.Pytester
) -> None:
    pytester.makeconftest("from pytest_llmmem import probes\nprobes.gpu_files_open = lambda pid=None: '/dev/nvidiactl'")
    source = "import pytest\n@pytest.mark.in_worker\ndef test_it(): pass"

    ran = run(source)
    refused = pytester.runpytest_subprocess("--llm-worker=fork")

    ran.result.assert_outcomes(passed=1)
    said = "/dev/nvidiactl was opened during collection, and a GPU context does not survive a fork"
    ran.result.stdout.fnmatch_lines([f"llmmem: 1 isolated in workers by spawn ({said})"])
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines([f"ERROR: --llm-worker=fork: {said}: use 'auto' or 'spawn'"])


@linux
@pytest.mark.parametrize(("opens", "imported"), [(True, []), (False, ["modelling code"])])
def test_what_opens_a_gpu_is_not_imported_ahead(
    run: Callable[..., Run], pytester: pytest.Pytester, *, opens: bool, imported: list[str]
) -> None:
    pytester.makeconftest(
        f"""
        from pytest_llmmem.plugin.run import pool
        from pytest_llmmem.workers import fork_server, served
        imported = []
        pool.import_ahead = lambda *ahead: imported.append("modelling code")
        served.gpu_files_there = lambda: True
        fork_server.gpu_files_open = lambda: "/dev/nvidia0" if imported and {opens} else None
        """
    )

    ran = run(
        f"import pytest\n@pytest.mark.in_worker\ndef test_it():\n    import conftest\n    assert conftest.imported == {imported}"
    )

    ran.result.assert_outcomes(passed=1)
    ran.result.stdout.fnmatch_lines(["llmmem: 1 isolated in workers by fork"])


@needs("torch")
@linux
def test_a_computation_at_collection_makes_auto_spawn_and_fork_refuse(run: Callable[..., Run]) -> None:
    source = "import torch, pytest\ntorch.ones(500, 500) @ torch.ones(500, 500)\n@pytest.mark.in_worker\ndef test_it(): torch.ones(300_000).exp_()"

    ran = run(source, timeout_s=120)
    refused = run(source, "--llm-worker=fork")

    ran.result.assert_outcomes(passed=1)
    ran.result.stdout.fnmatch_lines(["llmmem: 1 isolated in workers by spawn (torch has computed during collection, *"])
    assert refused.result.ret == pytest.ExitCode.USAGE_ERROR


@linux
def test_what_a_test_leaves_behind_is_ended(run: Callable[..., Run]) -> None:
    for worker in ("fork", "spawn"):
        ran = run(
            """
            import pathlib, pytest, subprocess
            @pytest.mark.in_worker
            def test_leaves():
                left = subprocess.Popen(["setsid", "sleep", "4321"])
                pathlib.Path("pid").write_text(str(left.pid))
            def test_ended():
                import psutil
                assert not psutil.pid_exists(int(pathlib.Path("pid").read_text()))
            """,
            f"--llm-worker={worker}",
        )

        ran.result.assert_outcomes(passed=2)


def test_a_worker_that_cannot_start_fails_its_test_and_says_why(
    run: Callable[..., Run], pytester: pytest.Pytester
) -> None:
    pytester.makeconftest(
        """
        import os
        if "PYTEST_LLMMEM_WORKER" in os.environ: raise RuntimeError("no second time")
        """
    )

    ran = run("import pytest\n@pytest.mark.in_worker\ndef test_it(): pass", "--llm-worker=spawn")

    ran.result.assert_outcomes(failed=1)
    ran.result.stdout.fnmatch_lines(["*no worker could be made: it ended before it was ready:*", "*no second time*"])


def test_an_empty_selection_and_a_collect_only_start_nothing(run: Callable[..., Run]) -> None:
    source = "import pytest\n@pytest.mark.in_worker\ndef test_it(): pass"

    assert "isolated in workers" not in run(source, "--collect-only").text
    assert run(source, "-k", "zzz").result.ret == pytest.ExitCode.NO_TESTS_COLLECTED


GROUP = """
    import ctypes, pytest, time

    @pytest.fixture(scope="module")
    def model(memory_budget):
        with memory_budget(None, name="load"):
            held = b"x" * 80_000_000
        return held

    pytestmark = [pytest.mark.in_worker(scope="module"), pytest.mark.max_ram("30MB"MARKER)]
"""


@pytest.mark.parametrize("marker", ["", ', enforce="cgroup"', ', on_breach="stop"'])
@linux
def test_what_a_dead_worker_had_set_up_does_not_count_for_the_test_that_sets_it_up_again(
    run: Callable[..., Run], marker: str
) -> None:
    ran = run(
        GROUP.replace("MARKER", marker)
        + """
    @pytest.mark.max_ram("200MB")
    def test_loads(model): pass
    def test_dies(model): ctypes.string_at(0)
    def test_pays_again(model): b"x" * 10_000_000
    def test_goes_on(model): b"x" * 10_000_000
    def test_dies_too(model): ctypes.string_at(0)
    def test_is_still_judged(model): b"x" * 50_000_000
    """
    )

    outcomes = {test.nodeid.partition("::")[2]: test.outcome for test in ran.record.tests}
    assert outcomes == {
        "test_loads": "passed", "test_dies": "failed", "test_pays_again": "passed", "test_goes_on": "passed",
        "test_dies_too": "failed", "test_is_still_judged": "failed",
    }  # fmt: skip
    again = ran["test_pays_again"]
    phases = {phase.name: phase.peak_bytes for phase in again.phases}
    assert phases["setup"] > 79_000_000
    assert phases["load"] > 79_000_000
    assert abs(again.ram.peak_bytes - 10_000_000) < 5_000_000
    assert again.budgets[0].actual_bytes == again.ram.peak_bytes
    note = next(note for note in again.notes if note.startswith("its setup used 8"))
    assert "counts for no budget: the worker that its group shares ended in " in note
    assert "::test_dies, and what it had set up was set up again" in note
    assert f"note: {again.nodeid}: {note}" in ran.text
    assert ran["test_goes_on"].notes == ()
    assert not ran["test_is_still_judged"].budgets[0].held


@linux
def test_a_setup_that_never_passed_counts_for_the_next_test_too(run: Callable[..., Run]) -> None:
    ran = run(
        GROUP.replace("MARKER", "")
        + """
    def test_is_stopped_in_setup(model): pass
    def test_loads_for_the_first_time(model): pass
    """
    )

    assert [test.outcome for test in ran.record.tests] == ["error", "error"]
    assert [test.budgets[0].held for test in ran.record.tests] == [False, False]


@linux
def test_a_preloaded_module_is_imported_before_workers_are_forked(
    run: Callable[..., Run], pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pytester.path / "costly").mkdir()
    (pytester.path / "costly" / "__init__.py").write_text("import os; pid = os.getpid()")
    (pytester.path / "costly" / "inner.py").write_text("import os; pid = os.getpid()")
    monkeypatch.setenv("PYTHONPATH", f"{pytester.path}:{':'.join(sys.path)}")
    source = """
        import os, sys
        import pytest

        @pytest.mark.in_worker
        def test_it():
            assert sys.modules["costly.inner"].pid != os.getpid()
        """

    ran = run(source, "--llm-preload=costly.inner", "--llm-worker=fork")

    ran.result.assert_outcomes(passed=1)
    wrong = run(source, "--llm-preload=costly.iner")
    wrong.result.stderr.fnmatch_lines([
        "ERROR: --llm-preload: there is no module 'costly.iner' (costly.iner is not found): install it*"
    ])  # fmt: skip
