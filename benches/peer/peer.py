"""peer.py --amc BINARY --model FOLDER [--data FILE] [--only SUBSTRING]: tokens a second of amc beside PyTorch.

Both sides train the same model on the same tokens with the same optimizer from the same initial adapter, on all cores of
one machine, in alternating blocks of steps, so that a drift of the machine meets both. Prints for every configuration

    peer lora bf16 torch.compile: amc 900.1 tok/s, peer 403.2 tok/s, ratio 2.23
    losses lora bf16 torch.compile: max difference 0.0021 over 10 steps

A step is a forward and backward pass over 2 rows of 512 tokens, clipping and AdamW. The figures are medians over all
steps but the first two of every block. PyTorch has no fast bf16 on CPUs without AVX-512, where a step takes minutes: its
side stops after BUDGET seconds a configuration, though not before two steps.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

ROWS, LENGTH = 2, 512
BLOCKS, STEPS, WARMUP = 3, 12, 2
COMPARED = 10
BUDGET = 300
LEARNING_RATE, MAX_NORM = 1e-4, 1.0
WORK = Path(".amc/bench")
ADAPTER = WORK / "adapter"
TOKENS = WORK / "tokens.jsonl"
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class Configuration:
    mode: str
    dtype: str
    compiled: bool

    def __str__(self):
        short = {"float32": "f32", "bfloat16": "bf16"}[self.dtype]
        return f"{self.mode} {short} {'torch.compile' if self.compiled else 'eager'}"


CONFIGURATIONS = [
    Configuration("lora", "float32", compiled=False),
    Configuration("lora", "float32", compiled=True),
    Configuration("lora", "bfloat16", compiled=False),
    Configuration("lora", "bfloat16", compiled=True),
    Configuration("sft", "bfloat16", compiled=True),
]


def main():
    arguments = parse_arguments()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    rows = token_rows(AutoTokenizer.from_pretrained(arguments.model), arguments.data)
    WORK.mkdir(parents=True, exist_ok=True)
    write_token_file(rows)
    for configuration in CONFIGURATIONS:
        if arguments.only in str(configuration):
            compare(configuration, rows, arguments)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--amc", required=True, help="the amc binary")
    parser.add_argument("--model", required=True, help="folder of SmolLM2-135M-Instruct")
    parser.add_argument("--data", default=os.environ.get("AMC_GSM8K", "recipes/data/oskerra_train.jsonl"),
                        help="JSON lines of question and answer; default $AMC_GSM8K, else the sample data")
    parser.add_argument("--only", default="", help="run the configurations whose name contains this")
    return parser.parse_args()


# ---- tokens ----------------------------------------------------------------------------------------------------------


def token_rows(tokenizer, path):
    """The first STEPS * ROWS rows of LENGTH tokens of all questions and answers, one after another."""
    wanted, ids = STEPS * ROWS * LENGTH, []
    with open(path) as lines:
        for line in lines:
            question, answer = question_and_answer(json.loads(line))
            ids += tokenizer(question + "\n").input_ids + tokenizer(answer).input_ids + [tokenizer.eos_token_id]
            if len(ids) >= wanted:
                return torch.tensor(ids[:wanted]).view(STEPS, ROWS, LENGTH)
    sys.exit(f"{path}: found {len(ids)} tokens, wanted at least {wanted}")


def question_and_answer(row):
    if "answers" in row:
        return f"{row['context']} {row['question']}", row["answers"]["text"][0]
    return row["question"], row["answer"]


def write_token_file(rows):
    """Labels are already the next token; the last position of a row has none, as in transformers' own shift."""
    with open(TOKENS, "w") as file:
        for ids in rows.view(-1, LENGTH).tolist():
            file.write(json.dumps({"input_ids": ids, "labels": ids[1:] + [-100]}) + "\n")


# ---- one configuration -----------------------------------------------------------------------------------------------


def compare(configuration, rows, arguments):
    peer = Peer(configuration, arguments.model)
    artifact = compile_recipe(configuration, arguments)
    amc_seconds, peer_seconds, amc_losses, peer_losses = [], [], [], []
    for _ in range(BLOCKS):
        seconds, losses = amc_block(artifact, arguments.amc)
        amc_seconds += steady(seconds)
        amc_losses += losses
        seconds, losses = peer.block(rows)
        peer_seconds += steady(seconds)
        peer_losses += losses
    amc, other = (ROWS * LENGTH / statistics.median(seconds) for seconds in (amc_seconds, peer_seconds))
    print(f"peer {configuration}: amc {amc:.1f} tok/s, peer {other:.1f} tok/s, ratio {amc / other:.2f}")
    apart = [abs(a - b) for a, b in zip(amc_losses[:COMPARED], peer_losses[:COMPARED])]
    print(f"losses {configuration}: max difference {max(apart):.4f} over {len(apart)} steps", flush=True)


def steady(seconds):
    return seconds[min(WARMUP, len(seconds) - 1):]


class Peer:
    """The PyTorch side. A new LoRA adapter is saved to ADAPTER, from where amc starts too."""

    def __init__(self, configuration, folder):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=configuration.dtype, attn_implementation="sdpa")
        model.config.use_cache = False
        if configuration.mode == "lora":
            model = get_peft_model(model, LoraConfig(r=8, lora_alpha=32, lora_dropout=0.0, target_modules=PROJECTIONS))
            model.save_pretrained(ADAPTER)
        model.train()
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=LEARNING_RATE)
        self.model = torch.compile(model) if configuration.compiled else model
        self.spent, self.steps = 0.0, 0

    def block(self, rows):
        """Seconds and loss of every step of one pass over the rows; of none once the budget is spent."""
        seconds, losses = [], []
        for batch in rows:
            if self.spent > BUDGET and self.steps >= 2:
                break
            start = time.perf_counter()
            loss = self.model(input_ids=batch, labels=batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.trained, MAX_NORM)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            losses.append(loss.item())
            seconds.append(time.perf_counter() - start)
            self.spent += seconds[-1]
            self.steps += 1
        return seconds, losses


def compile_recipe(configuration, arguments):
    artifact = WORK / "artifact"
    shutil.rmtree(artifact, ignore_errors=True)
    recipe = f"recipes/bench/smollm2_135m_{configuration.mode}.yaml"
    overrides = {"model.pretrained_model_name_or_path": arguments.model, "model.torch_dtype": configuration.dtype}
    settings = [word for key, value in overrides.items() for word in ("--set", f"{key}={value}")]
    subprocess.run([arguments.amc, "compile", recipe, "-o", artifact, *settings], check=True, stdout=sys.stderr)
    return artifact


def amc_block(artifact, amc):
    """Seconds and loss of every step of one run from the start, as amc wrote them down."""
    checkpoints = WORK / "checkpoints"
    shutil.rmtree(checkpoints, ignore_errors=True)
    subprocess.run([amc, "run", artifact, "--resume", "never"], check=True, stdout=sys.stderr)
    steps = [json.loads(line) for line in (checkpoints / "training.jsonl").read_text().splitlines()]
    if len(steps) != STEPS:
        sys.exit(f"{checkpoints}/training.jsonl: found {len(steps)} steps, wanted {STEPS}")
    return [step["num_tokens_per_step"] / step["tps"] for step in steps], [step["loss"] for step in steps]


if __name__ == "__main__":
    main()
