"""The outcome of one type of the zoo, and the table of all."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

DTYPES: Final = ("float32", "bfloat16")
NEAR_BYTES: Final = 30 * 10**6
"""The difference from an estimate that is near: bench/estimates.py has the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Of one type."""

    type: str
    architecture: str | None = None
    """The class; ``None`` where no model is built from the type's defaults."""

    reason: str | None = None
    """Why no model is built."""

    parameters: int | None = None
    differences: Mapping[str, str | None] = field(default_factory=dict)
    """By dtype: the first difference from what ``save_pretrained`` writes, ``None`` where there is none."""

    forward: str | None = None
    """``"passed"``, or why it was skipped or failed."""

    takes: Sequence[str] = ()
    """Names of the inputs."""

    beyond: Mapping[str, int] = field(default_factory=dict)
    """By strategy: bytes of the unreclaimable peak beyond the estimate."""


def kind_of(outcome: Outcome) -> str:
    """A group of the table, from the inputs."""
    takes = set(outcome.takes)
    if "pixel_values" in takes:
        return "images and text" if "input_ids" in takes else "images"
    if takes & {"input_features", "input_values"}:
        return "audio"
    if "decoder_input_ids" in takes:
        return "encoder and decoder"
    return "text" if "input_ids" in takes else "other"


def table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Markdown: a row for each kind of input, and what was not built, not identical, not run."""
    built = [each for each in outcomes if each.architecture is not None]
    kinds = Counter(map(kind_of, built))
    yield "| inputs | types | identical, float32 | identical, bfloat16 | forward runs | skipped | peaks as estimated |"
    yield "|---|---|---|---|---|---|---|"
    for kind, group in [
        *((kind, [each for each in built if kind_of(each) == kind]) for kind, _ in kinds.most_common()),
        ("all", built),
    ]:
        same = [sum(each.differences.get(dtype, "") is None for each in group) for dtype in DTYPES]
        runs = sum(each.forward == "passed" for each in group)
        skipped = sum((each.forward or "").startswith("skipped") for each in group)
        peaks = [bytes_ for each in group for bytes_ in each.beyond.values()]
        near = sum(abs(bytes_) <= NEAR_BYTES for bytes_ in peaks)
        yield f"| {kind} | {len(group)} | {same[0]} | {same[1]} | {runs} | {skipped} | {near} of {len(peaks)} |"
    yield f"\nOf {len(outcomes)} types, {len(outcomes) - len(built)} build no model from their defaults.\n"
    for each in built:
        for dtype, text in each.differences.items():
            if text is not None:
                yield f"- `{each.type}`, {dtype}: {text}"
        if each.forward != "passed":
            yield f"- `{each.type}` ({each.architecture}): {each.forward}"


def in_words(outcome: Outcome) -> str:
    """A line for the terminal."""
    if outcome.architecture is None:
        return f"no model: {outcome.reason}"
    differs = "; ".join(f"{dtype}: {text}" for dtype, text in outcome.differences.items() if text)
    return f"{outcome.architecture}, {differs or 'identical'}, forward {outcome.forward}"
