"""large.py --amc BINARY [--target T] [--only SUBSTRING] …: LoRA on a model of Llama-3-8B's shape, on a GPU, beside PyTorch.

Weights and tokens are drawn at random, so only speed and memory mean something. Both sides train adapters of rank 16 on
all linear layers, in bfloat16, two rows of 4096 tokens a step, with clipping and AdamW. PyTorch is transformers with PEFT:
its own attention (sdpa), and FlashAttention 2 where that package is there, each as it is and through torch.compile. What
does not fit into the GPU's memory runs once more with activations computed again, and says so. Prints

    large sdpa torch.compile: amc 15000.0 tok/s, peer 10000.0 tok/s, ratio 1.50 (spread 2 %, 3 pairs); memory amc 30.10 GiB
    (30.00 planned), peer 60.20 GiB
    large: the best of PyTorch is sdpa torch.compile, ratio 1.50

Both take turns in blocks of steps, as in peer.py. --config, --length, --rank and --target cpu make it small, to try it out.
"""

import argparse
import importlib.util
import random
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

from peer import middle, rate, ratio, say
from sides import WORK, Amc, Peer, device
from text import Text

ROWS = 2
FIRST, SHORT = 6, 4
PAIRS = 3
RECIPE = "recipes/bench/llama3_8b_lora.yaml"


@dataclass(frozen=True)
class Configuration:
    attention: str
    compiled: bool

    def __str__(self):
        return f"{self.attention} {'torch.compile' if self.compiled else 'eager'}"


def configurations():
    flash = ["flash_attention_2"] if importlib.util.find_spec("flash_attn") else []
    return [Configuration(attention, compiled) for attention in ["sdpa", *flash] for compiled in (False, True)]


class Large(Amc):
    """amc on the recipe's own mock data, which has as many tokens."""

    def __init__(self, arguments):
        self.name, self.binary, self.target, self.peak = "large", arguments.amc, arguments.target, 0
        self.artifact, self.tokens_per_row = WORK / "artifact-large", arguments.length
        self.planned = self.compile(RECIPE, {
            "model.config.pretrained_model_name_or_path": arguments.config,
            "dataset.seq_len": arguments.length,
            "dataset.vocab_size": arguments.vocabulary,
            "peft.dim": arguments.rank,
            "checkpoint.checkpoint_dir": WORK / "checkpoints",
        })


class LargePeer(Peer):
    def __init__(self, configuration, text, arguments):
        self.tokens_per_row = arguments.length
        told = {
            "model": None,
            "config": str(arguments.config),
            "mode": "lora",
            "rank": arguments.rank,
            "dtype": "bfloat16",
            "attention": configuration.attention,
            "compiled": configuration.compiled,
            "device": device(arguments.target),
            "adapter": str(WORK / "adapter-large"),
            "ids": text.ids,
            "labels": text.labels,
            "rows": ROWS,
            "length": arguments.length,
        }
        for self.checkpointing in (False, True):
            answer = self.start({**told, "checkpointing": self.checkpointing})
            # The first step touches all memory.
            answer = answer or self.ask(1)
            if isinstance(answer, list):
                return
            print(f"{configuration}: {answer}", file=sys.stderr)
            self.worker.stdin.close()
            self.worker.wait()
        sys.exit(f"{configuration}: does not fit into the GPU's memory, not even with activations computed again")


def main():
    arguments = parse_arguments()
    WORK.mkdir(parents=True, exist_ok=True)
    chosen = [configuration for configuration in configurations() if arguments.only in str(configuration)]
    if not chosen:
        sys.exit(f"--only {arguments.only}: found no such configuration, wanted a part of one of: "
                 + ", ".join(map(str, configurations())))
    amc = Large(arguments)
    text = tokens(arguments)
    found = [(compare(configuration, amc, text, arguments), str(configuration)) for configuration in chosen]
    least, name = min(found)
    say("large", f"the best of PyTorch is {name}, ratio {least:.2f}")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--amc", required=True, help="the amc binary")
    parser.add_argument("--target", default="cuda:sm_90a", help="what amc compiles for")
    parser.add_argument("--config", type=Path, default=Path("recipes/bench/llama3_8b"), help="folder of a model's config")
    parser.add_argument("--vocabulary", type=int, default=128256, help="tokens of the model's vocabulary")
    parser.add_argument("--length", type=int, default=4096, help="tokens of a row")
    parser.add_argument("--rank", type=int, default=16, help="of the adapters")
    parser.add_argument("--only", default="", help="run the configurations whose name contains this")
    return parser.parse_args()


def tokens(arguments):
    drawn = random.Random(0)
    rows = [[drawn.randrange(arguments.vocabulary) for _ in range(arguments.length)] for _ in range(FIRST * ROWS)]
    return Text(rows, rows)


def compare(configuration, amc, text, arguments):
    """The median ratio of tokens a second."""
    peer = LargePeer(configuration, text, arguments)
    pairs = [(amc.block(steps), peer.block(steps)) for steps in [FIRST] + [SHORT] * (PAIRS - 1)]
    peer.finish(pairs[-1][1])
    ours, theirs = ([rate(side, block) for block in column] for side, column in zip((amc, peer), zip(*pairs)))
    again = ", activations computed again" if peer.checkpointing else ""
    peaks = [bytes / 2**30 for bytes in (amc.peak, amc.planned, peer.peak)]
    say(f"large {configuration}", f"amc {middle(ours)}, peer {middle(theirs)}{again}, ratio {ratio(ours, theirs)}; "
        f"memory amc {peaks[0]:.2f} GiB ({peaks[1]:.2f} planned), peer {peaks[2]:.2f} GiB")
    return statistics.median(own / other for own, other in zip(ours, theirs))


if __name__ == "__main__":
    main()
