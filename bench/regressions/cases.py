"""Memory regressions of transformers, each with a version that has it and one that does not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from models import BERT, LLAMA, MIXTRAL, NEOX, SPREAD, Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Regression:
    """One regression, and the check that must find it."""

    reference: str
    what: str
    model: Model
    load: str
    check: str
    bad: str
    """The version of transformers that has it."""
    good: str
    ranks: int = 1
    """Processes over which the model is loaded."""
    runs: int = 1
    """With each version. Where it depends on chance one failure shows it, and without it none is allowed."""


ENVIRONMENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "4.18.0": ("numpy<2", "setuptools<81"),
    "4.19.4": ("numpy<2", "setuptools<81"),
    "4.27.2": ("accelerate==0.17.1", "numpy<2", "setuptools<81"),
    "4.27.3": ("accelerate==0.17.1", "numpy<2", "setuptools<81"),
    "4.47.1": ("accelerate==1.2.1",),
    "4.57.6": ("accelerate==1.10.1", "bitsandbytes==0.50.2", "torchao==0.18.0", "optimum-quanto==0.2.7"),
    "5.0.0": ("accelerate==1.12.0",),
    "5.5.4": ("accelerate==1.15.0", "gguf==0.19.0"),
    "5.6.2": ("accelerate==1.15.0", "gguf==0.19.0"),
    "5.23.0": ("accelerate==1.15.0", "bitsandbytes==0.50.2", "torchao==0.18.0", "optimum-quanto==0.2.7"),
}
"""By the version of transformers: what its environment needs beside it. torch is that of the project's own."""

WITHOUT_TOKENIZERS: Final = frozenset({"4.18.0", "4.19.4"})
"""Versions that want a release of tokenizers which no Python of today can install; they load models without it."""

REGRESSIONS: Final[Sequence[Regression]] = (
    Regression(
        reference="transformers#16844",
        what="a sharded load holds the last shard while it reads the next",
        model=Model(name="bert", config=BERT, dtype="float32", shard="400MB", format="bin"),
        load="default",
        check="load",
        bad="4.18.0",
        good="4.19.4",
    ),
    Regression(
        reference="transformers#22311",
        what="max_memory is dropped",
        model=Model(name="neox-bin", config=NEOX, format="bin"),
        load="offload",
        check="max_memory",
        bad="4.27.2",
        good="4.27.3",
    ),
    Regression(
        reference="transformers#34743",
        what="a bfloat16 checkpoint becomes a float32 model",
        model=Model(name="neox", config=NEOX),
        load="default",
        check="dtype",
        bad="4.57.6",
        good="5.23.0",
    ),
    Regression(
        reference="the names of 5.0",
        what="load_checkpoint_in_model leaves a head that was renamed on the meta device",
        model=Model(name="neox", config=NEOX),
        load="by_accelerate",
        check="meta",
        bad="5.23.0",
        good="4.57.6",
    ),
    Regression(
        reference="transformers#25730",
        what="memory is not given back after the model is gone",
        model=Model(name="neox", config=NEOX),
        load="float32",
        check="release",
        bad="4.57.6",
        good="5.23.0",
        runs=5,  # whether glibc releases the memory depends on the state of its heap
    ),
    Regression(
        reference="transformers#45386",
        what="a GGUF file becomes float32 as a whole before it is cast",
        model=Model(name="llama-gguf", config=LLAMA, dtype="float16", gguf=True),
        load="gguf",
        check="second_copy",
        bad="5.5.4",
        good="5.6.2",
    ),
    Regression(
        reference="dense cast, 5.0",
        what="a load that casts keeps every shard mapped until it ends",
        model=Model(name="neox", config=NEOX),
        load="float32",
        check="resident",
        bad="5.23.0",
        good="4.57.6",
    ),
    Regression(
        reference="experts merged, 5.0",
        what="a mixture's experts are copied into new tensors while the checkpoint stays mapped",
        model=Model(name="mixtral", config=MIXTRAL),
        load="bfloat16",
        check="resident",
        bad="5.23.0",
        good="4.57.6",
    ),
    Regression(
        reference="bitsandbytes#1849, int8",
        what="8 bits leave a mixture's experts as they are",
        model=Model(name="mixtral", config=MIXTRAL),
        load="int8",
        check="quantization",
        bad="5.23.0",
        good="4.57.6",
    ),
    Regression(
        reference="bitsandbytes#1849, nf4",
        what="4 bits leave a mixture's experts as they are",
        model=Model(name="mixtral", config=MIXTRAL),
        load="nf4",
        check="quantization",
        bad="5.23.0",
        good="4.57.6",
    ),
    Regression(
        reference="experts merged, torchao",
        what="torchao leaves a mixture's experts as they are",
        model=Model(name="mixtral", config=MIXTRAL),
        load="torchao_int8",
        check="quantization",
        bad="5.23.0",
        good="4.57.6",
    ),
    Regression(
        reference="experts merged, quanto",
        what="optimum-quanto leaves a mixture's experts as they are",
        model=Model(name="mixtral", config=MIXTRAL),
        load="quanto_int8",
        check="quantization",
        bad="5.23.0",
        good="4.57.6",
    ),
    Regression(
        reference="transformers#35202",
        what="each rank loads the whole model in float32",
        model=Model(name="spread", config=SPREAD),
        load="tensor_parallel",
        check="rank_load",
        bad="4.47.1",
        good="5.23.0",
        ranks=2,
    ),
    Regression(
        reference="transformers#35202, together",
        what="all ranks need nearly twice what they hold",
        model=Model(name="spread", config=SPREAD),
        load="tensor_parallel",
        check="group",
        bad="4.47.1",
        good="5.23.0",
        ranks=2,
    ),
    Regression(
        reference="tensor parallel before 5.23",
        what="the head is whole in each rank, although the plan splits it",
        model=Model(name="spread", config=SPREAD),
        load="tensor_parallel",
        check="rank_share",
        bad="5.6.2",
        good="5.23.0",
        ranks=2,
    ),
    Regression(
        reference="transformers#43749",
        what="a rank that reads nothing initializes the whole model",
        model=Model(name="spread", config=SPREAD),
        load="fsdp_rank0",
        check="rank0_only",
        bad="5.0.0",
        good="5.23.0",
        ranks=2,
    ),
    Regression(
        reference="transformers#45649",
        what="a rank that reads nothing makes the whole model of zeros",
        model=Model(name="spread", config=SPREAD),
        load="fsdp_rank0",
        check="rank0_only",
        bad="5.6.2",
        good="4.57.6",
        ranks=2,
    ),
)
