"""One DPO step of SmolLM2-135M beside TRL's trainer: seconds, and peak memory beyond the loaded model."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from typing import Any

import torch

from benchmarks.measure import machine, peak, reset_peak

WORDS = ("water", "fire", "house", "tree", "river", "stone", "light", "night", "summer", "winter", "music", "story")
RESPONSE = 128
CASES: dict[str, dict[str, Any]] = {
    "TRL": {"pairs": 4, "prompt": 256, "by": "trl", "precompute": False},
    "TRL, precompute_ref_log_probs": {"pairs": 4, "prompt": 256, "by": "trl", "precompute": True},
    "nearfar, shared_prefix=False": {"pairs": 4, "prompt": 256, "by": "nearfar", "shared": False},
    "nearfar": {"pairs": 4, "prompt": 256, "by": "nearfar", "shared": "auto"},
    "nearfar, shared_prefix=False, prompt 512": {"pairs": 2, "prompt": 512, "by": "nearfar", "shared": False},
    "nearfar, prompt 512": {"pairs": 2, "prompt": 512, "by": "nearfar", "shared": "auto"},
}


def run(steps: int = 3, cases: str = "") -> None:
    """Print a table: one row a way to do the step, each in a process of its own; the fastest of the steps after the
    first, which allocates the optimiser's state. "CPU" sums the seconds of all threads, which other programs on the
    machine disturb less. ``cases``: those whose names begin so, separated by ";"."""
    print(
        f"one DPO step, SmolLM2-135M-Instruct, float32, responses of {RESPONSE} tokens; AdamW (fused), gradients "
        "checkpointed and clipped at norm 1, both; nearfar has the reference's log-probabilities as a column, TRL "
        f"computes them in the step unless it says precompute; memory beyond the loaded policy; {machine()}"
    )
    print(f"{'':44s}{'pairs':>6s}{'prompt':>8s}{'seconds':>9s}{'CPU':>8s}{'peak MiB':>10s}{'log p chosen':>14s}")
    chosen = cases.split(";") if cases else list(CASES)
    for name in [name for name in CASES if name in chosen]:
        case = CASES[name]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.dpo", name, str(steps)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            print(f"{name:44s}  {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        print(
            f"{name:44s}{case['pairs']:6d}{case['prompt']:8d}{found['seconds']:9.1f}{found['cpu']:8.1f}"
            f"{found['peak'] / 2**20:10.0f}"
            f"{found['chosen']:14.3f}"
        )


def texts(pairs: int, prompt: int, tokenizer: Any) -> list[dict[str, str]]:
    """Random words, each one token: prompts of ``prompt`` tokens, responses of 127 and the token that ends them."""
    draw = random.Random(0)
    words = [" " + word for word in WORDS if len(tokenizer(" " + word)["input_ids"]) == 1]

    def text(count: int) -> str:
        return "".join(draw.choice(words) for _ in range(count))

    return [
        {"prompt": text(prompt), "chosen": text(RESPONSE - 1), "rejected": text(RESPONSE - 1)} for _ in range(pairs)
    ]


def loaded() -> tuple[Any, Any]:
    """The model, all of it in memory, and its tokenizer."""
    from nearfar.encoders.language_model import language_model

    model, tokenizer = language_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0)  # mapped files become memory
    return model, tokenizer


class Clock:
    """Seconds of steps: on the wall, and of the processor."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, float]] = []

    def begin(self) -> None:
        self.start = (time.perf_counter(), time.process_time())

    def end(self) -> None:
        self.steps.append((time.perf_counter() - self.start[0], time.process_time() - self.start[1]))

    def fastest(self) -> dict[str, float]:
        """The lowest of both after the first step."""
        wall, cpu = zip(*self.steps[1:], strict=True)
        return {"seconds": min(wall), "cpu": min(cpu)}


def ours(case: dict[str, Any], steps: int) -> dict[str, float]:
    """Seconds of the fastest step after the first, peak bytes, and the mean log-probability of chosen responses."""
    from nearfar.alignment.reference import reference_scores
    from nearfar.alignment.scores import response_scores
    from nearfar.data.preferences import PreferenceRow, tokenise
    from nearfar.objectives import DPO

    model, tokenizer = loaded()
    made = texts(case["pairs"], case["prompt"], tokenizer)
    data = [PreferenceRow(row["prompt"], (row["chosen"], row["rejected"])) for row in made]
    rows = list(tokenise(data, tokenizer))
    assert all(len(row.prompt) == case["prompt"] and {*map(len, row.responses)} == {RESPONSE} for row in rows)
    model.train()
    model.gradient_checkpointing_enable()
    objective = DPO()
    before = reset_peak()
    reference = reference_scores(model, rows, batch_tokens=1024).log_probability.reshape(-1, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    clock, first = Clock(), 0.0
    for _ in range(steps):
        clock.begin()
        scores = response_scores(model, rows, shared_prefix=case["shared"]).log_probability.reshape(-1, 2)
        objective(*scores.unbind(1), reference_chosen=reference[:, 0], reference_rejected=reference[:, 1]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        clock.end()
        first = first or float(scores[:, 0].detach().mean())
    return {**clock.fastest(), "peak": peak() - before, "chosen": first}


def theirs(case: dict[str, Any], steps: int) -> dict[str, float]:
    """The same of TRL's trainer: from the beginning of a step to its end, as its callbacks see it."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import DPOConfig, DPOTrainer

    clock = Clock()

    class Watch(TrainerCallback):
        chosen = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            clock.begin()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.end()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **__: Any) -> None:
            self.chosen = self.chosen or float((logs or {}).get("logps/chosen", 0.0))

    model, tokenizer = loaded()
    model.train()
    data = Dataset.from_list(texts(case["pairs"], case["prompt"], tokenizer))
    watch = Watch()
    before = reset_peak()
    with tempfile.TemporaryDirectory() as folder:
        trainer = DPOTrainer(
            model=model,
            args=DPOConfig(
                output_dir=folder,
                per_device_train_batch_size=case["pairs"],
                max_steps=steps,
                bf16=False,
                use_cpu=True,
                precompute_ref_log_probs=case["precompute"],
                logging_steps=1,
                report_to=[],
                save_strategy="no",
                disable_tqdm=True,
            ),
            train_dataset=data,
            processing_class=tokenizer,
            callbacks=[watch],
        )
        trainer.train()
    return {**clock.fastest(), "peak": peak() - before, "chosen": watch.chosen}


if __name__ == "__main__":
    wanted = CASES[sys.argv[1]]
    print(json.dumps((ours if wanted["by"] == "nearfar" else theirs)(wanted, int(sys.argv[2]))))
