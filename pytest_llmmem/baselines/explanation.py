"""The part of a test in which most of a change is: a kind of tensors, modules, or a phase."""

from collections.abc import Sequence

from pytest_llmmem.baselines.tolerated_changes import Change
from pytest_llmmem.baselines.values import Baseline


def most_of_it_in(decided: Change, changes: Sequence[Change], before: Baseline, after: Baseline) -> str:
    """``"activations of train_step, +38%, in model.layers.*.mlp.act_fn"`` or ``"load"``; empty where nothing has half of it.

    ``changes`` are those of all measures of the test.
    """
    if decided.is_of_kind:
        return decided.place
    if decided.group not in {"tensors", "unreclaimable"}:
        return ""
    kind = _kind(decided, changes)
    return kind if kind or decided.group == "tensors" else _phase(decided, before, after)


def _kind(decided: Change, changes: Sequence[Change]) -> str:
    sign = 1 if decided.difference_bytes > 0 else -1
    kinds = [change for change in changes if change.is_of_kind]
    most = max(kinds, key=lambda change: sign * change.difference_bytes, default=None)
    if most is None or 2 * sign * most.difference_bytes <= abs(decided.difference_bytes):
        return ""
    return ", ".join(part for part in (most.measure, most.share, most.place and f"in {most.place}") if part)


def _phase(decided: Change, before: Baseline, after: Baseline) -> str:
    """A block or a load is inside a phase that changes as much: of such, the last to begin is the innermost."""
    sign = 1 if decided.difference_bytes > 0 else -1
    differences = {
        name: sign * (size - before.phases[name]) for name, size in after.phases.items() if name in before.phases
    }
    most = max(differences.values(), default=0)
    if 2 * most <= abs(decided.difference_bytes):
        return ""
    return [name for name, difference in differences.items() if difference >= 0.9 * most][-1]
