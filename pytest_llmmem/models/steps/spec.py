"""The settings of a step, as a marker or the command line gives them."""

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Self, get_args

OptimizerName = Literal["adamw", "adamw-foreach", "adamw-fused", "adafactor", "sgd", "adamw8bit"]
FloatName = Literal["float32", "float16", "bfloat16"]
Checkpointing = Literal["off", "on", "reentrant"]

OPTIMIZERS: Final[tuple[str, ...]] = get_args(OptimizerName)
FLOATS: Final[tuple[str, ...]] = get_args(FloatName)
CACHES: Final = ("dynamic", "static", "quantized", "offloaded", "offloaded_static")
PREDICTED_LOADS: Final = ("default", *FLOATS, "int8", "nf4")
"""Strategies after which a step can be predicted: all weights are on the device."""

_MOST: Final = 10**7
"""Largest number of sequences, tokens, steps or ranks: a larger one is a typing error."""

_OLD_CACHES: Final = {
    "sliding_window": "static",
    "hybrid": None,
    "hybrid_chunked": "static",
    "offloaded_hybrid": "offloaded_static",
    "offloaded_hybrid_chunked": "offloaded_static",
}
"""Caches under the names that transformers is about to remove. It takes ``hybrid`` for no name at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSpec:
    """Settings of training steps."""

    batch_size: int = 1
    """Sequences in one batch."""

    seq_len: int = 512
    """Tokens of each sequence."""

    optimizer: str = "adamw"
    """``adamw`` uses torch's default loop on the device; the other names set the loop."""

    checkpointing: bool | str = False
    """``True`` is the non-reentrant kind, the default of transformers; or ``"reentrant"``."""

    accumulation: int = 1
    """Batches whose gradients are summed before the optimizer's step."""

    lora: int | None = None
    """The rank of a LoRA adapter, whose weights alone are trained; ``None`` trains every weight."""

    lora_targets: tuple[str, ...] = ()
    """The modules that get an adapter; empty: every linear layer but the head."""

    precision: str | None = None
    """Cast the weights to this dtype first; ``None`` leaves them as they were loaded."""

    autocast: str | None = None
    """The dtype of ``torch.autocast`` around the forward pass; ``None`` without autocast."""

    images: int = 0
    """Pictures in each sequence, for a vision-language model of LLaVA's kind."""

    steps: int = 2
    """Number of steps. Two are enough: the optimizer's state exists from the end of the first."""

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Self:
        """Make a checked spec from plain values."""
        return cls(**given).checked()

    def checked(self) -> Self:
        """Check and return the spec. Raises ``ValueError`` for an invalid value, with the valid ones."""
        _check_counts(self, "batch_size", "seq_len", "accumulation", "steps")
        if self.images != 0:
            _check_counts(self, "images")
        if self.optimizer not in OPTIMIZERS:
            msg = f"optimizer={self.optimizer!r} is not known: write one of {', '.join(OPTIMIZERS)}"
            raise ValueError(msg)
        if self.checkpointing not in {True, False, "reentrant"}:
            msg = f"checkpointing={self.checkpointing!r} is not known: write True, False or 'reentrant'"
            raise ValueError(msg)
        if self.lora is not None:
            _check_counts(self, "lora")
        if self.lora_targets and self.lora is None:
            raise ValueError("lora_targets needs a rank: write lora=16 too")
        if isinstance(self.lora_targets, str):
            msg = f"lora_targets={self.lora_targets!r} is one name: write a tuple of names"
            raise ValueError(msg)  # noqa: TRY004 -- one error type for every bad value
        _check_float(self, "precision")
        _check_float(self, "autocast")
        return dataclasses.replace(self, lora_targets=tuple(self.lora_targets))

    def within(self, positions: object) -> Self:
        """The same with at most so many tokens, for ``max_position_embeddings`` of a config, whatever is written there."""
        return dataclasses.replace(self, seq_len=min(self.seq_len, positions)) if isinstance(positions, int) else self


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateSpec:
    """Settings of text generation."""

    batch_size: int = 1
    """Sequences that are generated at once."""

    prompt: int = 128
    """Tokens of each prompt."""

    new_tokens: int = 16
    """Tokens that are added to each prompt."""

    cache_implementation: str | None = None
    """The kind of cache, one of ``CACHES``; ``None``: the one that the model's generation config asks for."""

    cache_config: Mapping[str, Any] | None = None
    """Settings of a quantized cache, under transformers' names: ``backend``, ``nbits``, ``residual_length``."""

    max_cache_len: int | None = None
    """Tokens that a static cache has room for at least; ``None``: those of a complete sequence."""

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Self:
        """Make a checked spec from plain values."""
        return cls(**given).checked()

    def checked(self) -> Self:
        """Check and return the spec, as in ``TrainSpec``."""
        _check_counts(self, "batch_size", "prompt", "new_tokens")
        if self.max_cache_len is not None:
            _check_counts(self, "max_cache_len")
        if self.cache_implementation not in {None, *CACHES}:
            msg = f"cache_implementation={self.cache_implementation!r} is not known: write one of {', '.join(CACHES)}"
            raise ValueError(msg)
        if self.cache_config is not None and not isinstance(self.cache_config, Mapping):
            msg = (
                f"cache_config={self.cache_config!r} is no dictionary: write one like {{'backend': 'hqq', 'nbits': 4}}"
            )
            raise ValueError(msg)
        return self

    def caching_as(self, generation_config: Mapping[str, Any]) -> Self:
        """The same with the cache of a ``generation_config.json``, unless the step names one. Invalid values are left out."""
        asked: dict[str, Any] = {
            key: generation_config.get(key) for key in ("cache_implementation", "cache_config", "max_cache_len")
        }
        name = asked["cache_implementation"]
        asked["cache_implementation"] = _OLD_CACHES.get(name, name) if isinstance(name, str) else None
        if self.cache_implementation is not None or asked["cache_implementation"] is None:
            return self
        step = self
        for key, value in asked.items():
            with contextlib.suppress(ValueError):
                step = dataclasses.replace(step, **{key: value}).checked()
        return step

    @property
    def seq_len(self) -> int:
        """Tokens of a complete sequence."""
        return self.prompt + self.new_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictRequest:
    """A step to predict. Besides the request, only the versions of the libraries affect the answer."""

    config: Mapping[str, Any]
    """The model's ``config.json``."""

    step: TrainSpec | GenerateSpec

    dtype: str
    """The dtype of the loaded weights."""

    quantization: Literal["int8", "nf4"] | None = None

    compute_dtype: str | None = None
    """The dtype in which 4-bit weights are used; ``None``: ``dtype``."""

    quantizes_scales: bool = False
    """Double quantization: the scales of 4-bit weights are quantized too."""

    device: Literal["cpu", "cuda"] = "cuda"
    """The device whose rules apply: the attention kernel, the rounding of sizes, the optimizer's loop."""

    limits: tuple[int, ...] = ()
    """Memory limits in bytes. For each one, the largest batch and the largest length below it are searched."""

    grid: tuple[tuple[int, int], ...] = ()
    """Additional batch sizes and lengths to predict."""

    def to_json(self) -> dict[str, Any]:
        """Plain data, with the kind of step."""
        return dataclasses.asdict(self) | {"kind": _NAMES[type(self.step)]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read back what ``to_json`` wrote."""
        fields = dict(data)
        kind = {name: spec for spec, name in _NAMES.items()}[fields.pop("kind")]
        grid = tuple((batch, length) for batch, length in fields.pop("grid"))
        return cls(**fields | {"step": kind.parse(fields["step"]), "grid": grid, "limits": tuple(fields["limits"])})


_NAMES: Final[Mapping[type[TrainSpec | GenerateSpec], str]] = {TrainSpec: "train", GenerateSpec: "generate"}


def _check_counts(spec: TrainSpec | GenerateSpec, *names: str) -> None:
    for name in names:
        value = getattr(spec, name)
        if type(value) is not int or not 1 <= value <= _MOST:
            msg = f"{name}={value!r} is not a number of them: write a whole number from 1 on"
            raise ValueError(msg)


def _check_float(spec: TrainSpec, name: str) -> None:
    value = getattr(spec, name)
    if value is not None and value not in FLOATS:
        msg = f"{name}={value!r} is not known: write one of {', '.join(FLOATS)}"
        raise ValueError(msg)
