"""``--llm-model`` and the fixtures that use it."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from pytest_llmmem import checks, step_checks
from pytest_llmmem.core.check_ids import CHECKS, STEP_CHECKS
from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.checkpoints.safetensors_file import write_holes
from pytest_llmmem.models.checkpoints.tensors import tensor
from pytest_llmmem.models.sources.source import parse_source
from pytest_llmmem.models.sources.synthetic import SyntheticSpec, write_synthetic
from pytest_llmmem.plugin.collect.models import Models, distinct_labels
from tests.conftest import Run, needs
from tests.models.hostile_kinds import LIGHT

pytestmark = needs("torch", "transformers")

TINY = "--llm-model=synthetic:tiny-llama"


def test_each_test_runs_once_per_model_with_a_readable_id(run: Callable[..., Run]) -> None:
    ran = run(
        "def test_it(model_checkpoint): assert model_checkpoint.parameters",
        TINY,
        "--llm-model=synthetic:tiny-neox",
        "-v",
    )

    ran.result.assert_outcomes(passed=2)
    ran.result.stdout.fnmatch_lines(["*::test_it[[]tiny-llama[]] PASSED*", "*::test_it[[]tiny-neox[]] PASSED*"])


@pytest.mark.parametrize(
    "kind", ["pipe for weights", "deep key", "nested config", "parent folder", "escapes for a file"]
)
def test_a_hostile_checkpoint_fails_the_tests_that_need_it_in_a_sentence(
    run: Callable[..., Run], tmp_path: Path, kind: str
) -> None:
    (hostile,) = [each for each in LIGHT if each.name == kind]
    if not hostile.can_be_made:
        pytest.skip("there are no such files here")
    folder = tmp_path / "hostile"
    folder.mkdir()
    hostile.make(folder)

    ran = run(
        """
        import pytest
        def test_other(): pass
        @pytest.mark.max_ram("2 * weights")
        def test_limit(model_checkpoint): pass
        def test_load(loaded_model): pass
        """,
        f"--llm-model={folder}",
    )

    ran.result.assert_outcomes(passed=1, failed=1, errors=1)
    assert "INTERNALERROR" not in ran.text
    assert ran.text.replace("\n", "").replace("\t", "").isprintable()


def test_a_checkpoint_that_cannot_be_read_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").touch()
    source = parse_source(str(tmp_path), base=tmp_path)
    models = Models((source,))
    with pytest.raises(CheckpointError, match="no file of weights"):
        models.checkpoint(source)

    write_holes(tmp_path / "model.safetensors", [])

    with pytest.raises(CheckpointError, match="no file of weights"):
        models.checkpoint(source)


def test_without_a_model_the_test_is_skipped_with_the_reason(run: Callable[..., Run]) -> None:
    ran = run("def test_it(loaded_model): pass", "-rs")

    ran.result.assert_outcomes(skipped=1)
    ran.result.stdout.fnmatch_lines(["*needs a model: pass --llm-model=SOURCE*"])


@pytest.mark.parametrize("worker", ["fork", "spawn"])
def test_a_loaded_model_tells_the_truth_about_itself(run: Callable[..., Run], worker: str) -> None:
    ran = run(
        """
        import pytest
        @pytest.mark.max_ram("2 * weights + 300MB")
        def test_it(loaded_model):
            weights = loaded_model.checkpoint.weights_bytes
            assert loaded_model.nbytes >= weights
            assert loaded_model.nbytes_on("cpu") == loaded_model.nbytes
            assert loaded_model.nbytes_on("meta") == loaded_model.nbytes_on("disk") == 0
            assert loaded_model.device_map == {"": "cpu"}
            assert loaded_model.seconds > 0
            assert loaded_model.peak.peak_bytes >= 0
            loaded_model.touch()
            assert loaded_model.mapped_nbytes == 0
            loaded_model.release()
            with pytest.raises(RuntimeError, match="was released"):
                loaded_model.model
        """,
        TINY, f"--llm-worker={worker}", timeout_s=120,
    )  # fmt: skip

    record = ran["test_it[tiny-llama]"]
    assert record.outcome == "passed"
    assert record.model is not None
    assert record.model.source == "synthetic:tiny-llama"
    assert "load" in [phase.name for phase in record.phases]


def test_a_shared_model_is_loaded_once_and_a_crash_starts_anew(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import os
        def test_1(loaded_model): loaded_model.model.mine = os.getpid()
        def test_2(loaded_model): assert loaded_model.model.mine == os.getpid()
        def test_3(loaded_model): os.abort()
        def test_4(loaded_model): assert not hasattr(loaded_model.model, "mine")
        """,
        TINY, "--llm-scope=module",
    )  # fmt: skip

    ran.result.assert_outcomes(passed=3, failed=1)
    loads = {test.nodeid: [phase.name for phase in test.phases].count("load") for test in ran.record.tests}
    assert list(loads.values()) == [1, 0, 0, 1]


