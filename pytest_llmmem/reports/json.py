"""The record as JSON: ``docs/json.md`` describes it, and nothing else is promised."""

import json

from pytest_llmmem.core.records import SessionRecord
from pytest_llmmem.reports.wording import encodable


def render(record: SessionRecord) -> str:
    """Stable under equal records: keys in the order of the fields, tests in the order of the run."""
    return encodable(json.dumps(record.to_json(), indent=1, ensure_ascii=False, allow_nan=False)) + "\n"
