"""The two programs that are compared. Each trains in a process of its own, so that its peak memory is its own."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

WORK = Path(".amc/bench")
CHECKPOINTS = WORK / "checkpoints"


@dataclass(frozen=True)
class Block:
    """Some steps in a row."""

    seconds: list[float]
    losses: list[float]
    # Of a GPU's memory; 0 on a CPU.
    gpu_peak: int = 0


class Amc:
    """amc, compiled for a configuration and a text. Every block is a process that trains from the start."""

    def __init__(self, name, configuration, text, arguments, packed=False):
        self.name, self.binary, self.target, self.peak = name, arguments.amc, arguments.target, 0
        self.artifact = WORK / f"artifact-{name.replace(' ', '-')}"
        self.tokens_per_row = text.tokens_per_packed_row(arguments.length) if packed else text.tokens_per_row()
        tokens = WORK / f"tokens-{name.replace(' ', '-')}.jsonl"
        text.write(tokens)
        settings = {
            "model.pretrained_model_name_or_path": arguments.model,
            "model.torch_dtype": configuration.dtype,
            "dataset.path": tokens,
        }
        if packed:
            settings["packed_sequence.packed_sequence_size"] = arguments.length
        else:
            settings["dataloader.collate_fn._target_"] = "default_collater"
            settings["dataloader.collate_fn.pad_seq_len_divisible"] = arguments.length
        self.planned = self.compile(f"recipes/bench/smollm2_135m_{configuration.mode}.yaml", settings)

    def compile(self, recipe, settings):
        """Planned bytes."""
        shutil.rmtree(self.artifact, ignore_errors=True)
        words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        command = [self.binary, "compile", recipe, "-o", self.artifact, "--target", self.target, *words]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        sys.stderr.write(said)
        planned = re.search(r"([\d.]+) MiB in all", said)
        return float(planned[1]) * 2**20 if planned else sys.exit(f"amc compile said nothing of MiB in all:\n{said}")

    def block(self, steps):
        shutil.rmtree(CHECKPOINTS, ignore_errors=True)
        command = [self.binary, "run", self.artifact, "--resume", "never", "--steps", str(steps)]
        process = subprocess.Popen(command, stdout=sys.stderr)
        resident = finish(process, "amc run")
        records = [json.loads(line) for line in (CHECKPOINTS / "training.jsonl").read_text().splitlines()]
        if len(records) != steps:
            sys.exit(f"{CHECKPOINTS}/training.jsonl: found {len(records)} steps, wanted {steps}")
        # What a run records of memory is the device's.
        device = round(max(record["mem"] for record in records) * 2**30)
        self.peak = max(self.peak, resident if self.target == "cpu" else device)
        seconds = [record["num_tokens_per_step"] / record["tps"] for record in records]
        return Block(seconds, [record["loss"] for record in records])


class Peer:
    """PyTorch, in a worker that stays for the configuration; a block goes on from where the last one ended."""

    def __init__(self, configuration, text, rows, arguments):
        self.tokens_per_row = text.tokens_per_row()
        answer = self.start({
            "model": str(arguments.model),
            "mode": configuration.mode,
            "rank": 8,
            "dtype": configuration.dtype,
            "attention": "sdpa",
            "compiled": configuration.compiled,
            "checkpointing": False,
            "device": device(arguments.target),
            "adapter": str(WORK / "adapter"),
            "ids": text.ids,
            "labels": text.labels,
            "rows": rows,
            "length": arguments.length,
        })
        if answer is not None:
            sys.exit(f"PyTorch: {answer}")

    def start(self, told):
        """Nothing, or why there is no model."""
        self.peak = 0
        command = [sys.executable, Path(__file__).with_name("worker.py")]
        self.worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self.ask(told)

    def ask(self, question):
        print(json.dumps(question), file=self.worker.stdin, flush=True)
        answer = self.worker.stdout.readline()
        return json.loads(answer) if answer else sys.exit("the PyTorch worker ended early; see what it wrote above")

    def block(self, steps):
        """Fewer steps, perhaps none, once the worker has spent its budget."""
        answer = self.ask(steps)
        return Block(*answer) if isinstance(answer, list) else sys.exit(f"PyTorch: {answer}")

    def finish(self, block):
        """Ends the worker, whose last block that was."""
        self.worker.stdin.close()
        resident = finish(self.worker, "the PyTorch worker")
        self.peak = block.gpu_peak or resident


def device(target):
    """PyTorch's name of what amc compiles for."""
    return "cuda" if target.startswith("cuda") else "cpu"


def finish(process, name):
    """Waits for a process; its peak resident bytes."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{name} ended with exit status {process.returncode}")
    return usage.ru_maxrss * 1024
