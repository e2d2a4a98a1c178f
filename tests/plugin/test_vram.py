"""GPU memory in real workers, by the counters of a card that is not there."""

import pickle
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from tests.conftest import Run, needs
from tests.sample_gpu import GB, plug_in

pytestmark = needs("forked workers")  # the card is plugged in where workers are forked


@pytest.fixture(autouse=True)
def queue(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that no other session waits in."""
    monkeypatch.setenv("TMPDIR", str(pytester.path))


@pytest.fixture
def card(pytester: pytest.Pytester) -> None:
    """One card of 24 GB in every worker."""
    plug_in(pytester, 24 * GB)


def test_the_peaks_of_a_device_are_recorded_for_the_test_and_each_phase(run: Callable[..., Run], card: None) -> None:
    ran = run(
        """
        import pytest
        @pytest.fixture
        def model(card):
            card.allocate(7_000_000_000)
            card.free(4_000_000_000)
            card.empty_cache()
        @pytest.mark.in_worker
        def test_it(model, card):
            card.allocate(2_000_000_000)
            card.free(2_000_000_000)
            card.allocate(1_000_000_000)
        """,
        "-vv",
    )

    record = ran["test_it"]
    (vram,) = record.vram
    assert (vram.device, vram.peak_allocated_bytes, vram.peak_reserved_bytes) == ("cuda:0", 7 * GB, 7 * GB)
    assert (vram.peak_device_bytes, vram.baseline_bytes, vram.method) == (None, 0, "allocator")
    reserved = {phase.name: [one.peak_reserved_bytes for one in phase.vram] for phase in record.phases}
    assert reserved == {"setup": [7 * GB], "call": [2 * GB], "teardown": [0]}
    ran.result.stdout.fnmatch_lines(["*vram cuda:0 7.00 GB reserved, 7.00 GB allocated (allocator)"])


def test_a_worker_that_dies_leaves_what_its_last_boundary_read(run: Callable[..., Run], card: None) -> None:
    ran = run(
        """
        import os, pytest, signal
        @pytest.fixture
        def model(card): card.allocate(3_000_000_000)
        @pytest.mark.in_worker
        def test_it(model, card):
            card.allocate(2_000_000_000)
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )

    record = ran["test_it"]
    assert [one.peak_reserved_bytes for one in record.vram] == [3 * GB]
    assert record.ending.signal == "SIGKILL"
    assert [note for note in record.notes if "between then and the worker's death is unknown" in note]
    ran.result.stdout.fnmatch_lines(["vram      cuda:0 3.00 GB reserved, 3.00 GB allocated: setup 3.00 GB"])


def test_what_an_earlier_test_left_in_a_shared_worker_is_the_baseline(run: Callable[..., Run], card: None) -> None:
    ran = run(
        """
        import pytest
        pytestmark = pytest.mark.in_worker(scope="module")
        @pytest.fixture(scope="module")
        def model(card): card.allocate(3_000_000_000)
        def test_first(model): pass
        def test_second(model, card):
            card.allocate(1_000_000_000)
        """
    )

    assert [(one.peak_reserved_bytes, one.baseline_bytes) for one in ran["test_first"].vram] == [(3 * GB, 0)]
    assert [(one.peak_reserved_bytes, one.baseline_bytes) for one in ran["test_second"].vram] == [(1 * GB, 3 * GB)]


def test_a_test_that_uses_no_device_has_no_readings(run: Callable[..., Run], card: None) -> None:
    ran = run("import pytest\n@pytest.mark.in_worker\ndef test_it(): pass")

    assert ran["test_it"].vram == ()
    assert "vram" not in ran.text


def test_a_budget_is_judged_by_what_torch_has_reserved(run: Callable[..., Run], card: None) -> None:
    ran = run(
        """
        import pytest
        def use(card):
            card.allocate(5_000_000_000)
            card.free(3_000_000_000)
        @pytest.mark.max_vram("4GB", on_breach="finish")
        def test_over(card): use(card)
        @pytest.mark.max_vram("5GB", device="cuda")
        def test_held(card): use(card)
        @pytest.mark.max_vram("4GB", count="allocated")
        def test_allocated(card): use(card)
        @pytest.mark.max_vram("20% device")
        def test_share(card): use(card)
        @pytest.mark.max_vram("4GB")
        def test_its_own_failure(card):
            use(card)
            assert False, "mine"
        """
    )

    ran.result.assert_outcomes(failed=4, passed=1)
    ran.result.stdout.fnmatch_lines(
        [
            "max_vram is 4.00 GB, used 5.00 GB reserved on cuda:0: 1.00 GB over",
            "budget    max_vram is 4.00 GB, used 5.00 GB reserved on cuda:0: 1.00 GB over",
            "passes    with 5.050 GB or more",
            "max_vram is 4.00 GB, used 5.00 GB allocated on cuda:0: 1.00 GB over",
            "max_vram is 4.80 GB (20% device), used 5.00 GB reserved on cuda:0: 0.20 GB over",
            "*mine*",
        ]
    )
    (budget,) = ran["test_over"].budgets
    assert (budget.kind, budget.device, budget.count) == ("max_vram", "cuda:0", "reserved")
    assert (budget.limit_bytes, budget.actual_bytes, budget.held) == (4 * GB, 5 * GB, False)
    assert ran["test_over"].ending.kind == "over_budget"
    assert ran["test_its_own_failure"].ending.kind == "raised"
    ran.result.stdout.fnmatch_lines(["* 4.00 GB VRAM *125%*test_over*"])


