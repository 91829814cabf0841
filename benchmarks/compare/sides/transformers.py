"""transformers' `generate` on a Llama of the same shape: the AR stage alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .llama import prompts, write_llama
from .protocol import Case, RunCase, serve


def load(options: dict[str, Any]) -> tuple[RunCase, dict[str, Any]]:
    """Load the model in the type asked for."""
    import torch
    import transformers

    torch.set_num_threads(options["threads"])
    dtype = options["dtype"]
    folder = write_llama(Path(options["scratch"]) / f"llama_{dtype}", dtype)
    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    model.eval()

    def run(case: Case) -> dict[str, Any]:
        frames = case["frames"]
        ids = torch.tensor(prompts(case["n"], case["prompt"]))
        torch.manual_seed(1)
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            min_new_tokens=frames,
            max_new_tokens=frames,
            do_sample=True,
            temperature=0.3,
            top_p=0.7,
            top_k=20,
            repetition_penalty=1.05,
            pad_token_id=0,
            eos_token_id=None,
        )
        return {"tokens": int((output.shape[1] - ids.shape[1]) * output.shape[0])}

    about = {"transformers": transformers.__version__, "torch": torch.__version__, "dtype": dtype}
    return run, about


def main() -> None:
    """Serve."""
    serve(load)
