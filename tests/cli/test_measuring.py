"""``llmmem check`` and ``llmmem try``: what they print, and their exit status."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from pytest_llmmem.probes import descendants, has_memory
from tests.cli.conftest import Llmmem
from tests.conftest import needs
from tests.models.gguf_files import write_llama

pytestmark = needs("torch", "transformers", "accelerate")


def test_every_check_holds_for_a_whole_checkpoint(llmmem: Llmmem) -> None:
    done = llmmem("check", "synthetic:tiny-llama", "--skip", "second_load", "--json")

    assert (done.code, done.err) == (0, "")
    outcomes = {each["id"]: each["outcome"] for each in done.document["checks"]}
    assert done.document["held"]
    assert outcomes.pop("quantization") == outcomes.pop("second_load") == "skipped"
    assert set(outcomes.values()) == {"passed"}
    assert {"integrity", "duplicates", "load", "resident", "forward", "dtype", "meta", "release", "disk"} <= set(
        outcomes
    )


def test_a_broken_checkpoint_is_a_finding_with_its_reason(llmmem: Llmmem) -> None:
    assert llmmem("synth", "tiny-neox", "broken", "--shard", "100kB").code == 0
    index = Path("broken", "model.safetensors.index.json")
    named = json.loads(index.read_text(encoding="utf-8"))
    named["metadata"]["total_size"] += 1
    index.write_text(json.dumps(named), encoding="utf-8")
    Path("broken", "pytorch_model.bin").write_bytes(b"not read")

    done = llmmem("check", "broken", *(f"--skip={name}" for name in SLOW))

    assert done.code == 1
    assert "integrity failed" in done.out
    assert "total_size" in done.out
    assert "duplicates failed" in done.out
    assert "pytorch_model.bin" in done.out


@pytest.mark.parametrize("load", ["tensor_parallel", "fsdp", "fsdp_rank0", "dcp"])
def test_every_check_holds_for_each_load_over_ranks_which_has_some_of_its_own(llmmem: Llmmem, load: str) -> None:
    arguments = ("--load", load, "--ranks", "2", "--json")
    done = llmmem("check", "synthetic:tiny-llama", *arguments, *(f"--skip={each}" for each in ("release", "disk")))

    outcomes = {each["id"]: each["outcome"] for each in done.document["checks"]}
    assert done.document["held"], done.document
    assert {outcomes[each] for each in ("meta", "keys", "size", "stays", "rank_load", "rank_share", "group")} == {
        "passed"
    }
    assert outcomes["rank0_only"] == ("passed" if load == "fsdp_rank0" else "skipped")


def test_ways_to_spread_a_model_over_ranks_are_tried_within_one_limit(llmmem: Llmmem) -> None:
    fits, does_not = (
        llmmem("try", "synthetic:tiny-llama", "--ranks", "2", "--max-ram", limit, "--json") for limit in ("2GB", "10kB")
    )

    assert (fits.code, fits.err) == (0, "")
    assert fits.document["fits"] == "tensor_parallel"
    assert "DistributedConfig(tp_size=2, tp_plan='auto')" in fits.document["call"]
    assert does_not.code == 1
    assert [each["load"] for each in does_not.document["loads"]][:2] == ["tensor_parallel", "fsdp"]


def test_any_load_can_be_tried_in_each_of_several_ranks(llmmem: Llmmem) -> None:
    tried = llmmem("try", "synthetic:tiny-llama", "--ranks", "2", "--load", "default", "--max-ram", "2GB", "--json")

    assert (tried.code, tried.document["fits"]) == (0, "default")


def test_one_reason_for_many_checks_is_told_once(llmmem: Llmmem) -> None:
    Path("empty").mkdir()

    done = llmmem("check", "empty", "--skip=disk")

    assert done.code == 1
    assert done.out.count("is empty: a checkpoint is") == 1
    assert "integrity error, duplicates error, load error" in done.out
    assert "None" not in done.out


def test_a_check_that_there_is_not_is_wrong_usage(llmmem: Llmmem) -> None:
    done = llmmem("check", "synthetic:tiny-llama", "--skip", "dtyp")

    assert done.code == 2
    assert "'dtyp' is not a check: write some of integrity, duplicates, load" in done.err


def test_a_checkpoint_that_is_not_whole_is_not_tried(llmmem: Llmmem) -> None:
    assert llmmem("synth", "tiny-neox", "broken", "--shard", "100kB").code == 0
    gone = min(Path("broken").glob("*.safetensors"))
    gone.unlink()

    done = llmmem("try", "broken", "--max-ram", "8GB")

    assert done.code == 1
    assert f"{gone.name} is not there, and the index names it" in done.err


@needs("/proc")
@pytest.mark.usefixtures("uncovered")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_leaves_nothing(tmp_path: Path, how: signal.Signals) -> None:
    command = [
        sys.executable,
        "-m",
        "pytest_llmmem",
        "try",
        "synthetic:bert-base?format=bin",
        "--max-ram=8GB",
        "--load=offload",
    ]
    process = subprocess.Popen(
        command, env=os.environ | {"TMPDIR": str(tmp_path)}, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 -- no threads here
    )  # fmt: skip
    while not list(tmp_path.glob("llmmem-*/scratch/*")):
        time.sleep(0.01)
    family = descendants(process.pid)

    process.send_signal(how)

    _, told = process.communicate(timeout=60)
    assert "llmmem: interrupted" in told
    assert not list(tmp_path.glob("llmmem-*"))
    assert family
    assert not [pid for pid in family if has_memory(pid)]


SLOW = ("resident", "second_copy", "forward", "dtype", "meta", "max_memory", "release", "second_load", "disk")


def test_a_dtype_that_is_not_the_checkpoints_is_found(llmmem: Llmmem, tmp_path: Path) -> None:
    # a config that says another dtype than its weights have is what a load goes by
    assert llmmem("synth", "tiny-llama", "wrong").code == 0
    config = Path("wrong", "config.json")
    config.write_text(
        json.dumps({**json.loads(config.read_text(encoding="utf-8")), "torch_dtype": "float32"}), encoding="utf-8"
    )

    done = llmmem("check", "wrong", *(f"--skip={name}" for name in SLOW if name != "dtype"), "--json")

    assert done.code == 1
    (failed,) = [each for each in done.document["checks"] if each["outcome"] == "failed"]
    assert failed["id"] == "dtype"
    assert "the checkpoint is bfloat16" in failed["reasons"][0]


def test_the_first_load_that_fits_is_named_with_its_call(llmmem: Llmmem) -> None:
    done = llmmem("try", "synthetic:bert-base", "--max-ram=300MB", "--load=naive", "--load=default", "--json")

    assert done.code == 0
    naive, default = done.document["loads"]
    assert (naive["fits"], naive["ending"], default["fits"]) == (False, "over_budget", True)
    assert done.document["call"] == default["call"]
    assert done.document["call"].startswith("BertForMaskedLM.from_pretrained(")


def test_nothing_fits_into_almost_nothing(llmmem: Llmmem) -> None:
    done = llmmem("try", "synthetic:tiny-llama", "--max-ram=1MB", "--load=naive")

    assert done.code == 1
    assert done.out.splitlines()[-1] == "no load of synthetic:tiny-llama fits 1MB"


def test_llama_cpp_is_tried_for_gguf_alone(llmmem: Llmmem, tmp_path: Path) -> None:
    write_llama(tmp_path / "tiny.gguf")

    tried = {
        model: {each["load"] for each in llmmem("try", model, "--max-ram=1kB", "--json").document["loads"]}
        for model in (str(tmp_path / "tiny.gguf"), "synthetic:tiny-llama")
    }

    assert "llama_cpp" in tried[str(tmp_path / "tiny.gguf")]
    assert tried["synthetic:tiny-llama"] == tried[str(tmp_path / "tiny.gguf")] - {"llama_cpp"}


def test_wrong_usage_is_one_line_and_status_2(llmmem: Llmmem) -> None:
    for arguments, complaint in (
        (("check", "nowhere"), "llmmem: MODEL nowhere: there is no folder"),
        (("try", "synthetic:tiny-llama", "--max-ram", "8GBB"), "llmmem: --max-ram: '8GBB' is not a limit"),
        (("check", "synthetic:tiny-llama", "--load", "int9"), "llmmem: --load: 'int9' is not a strategy"),
    ):
        done = llmmem(*arguments)

        assert done.code == 2
        assert done.err.startswith(complaint)
        assert len(done.err.splitlines()) == 1


def test_the_command_is_installed() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("llmmem"), "--help"], capture_output=True, text=True, check=True
    )

    assert all(name in done.stdout for name in ("check", "try", "estimate", "inspect", "synth", "compare", "history"))


@pytest.mark.parametrize("command", [("check",), ("try", "--max-ram", "1GB")])
def test_a_device_that_is_not_there_is_the_one_reason(llmmem: Llmmem, command: tuple[str, ...]) -> None:
    name, *options = command

    done = llmmem(name, "synthetic:tiny-llama", *options, "--device", "xpu:7")

    assert done.code == 1
    assert done.out.splitlines()[-1].endswith("--llm-device=xpu:7: this machine has no device file of a GPU")
    assert llmmem(name, "synthetic:tiny-llama", *options, "--device", "gpu").code == 2


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="needs a library that is missing")
def test_a_load_that_cannot_be_used_does_not_hold(llmmem: Llmmem) -> None:
    done = llmmem("check", "synthetic:tiny-llama", "--load", "int8")

    assert done.code == 1
    assert "needs bitsandbytes" in done.out


def test_a_check_that_there_is_not_is_refused_by_the_option_s_own_name(llmmem: Llmmem) -> None:
    done = llmmem("check", "synthetic:tiny-llama", "--skip", "nope")

    assert done.code == 2
    assert done.err.startswith("llmmem: --skip: 'nope' is not a check")
