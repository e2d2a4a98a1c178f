"""Inputs for a first forward pass of any model of transformers, made from its arguments and its config."""

import inspect
from collections.abc import Mapping
from typing import Any, Final

_TOKENS: Final = 8
_SAMPLES: Final = 16_000
"""Samples of a waveform: one second, enough for the convolutions of every audio model."""
_FRAMES: Final = 100
"""Frames of a spectrogram, where the config sets none."""


class NoInputsError(Exception):
    """The reason that no inputs can be made for a model."""


def sample_inputs(model: Any) -> dict[str, Any]:
    """Keyword arguments of a small forward pass: text, pixels, audio, and what a decoder needs.

    Raises ``NoInputsError`` when it is not a model of transformers, and where its arguments and its config are not sufficient.
    """
    import torch

    config = getattr(model, "config", None)
    if not hasattr(model, "main_input_name") or config is None:
        what = f"what {type(model).__name__} takes is not known: it is no model of transformers"
        raise NoInputsError(what)
    takes = inspect.signature(model.forward).parameters
    inputs: dict[str, Any] = {}
    if "input_ids" in takes:
        inputs["input_ids"] = torch.ones(1, _TOKENS, dtype=torch.long)
    if "pixel_values" in takes and ("input_ids" not in takes or _needs_both(config, "vision_config", "image_size")):
        inputs["pixel_values"] = _pixels(config)
    elif not inputs or _needs_both(config, "audio_config", "spec_size"):
        inputs |= _audio(getattr(config, "audio_config", config), takes)
    if "visual_feats" in takes:
        inputs["visual_feats"] = torch.zeros(1, 4, config.visual_feat_dim)
        inputs["visual_pos"] = torch.zeros(1, 4, config.visual_pos_dim)
    if "bbox" in takes:
        inputs["bbox"] = torch.zeros(1, _TOKENS, 4, dtype=torch.long)
    if "decoder_input_ids" in takes:
        inputs["decoder_input_ids"] = torch.ones(1, 4, dtype=torch.long)
    if not inputs:
        inputs = dict(getattr(model, "dummy_inputs", None) or {})
    if not inputs or model.main_input_name not in {*inputs, "inputs_embeds"}:
        what = f"what {type(model).__name__} takes is not known: {model.main_input_name}"
        raise NoInputsError(what)
    return {name: _placed(value, model) for name, value in inputs.items()}


def _needs_both(config: Any, part: str, own_size: str) -> bool:
    """Whether text alone is not enough: for a model that compares it with an image or audio, as CLIP and CLAP do.

    A model that generates text has a placeholder token for an image or audio.
    """
    stands_in = any(
        name.endswith(("_token_id", "_token_index")) and name.startswith(("image", "audio", "video"))
        for name in vars(config)
    )
    return (hasattr(config, part) or hasattr(config, own_size)) and not stands_in


def _pixels(config: Any) -> Any:
    import torch

    for each in (
        config,
        getattr(config, "vision_config", None),
        getattr(config, "backbone_config", None),
        getattr(config, "encoder", None),
    ):
        size = getattr(each, "image_size", None)
        if size is None:
            continue
        height, width = (size, size) if isinstance(size, int) else tuple(size)[-2:]
        shape = [1, int(getattr(each, "num_channels", 3) or 3), height, width]
        frames = getattr(each, "num_frames", None)
        return torch.zeros(shape if not isinstance(frames, int) else [1, frames, *shape[1:]])
    return torch.zeros(1, int(getattr(config, "num_channels", 3) or 3), 224, 224)


def _audio(config: Any, takes: Mapping[str, Any]) -> dict[str, Any]:
    import torch

    if "input_values" in takes:
        bins, length = getattr(config, "num_mel_bins", None), getattr(config, "max_length", None)
        if isinstance(bins, int) and isinstance(length, int) and hasattr(config, "patch_size"):
            return {"input_values": torch.zeros(1, length, bins)}  # a spectrogram as image patches
        if isinstance(channels := getattr(config, "audio_channels", None), int):
            return {"input_values": torch.zeros(1, channels, _SAMPLES)}
        return {"input_values": torch.zeros(1, _SAMPLES)}
    if "input_features" in takes:
        bins = next((size for name in _BINS if isinstance(size := getattr(config, name, None), int)), 80)
        positions = getattr(config, "max_source_positions", None)
        if isinstance(positions, int) and config.model_type == "whisper":
            return {"input_features": torch.zeros(1, bins, 2 * positions)}
        if isinstance(size := getattr(config, "spec_size", None), int):
            return {"input_features": torch.zeros(1, 1, 4 * size, bins)}
        return {"input_features": torch.zeros(1, _FRAMES, bins)}
    return {}


_BINS: Final = ("num_mel_bins", "input_feat_per_channel", "feature_size", "feature_projection_input_dim", "input_dim")


def _placed(value: Any, model: Any) -> Any:
    """Move the value to the model's device, and cast it to its dtype unless it is an index."""
    device = "cpu" if model.device.type == "meta" else model.device  # weights on disk are used on the CPU
    return value.to(device, model.dtype) if value.is_floating_point() else value.to(device)
