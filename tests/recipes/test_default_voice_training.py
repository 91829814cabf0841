"""The recipe's networks against the engine's, and the shapes that training rests on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from recipes.default_voice.data import Utterance
from recipes.default_voice.export import export
from recipes.default_voice.language_model import GPTShape, SpeechGPT
from recipes.default_voice.nets import Encoder, VoiceShape, fsq_values
from recipes.default_voice.train_gpt import FIRST_PHASE, SECOND_PHASE, Phase, Source, batches
from recipes.default_voice.vocoder import CodeVocoder
from stretto.model_executor.models.checkpoint import load_checkpoint
from stretto.model_executor.vocoders.frame_vocoder import Window, load_vocoder
from stretto.model_executor.vocoders.row_layout import Span

SHAPE = VoiceShape(
    features=32, bottleneck=16, decoder_width=32, decoder_mlp=64, decoder_out=16, vocos_width=32
)
GUARD = {"frames_per_phone": 4.0, "frames_per_mark": 12.0, "base_frames": 12.0, "factor": 1.6}
SAMPLING = {"temperature": 0.3, "top_p": 0.8, "top_k": 30, "repetition_penalty": 1.0}


@pytest.fixture
def vocoder() -> CodeVocoder:
    torch.manual_seed(0)
    return CodeVocoder(SHAPE).half().float().eval()


@pytest.fixture
def gpt() -> SpeechGPT:
    torch.manual_seed(0)
    return SpeechGPT(GPTShape(width=32, heads=2, layers=3, mlp=48)).half().float().eval()


def test_look_ahead_stays_within_24_mel_frames() -> None:
    assert VoiceShape().look_ahead() <= 24


def test_the_engine_decodes_an_export_as_the_recipe_does(
    tmp_path: Path, vocoder: CodeVocoder, gpt: SpeechGPT
) -> None:
    export(gpt, vocoder, SAMPLING, GUARD, {"slt": 0.5, "rms": 1.0}, tmp_path)
    engine = load_vocoder(load_checkpoint(str(tmp_path)))
    codes = torch.randint(0, 625, (30, 4), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        wanted = vocoder(codes[None])[0][0]
        spoken, _ = engine.decode([Window(codes, 0, Span(0, 30))], "codes")
    assert spoken[0].shape == wanted.shape
    assert torch.allclose(spoken[0], wanted, atol=1e-4 * float(wanted.abs().max()))


def test_the_declared_look_ahead_is_the_real_one(vocoder: CodeVocoder) -> None:
    """Changing a frame changes no sample more than 12 frames before it."""
    codes = torch.zeros(1, 60, 4, dtype=torch.long)
    changed = codes.clone()
    changed[:, 40] = 311
    with torch.inference_mode():
        difference = (vocoder(codes)[0] - vocoder(changed)[0]).abs()[0]
    first = int(difference.gt(1e-6).nonzero()[0])
    assert (40 - 12) * 512 <= first < 40 * 512


def test_codes_and_points_agree() -> None:
    torch.manual_seed(0)
    encoder = Encoder(VoiceShape(), width=16, blocks=1).eval()
    mel = torch.randn(2, 12, 100)
    points, codes = encoder(mel), encoder.codes(mel)
    assert codes.shape == (2, 6, 4)
    assert torch.allclose(points, fsq_values(codes, (5, 5, 5, 5)), atol=1e-5)


def test_generated_rows_do_not_depend_on_prompt_padding(gpt: SpeechGPT) -> None:
    """The cached run over padded prompts equals each prompt's own run, greedily."""
    prompts = [[1, 2, 6, 20, 30, 12, 3], [1, 2, 6, 25, 12, 3]]

    def run(rows: list[list[int]], speakers: list[int]) -> list[np.ndarray]:
        out = gpt.generate(rows, speakers, [5] * len(rows), 1e-6, 1e-9, seed=0)
        return [codes.numpy() for codes in out]

    together = run(prompts, [0, 1])
    for row, prompt in enumerate(prompts):
        alone = run([prompt], [row])
        assert np.array_equal(together[row], alone[0])


def source(speaker: int, share: float) -> Source:
    """Forty utterances of one speaker of 60 to 99 positions."""
    codes = [np.zeros((50 + size, 4), np.int16) for size in range(40)]
    utterances = [
        Utterance(
            "no.",
            speaker,
            np.zeros(0, np.int16),
            np.full(10, 3, np.int16),
            np.full(len(frames), 4, np.int16),
        )
        for frames in codes
    ]
    return Source(utterances, codes, share)


def test_batches_mix_the_sources_by_their_shares() -> None:
    drawn = batches([source(0, 0.7), source(1, 0.3)], seed=0)
    speakers = [set(next(drawn).speaker.tolist()) for _ in range(400)]
    assert {0, 1} not in speakers
    assert speakers.count({1}) == pytest.approx(120, abs=40)


def test_an_epoch_holds_every_utterance_once() -> None:
    one = source(0, 1.0)
    drawn = batches([one], seed=0)
    frames: list[int] = []
    while len(frames) < len(one.codes):
        frames += next(drawn).is_frame.sum(1).tolist()
    assert sorted(frames) == sorted(len(codes) for codes in one.codes)


@pytest.mark.parametrize("phase", [FIRST_PHASE, SECOND_PHASE])
def test_the_rate_warms_up_stays_and_falls_to_nothing(phase: Phase) -> None:
    assert phase.rate(0, 0.0) < 0.01 * phase.peak
    assert phase.rate(1000, phase.hold) == pytest.approx(phase.peak)
    assert phase.rate(1000, (1 + phase.hold) / 2) == pytest.approx(phase.peak / 2)
    assert phase.rate(1000, 1.0) == 0
