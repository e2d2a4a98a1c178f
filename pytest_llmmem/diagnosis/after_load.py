"""Memory that is needed after a load: to evaluate, to generate, to resume, to save, and to load again.

Each is recognized by what was alive as a budget was crossed, and by where.
"""

from typing import Final

from pytest_llmmem.core.record_parts import AliveRecord
from pytest_llmmem.core.sizes import format_size
from pytest_llmmem.diagnosis.facts import Facts
from pytest_llmmem.diagnosis.rule import Rule, Words, raised

_PART: Final = 0.25
"""Share of all memory alive: less of it does not explain why a budget was crossed."""
_MANY_CACHES: Final = 3
"""One generation has up to two caches of a class: an encoder-decoder's own, and that of what its decoder attends to."""
_TELLING_COPY_BYTES: Final = 16 * 10**6
"""Memory of a ``DataLoader``'s worker: what torch itself takes in a forked process is less."""


def _crossed(facts: Facts) -> bool:
    return facts.ending.kind == "over_budget"


def _part_of_alive(facts: Facts, found: AliveRecord | None) -> bool:
    return found is not None and found.bytes >= _PART * sum(each.bytes for each in facts.alive)


def _outputs_kept(facts: Facts) -> Words | None:
    """A budget crossed in the evaluation loop of ``Trainer``, by the outputs that it collects."""
    if not _crossed(facts) or not facts.was_in("transformers/trainer.py evaluation_loop"):
        return None
    kept = next((each for each in facts.alive if each.name == "EvalLoopContainer"), None)
    if not facts.was_in("transformers/trainer_pt_utils.py") and not _part_of_alive(facts, kept):
        return None
    return {"size": f" ({format_size(kept.bytes)} of them so far)" if kept else ""}


def _optimizer_resumed(facts: Facts) -> Words | None:
    """A budget crossed while an optimizer's state was read from a file or taken over."""
    if not _crossed(facts):
        return None
    if facts.was_in("torch/optim/optimizer.py load_state_dict"):
        return {"did": "taken over"}
    reads = facts.was_in("torch/serialization.py load") and facts.was_in("_load_optimizer_and_scheduler")
    return {"did": "read"} if reads else None


def _workers_copy(facts: Facts) -> Words | None:
    """A budget crossed by the forked workers of a ``DataLoader``."""
    children = facts.children
    if not _crossed(facts) or children is None or not children.forked or not children.in_peak:
        return None
    if not facts.was_in("torch/utils/data/dataloader.py") or children.bytes < _TELLING_COPY_BYTES * children.forked:
        return None
    return {"size": format_size(children.bytes), "count": str(children.forked)}


def _caches_kept(facts: Facts) -> Words | None:
    found = next((each for each in facts.alive if each.name.endswith("Cache")), None)
    if not _crossed(facts) or found is None or (found.count or 0) < _MANY_CACHES or not _part_of_alive(facts, found):
        return None
    return {"caches": f"{found.count} {found.name}", "size": format_size(found.bytes)}


def _older_model(facts: Facts) -> Words | None:
    found = next((each for each in facts.alive if not each.name.endswith(("Cache", " state"))), None)
    if not _crossed(facts) or found is None or (found.count or 0) < 2 or not _part_of_alive(facts, found):
        return None
    return {"models": f"{found.count} {found.name}", "size": format_size(found.bytes)}


def _tie_lost(facts: Facts) -> Words | None:
    load = facts.load
    if facts.ending.died or load is None or not load.lost_ties:
        return None
    return {"names": " and ".join(load.lost_ties)}


def _tie_stored_twice(facts: Facts) -> Words | None:
    load = facts.load
    if facts.ending.died or load is None or not load.stored_twice:
        return None
    return {"names": " and ".join(load.stored_twice)}


RULES: Final = (
    Rule(
        id="evaluation-keeps-outputs",
        when=_outputs_kept,
        happened="Trainer's evaluation crossed the budget: it keeps the outputs of all batches{size}.",
        why="For compute_metrics and predict(), the logits stay until the end: samples x length x vocabulary numbers.",
        next=(
            "Keep less of each batch: Trainer(..., preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1)).",
            "Keep none: without compute_metrics, or with prediction_loss_only=True or batch_eval_metrics=True.",
            "eval_accumulation_steps moves them from a GPU to host memory. On a processor it saves nothing.",
        ),
    ),
    Rule(
        id="optimizer-resumed",
        when=_optimizer_resumed,
        happened="The budget was crossed while an optimizer's state was {did}.",
        why="torch.load reads all of it: for AdamW twice the bytes of the trained weights. load_state_dict keeps these "
        "tensors, but copies each to its parameter's device and dtype where these differ.",
        next=(
            "Map the file: optimizer.load_state_dict(torch.load(path, mmap=True)). A copy is then the only one.",
            "On a processor this only delays it, as the first step writes to the state: give the budget room for it.",
        ),
    ),
    Rule(
        id="dataloader-copies",
        when=_workers_copy,
        happened="{count} forked workers of a DataLoader held {size} of their own.",
        why="A worker shares the dataset's pages until it writes to them. To read a Python object writes its reference "
        "count, so a list or dict of many objects is copied into each worker.",
        next=(
            "Keep the samples in a numpy array, a tensor or an Arrow table: these have one reference count for all.",
            "Or use fewer workers, and a smaller prefetch_factor where the batches themselves are large.",
        ),
    ),
    Rule(
        id="caches-kept",
        when=_caches_kept,
        happened="{caches} were alive at the crossing, with {size} of keys and values.",
        why="Each belongs to an output that is still in use: model(...) returns it as past_key_values.",
        next=(
            "Keep what is needed of an output, such as output.logits[:, -1], and not the output itself.",
            "Where no later call uses it: model(..., use_cache=False).",
        ),
    ),
    Rule(
        id="older-model-alive",
        when=_older_model,
        happened="{models} were alive at the crossing, with {size}: an older one is still held, if only one was meant to be.",
        why="model = load() frees the older model after the new one is loaded. Another name, a part of it, its optimizer, "
        "a pipeline or the traceback of an exception keeps it too.",
        next=(
            "Free it before the next load: del model, and gc.collect() for what refers to itself.",
            "gc.get_referrers(model) lists what else holds it.",
        ),
    ),
    Rule(
        id="shared-tensors-saved",
        when=raised("RuntimeError", r"Some tensors share memory, this will lead to duplicate memory on disk"),
        happened="save_file was given tied weights under each of their names.",
        why="A safetensors file has no ties: it would hold them twice.",
        next=(
            "For a model: model.save_pretrained(folder), or safetensors.torch.save_model(model, path).",
            "A clone of each tensor gets past this error, and stores the tied weights twice.",
        ),
    ),
    Rule(
        id="tie-lost",
        when=_tie_lost,
        happened="The checkpoint ties {names} to another weight, and in the model it has memory of its own.",
        why="load_state_dict(..., assign=True), a new nn.Parameter or a deep copy of a part gives it tensors of its own: "
        "they count twice in memory, and in the files that are saved.",
        next=("Call model.tie_weights() after the load, and before you save.",),
    ),
    Rule(
        id="tie-stored-twice",
        when=_tie_stored_twice,
        happened="The checkpoint stores {names} twice: the model ties it to another weight that is stored too.",
        why="It was saved from a dict whose tensors had been copied one by one, such as {{k: v.clone() for k, v in ...}}.",
        next=("Save it again by model.save_pretrained(folder): it writes a tied weight once.",),
    ),
)
