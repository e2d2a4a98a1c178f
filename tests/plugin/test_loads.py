"""``--llm-load``, ``llm_load``, own strategies, and what is known of a load while it runs and when it fails."""

import json
import os
from collections.abc import Callable

import pytest

from pytest_llmmem.models.sources.presets import PRESETS
from pytest_llmmem.models.sources.synthetic import SyntheticSpec, write_synthetic
from tests.conftest import Run, needs

pytestmark = needs("torch", "transformers", "accelerate")

TINY = "--llm-model=synthetic:tiny-neox"


def test_a_test_runs_once_for_each_load_or_as_its_marker_says(
    run: Callable[..., Run], pytester: pytest.Pytester
) -> None:
    pytester.makeconftest(
        """
        from pytest_llmmem.models.loading.strategy import Strategy

        def pytest_llmmem_strategies():
            def load(request):
                model = request.from_pretrained()
                model.is_ours = True
                return model
            return [Strategy(name="ours", summary="our own", load=load)]
        """
    )
    ran = run(
        """
        import pytest

        def test_each(loaded_model, request):
            assert loaded_model.load in request.node.name

        @pytest.mark.llm_load("float32")
        def test_marked(loaded_model):
            assert str(loaded_model.dtype) == "torch.float32"

        @pytest.mark.llm_load("ours", dtype="bfloat16", low_cpu_mem_usage=True)
        def test_own(loaded_model):
            assert loaded_model.model.is_ours
            assert str(loaded_model.dtype) == "torch.bfloat16"

        @pytest.mark.llm_load("int9")
        def test_unknown(loaded_model): pass

        @pytest.mark.llm_load("float32")
        def test_without_a_model(): pass
        """,
        TINY, "--llm-load=bfloat16", "--llm-load=ours", timeout_s=120,
    )  # fmt: skip

    ran.result.assert_outcomes(passed=4, failed=2)
    loads = {test.nodeid.partition("::")[2]: test.model.load for test in ran.record.tests if test.model}
    assert loads == {
        "test_each[tiny-neox-bfloat16]": "bfloat16",
        "test_each[tiny-neox-ours]": "ours",
        "test_marked[tiny-neox-float32]": "float32",
        "test_own[tiny-neox-ours]": "ours",
    }
    assert any("low_cpu_mem_usage" in note for note in ran["test_own[tiny-neox-ours]"].notes)
    ran.result.stdout.fnmatch_lines([
        "*llm_load: 'int9' is not a strategy: write one of default,*ours*",
        "*llm_load: this test loads nothing through us: let it use the fixture loaded_model",
    ])  # fmt: skip


def test_an_unknown_load_stops_the_session(run: Callable[..., Run]) -> None:
    ran = run("def test_it(loaded_model): pass", TINY, "--llm-load=int9")

    assert ran.result.ret == pytest.ExitCode.USAGE_ERROR
    ran.result.stderr.fnmatch_lines(["ERROR: --llm-load: 'int9' is not a strategy: write one of default,*"])


