"""A test that is the first to import something heavy pays for it, and the report names what it paid for."""

from collections.abc import Callable
from fnmatch import fnmatch

import pytest

from tests.conftest import Run, needs

pytestmark = needs("/proc")

NOTE = "of it 30.* MB for importing heavy: --llm-preload=heavy imports it before the tests"
TESTS = """
    import multiprocessing, threading, pytest
    pytestmark = pytest.mark.in_worker

    def test_heavy():
        import heavy
        assert type(heavy.__spec__.loader) is type(heavy.__loader__) is type(pytest.__loader__)
    def test_through(): import serving
    def test_light(): import light
    def test_raises(): import broken
    def test_elsewhere():
        def use(): import heavy
        forked = multiprocessing.get_context("fork").Process(target=use)
        forked.start(); forked.join()
        assert forked.exitcode == 0
        thread = threading.Thread(target=use)
        thread.start(); thread.join()
"""


@pytest.fixture(autouse=True)
def modules(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        heavy="held = b'x' * 30_000_000",
        light="held = b'x' * 1_000_000",
        serving="import light, heavy",
        broken="raise RuntimeError('no model here')",
    )
    pytester.makeini("[pytest]\npythonpath = .")


def notes(ran: Run) -> dict[str, tuple[str, ...]]:
    return {test.nodeid.partition("::test_")[2]: test.notes for test in ran.record.tests}


def test_an_import_of_much_is_named_by_the_module_that_took_it(run: Callable[..., Run]) -> None:
    ran = run(TESTS)

    found = notes(ran)
    assert [name for name, said in found.items() if said] == ["heavy", "through"]
    assert all(fnmatch(said, NOTE) for name in ("heavy", "through") for said in found[name])
    ran.result.assert_outcomes(passed=4, failed=1)
    ran.result.stdout.no_fnmatch_line("*importlib*")  # as without the measuring, a traceback has no frames of imports
    ran.result.stdout.fnmatch_lines(["broken.py:1: RuntimeError"])


def test_a_preloaded_module_costs_no_test_anything(run: Callable[..., Run]) -> None:
    ran = run(TESTS, "--llm-preload=heavy", "-k", "heavy or through")

    assert notes(ran) == {"heavy": (), "through": ()}


@needs("torch")
def test_what_optimizers_import_is_imported_ahead_where_torch_is_used(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import pytest, torch

        @pytest.mark.max_ram("40MB")
        def test_steps():
            model = torch.nn.Linear(8, 8)
            torch.optim.AdamW(model.parameters()).step()
        """,
        timeout_s=120,
    )

    ran.result.assert_outcomes(passed=1)
    assert notes(ran) == {"steps": ()}


def test_a_test_meets_the_true_loaders(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import importlib, importlib.util, sys
        from importlib.machinery import SourceFileLoader
        import pytest

        @pytest.mark.in_worker
        def test_it(tmp_path, monkeypatch):
            (tmp_path / "own_module.py").write_text("loader = __spec__.loader, __loader__")
            monkeypatch.syspath_prepend(tmp_path)
            assert type(importlib.util.find_spec("own_module").loader) is SourceFileLoader
            import own_module
            assert [type(each) for each in own_module.loader] == [SourceFileLoader] * 2
            assert type(importlib.reload(own_module).__spec__.loader) is SourceFileLoader
            assert importlib.util.find_spec("no_such_module") is None
        """
    )

    ran.result.assert_outcomes(passed=1)
