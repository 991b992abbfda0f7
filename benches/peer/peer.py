"""peer.py --amc BINARY --model FOLDER [--target T] [--data FILE] [--masked] [--length N] [--only TEXT]: amc beside PyTorch.

Both sides train the same model on the same tokens with the same optimizer from the same initial adapter, on all cores of
one machine. They take turns in short blocks of steps, so that a drift of the machine meets both. Prints for every
configuration

    peer lora bf16 torch.compile: amc 900.1 tok/s, peer 403.2 tok/s, ratio 2.23 (spread 4 %, 7 pairs)
    losses lora bf16 torch.compile: max difference 0.0021 over 10 steps
    memory lora bf16 torch.compile: amc 765 MiB (696 planned), peer 2650 MiB, ratio 0.29

A step is a forward and backward pass over 2 rows of 512 tokens, clipping and AdamW. What counts of a block is its median
step. Tokens a second are medians over the blocks, the ratio is the median over pairs of blocks side by side, the spread
the distance between the quartiles of these. Memory is the peak that was resident in each process. With a target such as
cuda:sm_90a both sides train on the GPU, and memory is the peak of its own.

With --masked only answers have labels, and amc is measured on all labels as well. In the configuration `padded` a row is
one question with its answer, filled up to 512 tokens, and amc is measured with as many of them packed into a row as fit,
too; no padding is counted as tokens. These add lines such as

    amc lora f32 packed: 171.0 tok/s, 2.41 x padded (spread 2 %, 7 pairs)

PyTorch has no fast bf16 on CPUs without AVX-512, where a step takes minutes: see BUDGET in worker.py.
"""

import argparse
import os
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

from sides import WORK, Amc, Peer
from text import continuous, documents, one_a_row

ROWS, LENGTH = 2, 512
# Steps of the first block, whose losses are compared, and of the others; the first steps of a block do not count.
COMPARED, SHORT, WARMUP = 10, 3, 1
PAIRS = 7
# Documents of the padded configuration: enough for COMPARED steps once they are packed.
DOCUMENTS = 128


@dataclass(frozen=True)
class Configuration:
    mode: str
    dtype: str
    compiled: bool
    padded: bool = False

    def model(self):
        return f"{self.mode} {'f32' if self.dtype == 'float32' else 'bf16'}"

    def __str__(self):
        return f"{self.model()} {'padded' if self.padded else 'torch.compile' if self.compiled else 'eager'}"


CONFIGURATIONS = [
    Configuration("lora", "float32", compiled=False),
    Configuration("lora", "float32", compiled=True),
    Configuration("lora", "bfloat16", compiled=False),
    Configuration("lora", "bfloat16", compiled=True),
    Configuration("sft", "float32", compiled=False),
    Configuration("sft", "bfloat16", compiled=True),
    Configuration("lora", "float32", compiled=False, padded=True),
]


def main():
    arguments = parse_arguments()
    WORK.mkdir(parents=True, exist_ok=True)
    chosen = [configuration for configuration in CONFIGURATIONS if arguments.only in str(configuration)]
    if not chosen:
        sys.exit(f"--only {arguments.only}: found no such configuration, wanted a part of one of: "
                 + ", ".join(map(str, CONFIGURATIONS)))
    for configuration in chosen:
        compare(configuration, arguments)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--amc", required=True, help="the amc binary")
    parser.add_argument("--model", type=Path, required=True, help="folder of SmolLM2-135M-Instruct")
    parser.add_argument("--target", default="cpu", help="what amc compiles for: cpu, or cuda:sm_80 or cuda:sm_90a")
    parser.add_argument("--data", type=Path, default=os.environ.get("AMC_GSM8K", "recipes/data/oskerra_train.jsonl"),
                        help="JSON lines of question and answer; default $AMC_GSM8K, else the sample data")
    parser.add_argument("--masked", action="store_true", help="labels on the answers only")
    parser.add_argument("--length", type=int, default=LENGTH, help="tokens of a row")
    parser.add_argument("--only", default="", help="run the configurations whose name contains this")
    return parser.parse_args()


def compare(configuration, arguments):
    text = rows(configuration, arguments, arguments.masked)
    peer = Peer(configuration, text, ROWS, arguments)  # before amc, which starts from the adapter that it writes
    sides = amc_sides(configuration, text, arguments)
    pairs = []
    for steps in [COMPARED] + [SHORT] * (PAIRS - 1):
        blocks = [side.block(steps) for side in (*sides, peer)]
        if not blocks[-1].seconds:
            break
        pairs.append(blocks)
    peer.finish(pairs[-1][-1])
    report(configuration, pairs, sides, peer)


def rows(configuration, arguments, masked):
    text = documents(arguments.data, arguments.model, masked)
    if configuration.padded:
        return one_a_row(text, DOCUMENTS, arguments.length)
    return continuous(text, COMPARED * ROWS, arguments.length)


def amc_sides(configuration, text, arguments):
    """The first does what PyTorch does; the others are compared with it."""
    masked, padded = arguments.masked, configuration.padded
    sides = [Amc("padded" if padded else "masked" if masked else "amc", configuration, text, arguments)]
    if padded:
        sides.append(Amc("packed", configuration, text, arguments, packed=True))
    if masked:
        sides.append(Amc("all labels", configuration, rows(configuration, arguments, masked=False), arguments))
    return sides


# ---- what is printed -------------------------------------------------------------------------------------------------


def report(configuration, pairs, sides, peer):
    (amc, *others), blocks = sides, list(zip(*pairs))
    rates = [[rate(side, block) for block in column] for side, column in zip((*sides, peer), blocks)]
    say(f"peer {configuration}", f"amc {middle(rates[0])}, peer {middle(rates[-1])}, ratio {ratio(rates[0], rates[-1])}")
    for side, own in zip(others, rates[1:]):
        say(f"amc {configuration.model()} {side.name}", f"{middle(own)}, {ratio(own, rates[0], f' x {amc.name}')}")
    apart = [abs(a - b) for a, b in zip(blocks[0][0].losses, blocks[-1][0].losses)]
    say(f"losses {configuration}", f"max difference {max(apart):.4f} over {len(apart)} steps")
    amc_peak, planned, peer_peak = (bytes / 2**20 for bytes in (amc.peak, amc.planned, peer.peak))
    say(f"memory {configuration}", f"amc {amc_peak:.0f} MiB ({planned:.0f} planned), peer {peer_peak:.0f} MiB, "
        f"ratio {amc_peak / peer_peak:.2f}")


def rate(side, block):
    """Tokens a second."""
    steady = block.seconds[min(WARMUP, len(block.seconds) - 1):]
    return ROWS * side.tokens_per_row / statistics.median(steady)


def middle(rates):
    return f"{statistics.median(rates):.1f} tok/s"


def ratio(rates, others, unit=""):
    ratios = [own / other for own, other in zip(rates, others)]
    median = statistics.median(ratios)
    lower, _, upper = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else 3 * ratios
    spread = (upper - lower) / median
    return f"{median:.2f}{unit} (spread {spread * 100:.0f} %, {len(ratios)} pairs)"


def say(name, text):
    print(f"{name}: {text}", flush=True)


if __name__ == "__main__":
    main()