def test_every_device_has_the_budget_to_itself(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    plug_in(pytester, 24 * GB, 48 * GB)

    ran = run(
        """
        import pytest
        @pytest.mark.max_vram("4GB")
        def test_it(card):
            card.allocate(3_000_000_000, 0)
            card.allocate(5_000_000_000, 1)
        @pytest.mark.max_vram("10% device", device="cuda:1")
        def test_one(card): card.allocate(5_000_000_000, 1)
        """
    )

    used = {budget.device: (budget.actual_bytes, budget.held) for budget in ran["test_it"].budgets}
    assert used == {"cuda:0": (3 * GB, True), "cuda:1": (5 * GB, False)}
    assert [budget.limit_bytes for budget in ran["test_one"].budgets] == [4.8 * GB]


@pytest.mark.parametrize(("option", "devices"), [("--llm-device=cuda:1", ["cuda:1"]), ("-q", ["cuda:0", "cuda:1"])])
def test_a_budget_that_names_none_is_of_the_device_of_the_session(
    run: Callable[..., Run], pytester: pytest.Pytester, option: str, devices: list[str]
) -> None:
    plug_in(pytester, 24 * GB, 48 * GB)

    ran = run("import pytest\n@pytest.mark.max_vram('4GB')\ndef test_it(): pass", option)

    assert [budget.device for budget in ran["test_it"].budgets] == devices


def test_a_cap_lets_the_offending_line_raise(run: Callable[..., Run], card: None) -> None:
    ran = run(
        """
        import pytest
        pytestmark = pytest.mark.in_worker(scope="module")
        @pytest.mark.max_vram("4GB", enforce="cap", on_breach="stop")
        def test_over(card):
            card.allocate(3_000_000_000)
            card.allocate(2_000_000_000)
        @pytest.mark.max_vram("4GB", enforce="cap")
        def test_beside_what_is_there(card): card.allocate(4_000_000_000)
        @pytest.mark.max_vram("20GB")
        def test_free_again(card): card.allocate(10_000_000_000)
        """
    )

    ran.result.assert_outcomes(failed=1, passed=2)
    assert ran["test_over"].ending.kind == "raised"
    assert ran["test_over"].budgets[0].actual_bytes == 3 * GB


@pytest.mark.parametrize("arguments", [["--llm-max-vram=4GB"], ["-o", "llm_max_vram=4GB"]])
def test_a_budget_of_all_tests_gives_way_to_a_marker(run: Callable[..., Run], card: None, arguments: list[str]) -> None:
    ran = run(
        """
        import pytest
        @pytest.mark.in_worker
        def test_any(card): card.allocate(5_000_000_000)
        @pytest.mark.max_vram("6GB")
        def test_own(card): card.allocate(5_000_000_000)
        """,
        *arguments,
    )

    ran.result.assert_outcomes(failed=1, passed=1)


WITHOUT = """
    from pytest_llmmem.probes import devices
    devices.find = lambda: devices.Found(why_none="torch 2.13.0+cpu finds none")
    """
SOURCE = """
    import pytest
    @pytest.mark.max_vram("4GB")
    def test_marked(): assert False, "not to be run"
    @pytest.mark.in_worker
    def test_other(): pass
    """


def test_without_a_gpu_a_test_is_skipped_with_one_sentence(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    pytester.makeconftest(WITHOUT)

    ran = run(SOURCE, "-rs", "--llm-max-vram=1GB")

    ran.result.assert_outcomes(skipped=1, passed=1)
    ran.result.stdout.fnmatch_lines(["llmmem: 1 isolated in workers by *"])
    ran.result.stdout.fnmatch_lines(["SKIPPED * test_without*.py:2: max_vram needs a GPU: torch 2.13.0+cpu finds none"])
    assert ran["test_other"].budgets == ()
    skipped = ran["test_marked"]
    assert (skipped.outcome, skipped.ram) == ("skipped", None)
    assert skipped.ending.note == "max_vram needs a GPU: torch 2.13.0+cpu finds none"


def test_without_a_gpu_it_fails_where_one_is_required(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    pytester.makeconftest(WITHOUT)

    ran = run(SOURCE, "--llm-require-gpu")

    ran.result.assert_outcomes(failed=1, passed=1)
    ran.result.stdout.fnmatch_lines(["max_vram needs a GPU: torch 2.13.0+cpu finds none"])


def test_a_device_that_is_not_there_is_named(run: Callable[..., Run], card: None) -> None:
    ran = run("import pytest\n@pytest.mark.max_vram('4GB', device='cuda:1')\ndef test_it(): pass", "-rs")

    ran.result.assert_outcomes(skipped=1)
    ran.result.stdout.fnmatch_lines(["SKIPPED * max_vram needs cuda:1: there is cuda:0 alone"])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("", "missing a required argument: 'limit': write max_vram(limit, *, device=None, count='reserved', *"),
        ("'8GBB'", "'8GBB' is not a limit *"),
        ("'1GB', count='used'", "count='used' is not one of 'reserved', 'allocated', 'device'"),
        ("'1GB', enforce='rlimit'", "enforce='rlimit' is not one of 'watch', 'cap'"),
        ("'1GB', on_breach='die'", "on_breach='die' is not one of 'finish', 'stop'"),
        (
            "'1GB', on_breach='stop'",
            "on_breach='stop' needs count='device', which is watched from outside, or enforce='cap': *",
        ),
        ("'1GB', device='gpu0'", "'gpu0' is not a device: write it as torch does, 'cuda:0' or 'xpu:1'"),
        ("'1GB', device=0", "0 is not a device: *"),
        ("'50% host'", "'50% host' is a share of the host: for memory of a GPU write '% device'"),
        ("'weights'", "'weights' is in terms of a checkpoint, and this test has none: *"),
    ],
)
def test_a_mistake_in_the_marker_fails_that_test(
    run: Callable[..., Run], card: None, arguments: str, complaint: str
) -> None:
    ran = run(f"import pytest\n@pytest.mark.max_vram({arguments})\ndef test_it(): pass")

    ran.result.assert_outcomes(failed=1)
    ran.result.stdout.fnmatch_lines([f"max_vram: {complaint}"])


def test_memory_that_was_refused_is_a_finding(run: Callable[..., Run], card: None) -> None:
    ran = run(
        """
        import pytest
        @pytest.fixture
        def model(card): card.allocate(23_000_000_000)
        @pytest.mark.in_worker
        def test_full(model, card): card.allocate(2 * 2**30)
        @pytest.mark.in_worker
        def test_in_pieces(model, card):
            card.free(12_000_000_000)
            card.fragment()
            card.allocate(2 * 2**30)
        @pytest.mark.max_vram("4GB", enforce="cap")
        def test_capped(card): card.allocate(5 * 2**30)
        @pytest.mark.in_worker
        def test_another(): raise RuntimeError("CUDA out of luck")
        """
    )

    full, pieces, capped = (ran[name].vram_refused for name in ("test_full", "test_in_pieces", "test_capped"))
    assert full is not None
    assert (full.device, full.asked_bytes, full.total_bytes) == ("GPU 0", 2 * 2**30, int(Decimal("22.35") * 2**30))
    assert (full.free_bytes, full.reserved_unused_bytes) == (int(Decimal("0.93") * 2**30), 0)
    assert (full.allowed_bytes, full.expandable_segments_would_help) == (None, False)
    assert pieces is not None
    assert pieces.expandable_segments_would_help
    assert [vram.peak_fragmented_bytes for vram in ran["test_in_pieces"].vram] == [12 * GB]
    assert capped is not None
    assert capped.allowed_bytes == int(Decimal("3.73") * 2**30)
    assert ran["test_another"].vram_refused is None
    assert [ran[name].diagnosis.id for name in ("test_full", "test_in_pieces", "test_capped")] == [  # type: ignore[union-attr]
        "cuda-full", "cuda-fragmented", "cuda-capped",
    ]  # fmt: skip
    said = "2.00 GiB: 952 MiB of 22.3 GiB were free, 11.2 GiB were reserved and unused; expandable_segments:True would have helped"
    ran.result.stdout.fnmatch_lines([f"note: *test_in_pieces: GPU 0 refused {said}"])


def test_a_mock_in_torchs_place_is_not_read(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import sys, types
        from unittest.mock import MagicMock
        import pytest
        @pytest.mark.in_worker
        @pytest.mark.parametrize("torch", [MagicMock(), types.SimpleNamespace(cuda=types.SimpleNamespace())])
        def test_it(monkeypatch, torch): monkeypatch.setitem(sys.modules, "torch", torch)
        """
    )

    ran.result.assert_outcomes(passed=2)


def test_a_cap_that_cannot_be_set_fails_its_test_alone(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    plug_in(pytester, 24 * GB)
    ran = run(
        """
        import pytest, sys
        pytestmark = pytest.mark.in_worker(scope="module")
        @pytest.fixture(autouse=True, scope="module")
        def broken(card):
            def refuse(fraction, device): raise RuntimeError("CUDA driver error: unknown")
            card.set_per_process_memory_fraction = refuse
        def test_first(): pass
        @pytest.mark.max_vram("4GB", enforce="cap")
        def test_capped(): assert False, "not to be run"
        def test_last(): pass
        """
    )

    ran.result.assert_outcomes(passed=2, errors=1)
    ran.result.stdout.fnmatch_lines(["E  *RuntimeError: CUDA driver error: unknown"])


def test_without_a_budget_nobody_is_asked_for_devices(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    pytester.makeconftest("from pytest_llmmem.probes import devices\ndevices.find = None")

    ran = run("import pytest\n@pytest.mark.max_ram('1GB')\ndef test_it(): pass", "--llm-require-gpu")

    ran.result.assert_outcomes(passed=1)


def test_the_history_of_a_test_that_needs_a_gpu_is_written(run: Callable[..., Run], card: None) -> None:
    ran = run(
        """
        import pytest
        @pytest.mark.max_vram("10GB")
        @pytest.mark.parametrize("size", [1_000_000_000, 30_000_000_000])
        def test_it(card, size): card.allocate(size)
        @pytest.mark.in_worker
        def test_other(card): card.allocate(5)
        """,
        "--llm-vram-snapshot=kept/here",
    )

    assert [note for note in ran["test_it[1000000000]"].notes if note.startswith("history of GPU memory: ")]
    histories = {path.name: pickle.loads(path.read_bytes()) for path in Path("kept/here").iterdir()}
    name = "test_the_history_of_a_test_that_needs_a_gpu_is_written.py-test_it-{}-.pickle"
    assert histories == {name.format(size): [size] for size in (1_000_000_000, 30_000_000_000)}


def test_a_model_for_a_device_that_is_not_there_is_not_loaded(run: Callable[..., Run]) -> None:
    source = "def test_it(loaded_model): assert False, 'not to be run'"
    arguments = ("--llm-model=synthetic:tiny-llama", "--llm-device=cuda:1", "-rs")

    assert "--llm-device=cuda:1: this machine has no device file of a GPU" in run(source, *arguments).text
    run(source, *arguments, "--llm-require-gpu").result.assert_outcomes(failed=1)


def test_a_device_that_is_none_stops_the_session(run: Callable[..., Run]) -> None:
    ran = run("def test_it(): pass", "--llm-device=gpu0")

    assert ran.result.ret == pytest.ExitCode.USAGE_ERROR
    ran.result.stderr.fnmatch_lines(["*--llm-device: 'gpu0' is not a device: write it as torch does, *"])


@needs("xdist")
def test_every_worker_of_xdist_sees_another_card_first(
    run: Callable[..., Run], pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    plug_in(pytester, 24 * GB)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,6")
    run(
        """
        import os, pathlib, pytest
        @pytest.mark.max_vram("1GB")
        @pytest.mark.parametrize("number", range(6))
        def test_it(number, worker_id):
            pathlib.Path(worker_id).write_text(os.environ["CUDA_VISIBLE_DEVICES"])
        """,
        "-n2",
    )

    assert {name: Path(name).read_text(encoding="utf-8") for name in ("gw0", "gw1")} == {"gw0": "3,5,6", "gw1": "5,6,3"}


def test_without_a_budget_the_visible_cards_are_left_alone(
    run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,6")
    source = "import os\ndef test_it(): assert os.environ['CUDA_VISIBLE_DEVICES'] == '3,5,6'"

    run(source, "-n2", "--llm-isolate=all").result.assert_outcomes(passed=1)


def test_page_locked_host_memory_is_told_apart(run: Callable[..., Run], card: None) -> None:
    ran = run(
        """
        import pytest
        @pytest.mark.in_worker
        def test_it(card): card.pin(500_000_000)
        @pytest.mark.in_worker
        def test_other(): pass
        """,
        "-vv",
    )

    assert (ran["test_it"].pinned_bytes, ran["test_other"].pinned_bytes) == (500_000_000, None)
    ran.result.stdout.fnmatch_lines(["  500 MB of host memory were page-locked for transfers to a GPU"])
