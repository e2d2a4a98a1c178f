"""Weights that a model's class allocates, and then ties to another weight: a checkpoint has them once.

The class says it in ``_tied_weights_keys``, which is read from its source: to import it would take seconds.
"""

import ast
import importlib.util
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.checkpoints.model_config import ModelConfig
from pytest_llmmem.models.checkpoints.tensors import Tensor

Ties = Mapping[str, str | None]
"""The weight that another one is tied to; ``None`` is the embedding, which transformers 4 does not name."""


def tied_elements(checkpoint: Checkpoint, config: ModelConfig) -> int:
    """Elements of all weights that the class allocates at once, and that the checkpoint has under another name only.

    Each class ties its own weights at the end of its construction, so those of a part are gone when the next one is made.
    """
    if config.raw.get("tie_word_embeddings") is False:
        return 0
    tensors = {each.name: each for each in checkpoint.tensors}
    embedding = _embedding(checkpoint, config)
    return max((_elements(ties, tensors, embedding) for ties in class_ties(config)), default=0)


def _elements(ties: Ties, tensors: Mapping[str, Tensor], embedding: str) -> int:
    targets_of: dict[str, set[str]] = {}
    for target, source in ties.items():
        for name in tensors:
            prefix = name.removesuffix(source or embedding)
            if prefix != name and (not prefix or prefix.endswith(".")):
                targets_of.setdefault(name, set()).add(f"{prefix}{target}")
    return sum(
        _absent(targets, tensors[name], tensors) * tensors[name].elements for name, targets in targets_of.items()
    )


def _absent(targets: AbstractSet[str], source: Tensor, tensors: Mapping[str, Tensor]) -> int:
    """The number of targets that the checkpoint does not have. One of the source's shape may have another name in the file."""
    renamed = [
        each for each in tensors.values() if each.shape == source.shape and each.name not in {source.name, *targets}
    ]
    return max(0, len(targets - tensors.keys()) - len(renamed))


def _embedding(checkpoint: Checkpoint, config: ModelConfig) -> str:
    """The name of the largest tensor with a row for each token; empty without one."""
    rows = config.raw.get("vocab_size")
    found = [each for each in checkpoint.tensors if len(each.shape) == 2 and each.shape[0] == rows]
    return max(found, key=lambda each: each.nbytes).name if found else ""


def class_ties(config: ModelConfig) -> tuple[Ties, ...]:
    """The ties of the class that the config names, and of each class in its file that it is made of.

    Without transformers, the output head where the config says that it is tied.
    """
    if (path := _source(config.model_type or "")) is None:
        return ({"lm_head.weight": None},) if config.raw.get("tie_word_embeddings") else ()
    classes = {
        node.name: node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)
    }
    found = []
    waiting = [name for name in config.class_names if name in classes][:1]
    seen: set[str] = set()
    while waiting:
        if (name := waiting.pop()) in seen or name not in classes:
            continue
        seen.add(name)
        found.append(dict(_ties(classes[name])))
        waiting += {node.id for node in ast.walk(classes[name]) if isinstance(node, ast.Name)}
    return tuple(found)


def _ties(node: ast.ClassDef) -> Iterator[tuple[str, str | None]]:
    """Ties that the class names: pairs in transformers 5, names in 4. Patterns are of small weights, and are left out."""
    for statement in node.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id="_tied_weights_keys")], value=ast.Dict() | ast.List() as value):
                said: Any = ast.literal_eval(value)
                yield from said.items() if isinstance(said, dict) else ((name, None) for name in said)


def _source(model_type: str) -> Path | None:
    """The file of the type's classes in the installed transformers."""
    package = importlib.util.find_spec("transformers")
    if package is None or package.origin is None:
        return None
    name = model_type.replace("-", "_")
    path = Path(package.origin).parent / "models" / name / f"modeling_{name}.py"
    return path if name.isidentifier() and path.is_file() else None
