"""Upstream ChatTTS, from its package, through its public interface.

Modes: `concurrent` calls `infer` from N threads, as servers do; `batch` passes N texts to one call.
The newest torchaudio does not import beside a CPU build of torch because of its compiled
extension, of which nothing is needed here: a stub takes the extension's place.
"""

from __future__ import annotations

import sys
import time
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .protocol import Case, RunCase, serve


def _stub_torchaudio_extension() -> None:
    def attribute(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return False if name.startswith("_") else lambda function=None: function

    extension = types.ModuleType("torchaudio._extension")
    extension.__getattr__ = attribute  # type: ignore[method-assign]
    sys.modules["torchaudio._extension"] = extension


def _load_chat(asset: Path) -> Any:
    import ChatTTS
    import torch

    chat = ChatTTS.Chat()
    loaded = chat._load(
        vocos_ckpt_path=str(asset / "Vocos.safetensors"),
        dvae_ckpt_path=str(asset / "DVAE.safetensors"),
        gpt_ckpt_path=str(asset / "gpt"),
        embed_path=str(asset / "Embed.safetensors"),
        decoder_ckpt_path=str(asset / "Decoder.safetensors"),
        tokenizer_path=str(asset / "tokenizer"),
        device=torch.device("cpu"),
    )
    if not loaded:
        raise RuntimeError(f"ChatTTS did not load {asset}")
    return chat


def load(options: dict[str, Any]) -> tuple[RunCase, dict[str, Any]]:
    """Load the checkpoint; float32 on CPU is the only type upstream has there."""
    _stub_torchaudio_extension()
    import ChatTTS
    import torch

    torch.set_num_threads(options["threads"])
    chat = _load_chat(Path(options["model"]) / "asset")

    def speak(texts: list[str], frames: int) -> tuple[float, float]:
        """Seconds of audio, and seconds it took."""
        began = time.perf_counter()
        waveforms = chat.infer(
            texts,
            skip_refine_text=True,
            split_text=False,
            do_text_normalization=False,
            do_homophone_replacement=False,
            params_infer_code=ChatTTS.Chat.InferCodeParams(
                min_new_token=frames, max_new_token=frames, manual_seed=1, show_tqdm=False
            ),
        )
        audio_s = sum(waveform.shape[-1] for waveform in waveforms) / 24000
        return audio_s, time.perf_counter() - began

    def run(case: Case) -> dict[str, Any]:
        texts, frames = case["texts"], case["frames"]
        if case["mode"] == "batch":
            audio_s, latency = speak(texts, frames)
            return {"audio_s": audio_s, "mean_latency_s": latency}
        with ThreadPoolExecutor(len(texts)) as pool:
            done = list(pool.map(lambda text: speak([text], frames), texts))
        return {
            "audio_s": sum(audio_s for audio_s, _ in done),
            "mean_latency_s": sum(latency for _, latency in done) / len(done),
        }

    return run, {"torch": torch.__version__, "dtype": "float32"}


def main() -> None:
    """Serve."""
    serve(load)