def test_loads_are_tried_until_one_fits(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import pytest

        @pytest.mark.max_ram("250MB")
        def test_fits(first_load_that_fits):
            assert first_load_that_fits.load == "default"
            assert first_load_that_fits.nbytes_on("meta") == 0

        @pytest.mark.max_ram("15MB")
        def test_none_fits(first_load_that_fits): pass

        def test_without_a_limit(first_load_that_fits): pass
        """,
        "--llm-model=synthetic:bert-base", "--llm-load=naive", "--llm-load=default", timeout_s=120,
    )  # fmt: skip

    ran.result.assert_outcomes(passed=1, errors=1, failed=1)
    assert (
        ran["test_none_fits[bert-base]"].ram is None
    )  # it was not run: there is one error, and not a broken budget too
    naive, default = ran["test_fits[bert-base]"].trials
    assert (naive.load, naive.fits, naive.ending) == ("naive", False, "over_budget")
    assert (default.load, default.fits, default.ending) == ("default", True, "completed")
    assert naive.peak_bytes is not None
    assert naive.peak_bytes > 250e6
    assert "from_pretrained(" in default.call
    assert [trial.fits for trial in ran["test_none_fits[bert-base]"].trials] == [False, False]
    ran.result.stdout.fnmatch_lines([
        "no load fits:",
        "  naive  *over budget: max_ram is 15.* MB, used *",
        "*first_load_that_fits needs a max_ram budget: mark the test with max_ram*",
    ])  # fmt: skip
    ran.result.stdout.fnmatch_lines(["loads tried for *test_fits*:"])
    ran.result.stdout.no_fnmatch_line("loads tried for *test_none_fits*:")
    ran.result.stdout.no_fnmatch_line("All traceback entries are hidden*")


def test_an_error_of_a_load_is_shown_without_the_source_of_libraries(
    run: Callable[..., Run], pytester: pytest.Pytester
) -> None:
    config = json.dumps(PRESETS["tiny-llama"].config)
    folder = pytester.path / "cut"
    write_synthetic(SyntheticSpec(name="cut", config_json=config, dtype="bfloat16", shard_bytes=10**6), folder)
    os.truncate(folder / "model.safetensors", (folder / "model.safetensors").stat().st_size - 500)
    source = """
        import pytest, torch

        def serve(path): return torch.load(path / "nothing.bin")

        def test_cut(loaded_model): pass

        @pytest.mark.llm_load(loader=serve)
        def test_own(loaded_model): pass
        """

    ran = run(source, f"--llm-model={folder}", timeout_s=120)
    full = run(source, f"--llm-model={folder}", "--full-trace", "-k", "own", timeout_s=120)

    ran.result.assert_outcomes(errors=2)
    assert len(ran.result.outlines) < 60
    ran.result.stdout.no_fnmatch_line("*site-packages*")
    ran.result.stdout.fnmatch_lines_random([
        "E  *SafetensorError: *incomplete metadata, file not fully covered",
        ">*return torch.load(path / *",
        "E  *FileNotFoundError: *",
        "test_*.py:3: FileNotFoundError",
    ])  # fmt: skip
    assert ran["test_cut[cut]"].diagnosis.id == "shard-truncated"
    full.result.stdout.fnmatch_lines(["*site-packages/torch/serialization.py:*"])


def test_a_death_says_where_in_the_load_it_was(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import os, signal
        from pytest_llmmem.models.loading.strategy import Strategy

        def pytest_llmmem_strategies():
            def load(request):
                from safetensors import safe_open
                for shard in request.checkpoint.shards:
                    with safe_open(shard.path, "pt") as file:
                        for name in file.keys():
                            if shard is request.checkpoint.shards[1] and "layers" in name:
                                file.get_tensor(name)
                                os.kill(os.getpid(), signal.SIGKILL)
                            file.get_tensor(name)
            return [Strategy(name="dies", summary="dies in its second shard", load=load)]
        """
    )
    ran = run(
        "def test_it(loaded_model): pass",
        "--llm-model=synthetic:tiny-neox?shard=100kB", "--llm-load=dies", timeout_s=120,
    )  # fmt: skip

    record = ran["test_it[tiny-neox?shard=100kB-dies]"]
    assert record.ending.signal == "SIGKILL"
    assert record.ending.place is not None
    assert record.ending.place.startswith("shard 2 of ")
    assert "layers" in record.ending.place
    assert record.timeline is not None
    assert record.timeline.seconds
    ran.result.stdout.fnmatch_lines(["place     shard 2 of *"])


def test_a_known_failure_is_explained_and_a_load_that_never_became_resident_is_noted(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import pytest

        @pytest.mark.max_ram("1GB")
        def test_lazy(loaded_model): pass

        @pytest.mark.max_ram("1GB")
        def test_touched(loaded_model): loaded_model.touch()

        @pytest.mark.max_ram("150MB")
        def test_mapped(loaded_model):
            loaded_model.touch()

        @pytest.mark.llm_load("default", load_in_8bit=True)
        def test_8bit(loaded_model): pass
        """,
        "--llm-model=synthetic:bert-base", timeout_s=120,
    )  # fmt: skip

    assert "never resident" in ran["test_lazy[bert-base]"].notes[0]
    assert ran["test_touched[bert-base]"].notes == ()
    assert "mapped files do not count" in ran["test_mapped[bert-base]"].notes[0]
    explained = ran["test_8bit[bert-base-default]"]
    assert explained.ending.error is not None
    assert explained.ending.error.startswith("TypeError: ")
    assert explained.diagnosis is not None
    ran.result.stdout.fnmatch_lines(["*llmmem: what to do*", explained.diagnosis.lines[0]])


def test_what_is_written_to_disk_is_judged(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import mmap, pytest, subprocess, sys

        def write(path, size):
            with open(path, "wb") as file:
                file.write(b"x" * size)

        @pytest.mark.max_disk("10MB")
        def test_little(tmp_path): write(tmp_path / "a", 5_000_000)

        @pytest.mark.max_disk("10MB")
        def test_much(tmp_path): write(tmp_path / "a", 15_000_000)

        @pytest.mark.max_disk("10MB")
        def test_mapped(tmp_path):
            with open(tmp_path / "a", "w+b") as file:
                file.truncate(15_000_000)
                with mmap.mmap(file.fileno(), 0) as view:
                    view[:] = b"x" * 15_000_000

        @pytest.mark.max_disk("10MB")
        def test_child(tmp_path):
            subprocess.run([sys.executable, "-c", "open('a', 'wb').write(b'x' * 15_000_000)"], cwd=tmp_path, check=True)
        """,
        f"--basetemp={pytest_folder_on_disk()}",
    )

    ran.result.assert_outcomes(passed=1, failed=3)
    for name in ("test_much", "test_mapped", "test_child"):
        written = ran[name].disk_written_bytes
        assert written is not None
        assert 15_000_000 <= written < 16_000_000
    ran.result.stdout.fnmatch_lines(["*max_disk is 10.0 MB, wrote 15.0 MB: 5.0* MB over*"])


