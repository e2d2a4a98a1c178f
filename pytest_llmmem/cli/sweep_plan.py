"""The plan of a sweep, for ``llmmem sweep --dry-run``: its cells, what each claims, and what fits no node."""

from collections.abc import Sequence
from typing import Any

from pytest_llmmem.cli.output import print_json, print_table
from pytest_llmmem.core.sizes import format_size
from pytest_llmmem.sweep.placement import Node, fits_nowhere
from pytest_llmmem.sweep.sweeping import Sweep


def print_plan(asked: Sweep, nodes: Sequence[Node], *, json: bool) -> None:
    """Print the cells of a sweep whose models have been measured, and the nodes."""
    cells = [
        {
            "name": cell.name,
            "claim_bytes": asked.claims[cell.name].memory_bytes if cell.name in asked.claims else None,
            "done": cell.name in asked.jobs and asked.results.load(asked.jobs[cell.name]) is not None,
            "fits": cell.name in asked.jobs and not fits_nowhere(asked.jobs[cell.name], nodes),
            "note": asked.claims[cell.name].note
            if cell.name in asked.claims
            else asked.results.why_missing(f"cells/{cell.name}"),
        }
        for cell in asked.cells
    ]
    if json:
        print_json({"schema": 1, "nodes": [_node(node) for node in nodes], "cells": cells})
        return
    print_table(("cell", "claims", "", ""), map(_plan_row, cells))
    print_table(
        ("node", "memory", "CPUs", "GPUs"),
        ((node.name, format_size(node.memory_bytes), f"{node.cpus:g}", f"{node.gpus:g}") for node in nodes),
    )


def _plan_row(cell: dict[str, Any]) -> tuple[str, str, str, str]:
    claim = "" if cell["claim_bytes"] is None else format_size(cell["claim_bytes"])
    state = (
        "done"
        if cell["done"]
        else ""
        if cell["fits"]
        else "cannot run"
        if cell["claim_bytes"] is None
        else "fits no node"
    )
    return cell["name"], claim, state, cell["note"]


def _node(node: Node) -> dict[str, Any]:
    return {"name": node.name, "memory_bytes": node.memory_bytes, "cpus": node.cpus, "gpus": node.gpus}
