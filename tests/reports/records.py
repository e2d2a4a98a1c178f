"""Sample sessions for the renderers' tests, the pictures and the benchmark; ``python -m tests.reports.records`` writes the golden files anew.

The shapes are those of real loads: a mapped checkpoint that the forward pays for, a copy that breaks its budget, a shard-by-shard load
that dies, a crash, a hang, a GPU. The numbers are made, and the same on every machine.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from pytest_llmmem.core.endings import Ending
from pytest_llmmem.core.record_parts import (
    BaselineRecord,
    Diagnosis,
    MarkRecord,
    ModelRecord,
    RankRecord,
    TrialRecord,
    VramRecord,
)
from pytest_llmmem.core.records import SessionRecord, TestRecord
from pytest_llmmem.core.steps import KeptActivations, StepMemory, StepPhase
from pytest_llmmem.reports import github, json, markdown, trace
from tests.reports.shapes import MB, budget, phases, ram, timeline, uneven

FOLDER = Path(__file__).parent / "golden"
GOLDEN: dict[str, Callable[[SessionRecord], str]] = {
    "report.json": json.render,
    "summary.md": markdown.render,
    "report.trace.json": trace.render,
    "step_summary.md": github.summary,
    "annotations.txt": lambda record: "\n".join(github.annotations(record)) + "\n",
}
"""The files of ``golden/``, and what renders them."""


def sample(*, points: int = 12) -> SessionRecord:
    """One session that has everything, with about that many points in each timeline."""
    return SessionRecord(environment=ENVIRONMENT, tests=tuple(_tests(points)))


def large(*, tests: int, points: int) -> SessionRecord:
    """A session of many tests, each with a long, uneven timeline and all that a failure has."""
    kinds = [test for test in _tests(points) if test.timeline]
    many = (uneven(kinds[number % len(kinds)], seed=number) for number in range(tests))
    renamed = (replace(test, nodeid=f"tests/test_zoo.py::test_{number}[{number}]") for number, test in enumerate(many))
    return SessionRecord(environment=ENVIRONMENT, tests=tuple(renamed))


def hostile() -> SessionRecord:
    """One failure whose every text tries to leave its place."""
    nasty = "</script><script>throw 1</script><!-- ]]> %0A::error::| `*_[x](y)_*` \\ \u2028 \ud800 é한"
    return SessionRecord(
        environment={"python": nasty},
        tests=(
            TestRecord(
                nodeid=f"test_x.py::test_x[{nasty}]",
                outcome="failed",
                duration_s=1.0,
                ending=Ending(kind="crashed", signal="SIGSEGV", phase="call", note=nasty, error=nasty, place=nasty),
                ram=ram(5, 1),
                budgets=(budget("1MB", 1, 5),),
                stack=(nasty, "````"),
                stack_at="the end",
                stack_own=1,
                notes=(nasty,),
                diagnosis=Diagnosis(id=nasty, happened=nasty, why=nasty),
                location="tests/a,b:c%.py:7",
            ),
        ),
    )


ENVIRONMENT = {
    "python": "3.11.7",
    "platform": "linux",
    "kernel": "6.18.44",
    "machine": "x86_64",
    "host_bytes": 25_276_510_208,
    "host_limited_by": "host",
    "malloc": "default",
    "mark_error_bytes": 262_144,
    "pytest-llmmem": "0.1.0",
    "pytest": "9.2.0",
    "torch": "2.13.0+cpu",
    "transformers": "5.23.0",
    "accelerate": "1.15.0",
    "safetensors": None,
}
POLYGLOT = ModelRecord(
    source="synthetic:polyglot-ko-1.3b",
    load="default",
    weights_bytes=2_663_321_600,
    largest_shard_bytes=1_995_440_128,
    parameters=1_331_810_304,
    mapped_bytes=2_645_000_000,
)
MIDM = ModelRecord(
    source="synthetic:midm-7b",
    load="naive",
    weights_bytes=14_021_000_000,
    largest_shard_bytes=1_990_000_000,
    parameters=7_010_000_000,
)


def steps(*, predicted: bool = True) -> StepMemory:
    """Two training steps, the second one higher by the optimizer's state."""
    kept = {"parameters": 155 * MB}
    state = {"optimizer": 310 * MB}
    forward, backward = {"activations": 103 * MB, "temporary": 33 * MB}, {"activations": 103 * MB, "temporary": 66 * MB}
    step = {"gradients": 155 * MB, "temporary": 98 * MB}
    moments = (
        (1, "forward", kept | forward, "aten.nll_loss_forward.default", "LlamaForCausalLM"),
        (1, "backward", kept | backward, "aten._log_softmax_backward_data.default", "LlamaForCausalLM"),
        (1, "optimizer", kept | state | step, "aten.div.Tensor", ""),
        (2, "forward", kept | state | forward, "aten.nll_loss_forward.default", "LlamaForCausalLM"),
        (2, "backward", kept | state | backward, "aten._log_softmax_backward_data.default", "LlamaForCausalLM"),
        (2, "optimizer", kept | state | step, "aten.div.Tensor", ""),
    )
    memory = StepMemory(
        device="cpu",
        phases=tuple(
            StepPhase(
                step=number,
                phase=phase,
                peak_bytes=sum(by_kind.values()),
                by_kind=by_kind,
                op=op,
                module=module,
                end_by_kind=kept,
                process_peak_bytes=sum(by_kind.values()) + 9 * MB,
            )
            for number, phase, by_kind, op, module in moments
        ),
        largest_by_kind=kept | state | step | {"activations": 103 * MB},
        kept=(
            KeptActivations(module="LlamaForCausalLM", bytes=33 * MB),
            KeptActivations(module="model.layers.0.self_attn", bytes=5 * MB),
        ),
        trainable_parameters=155 * MB // 4,
        trainable_bytes=155 * MB,
    )
    return replace(memory, predicted=memory) if predicted else memory


