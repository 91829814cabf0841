"""One narrow vocoder of the published depth for all tests of this folder."""

from __future__ import annotations

import pytest

from stretto.model_executor.vocoder_runner import VocoderRunner
from stretto.model_executor.vocoders.frame_vocoder import FrameVocoder
from tests.model_executor.vocoders.vocoder_support import make_deep_vocoder


@pytest.fixture(scope="session")
def deep_vocoder(tmp_path_factory: pytest.TempPathFactory) -> FrameVocoder:
    return make_deep_vocoder(tmp_path_factory.mktemp("deep"))


@pytest.fixture
def runner(deep_vocoder: FrameVocoder) -> VocoderRunner:
    return VocoderRunner(deep_vocoder)
