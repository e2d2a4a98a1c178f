"""A program that reads a ``PredictRequest`` and prints a ``Prediction`` as the last line of its output."""

import dataclasses
import json
import sys

from pytest_llmmem.core.errors import StepError
from pytest_llmmem.models.sources.meta_layout import limit_memory
from pytest_llmmem.models.steps.adapters import TooLongError
from pytest_llmmem.models.steps.prediction import predicting
from pytest_llmmem.models.steps.predictor import Fitting, GridCell, Prediction
from pytest_llmmem.models.steps.search import largest_within
from pytest_llmmem.models.steps.spec import GenerateSpec, PredictRequest, TrainSpec

_LENGTH_STEP = 64
_MOST_SEQUENCES = 2**16


def main() -> None:
    """Print the answer, or one sentence with the reason that there is none."""
    limit_memory()
    request = PredictRequest.from_json(json.load(sys.stdin))
    try:
        answer = _answer(request).to_json()
    except StepError as error:
        answer = {"error": str(error)}
    sys.stdout.write("\n" + json.dumps(answer))


def _answer(request: PredictRequest) -> Prediction:
    step = request.step
    with predicting(request) as measure:
        memory = measure(step)
        peaks = {(step.batch_size, step.seq_len): memory.peak_bytes}

        def peak_of(batch_size: int, seq_len: int) -> int:
            if (batch_size, seq_len) not in peaks:
                peaks[batch_size, seq_len] = measure(_resized(step, batch_size, seq_len)).peak_bytes
            return peaks[batch_size, seq_len]

        def cell(batch_size: int, seq_len: int) -> GridCell:
            try:
                peak = peak_of(batch_size, seq_len)
            except TooLongError:
                peak = None
            return GridCell(batch_size=batch_size, seq_len=seq_len, peak_bytes=peak)

        longest = request.config.get("max_position_embeddings")
        most = longest // _LENGTH_STEP if isinstance(longest, int) else 2**14
        fits = tuple(
            Fitting(
                limit_bytes=limit,
                batch_size=largest_within(limit, lambda number: peak_of(number, step.seq_len), most=_MOST_SEQUENCES),
                seq_len=_LENGTH_STEP
                * largest_within(
                    limit, lambda number: peak_of(step.batch_size, number * _LENGTH_STEP), most=max(1, most)
                ),
            )
            for limit in request.limits
        )
        return Prediction(memory=memory, fits=fits, grid=tuple(cell(*each) for each in request.grid))


def _resized(step: TrainSpec | GenerateSpec, batch_size: int, seq_len: int) -> TrainSpec | GenerateSpec:
    if isinstance(step, TrainSpec):
        return dataclasses.replace(step, batch_size=batch_size, seq_len=seq_len)
    return dataclasses.replace(step, batch_size=batch_size, prompt=max(1, seq_len - step.new_tokens))


if __name__ == "__main__":
    main()