def test_a_broken_checkpoint_fails_its_tests_with_the_reason(run: Callable[..., Run], tmp_path: "object") -> None:
    from pathlib import Path

    folder = Path(str(tmp_path)) / "empty model"
    folder.mkdir()

    ran = run("def test_it(loaded_model): pass", f"--llm-model={folder}")

    ran.result.assert_outcomes(errors=1)
    ran.result.stdout.fnmatch_lines(["*is empty: a checkpoint is *"])


def test_a_checkpoint_that_cannot_be_loaded_is_one_sentence_without_a_traceback(
    run: Callable[..., Run], pytester: pytest.Pytester
) -> None:
    pytester.mkdir("empty")
    foreign = pytester.mkdir("foreign")
    foreign.joinpath("config.json").write_text('{"architectures": ["X"], "auto_map": {"AutoModel": "modeling_x.X"}}')
    write_holes(foreign / "model.safetensors", [tensor("a.weight", "float16", (2, 2))])

    ran = run("def test_it(loaded_model): pass", "--llm-model=empty", "--llm-model=foreign", timeout_s=120)

    ran.result.assert_outcomes(errors=2)
    ran.result.stdout.fnmatch_lines([
        "*ERROR at setup of test_it[[]empty[]]*",
        "*empty is empty: a checkpoint is *",
        "*ERROR at setup of test_it[[]foreign[]]*",
        "--llm-model=foreign: X is code that comes with the checkpoint: read it, and pass --llm-trust-remote-code *",
    ])  # fmt: skip
    assert "Traceback" not in ran.text
    assert ran.text.count("is empty: a checkpoint is") == 1


def test_the_ready_made_checks_are_of_a_model(run: Callable[..., Run]) -> None:
    ran = run("", "--pyargs", "pytest_llmmem.checks")

    ran.result.assert_outcomes(errors=1)
    ran.result.stdout.fnmatch_lines(["the ready-made checks are of a model: pass --llm-model=SOURCE, *"])


@pytest.mark.parametrize(("suite", "ids"), [(checks, CHECKS), (step_checks, STEP_CHECKS)])
def test_the_ids_of_the_checks_are_known_to_the_settings(suite: ModuleType, ids: tuple[str, ...]) -> None:
    assert [name.removeprefix("test_") for name in vars(suite) if name.startswith("test_")] == list(ids)


def test_a_budget_in_terms_of_a_checkpoint_that_lacks_a_shard_says_so(
    run: Callable[..., Run], pytester: pytest.Pytester
) -> None:
    folder = Path(pytester.path, "broken")
    spec = parse_source("synthetic:tiny-neox?shard=100kB", base=folder).target
    assert isinstance(spec, SyntheticSpec)
    write_synthetic(spec, folder)
    gone = min(folder.glob("*.safetensors"))
    gone.unlink()

    ran = run(
        """
        import pytest
        @pytest.mark.max_ram("2 * weights")
        def test_it(model_checkpoint): pass
        """,
        "--llm-model=broken",
    )

    ran.result.assert_outcomes(failed=1)
    ran.result.stdout.fnmatch_lines([f"*'2 [*] weights' is in terms of a checkpoint that lacks {gone.name}: fetch it"])


def test_two_folders_of_one_name_have_the_folder_above_in_their_ids(tmp_path: Path) -> None:
    for name in ("new/model", "old/model", "other"):
        (tmp_path / name).mkdir(parents=True)

    sources = [parse_source(f"./{name}", base=tmp_path) for name in ("new/model", "old/model", "other")]

    assert distinct_labels(sources) == ["new/model", "old/model", "other"]
    assert distinct_labels(sources[:1]) == ["model"]
