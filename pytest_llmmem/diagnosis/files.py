"""Weight files that are cut short, missing, or something else."""

from typing import Final

from pytest_llmmem.diagnosis.facts import Facts
from pytest_llmmem.diagnosis.rule import Rule, Words, both, either, raised

_READING_BIN: Final = "torch/serialization.py"
_UNREADABLE_BIN: Final = raised("OSError", r"Unable to load weights from pytorch checkpoint file for '(?P<file>[^']*)'")


def _named(facts: Facts) -> Words:
    """The truncated files, where they are known."""
    truncated = facts.checkpoint.truncated if facts.checkpoint else ()
    return {"named": f": {', '.join(truncated)}" if truncated else ""}


def _is_truncated(facts: Facts) -> Words | None:
    return {} if facts.checkpoint and facts.checkpoint.truncated else None


RULES: Final = (
    Rule(
        id="shard-truncated",
        when=both(raised("SafetensorError", r"incomplete metadata, file not fully covered|MetadataIncomplete"), _named),
        happened="A shard does not have the length that its header says{named}.",
        why="Its download or its copy was cut short, or something was written behind its end.",
        next=(
            "Delete it and fetch it again.",
            "To know it before any load: assert not model_checkpoint.truncated.",
        ),
    ),
    Rule(
        id="shard-damaged",
        when=raised(
            "SafetensorError",
            r"deserializing header: (?P<detail>(?:header too|invalid|HeaderToo|Invalid|TensorInvalid)[\w \-]*)",
        ),
        happened="A shard does not start with a safetensors header ({detail}).",
        why="Its header is damaged or cut off, or another file has its name: a git-lfs pointer, an error page.",
        next=(
            "Look at it: head -c 100 FILE. A git-lfs pointer starts with 'version': git lfs pull fetches the weights.",
            "Else delete it and fetch it again.",
        ),
    ),
    Rule(
        id="shard-missing",
        when=raised("FileNotFoundError", r"(?P<shard>[^/\\'\"]+-\d+-of-\d+\.(?:safetensors|bin))"),
        happened="{shard} is not there.",
        why="A load opens every shard that the checkpoint's index names.",
        next=(
            "Run the same download again: it fetches what is missing.",
            "To know it before any load: assert not model_checkpoint.missing.",
        ),
    ),
    Rule(
        id="weights-not-found",
        when=raised("OSError", r"Error no file named .* found in directory (?P<folder>.+?)\.?$"),
        happened="No weights were found in {folder}.",
        why="transformers looks for model.safetensors, or for its index, model.safetensors.index.json, or for the same of .bin.",
        next=(
            "If the shards are there, fetch the index too: without it they do not count.",
            "If they have other names or lie below: variant=, subfolder= or gguf_file=.",
        ),
    ),
    Rule(
        id="git-lfs-pointer",
        # a pointer starts with "version": its "v", 118, is read as the pickle's first instruction
        when=either(
            raised("OSError", r"without having git-lfs installed"),
            raised("UnpicklingError", r"Unsupported operand 118\b|invalid load key, 'v'", inside=_READING_BIN),
        ),
        happened="A .bin file is not the weights: it starts as a git-lfs pointer does.",
        why="A repository that is cloned without git-lfs has pointers in place of its large files.",
        next=("In the checkpoint's folder: git lfs install, then git lfs pull.",),
    ),
    Rule(
        id="bin-truncated",
        when=both(
            either(
                raised("RuntimeError", r"PytorchStreamReader failed .*failed finding central directory"),
                raised("OSError", r"Invalid argument", inside=_READING_BIN),
                raised("EOFError", r"", inside=_READING_BIN),
                both(either(_UNREADABLE_BIN, raised("RuntimeError", r"PytorchStreamReader failed")), _is_truncated),
            ),
            _named,
        ),
        happened="A .bin file ends too early{named}.",
        why="Its end is missing, where a zip has its directory and a pickle its last step: a download or a copy was cut short.",
        next=(
            "Delete it and fetch it again.",
            "To know it before any load: assert not model_checkpoint.truncated.",
        ),
    ),
    Rule(
        id="bin-not-weights",
        when=raised("UnpicklingError", r"Unsupported operand \d+|invalid load key", inside=_READING_BIN),
        happened="A .bin file is no file of torch.save.",
        why="It starts with something else than a zip or a pickle: an error page, another format.",
        next=("Look at it: head -c 100 FILE.", "Then delete it and fetch it again."),
    ),
    Rule(
        id="bin-holds-code",
        when=raised("UnpicklingError", r"(?i)unsupported global:? (?:global )?(?P<name>[\w.]+)", inside=_READING_BIN),
        happened="A .bin file asks for {name}, which is no tensor.",
        why="A pickle can run any code. torch builds nothing but tensors of it, unless it is told to trust the file.",
        next=(
            "Save the weights alone, best as safetensors: model.save_pretrained(folder).",
            "Only for a file that you trust: torch.load(file, weights_only=False).",
        ),
    ),
    Rule(
        id="bin-unreadable",
        when=_UNREADABLE_BIN,
        happened="{file} cannot be read.",
        why="It ends too early, is no file of torch.save, or holds more than tensors: transformers 4 does not say which.",
        next=(
            "Ask torch, which does: torch.load(file, weights_only=True).",
            "Or fetch the file again, or the model in safetensors.",
        ),
    ),
)
