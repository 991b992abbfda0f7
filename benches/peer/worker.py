"""The PyTorch side of peer.py: a process that is told what to train, then asked for blocks of steps.

Every line of standard input is a question in JSON, every line of standard output its answer: first what sides.Peer or
large.py writes, answered by null when the model is ready (a new LoRA adapter is saved then, from where amc starts too); then
a number of steps, answered by the seconds and the losses of steps over the first rows, and by the peak bytes of a GPU's
memory so far (0 on a CPU). What does not fit into a GPU's memory is answered by a sentence.
"""

import json
import os
import sys
import time
from types import SimpleNamespace

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

# After so many seconds of steps no block goes on, though none ends before two steps.
BUDGET = 300
LEARNING_RATE, MAX_NORM = 1e-4, 1.0
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def main():
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    questions = map(json.loads, sys.stdin)
    try:
        training = Training(SimpleNamespace(**next(questions)))
        answer(None)
        for steps in questions:
            answer(training.block(steps))
    except torch.OutOfMemoryError as error:
        answer(f"out of memory: {str(error).splitlines()[0]}")


def answer(value):
    print(json.dumps(value), flush=True)


class Training:
    def __init__(self, told):
        torch.manual_seed(0)
        self.device = told.device
        model = load(told)
        model.config.use_cache = False
        if told.checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        if told.mode == "lora":
            lora = LoraConfig(r=told.rank, lora_alpha=32, lora_dropout=0.0, target_modules=PROJECTIONS)
            model = get_peft_model(model, lora)
            model.save_pretrained(told.adapter)
        model.train()
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=LEARNING_RATE)
        self.model = torch.compile(model) if told.compiled else model
        self.batches = [{key: value.to(told.device) for key, value in batch.items()} for batch in batches(told)]
        self.spent, self.steps = 0.0, 0

    def block(self, steps):
        """Seconds and losses of that many steps, or of fewer once the budget is spent, and the GPU's peak."""
        seconds, losses = [], []
        for batch in self.batches[:steps]:
            if self.spent > BUDGET and self.steps >= 2:
                break
            start = time.perf_counter()
            losses.append(self.step(batch))
            seconds.append(time.perf_counter() - start)
            self.spent += seconds[-1]
            self.steps += 1
        peak = torch.cuda.max_memory_allocated() if self.device == "cuda" else 0
        return seconds, losses, peak

    def step(self, batch):
        loss = self.model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, MAX_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.device == "cuda":
            torch.cuda.synchronize()
        return loss.item()


def load(told):
    """The model on its device: a checkpoint, or of a config alone with weights drawn at random."""
    if told.model:
        model = AutoModelForCausalLM.from_pretrained(told.model, dtype=told.dtype, attn_implementation=told.attention)
        return model.to(told.device)
    config, dtype = AutoConfig.from_pretrained(told.config), getattr(torch, told.dtype)
    with torch.device(told.device):
        return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=told.attention)


def batches(told):
    """The arguments of every step, rows filled up with tokens that are masked where any is short."""
    def filled(rows, value):
        return torch.tensor([row + [value] * (told.length - len(row)) for row in rows])

    for first in range(0, len(told.ids), told.rows):
        ids, labels = (rows[first:first + told.rows] for rows in (told.ids, told.labels))
        batch = {"input_ids": filled(ids, 0), "labels": filled(labels, -100)}
        if any(len(row) < told.length for row in told.ids):
            batch["attention_mask"] = filled([[1] * len(row) for row in ids], 0)
        yield batch


if __name__ == "__main__":
    main()
