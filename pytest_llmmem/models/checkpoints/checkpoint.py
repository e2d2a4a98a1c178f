"""The contents of a checkpoint folder, read from file headers: no weight is read and no library is needed."""

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_llmmem.core.sizes import format_size
from pytest_llmmem.models.checkpoints import quantized
from pytest_llmmem.models.checkpoints.model_config import ModelConfig, read_config
from pytest_llmmem.models.checkpoints.other_folders import (
    Kind,
)
from pytest_llmmem.models.checkpoints.tensor_file import FileFormat
from pytest_llmmem.models.checkpoints.tensors import ALL_DTYPES, Tensor, nbytes_of

if TYPE_CHECKING:
    from pytest_llmmem.models.estimates.estimate import Estimate

_BLOCK: Final = re.compile(r"(?P<block>.+?\.\d+)\.|(?P<module>.+)\.[^.]+")
"""``model.layers.3.mlp.up_proj.weight`` belongs to ``model.layers.3``; ``model.embed_tokens.weight`` to its own module."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Shard:
    """One file of weights."""

    path: Path
    file_bytes: int

    tensors: tuple[Tensor, ...]
    """Empty for a truncated ``.bin`` file: its directory is at the end of the file."""

    truncated: bool
    """Whether the file is shorter than its header says. Loading it raises; reading it through a memory map ends in SIGBUS."""

    model_type: str | None = None
    """The model type that the file itself names, as GGUF does: ``"llama"``."""

    def __repr__(self) -> str:
        return f"<Shard {self.path.name}: {len(self.tensors)} tensors, {format_size(self.tensor_bytes)}>"

    @property
    def tensor_bytes(self) -> int:
        """Bytes of its tensors, from its header."""
        return sum(tensor.nbytes for tensor in self.tensors)


@dataclass(frozen=True, kw_only=True, repr=False)  # without slots: cached properties need a __dict__
class Checkpoint:
    """A model on disk: the files that exist, and the files that should exist."""

    source: str
    """The source as the user wrote it."""

    path: Path
    """The folder, or the file when the source is a file."""

    kind: Kind = "model"
    """The kind of library that loads it."""

    model_type: str | None
    """The model type in ``config.json``, or else in a GGUF file; ``None`` when there is none."""

    format: FileFormat
    """The format of the weights that a load reads; safetensors where both formats exist."""

    shards: tuple[Shard, ...]
    """The shards that exist, sorted by name."""

    index: Path | None
    """The index file; ``None`` for weights in a single file."""

    missing: tuple[str, ...]
    """Shard files that the index names and that do not exist, or are outside of the folder."""

    truncated: tuple[str, ...]
    """Shard files that are shorter than their headers say."""

    duplicates: tuple[str, ...]
    """Weight files of another format or layout. They were downloaded and stored, but no load reads them."""

    formats: tuple[FileFormat, ...]
    """All weight formats on disk."""

    adapter: "Checkpoint | None" = None
    """The PEFT adapter that is added when the checkpoint is loaded."""

    component_names: tuple[str, ...] = ()
    """Names of a pipeline's parts that have weights. They are the prefixes of the tensor names."""

    def __repr__(self) -> str:
        files = "1 file" if len(self.shards) == 1 else f"{len(self.shards)} files"
        numbers = f"{self.parameters:,} parameters, {self.dtype}, {format_size(self.weights_bytes)} in {files}"
        return f"<Checkpoint {self.source}: {self.model_type or self.kind}, {numbers}>"

    @cached_property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors, each once, by name."""
        return tuple({tensor.name: tensor for shard in self.shards for tensor in shard.tensors}.values())

    @cached_property
    def quantization(self) -> str | None:
        """The quantization method of the stored weights: ``"gptq"``, ``"mxfp4"``, ``"gguf"``; ``None`` for plain weights."""
        return quantized.method_of(self._config.raw, self.tensors)

    @cached_property
    def parameters(self) -> int:
        """Elements of all tensors. Tensors of missing shards do not count.

        For a quantized checkpoint, the parameters of the original model: every packed number counts, scales do not.
        """
        if self.quantization is not None:
            return quantized.parameters_of(self.tensors, self._config.raw)
        return sum(tensor.elements for tensor in self.tensors)

    @cached_property
    def weights_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @cached_property
    def components(self) -> dict[str, int]:
        """Bytes of a pipeline's parts by name; empty for other checkpoints."""
        return {
            name: sum(tensor.nbytes for tensor in self.tensors if tensor.name.startswith(f"{name}."))
            for name in self.component_names
        }

    @cached_property
    def largest_shard_bytes(self) -> int:
        """Bytes of the tensors of the largest shard."""
        return max((shard.tensor_bytes for shard in self.shards), default=0)

    @cached_property
    def largest_layer_bytes(self) -> int:
        """Bytes of the largest repeated block, or of a larger module outside the blocks, such as the embedding."""
        layers: Counter[str] = Counter()
        for tensor in self.tensors:
            match = _BLOCK.match(tensor.name)
            layers[(match["block"] or match["module"]) if match else tensor.name] += tensor.nbytes
        return max(layers.values(), default=0)

    @cached_property
    def bytes_by_dtype(self) -> dict[str, int]:
        """Bytes by dtype name, the largest first."""
        totals: Counter[str] = Counter()
        for tensor in self.tensors:
            totals[tensor.dtype] += tensor.nbytes
        return dict(totals.most_common())

    @property
    def dtype(self) -> str | None:
        """The dtype that most bytes have; ``None`` when no tensor could be read.

        For a quantized checkpoint, the dtype of most unpacked bytes: a load keeps it, or computes in it.
        """
        names = list(self.bytes_by_dtype)
        if self.quantization is not None:
            floating = (name for name in names if ALL_DTYPES[name].exponent_bits > 4)
            return next(floating, None) or next(iter(names), None)
        return next(iter(names), None)

    @cached_property
    def _config(self) -> ModelConfig:
        return read_config(self.path)

    def nbytes_in(self, dtype: str) -> int:
        """Bytes of all parameters if each had that dtype. Raises ``ValueError`` for an unknown dtype."""
        return nbytes_of(self.parameters, dtype)

    def estimate(
        self, *, load: str = "default", dtype: str | None = None, transformers: str | None = None
    ) -> "Estimate":
        """The memory that a strategy needs to load it: see ``models.estimate``. Raises ``ValueError`` for unknown names."""
        from pytest_llmmem.models.estimates.estimate import estimate

        return estimate(self, load=load, dtype=dtype, transformers=transformers)
