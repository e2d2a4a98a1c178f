"""Limits: a size, a share of the machine, or an expression in the checkpoint's own terms.

limit   = product {"+" product}
product = factor {"*" factor}
factor  = NUMBER | SIZE | NUMBER "%" ("host" | "device") | TERM
TERM    = weights | adapter | share | shard | largest_layer | params@DTYPE
        | trainable | trainable@DTYPE | gradients | optimizer | activations | kv_cache
NUMBER  = digits | ranks
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from pytest_llmmem.core.sizes import format_size, split_size, unit_of

DTYPE_BITS: Final = {
    "float64": 64, "float32": 32, "float16": 16, "bfloat16": 16, "float8": 8, "int8": 8, "int4": 4, "nf4": 4,
}  # fmt: skip
MODEL_TERMS: Final = ("weights", "adapter", "share", "shard", "largest_layer")
STEP_TERMS: Final[Mapping[str, str]] = {
    "trainable": "llm_train",
    "gradients": "llm_train",
    "optimizer": "llm_train",
    "activations": "llm_train",
    "kv_cache": "llm_generate",
}
"""Terms of a training or inference step, and the marker that makes each known."""
RANKS: Final = "ranks"
"""The number of ranks of the test."""
SHARES: Final = ("host", "device")
ACCEPTED: Final = (
    "a size ('8GB', '7.5GiB'), a share ('50% host', '80% device'), or sums and products of numbers, sizes and the checkpoint's "
    "terms: weights, share (weights by ranks), shard, largest_layer, params@float16, and, of a step: trainable, gradients, "
    "optimizer, activations, kv_cache"
)


_LEAST_BYTES: Final = 1000
"""Whoever writes less has forgotten the unit."""

_TOKEN: Final = re.compile(
    r"\s*(?:(?P<share>\d+(?:\.\d+)?)\s*%\s*(?P<of>[a-z]+)"
    r"|(?P<params>params|trainable)\s*@\s*(?P<dtype>\w+)"
    r"|(?P<number>(?:\d+(?:_\d+)*)?\.?\d+)\s*(?P<unit>[A-Za-z]+)?"
    r"|(?P<name>[a-z_]+)"
    r"|(?P<operator>[+*]))"
)


@dataclass(frozen=True, slots=True)
class Product:
    """``factor`` times one term (a key of the machine's or the checkpoint's terms), or a number of bytes."""

    factor: Decimal
    term: str | None
    ranks: int = 0
    """Exponent of the number of ranks in the product."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A parsed limit; ``text`` is what the user wrote."""

    text: str
    products: tuple[Product, ...]

    @property
    def terms(self) -> tuple[str, ...]:
        """The names that must be known to evaluate it."""
        return tuple(product.term for product in self.products if product.term)

    @property
    def is_share(self) -> bool:
        """A share of a machine is compared with absolute memory, everything else with growth."""
        return any(term in SHARES for term in self.terms)

    @property
    def needs_model(self) -> bool:
        return any(term not in SHARES for term in self.terms)

    @property
    def step_terms(self) -> tuple[str, ...]:
        """Those that only a description of a training or inference step makes known."""
        return tuple(term for term in self.terms if term.partition("@")[0] in STEP_TERMS)

    @property
    def unit(self) -> str | None:
        """The unit to report in, as the user wrote it."""
        return unit_of(self.text)

    def bytes(self, terms: Mapping[str, int]) -> int:
        """Evaluate; ``KeyError`` names a term that is not known."""
        ranks = terms.get(RANKS, 1)
        return round(
            sum(
                product.factor * int(ranks**product.ranks) * (terms[product.term] if product.term else 1)
                for product in self.products
            )
        )


def parse_limit(value: object) -> Limit:
    """Parse a user's limit.

    Raises ``ValueError`` with the given value, the accepted ones and the fix.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        msg = f"{value!r} is not a limit: write {ACCEPTED}"
        raise ValueError(msg)  # noqa: TRY004 -- one error type for every bad limit, whatever is wrong with it
    text = value if isinstance(value, str) else f"{value:.0f}B"
    if text.strip().startswith("-"):
        msg = f"{value!r} is not a limit (it is negative): write {ACCEPTED}"
        raise ValueError(msg)
    limit = Limit(text=text.strip() if isinstance(value, str) else format_size(value), products=_parse(text))
    if not limit.terms and limit.bytes({}) < _LEAST_BYTES:
        msg = (
            f"{value!r} is not a limit that anything can hold: a number without a unit is bytes; write one, like '8GB'"
        )
        raise ValueError(msg)
    return limit


def _parse(text: str) -> tuple[Product, ...]:
    products: list[Product] = []
    operator = "+"
    for token in _tokens(text):
        if isinstance(token, str):
            if operator:
                raise _unreadable(text, repr(token))
            operator = token
            continue
        if not operator:
            raise _unreadable(text, "two values without '+' or '*' between them")
        if operator == "*":
            products[-1] = _multiply(text, products[-1], token)
        else:
            products.append(token)
        operator = ""
    if operator:
        raise _unreadable(text, "the end" if products else "nothing")
    if len(products) > 1 and any(product.term == "" for product in products):
        raise _unreadable(text, "a bare number in a sum; give it a unit")
    return tuple(Product(product.factor, product.term or None, product.ranks) for product in products)


def _multiply(text: str, left: Product, right: Product) -> Product:
    if left.term != "" and right.term != "":
        raise _unreadable(text, "bytes multiplied by bytes")
    return Product(left.factor * right.factor, left.term if right.term == "" else right.term, left.ranks + right.ranks)


def _tokens(text: str) -> list[Product | str]:
    """Operators as text; values as products, where ``term`` is ``""`` for a bare number and ``None`` for bytes."""
    tokens: list[Product | str] = []
    position, end = 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            raise _unreadable(text, repr(text[position:].strip()))
        tokens.append(_value(text, match))
        position = match.end()
    return tokens


def _value(text: str, match: re.Match[str]) -> Product | str:
    if match["operator"]:
        return match["operator"]
    if match["share"]:
        if match["of"] not in SHARES:
            raise _unreadable(text, f"{match['of']!r} after '%'; a share is '50% host' or '80% device'")
        return Product(Decimal(match["share"]) / 100, match["of"])
    if match["params"]:
        if match["dtype"] not in DTYPE_BITS:
            raise _unreadable(text, f"dtype {match['dtype']!r}; known are {', '.join(DTYPE_BITS)}")
        return Product(Decimal(1), f"{match['params']}@{match['dtype']}")
    if match["name"]:
        return _named(text, match["name"])
    if match["unit"]:
        try:
            return Product(split_size(match["number"] + match["unit"])[0], None)
        except ValueError:
            raise _unreadable(text, repr(match["number"] + match["unit"])) from None
    return Product(Decimal(match["number"].replace("_", "")), "")


def _named(text: str, name: str) -> Product:
    if name == RANKS:
        return Product(Decimal(1), "", 1)
    if name not in (*MODEL_TERMS, *STEP_TERMS):
        raise _unreadable(text, _name(name))
    return Product(Decimal(1), name)


def _name(unknown: str) -> str:
    import difflib  # a mistake may cost its time

    near = difflib.get_close_matches(unknown, (*MODEL_TERMS, *STEP_TERMS), n=1)
    return f"{unknown!r}: did you mean {near[0]!r}?" if near else repr(unknown)


def _unreadable(text: str, what: str) -> ValueError:
    return ValueError(f"{text!r} is not a limit (cannot read {what}): write {ACCEPTED}")
