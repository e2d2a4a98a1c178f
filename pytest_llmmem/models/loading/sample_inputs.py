"""Inputs for a first forward pass of any model of transformers, made from its arguments and its config."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from pytest_llmmem.models.loading.sample_values import MAKERS


class NoInputsError(Exception):
    """The reason that no inputs can be made for a model."""


def sample_inputs(model: Any) -> dict[str, Any]:
    """Keyword arguments of a small forward pass: text, pixels, audio, and what a decoder needs.

    Raises ``NoInputsError`` when it is not a model of transformers, and where its arguments and its config are not sufficient.
    """
    config = getattr(model, "config", None)
    if not hasattr(model, "main_input_name") or config is None:
        what = f"what {type(model).__name__} takes is not known: it is no model of transformers"
        raise NoInputsError(what)
    takes = inspect.signature(model.forward).parameters
    names = list(dict.fromkeys(_needed(model, takes)))
    unknown = [name for name in names if name not in MAKERS]
    if unknown or not names:
        what = f"what {type(model).__name__} takes is not known: {', '.join(unknown) or model.main_input_name}"
        raise NoInputsError(what)
    return {name: _placed(MAKERS[name](model, config, takes), model) for name in names}


def _needed(model: Any, takes: Mapping[str, inspect.Parameter]) -> Iterator[str]:
    """The names of the arguments that it needs."""
    # a few classes have several names there
    main = model.main_input_name if isinstance(model.main_input_name, str) else None
    if "input_ids" in takes:
        yield "input_ids"
    if main is not None and main in takes and main != "inputs_embeds":
        yield main
    for name, parameter in takes.items():
        is_named = parameter.kind in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}
        if is_named and parameter.default is parameter.empty:
            yield name
    if main not in takes and "input_ids" not in takes:
        yield from [name for name in ("pixel_values", "input_features", "input_values") if name in takes][:1]
    yield from (name for name in _beside(model.config, main) if name in takes)


def _beside(config: Any, main: Any) -> Iterator[str]:
    """Names of arguments that it needs if it takes them, though their default is ``None``."""
    yield from ("visual_feats", "visual_pos", "bbox", "decoder_input_ids")
    if _compares(config, "vision_config", "image_size"):
        yield from ("pixel_values", "pixel_attention_mask", "spatial_shapes")
    if _compares(config, "audio_config", "spec_size") or _compares(config, "speech_config", "spec_size"):
        yield "input_features"
    if main == "input_features":
        yield "input_features_mask"
    if hasattr(config, "cross_attention_frequency"):  # a Q-Former
        yield "encoder_hidden_states"
    if main == "states":
        yield from ("actions", "rewards", "returns_to_go", "timesteps", "attention_mask")


def _compares(config: Any, part: str, own_size: str) -> bool:
    """Whether text alone is not enough: for a model that compares it with an image or audio, as CLIP and CLAP do.

    A model that generates text has a placeholder token for an image or audio.
    """
    stands_in = any(
        name.endswith(("_token_id", "_token_index")) and name.startswith(("image", "audio", "video"))
        for name in vars(config)
    )
    return (hasattr(config, part) or hasattr(config, own_size)) and not stands_in


def _placed(value: Any, model: Any) -> Any:
    """Move the value to the model's device, and cast it to its dtype unless it is an index."""
    device = "cpu" if model.device.type == "meta" else model.device  # weights on disk are used on the CPU
    return value.to(device, model.dtype) if value.is_floating_point() else value.to(device)
