"""The header of one file of tensors, of any format."""

from dataclasses import dataclass

from pytest_llmmem.models.checkpoints.tensors import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Everything that is known of a file without reading its tensors' bytes."""

    tensors: tuple[Tensor, ...]
    """In the order of the header. Empty for a truncated file with its directory at the end."""
    file_bytes: int
    """Length of the file, and of the files beside it that hold its tensors."""
    truncated: bool = False
    """Whether bytes are missing at the end of one of them."""
    work_bytes: int
    """Size of a safetensors header that takes the same time to read."""
    model_type: str | None = None
    """``"llama"``, where the file names it, as GGUF does."""
