"""Numbers of a config that inputs are made from, looked up in the config and in the configs of its parts."""

from collections.abc import Iterator
from typing import Any, Final

TOKENS: Final = 8
_PARTS: Final = (
    "vision_config", "backbone_config", "encoder", "audio_config", "speech_config", "encoder_config", "semantic_model_config",
)  # fmt: skip
"""Attributes of a config that hold the config of what sees or hears."""
_IMAGE_SIZES: Final = ("image_size", "max_img_size", "crop_size")


def size_in(config: Any, *names: str, default: int) -> int:
    """The first of these numbers that the config, or the config of a part, has."""
    for each in (config, *_parts(config)):
        for name in names:
            if isinstance(value := getattr(each, name, None), int) and not isinstance(value, bool):
                return value
    return default


def picture_in(config: Any) -> tuple[int, int, int, int | None]:
    """Channels, height, width, and frames where the config has them."""
    for each in (config, *_parts(config)):
        size = next((size for name in _IMAGE_SIZES if (size := getattr(each, name, None))), None)
        if size is None:
            continue
        sizes = (size, size) if isinstance(size, int) else tuple(size.values() if isinstance(size, dict) else size)[-2:]
        frames = getattr(each, "num_frames", None)
        channels = size_in(each, "num_channels", "in_channels", "in_chans", default=3)
        return channels, *sizes, frames if isinstance(frames, int) else None
    return size_in(config, "num_channels", "in_channels", "in_chans", default=3), 224, 224, None


def _parts(config: Any) -> Iterator[Any]:
    """The configs of what sees or hears, and then the parts of those."""
    parts = [part for name in _PARTS if (part := getattr(config, name, None)) is not None]
    yield from parts
    for part in parts:
        yield from _parts(part)
