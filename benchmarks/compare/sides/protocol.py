"""How a side talks with the comparison: one JSON object a line, in and out.

The first line in holds the options; the side loads its engine and answers `{"ready": ...}`. Every
further line is a case, answered by its measurement. Whatever the engine prints goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

Case = dict[str, Any]
RunCase = Callable[[Case], dict[str, Any]]


def serve(load: Callable[[dict[str, Any]], tuple[RunCase, dict[str, Any]]]) -> None:
    """Answer cases until stdin ends.

    Args:
        load: from the options to the function that runs a case, and what to say about the engine.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(data: dict[str, Any]) -> None:
        answers.write(json.dumps(data) + "\n")
        answers.flush()

    run, about = load(json.loads(sys.stdin.readline()))
    answer({"ready": about})
    for line in sys.stdin:
        answer(measured(run, json.loads(line)))


def measured(run: RunCase, case: Case) -> dict[str, Any]:
    """Run a case; adds `seconds` (wall) and `cpu_s` of this process to what it returns."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = run(case)
    seconds = time.perf_counter() - wall
    return {"seconds": seconds, "cpu_s": time.process_time() - cpu, **result}
