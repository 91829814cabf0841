"""From a `SpeechRequest` to sequences that fit: prompts, resolved sampling, seeds.

This is the one place where a request meets the model's limits, so that everything behind it may
trust what it gets (promise 7: bad input costs nothing). It runs in the caller's thread, never in
the step loop. It does not normalise or split text; the model's frontend does.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

from ..model_executor.interfaces import (
    Executor,
    Prompt,
    ResolvedSampling,
    SamplingDefaults,
    SpeechModelSpec,
)
from .errors import RequestError, RequestTooLongError, UnknownModelError
from .request import MAX_SEED, SamplingParams, SpeechRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class InputLimits:
    """What the engine adds to a request and what it can hold.

    Attributes:
        max_positions: positions of the longest sequence that fits model and KV cache.
        default_seed: seed of requests without one; None draws a fresh one each time.
        default_voice: voice of requests without one; None is the model's own default.
        model_names: names a request may use for the served model.
    """

    max_positions: int
    default_seed: int | None = None
    default_voice: str | None = None
    model_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Segment:
    """A prompt with the sampling that belongs to it."""

    prompt: Prompt
    sampling: ResolvedSampling


@dataclass(frozen=True, slots=True)
class ProcessedRequest:
    """A request that is known to fit.

    Attributes:
        request: with the default voice filled in.
        seed: in force, given or drawn.
        segments: of the speech, or of the refining pass when `request.refine`.
    """

    request: SpeechRequest
    seed: int
    segments: tuple[Segment, ...]


def segment_seed(seed: int, index: int) -> int:
    """Seed of one segment; the first keeps the request's own, to be reproducible alone."""
    if index == 0:
        return seed
    digest = blake2b(f"{seed}:{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") & MAX_SEED


class InputProcessor:
    """Turns requests into `ProcessedRequest`s for one loaded model. Thread-safe."""

    def __init__(self, executor: Executor, limits: InputLimits) -> None:
        self._info = executor.model_info
        self._spec = executor.speech_spec
        self._vocoder_inputs = executor.vocoder_spec.input_kinds
        self._frontend = executor.frontend
        self._limits = limits

    def process(self, request: SpeechRequest) -> ProcessedRequest:
        """Check and encode a request.

        Raises:
            RequestError: it cannot be served; the message names the value and the limit.
        """
        self._check(request)
        if request.voice is None and self._limits.default_voice is not None:
            request = replace(request, voice=self._limits.default_voice)
        seed = self._seed_of(request)
        if request.refine:
            segments = self._refining_segments(request, seed)
        else:
            segments = self._segments(self._frontend.encode(request), request, seed)
        return ProcessedRequest(request, seed, segments)

    def process_refined(
        self, processed: ProcessedRequest, refined: Sequence[Sequence[int]]
    ) -> tuple[Segment, ...]:
        """Segments of the speech, from the ids that the refining pass drew, one list a segment.

        Raises:
            RequestError: nothing speakable came out of the pass, or it does not fit.
        """
        prompts = self._frontend.encode_refined(processed.request, refined)
        return self._segments(prompts, processed.request, processed.seed)

    def _check(self, request: SpeechRequest) -> None:
        limit = self._info.max_text_chars
        if len(request.text) > limit:
            raise RequestTooLongError(
                f"text has {len(request.text)} characters, more than the limit of {limit}",
                param="text",
            )
        if request.model not in (None, self._info.name, *self._limits.model_names):
            raise UnknownModelError(
                f"unknown model {request.model!r}; this engine serves {self._info.name!r}",
                param="model",
            )
        if request.vocoder_input not in (None, *self._vocoder_inputs):
            raise RequestError(
                f"vocoder_input must be one of {', '.join(self._vocoder_inputs)} for this model, "
                f"got {request.vocoder_input!r}",
                param="vocoder_input",
            )

    def _seed_of(self, request: SpeechRequest) -> int:
        if request.seed is not None:
            return request.seed
        if self._limits.default_seed is not None:
            return self._limits.default_seed
        return secrets.randbelow(2**31)

    def _segments(
        self, prompts: Sequence[Prompt], request: SpeechRequest, seed: int
    ) -> tuple[Segment, ...]:
        defaults = self._spec.sampling
        if request.vocoder_input is not None:
            prompts = [replace(p, vocoder_input=request.vocoder_input) for p in prompts]
        return tuple(
            self._segment(prompt, request.sampling, defaults, segment_seed(seed, index))
            for index, prompt in enumerate(prompts)
        )

    def _refining_segments(self, request: SpeechRequest, seed: int) -> tuple[Segment, ...]:
        """The refining pass keeps the model's own text sampling: the user's is for speech."""
        if self._spec.text_sampling is None:
            raise RequestError(f"{self._info.name} cannot refine text", param="refine")
        own = SamplingParams()
        return tuple(
            self._segment(prompt, own, self._spec.text_sampling, segment_seed(seed, index))
            for index, prompt in enumerate(self._frontend.refine(request))
        )

    def _segment(
        self, prompt: Prompt, params: SamplingParams, defaults: SamplingDefaults, seed: int
    ) -> Segment:
        room = self._limits.max_positions - prompt.num_tokens
        if room < 1:
            raise RequestTooLongError(
                f"a segment needs {prompt.num_tokens} positions and one to speak, more than the "
                f"{self._limits.max_positions} that fit; use a shorter text or reference",
                param="text",
            )
        sampling = resolve_sampling(params, defaults, self._spec, seed=seed)
        if params.min_new_tokens is None:
            least = max(sampling.min_new_tokens, prompt.min_new_frames)
            sampling = replace(sampling, min_new_tokens=min(least, sampling.max_new_tokens))
        cap = room if prompt.max_new_frames is None else min(room, prompt.max_new_frames)
        if cap < sampling.max_new_tokens:
            sampling = replace(
                sampling,
                max_new_tokens=cap,
                min_new_tokens=min(sampling.min_new_tokens, cap),
            )
        return Segment(prompt, sampling)


def resolve_sampling(
    params: SamplingParams, defaults: SamplingDefaults, spec: SpeechModelSpec, *, seed: int
) -> ResolvedSampling:
    """`params` over `defaults`, one temperature per codebook.

    Raises:
        RequestError: a list of temperatures of the wrong length, or min above max new tokens.
    """
    temperature = defaults.temperature if params.temperature is None else params.temperature
    if not isinstance(temperature, tuple):
        temperature = (temperature,) * spec.num_codebooks
    if len(temperature) != spec.num_codebooks:
        raise RequestError(
            f"temperature needs one value or {spec.num_codebooks}, got {len(temperature)}",
            param="temperature",
        )
    max_new = _first(params.max_new_tokens, defaults.max_new_tokens)
    min_new = _first(params.min_new_tokens, defaults.min_new_tokens)
    if min_new > max_new:
        raise RequestError(
            f"min_new_tokens is {min_new}, above max_new_tokens, {max_new}", param="min_new_tokens"
        )
    return ResolvedSampling(
        temperature=temperature,
        top_p=defaults.top_p if params.top_p is None else params.top_p,
        top_k=_first(params.top_k, defaults.top_k),
        repetition_penalty=(
            defaults.repetition_penalty
            if params.repetition_penalty is None
            else params.repetition_penalty
        ),
        min_new_tokens=min_new,
        max_new_tokens=max_new,
        seed=seed,
        seed_mode=params.seed_mode,
    )


def _first(value: int | None, default: int) -> int:
    return default if value is None else value
