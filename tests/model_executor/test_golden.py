"""Teacher-forced against upstream: embeddings, hidden states, logits, probabilities.

The same numbers come out of the paged runner whatever the schedule: alone, joining and leaving,
prompts in odd chunks, preempted and replayed, with prefix hits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.model_executor.tiny import NUM_STEPS, Case, Driver, ForcedSampler, model

# Kernels are compiled on first use, which a crowded machine makes long.
pytestmark = pytest.mark.timeout(900)

CASES = ("single0", "single1", "single2", "batch", "zs", "refine")


class Recorder:
    """Forces a case's draws through a driver and compares what the sampler saw."""

    def __init__(self, driver: Driver, case: Case) -> None:
        self.driver, self.case = driver, case
        kind = "text" if case.is_text else "frames"
        spec = model().spec
        end = spec.text_eos_id if case.is_text else spec.eos_id
        assert end is not None
        self.sampler = ForcedSampler(end)
        driver.runner.samplers[kind] = self.sampler
        self.compared = 0

    def step(self) -> None:
        """One step: every row that samples is told its draw and compared with upstream."""
        output = self.driver.scheduler.schedule(self.driver.now)
        rows = [item for item in output.scheduled if item.samples]
        places = [(self.row(item.seq_id), self.draw_index(item)) for item in rows]
        self.sampler.next_draws = [self.case.forced[row, step] for row, step in places]
        result = self.driver.runner.execute(output)
        for index, (row, step) in enumerate(places):
            np.testing.assert_allclose(
                self.sampler.logits[index], self.case.logits[step, row], atol=2e-4, rtol=0
            )
            np.testing.assert_allclose(
                self.sampler.probs[index], self.case.probs[step, row], atol=1e-4, rtol=0
            )
            self.compared += 1
        self.driver.scheduler.update_from_output(output, result, self.driver.now)

    def row(self, seq_id: str) -> int:
        return int(seq_id.split("-")[0])

    def draw_index(self, item: Any) -> int:
        done = item.num_computed_tokens + item.num_scheduled_tokens
        return int(done - self.case.prompts[self.row(item.seq_id)].num_tokens)

    def run(self) -> None:
        while self.driver.scheduler.has_work:
            self.step()

    def check_hidden(self, seq_id: str) -> None:
        np.testing.assert_allclose(
            self.driver.hidden(seq_id), self.case.hidden[self.row(seq_id)], atol=1e-4, rtol=0
        )


@pytest.mark.parametrize("name", CASES)
def test_input_embeddings(name: str) -> None:
    case = Case(name)
    driver = Driver(prefix_caching=False)
    seen: list[torch.Tensor] = []
    forward = driver.runner._model.forward
    for row, prompt in enumerate(case.prompts):
        driver.add(f"{row}", prompt, case.sampling)

    def spy(embeddings: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(embeddings.clone())
        return forward(embeddings, *rest)

    driver.runner._model.forward = spy  # type: ignore[method-assign,assignment]
    try:
        driver.step()
    finally:
        del driver.runner._model.forward
    expected = np.concatenate([case.emb[row][case.mask[row]] for row in range(len(case.emb))])
    np.testing.assert_allclose(seen[0].numpy(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("backend", ["reference", "cpu_paged"])
@pytest.mark.parametrize("name", CASES)
def test_all_at_once(name: str, backend: str) -> None:
    case = Case(name)
    driver = Driver(backend=backend)
    run = Recorder(driver, case)
    for row, prompt in enumerate(case.prompts):
        driver.add(f"{row}", prompt, case.sampling)
    run.run()
    assert run.compared == NUM_STEPS * len(case.prompts)
    for row in range(len(case.prompts)):
        run.check_hidden(f"{row}")


@pytest.mark.parametrize("name", ["batch", "zs", "refine"])
def test_joining_and_leaving(name: str) -> None:
    case = Case(name)
    driver = Driver(max_batched=13)  # prompts come in odd chunks beside running sequences
    run = Recorder(driver, case)
    for row, prompt in enumerate(case.prompts):
        driver.add(f"{row}", prompt, case.sampling)
        for _ in range(3):
            run.step()
    driver.scheduler.abort("1")
    driver.runner.remove_sequence("1")
    run.step()
    driver.add("1-again", case.prompts[1], case.sampling)
    run.run()
    for seq_id in ("0", "1-again", "2"):
        run.check_hidden(seq_id)


@pytest.mark.parametrize("chunk", [1, 3, 7, 11])
@pytest.mark.parametrize("name", ["single0", "single2", "zs", "refine"])
def test_chunked_prefill(name: str, chunk: int) -> None:
    case = Case(name)
    driver = Driver(max_batched=chunk)
    run = Recorder(driver, case)
    driver.add("0", case.prompts[0], case.sampling)
    run.run()
    assert run.compared == NUM_STEPS
    run.check_hidden("0")


@pytest.mark.parametrize("name", ["batch", "zs", "refine"])
def test_preempted_and_replayed(name: str) -> None:
    case = Case(name)
    longest = max(prompt.num_tokens for prompt in case.prompts) + NUM_STEPS
    driver = Driver(num_blocks=-(-longest // 4) + 6, prefix_caching=False)
    run = Recorder(driver, case)
    for row, prompt in enumerate(case.prompts):
        driver.add(f"{row}", prompt, case.sampling)
    run.run()
    assert driver.scheduler.num_preemptions > 0
    for row in range(len(case.prompts)):
        run.check_hidden(f"{row}")


@pytest.mark.parametrize("name", ["single0", "zs", "refine"])
def test_prefix_hits(name: str) -> None:
    case = Case(name)
    driver = Driver()
    run = Recorder(driver, case)
    driver.add("0", case.prompts[0], case.sampling)
    run.run()
    before = driver.scheduler.kv_cache.num_hits
    driver.add("0-again", case.prompts[0], case.sampling)
    run.run()
    assert driver.scheduler.kv_cache.num_hits > before
    run.check_hidden("0-again")
