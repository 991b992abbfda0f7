"""Rows of tokens for both sides, from JSON lines of question and answer."""

import json
import sys
from dataclasses import dataclass
from itertools import chain

from tokenizers import Tokenizer

IGNORED = -100


@dataclass(frozen=True)
class Text:
    """Rows of a step's batches in order. A label is the token at its own position, as transformers wants it."""

    ids: list[list[int]]
    labels: list[list[int]]

    def write(self, path):
        """A token file for amc, where a label is the token that follows; the last position of a row has none."""
        with open(path, "w") as file:
            for ids, labels in zip(self.ids, self.labels):
                file.write(json.dumps({"input_ids": ids, "labels": labels[1:] + [IGNORED]}) + "\n")

    def tokens_per_row(self):
        return sum(map(len, self.ids)) / len(self.ids)

    def tokens_per_packed_row(self, length):
        """With as many rows as fit, in order, into one of `length` tokens."""
        packed, room = 0, 0
        for ids in self.ids:
            if len(ids) > room:
                packed, room = packed + 1, length
            room -= len(ids)
        return sum(map(len, self.ids)) / packed


def documents(path, model, masked):
    """Every question with its answer as a row of its own; with `masked`, only answers have labels."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    end = json.loads((model / "config.json").read_text())["eos_token_id"]
    text = Text([], [])
    for row in map(json.loads, path.read_text().splitlines()):
        question, answer = question_and_answer(row)
        question = tokenizer.encode(question + "\n").ids
        answer = tokenizer.encode(answer).ids + [end]
        text.ids.append(question + answer)
        text.labels.append(([IGNORED] * len(question) if masked else question) + answer)
    return text


def question_and_answer(row):
    if "answers" in row:
        return f"{row['context']} {row['question']}", row["answers"]["text"][0]
    return row["question"], row["answer"]


def continuous(text, rows, length):
    """`rows` rows of `length` tokens, one document after another."""
    ids, labels = (list(chain.from_iterable(parts)) for parts in (text.ids, text.labels))
    if len(ids) < rows * length:
        sys.exit(f"the data holds {len(ids)} tokens, wanted at least {rows * length}: name a larger file with --data")
    starts = range(0, rows * length, length)
    return Text(*([tokens[start:start + length] for start in starts] for tokens in (ids, labels)))


def one_a_row(text, most, length):
    """The first `most` documents that have at most `length` tokens."""
    chosen = [document for document in zip(text.ids, text.labels) if len(document[0]) <= length]
    if len(chosen) < most:
        sys.exit(f"the data holds {len(chosen)} rows of at most {length} tokens, wanted {most}: name a larger file with --data")
    return Text(*map(list, zip(*chosen[:most])))
