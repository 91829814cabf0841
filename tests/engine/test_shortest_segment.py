"""What a frontend knows of the shortest audio of a text reaches the sampler; users may differ."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stretto.engine.input_processor import InputLimits, InputProcessor
from stretto.engine.request import SamplingParams, SpeechRequest
from stretto.model_executor.interfaces import Prompt
from tests.fake_executor import FakeExecutor, FakeFrontend


class ShortestFrontend(FakeFrontend):
    """Says that no text takes less than 30 frames."""

    def encode(self, request: SpeechRequest) -> list[Prompt]:
        return [replace(prompt, min_new_frames=30) for prompt in super().encode(request)]


@pytest.mark.parametrize(
    ("sampling", "wanted"),
    [
        (SamplingParams(), 30),
        (SamplingParams(min_new_tokens=0), 0),
        (SamplingParams(min_new_tokens=50), 50),
        (SamplingParams(max_new_tokens=20), 20),
    ],
)
def test_the_end_is_not_drawn_too_early(sampling: SamplingParams, wanted: int) -> None:
    executor = FakeExecutor()
    executor.frontend = ShortestFrontend()
    processor = InputProcessor(executor, InputLimits(max_positions=1000))
    request = SpeechRequest(text="one @20", seed=1, sampling=sampling)
    assert processor.process(request).segments[0].sampling.min_new_tokens == wanted
