"""vLLM's CPU build on a Llama of the same shape: the AR stage alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .llama import prompts, write_llama
from .protocol import Case, RunCase, serve


def load(options: dict[str, Any]) -> tuple[RunCase, dict[str, Any]]:
    """Load the engine in this process; prefix caching off, as for ours."""
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = "2"
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"
    import torch
    import vllm

    folder = write_llama(Path(options["scratch"]) / f"llama_{options['dtype']}", options["dtype"])
    engine = vllm.LLM(
        model=str(folder),
        skip_tokenizer_init=True,
        dtype=options["dtype"],
        max_model_len=1024,
        max_num_seqs=options["max_num_seqs"],
        enable_prefix_caching=False,
        enforce_eager=options["eager"],
    )

    def run(case: Case) -> dict[str, Any]:
        frames = case["frames"]
        sampling = vllm.SamplingParams(
            max_tokens=frames,
            min_tokens=frames,
            ignore_eos=True,
            detokenize=False,
            temperature=0.3,
            top_p=0.7,
            top_k=20,
            repetition_penalty=1.05,
        )
        inputs = [{"prompt_token_ids": ids} for ids in prompts(case["n"], case["prompt"])]
        outputs = engine.generate(inputs, sampling, use_tqdm=False)
        return {"tokens": sum(len(output.outputs[0].token_ids) for output in outputs)}

    about = {"vllm": vllm.__version__, "torch": torch.__version__, "dtype": options["dtype"]}
    return run, about


def main() -> None:
    """Serve."""
    serve(load)
