"""LiveKit's OpenAI plugin, the strictest client: it decodes every format as it arrives.

Needs the extra `test-livekit`; skipped without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.server.support import FORMATS, TEXT, serving

openai_plugin = pytest.importorskip("livekit.plugins.openai", reason="needs stretto[test-livekit]")

SECONDS = len(TEXT) * 0.06
# Its decoder drops the last block of FLAC, and MP3 and AAC carry their encoders' delay.
TOLERANCE_S = 0.15

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.mark.parametrize("mode", ["sse", "audio"])
@pytest.mark.parametrize("audio_format", FORMATS)
async def test_livekit_decodes_it(audio_format: str, mode: str, tmp_path: Path) -> None:
    # The plugin chooses server-sent events unless the model is one of the older two.
    model = "gpt-4o-mini-tts" if mode == "sse" else "tts-1"
    async with serving(tmp_path) as server, aiohttp.ClientSession():
        tts: Any = openai_plugin.TTS(
            base_url=f"{server.url}/v1",
            api_key="key",
            model=model,
            voice="ash",
            response_format=audio_format,
        )
        samples = 0
        async with tts.synthesize(TEXT) as stream:
            async for event in stream:
                samples += event.frame.samples_per_channel
                rate = event.frame.sample_rate
        await tts.aclose()
        assert len(server.engine.requests) == 1
    assert samples / rate == pytest.approx(SECONDS, abs=TOLERANCE_S)
