"""A row of the table: how a symptom is recognised, and what is said about it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pytest_llmmem.diagnosis.facts import Symptom

Words = Mapping[str, str]
"""What was found in a symptom, for the row's texts."""

When = Callable[[Symptom], Words | None]
"""Recognises a symptom: the words for the texts, or ``None`` when it is another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """A failure that was recognised. Each text is a sentence or two."""

    id: str
    """Stable, and a heading of ``docs/diagnosis.md``: ``"accelerate-missing"``."""
    happened: str
    why: str
    next: tuple[str, ...]
    """What to try, the best first; three at most."""

    def lines(self) -> tuple[str, ...]:
        """At most five, for a report."""
        return (self.happened, self.why, *self.next)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A failure that is known.

    The texts name in braces what ``when`` has found. ``{at}`` is there in every row: where in the load, or nothing.
    """

    id: str
    when: When
    happened: str
    why: str
    next: tuple[str, ...]

    def read(self, symptom: Symptom) -> Diagnosis | None:
        """The diagnosis, if this is the row for the symptom."""
        found = self.when(symptom)
        if found is None:
            return None
        words = {"at": f" at {symptom.place}" if symptom.place else "", **found}
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

    def when(symptom: Symptom) -> Words | None:
        if symptom.error_name not in names or (inside and not symptom.was_in(inside)):
            return None
        match = wording.search(symptom.error_text)
        return match.groupdict("") if match else None

    return when


def died(*signals: str) -> When:
    """A death by one of these signals, or by one of these Windows statuses."""

    def when(symptom: Symptom) -> Words | None:
        ending = symptom.ending
        if ending.kind != "crashed" or ending.signal is None or not ending.signal.startswith(signals):
            return None
        return {"signal": ending.signal}

    return when


def either(*whens: When) -> When:
    """The first that recognises the symptom."""

    def when(symptom: Symptom) -> Words | None:
        return next((words for each in whens if (words := each(symptom)) is not None), None)

    return when


def both(first: When, second: When) -> When:
    """Both must recognise the symptom; the words of both."""

    def when(symptom: Symptom) -> Words | None:
        one, other = first(symptom), second(symptom)
        return None if one is None or other is None else {**one, **other}

    return when
