# SPDX-License-Identifier: Apache-2.0
"""Drives TRL's DPOTrainer on token ids of ours, and times its steps."""

import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer


class _Clock(TrainerCallback):
    """Seconds of each step, and its loss; lets others run after those past the warm-up, untimed."""

    def __init__(self, warm_up: int, between: Callable[[], None]) -> None:
        self.warm_up, self.between = warm_up, between
        self.start = 0.0
        self.seconds: list[float] = []
        self.losses: list[float] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.start = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.seconds.append(time.perf_counter() - self.start)
        if len(self.seconds) > self.warm_up:
            self.between()
        self.start = time.perf_counter()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))


def _pairs(ids: np.ndarray) -> Dataset:
    """Words for tokens `[P, 2, T]`, prompts first; the trainer appends EOS."""
    half = ids.shape[-1] // 2
    text = lambda row: " ".join(f"w{n}" for n in row)  # noqa: E731
    return Dataset.from_list(
        [
            {
                "prompt": text(pair[0, :half]),
                "chosen": " " + text(pair[0, half:-1]) + " ",
                "rejected": " " + text(pair[1, half:-1]) + " ",
            }
            for pair in ids
        ]
    )


def train(
    folder: pathlib.Path,
    ids: np.ndarray,
    steps: tuple[int, int],
    precomputed: bool,
    rate: float,
    beta: float,
    between: Callable[[], None],
) -> tuple[list[float], list[float]]:
    """Trains on one batch `[P, 2, T]` again and again.

    Args:
      folder: the model and its tokenizer.
      ids: the tokens of pairs, prompts first.
      steps: of the warm-up, and those after it.
      precomputed: whether the reference is asked once, before training.
      rate: of AdamW.
      beta: of DPO.
      between: called after each step past the warm-up, outside of what is timed.

    Returns:
      seconds of the steps past the warm-up, and the losses of all.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    clock = _Clock(steps[0], between)
    with tempfile.TemporaryDirectory() as out:
        trainer = DPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
            args=DPOConfig(
                output_dir=out,
                per_device_train_batch_size=len(ids),
                max_steps=sum(steps),
                learning_rate=rate,
                lr_scheduler_type="constant",
                max_grad_norm=1.0,
                beta=beta,
                max_length=ids.shape[-1],
                precompute_ref_log_probs=precomputed,
                logging_steps=1,
                save_strategy="no",
                report_to=[],
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                disable_tqdm=True,
            ),
            train_dataset=_pairs(ids),
            processing_class=tokenizer,
            callbacks=[clock],
        )
        batch = next(iter(trainer.get_train_dataloader()))
        if batch["input_ids"].shape != (2 * len(ids), ids.shape[-1]):
            raise ValueError(f"TRL made rows of {batch['input_ids'].shape}")
        trainer.train()
    return clock.seconds[steps[0] :], clock.losses
