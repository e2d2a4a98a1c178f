"""A rule: the facts that identify a failure, and the text that explains it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pytest_llmmem.core.record_parts import Diagnosis
from pytest_llmmem.diagnosis.facts import Facts

Words = Mapping[str, str]
"""Details found in the facts, for the rule's texts."""

When = Callable[[Facts], Words | None]
"""Recognizes a failure: the words for the texts, or ``None`` when it is another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A failure that is known.

    The texts name in braces what ``when`` has found. ``{at}`` is there in every rule: where in the load, or nothing.
    """

    id: str
    when: When
    happened: str
    why: str
    next: tuple[str, ...]

    def read(self, facts: Facts) -> Diagnosis | None:
        """The diagnosis, if the rule recognizes the facts."""
        found = self.when(facts)
        if found is None:
            return None
        words = {"at": f" at {facts.place}" if facts.place else "", **found}
        return Diagnosis(
            id=self.id,
            happened=self.happened.format(**words),
            why=self.why.format(**words),
            next=tuple(step.format(**words) for step in self.next),
        )


def raised(types: str, pattern: str, *, inside: str = "") -> When:
    """An exception of one of these classes whose message has the pattern; its named groups are the words.

    ``inside`` is a function that the exception must have come through, for messages that say too little by themselves.
    """
    names, wording = types.split(), re.compile(pattern, re.DOTALL)

    def when(facts: Facts) -> Words | None:
        if facts.error_name not in names or (inside and not facts.was_in(inside)):
            return None
        match = wording.search(facts.error_text)
        return match.groupdict("") if match else None

    return when


def died(*signals: str) -> When:
    """A death by one of these signals, or by one of these Windows statuses."""

    def when(facts: Facts) -> Words | None:
        ending = facts.ending
        if ending.kind != "crashed" or ending.signal is None or not ending.signal.startswith(signals):
            return None
        return {"signal": ending.signal}

    return when


def either(*whens: When) -> When:
    """Combine conditions: the first that recognizes the facts."""

    def when(facts: Facts) -> Words | None:
        return next((words for each in whens if (words := each(facts)) is not None), None)

    return when


def both(first: When, second: When) -> When:
    """Combine two conditions: both must recognize the facts; the words of both."""

    def when(facts: Facts) -> Words | None:
        one, other = first(facts), second(facts)
        return None if one is None or other is None else {**one, **other}

    return when