def test_ranks_of_a_launch_are_measured_together_and_each(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import os, pytest, subprocess, sys, time

        @pytest.mark.max_ram("100MB")
        def test_it():
            program = "import os; held = bytearray((1 + int(os.environ['RANK'])) * 60_000_000); print(flush=True); input()"
            ranks = [
                subprocess.Popen([sys.executable, "-c", program], env=os.environ | {"RANK": str(rank)}, stdin=-1, stdout=-1)
                for rank in (0, 1)
            ]
            for rank in ranks: rank.stdout.readline()
            time.sleep(0.5)  # both hold their memory: a machine under load may start them one after the other
            for rank in ranks: rank.communicate(b"\\n")
            assert [rank.returncode for rank in ranks] == [0, 0]
        """
    )

    record = ran["test_it"]
    assert record.ram is not None
    assert [rank.rank for rank in record.ranks] == [0, 1]
    assert 60e6 < record.ranks[0].peak_bytes < 80e6
    assert 120e6 < record.ranks[1].peak_bytes < 140e6
    assert record.ram.peak_bytes > 180e6
    assert record.ending.kind == "over_budget"
    ran.result.stdout.fnmatch_lines_random(["* MB  rank 1: python -c *", "* MB  rank 0: python -c *"])


def pytest_folder_on_disk() -> str:
    """A folder that is no tmpfs, whose files are memory."""
    import tempfile

    return tempfile.mkdtemp(dir="/var/tmp")


def test_a_read_in_a_test_of_one_s_own_says_where_it_was(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import os, signal
        import pytest, torch

        @pytest.fixture
        def weights(tmp_path):
            torch.save({"w": torch.ones(3)}, tmp_path / "mine.pt")
            class Dies:
                def __reduce__(self): return os.kill, (os.getpid(), signal.SIGSEGV)
            torch.save({"w": Dies()}, tmp_path / "deadly.pt")
            return tmp_path

        @pytest.mark.in_worker
        def test_while(weights): torch.load(weights / "deadly.pt", weights_only=False)

        @pytest.mark.in_worker
        def test_after(weights):
            torch.load(weights / "mine.pt")
            os.kill(os.getpid(), signal.SIGSEGV)
        """,
        "--llm-worker=fork",
    )

    assert ran["test_while"].ending.place == "deadly.pt"
    assert ran["test_after"].ending.place is None


def test_a_read_by_a_library_that_an_earlier_test_of_the_worker_has_imported_is_followed(
    run: Callable[..., Run],
) -> None:
    ran = run(
        """
        import sys
        import pytest

        pytestmark = pytest.mark.in_worker(scope="module")

        class Dies:
            def __reduce__(self): return eval, ("__import__('os').kill(__import__('os').getpid(), 11)",)

        def test_first(tmp_path):
            assert "numpy" not in sys.modules
            import numpy
            numpy.save(tmp_path / "mine.npy", numpy.ones(3))
            numpy.load(tmp_path / "mine.npy")

        def test_second(tmp_path):
            import numpy
            numpy.save(tmp_path / "deadly.npy", numpy.array([Dies()], dtype=object))
            numpy.load(tmp_path / "deadly.npy", allow_pickle=True)
        """,
        "--llm-worker=fork",
    )

    ran.result.assert_outcomes(passed=1, failed=1)
    assert ran["test_second"].ending.place == "deadly.npy"