def _tests(points: int) -> Iterator[TestRecord]:
    yield TestRecord(
        nodeid="tests/test_load.py::test_the_first_forward_fits[polyglot-ko-1.3b]",
        outcome="passed",
        duration_s=3.41,
        ending=Ending(kind="completed"),
        ram=ram(25.8, 2567),
        steps=(steps(),),
        phases=phases(("setup", 0.01, 0.32, 21.9), ("load", 0.04, 0.28, 17.0), ("call", 0.34, 2.7, 18.4), ("teardown", 3.05, 0.3, 0)),
        budgets=(budget("1.2 * weights + 200MB", 3396, 2541, count="resident"),),
        model=POLYGLOT,
        timeline=timeline(
            (0, 0, 0, 0), (0.04, 4, 2, 0), (0.2, 21, 12, 0), (0.34, 22, 18, 0), (0.8, 24, 610, 0), (1.6, 25.8, 1400, 0),
            (2.9, 25.1, 2567, 0), (3.05, 24, 2567, 0), (3.35, 6, 40, 0), points=points,
            marks=(MarkRecord(seconds=0.06, kind="shard", text="shard 1 of 2"), MarkRecord(seconds=0.2, kind="shard", text="shard 2 of 2")),
        ),
        location="tests/test_load.py:7",
    )  # fmt: skip
    yield TestRecord(
        nodeid="tests/test_load.py::test_float32_fits[polyglot-ko-1.3b]",
        outcome="failed",
        duration_s=7.16,
        ending=Ending(kind="over_budget"),
        ram=ram(5350, 1021),
        phases=phases(("setup", 0.01, 0.33, 21.9), ("load", 0.04, 0.3, 17.0), ("call", 0.34, 5.8, 5330), ("teardown", 6.15, 0.4, 0)),
        budgets=(budget("1.2 * weights + 200MB", 3396, 5350),),
        model=POLYGLOT,
        stack_at="the crossing",
        stack_own=1,
        stack=(
            "tests/test_load.py:13 in test_float32_fits",
            "torch/nn/modules/module.py:1189 in <lambda>",
            "torch/nn/modules/module.py:964 in _apply",
            "torch/nn/modules/module.py:935 in _apply",
            "torch/nn/modules/module.py:1189 in float",
        ),
        diagnosis=Diagnosis(
            id="wider_than_checkpoint",
            happened="The model holds float32, and the checkpoint is float16: every weight takes twice its bytes.",
            why="model.float() copied 2.66 GB of weights into 5.33 GB.",
            next=("Load with dtype='auto', or give the budget '2 * weights' if float32 is meant.",),
        ),
        timeline=timeline(
            (0, 0, 0, 0), (0.04, 4, 2, 0), (0.3, 22, 18, 0), (0.4, 24, 120, 0), (2.4, 1800, 1021, 0), (4.11, 3396, 700, 0),
            (6.0, 5350, 60, 0), (6.15, 5350, 40, 0), (6.3, 2200, 30, 0), (6.55, 12, 24, 0), points=points,
            marks=(MarkRecord(seconds=4.11, kind="breach", text="max_ram 3396 MB crossed"),),
        ),
        location="tests/test_load.py:12",
    )  # fmt: skip
    yield TestRecord(
        nodeid="tests/test_serving.py::TestMidm::test_naive_load_in_a_16gb_container[midm-7b]",
        outcome="failed",
        duration_s=21.9,
        ending=Ending(
            kind="out_of_memory", signal="SIGKILL", phase="setup",
            note="the kernel's OOM killer ended it (oom_kill +1 in its own memory cgroup)",
            place="shard 5 of 8, model.layers.19.mlp.down_proj.weight",
        ),
        ram=ram(15_870, 1990),
        phases=phases(("setup", 0.02, 21.8, 15_870), ("load", 0.1, 21.7, 15_860)),
        model=MIDM,
        stack_at="the end",
        stack_own=1,
        stack=(
            "tests/conftest.py:31 in naive_model",
            "torch/serialization.py:1521 in load",
            "torch/_utils.py:214 in _rebuild_tensor_v2",
        ),
        diagnosis=Diagnosis(
            id="second_copy",
            happened="Killed because memory ran out at shard 5 of 8.",
            why="A state dict and the model's own weights were held at once: two copies of what was loaded so far.",
            next=("Load shard by shard (--llm-load=sharded needs 'weights + shard', 16.0 GB), or in the checkpoint's dtype with 'default'.",),
        ),
        timeline=timeline(
            (0, 0, 0, 0), (0.1, 30, 20, 0), (4.0, 7010, 30, 0), (7.6, 8800, 1990, 0), (11.2, 10_600, 1990, 0), (14.8, 12_390, 1990, 0),
            (18.4, 14_180, 1990, 0), (21.8, 15_870, 1990, 0), points=points,
            marks=(
                *(MarkRecord(seconds=4.0 + 3.6 * shard, kind="shard", text=f"shard {shard + 1} of 8") for shard in range(5)),
                MarkRecord(seconds=21.8, kind="death", text="SIGKILL in setup"),
            ),
        ),
        notes=("enforce=rlimit is not available in a container without prlimit: watch was used",),
        location="tests/test_serving.py:44",
    )  # fmt: skip
    yield TestRecord(
        nodeid="tests/test_shards.py::test_reads_shard_3",
        outcome="failed",
        duration_s=0.94,
        ending=Ending(kind="crashed", signal="SIGBUS", phase="call", place="shard 3 of 8"),
        ram=ram(12.1, 640),
        phases=phases(("setup", 0.0, 0.02, 0.3), ("call", 0.02, 0.9, 12.1)),
        stack_at="the end",
        stack_own=1,
        stack=("tests/test_shards.py:9 in test_reads_shard_3", "torch/nn/functional.py:2546 in embedding"),
        diagnosis=Diagnosis(
            id="truncated_shard",
            happened="A page of a mapped file was gone: model-00003-of-00008.safetensors is 1.20 GB, and its header promises 1.99 GB.",
            why="Fetch the shard again; a download that was cut off leaves such a file.",
        ),
        timeline=timeline(
            (0, 0, 0, 0), (0.02, 0.3, 4, 0), (0.4, 6, 220, 0), (0.92, 12.1, 640, 0), points=points,
            marks=(MarkRecord(seconds=0.92, kind="death", text="SIGBUS in call"),),
        ),
        location="tests/test_shards.py:6",
    )  # fmt: skip
    yield TestRecord(
        nodeid="tests/test_serving.py::test_generates_on_the_gpu[polyglot-ko-1.3b]",
        outcome="passed",
        duration_s=9.7,
        ending=Ending(kind="completed"),
        ram=ram(1480, 2610),
        vram=(VramRecord(device="cuda:0", peak_allocated_bytes=3_120 * MB, peak_reserved_bytes=3_380 * MB, peak_fragmented_bytes=210 * MB, peak_device_bytes=3_870 * MB),),
        phases=phases(("setup", 0.0, 4.1, 1480), ("load", 0.5, 3.4, 1470), ("call", 4.1, 5.2, 160), ("generate", 4.6, 4.2, 120), ("teardown", 9.3, 0.3, 0)),
        budgets=(budget("4GB", 4000, 3380, kind="max_vram", count="reserved"), budget("2GB", 2000, 1480)),
        ranks=(RankRecord(rank=0, peak_bytes=760 * MB, peak_resident_bytes=2_070 * MB), RankRecord(rank=1, peak_bytes=720 * MB, peak_resident_bytes=2_030 * MB)),
        model=replace(POLYGLOT, load="auto"),
        timeline=timeline(
            (0, 0, 0, 0), (0.5, 420, 90, 0), (0.9, 1200, 130, 480), (2.2, 1480, 1500, 1500), (3.9, 900, 2610, 2790), (4.6, 880, 2610, 2790),
            (6.0, 1040, 2610, 3200), (8.8, 1040, 2610, 3380), (9.3, 1000, 2610, 3380), (9.6, 640, 200, 0), points=points,
            marks=(MarkRecord(seconds=0.9, kind="shard", text="shard 1 of 2"), MarkRecord(seconds=2.4, kind="shard", text="shard 2 of 2")),
        ),
        location="tests/test_serving.py:61",
    )  # fmt: skip
    yield TestRecord(
        nodeid="tests/test_serving.py::test_one_step_is_small[polyglot-ko-1.3b]",
        outcome="passed",
        duration_s=1.12,
        ending=Ending(kind="completed"),
        ram=ram(41.4, 210),
        phases=phases(("setup", 0.0, 0.2, 21), ("call", 0.2, 0.8, 20.5), ("decode", 0.4, 0.5, 20.5), ("teardown", 1.0, 0.1, 0)),
        budgets=(budget("50MB", 50, 20.5, kind="memory_budget", name="decode"),),
        timeline=timeline(
            (0, 0, 0, 0), (0.2, 21, 100, 0), (0.4, 21, 190, 0), (0.5, 41.4, 200, 0), (0.85, 41.2, 210, 0), (0.9, 21.5, 210, 0),
            (1.1, 20, 180, 0), points=points,
        ),
        run_peaks_bytes=(41_200_000, 41_400_000, 41_900_000),
        baseline=BaselineRecord(
            verdict="held",
            sentence="baseline is 41.0 MB, used 41.4 MB unreclaimable: 0.40 MB more (tolerance 5%)",
            machine="linux-x86_64",
            before_bytes=41_000_000,
            after_bytes=41_400_000,
        ),
        location="tests/test_serving.py:80",
    )  # fmt: skip
    yield TestRecord(
        nodeid="tests/test_choice.py::test_some_load_fits_this_runner",
        outcome="passed",
        duration_s=64.2,
        ending=Ending(kind="completed"),
        ram=ram(3.1, 0.4),
        phases=phases(("setup", 0.0, 64.0, 3.1), ("call", 64.0, 0.1, 0.2)),
        model=replace(MIDM, load="offload"),
        timeline=timeline((0, 0, 0, 0), (64.0, 3.1, 0.4, 0), (64.1, 2.9, 0.4, 0), points=points),
        trials=(
            TrialRecord(load="naive", ending="out_of_memory", fits=False, peak_bytes=15_870 * MB, peak_resident_bytes=17_820 * MB, seconds=21.9,
                        disk_bytes=0, call='AutoModel.from_config(config); model.load_state_dict(torch.load("pytorch_model.bin"))',
                        why="It held two copies, and the container has 16 GB."),
            TrialRecord(load="sharded", ending="over_budget", fits=False, peak_bytes=None, peak_resident_bytes=None, seconds=18.2, disk_bytes=0,
                        call="load_sharded_checkpoint(model, folder)", why="The worker died before it was measured."),
            TrialRecord(load="offload", ending="completed", fits=True, peak_bytes=6_020 * MB, peak_resident_bytes=8_100 * MB, seconds=24.0,
                        disk_bytes=8_200 * MB, call='AutoModel.from_pretrained(folder, device_map="auto", offload_folder="offload")'),
        ),
        disk_written_bytes=8_204_000_000,
        location="tests/test_choice.py:5",
    )  # fmt: skip
    yield TestRecord(
        nodeid="tests/test_serving.py::test_answers_within_a_minute",
        outcome="failed",
        duration_s=60.02,
        ending=Ending(kind="timed_out", phase="call"),
        ram=ram(512, 33),
        phases=phases(("setup", 0.0, 0.4, 12), ("call", 0.4, 59.6, 512)),
        stack_at="the end",
        stack_own=1,
        stack=("tests/test_serving.py:93 in test_answers_within_a_minute", "queue.py:171 in get", "threading.py:327 in wait"),
        timeline=timeline(
            (0, 0, 0, 0), (0.4, 12, 30, 0), (5, 512, 33, 0), (60.0, 512, 33, 0), points=points,
            marks=(MarkRecord(seconds=60.0, kind="death", text="timed out in call"),),
        ),
        location="tests/test_serving.py:90",
    )  # fmt: skip
    yield TestRecord(
        nodeid="tests/test_quantized.py::test_4bit_is_a_quarter[nf4]",
        outcome="xfailed",
        duration_s=2.2,
        ending=Ending(kind="raised", phase="call", error="AssertionError: 15.4 bits per parameter"),
        ram=ram(702, 30),
        phases=phases(("setup", 0.0, 1.9, 702), ("call", 1.9, 0.1, 0)),
        timeline=timeline((0, 0, 0, 0), (0.9, 300, 30, 0), (1.9, 702, 30, 0), (2.0, 690, 30, 0), points=points),
        location="tests/test_quantized.py:18",
    )  # fmt: skip
    yield TestRecord(
        nodeid="tests/test_serving.py::test_leaves_quietly",
        outcome="error",
        duration_s=0.3,
        ending=Ending(kind="exited", phase="setup", exit_code=0, note="it left without a report: os._exit, or a native library that ends the process"),
        ram=None,
        location="tests/test_serving.py:101",
    )  # fmt: skip
    yield TestRecord(
        nodeid="tests/test_quantized.py::test_on_a_device",
        outcome="skipped",
        duration_s=0.02,
        ending=Ending(kind="completed"),
        ram=ram(0.2, 0.1),
        location="tests/test_quantized.py:30",
    )  # fmt: skip


if __name__ == "__main__":
    for name, render in GOLDEN.items():
        FOLDER.joinpath(name).write_text(render(sample()), encoding="utf-8")
