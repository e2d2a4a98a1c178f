"""Jobs for the tests: a line of Python in place of a session."""

import sys
from dataclasses import replace

from pytest_llmmem.sweep.jobs import Job

MB = 10**6


def job(name: str = "cells/a", code: str = "pass", **fields: object) -> Job:
    plain = Job(name=name, python=sys.executable, arguments=("-c", code), memory_bytes=100 * MB, timeout_s=60)
    return replace(plain, **fields)
