"""What the acceptance checks share: the command line, calling amc, rows of tokens, and what a run left on the disk."""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tokenizers import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
NAME = Path(sys.argv[0]).stem
TEXT = ROOT / "recipes/data/oskerra_train.jsonl"
# What a journal says of the machine, not of the training.
OF_THE_MACHINE = {"timestamp", "mem", "tps", "tps_per_gpu", "mfu"}


def arguments(doc):
    """--amc, --model and an empty folder to work in, all absolute."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--amc", type=Path, required=True, help="the amc binary")
    parser.add_argument("--model", type=Path, required=True, help="folder of SmolLM2-135M-Instruct")
    parser.add_argument("--work", type=Path, default=ROOT / ".amc/accept", help="where a folder to work in is made")
    given = parser.parse_args()
    given.amc, given.model, given.work = given.amc.resolve(), given.model.resolve(), given.work.resolve() / NAME
    shutil.rmtree(given.work, ignore_errors=True)
    given.work.mkdir(parents=True)
    return given


def say(text):
    print(text, flush=True)


def expect(true, where, found, wanted):
    if not true:
        sys.exit(f"accept {NAME}: {where}: found {found}, wanted {wanted}")


def ok():
    say(f"accept {NAME}: ok")


def call(*words, cwd=ROOT):
    """Runs a program to its end and returns what it printed."""
    command = [str(word) for word in words]
    done = subprocess.run(command, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    expect(done.returncode == 0, " ".join(command), f"exit status {done.returncode}\n{done.stdout}", "0")
    return done.stdout


def overrides(settings):
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


def token_rows(model, count, length):
    """`count` rows of `length` tokens of the sample data, one question and answer after another."""
    tokenizer, ids = Tokenizer.from_file(str(model / "tokenizer.json")), []
    for row in map(json.loads, TEXT.read_text().splitlines()):
        ids += tokenizer.encode(f"{row['context']} {row['question']} {row['answers']['text'][0]}").ids
    expect(len(ids) >= count * length, TEXT, f"{len(ids)} tokens", count * length)
    return [ids[start:start + length] for start in range(0, count * length, length)]


def write_token_file(path, rows):
    path.write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in rows))


def records(journal):
    """The lines of a journal, without what differs from machine to machine."""
    lines = map(json.loads, journal.read_text().splitlines())
    return [{key: value for key, value in line.items() if key not in OF_THE_MACHINE} for line in lines]


def contents(folder):
    """What a folder holds, by relative path: targets of links, records of journals, hashes of other files."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.suffix == ".jsonl":
            found[name] = records(path)
        elif path.is_file():
            with path.open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def expect_same(found, wanted, where):
    """Two `contents` are the same; else the first paths that differ are named."""
    differ = [name for name in sorted(found.keys() | wanted.keys()) if found.get(name) != wanted.get(name)]
    expect(not differ, where, f"{len(differ)} files that differ: {', '.join(differ[:5])}", "none")
