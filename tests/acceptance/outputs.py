"""What amc writes is what transformers and PEFT read: proves that the base model, a LoRA adapter and a fully tuned
model, float32 and bfloat16, mean the same to amc and to Hugging Face.

Of every model: the logits behind each token of some prompts (amc's from `amc generate --logits`) differ by at most
1e-4, the 32 greedy tokens that follow are the same text, and the validation loss that the compiled training code found
agrees with transformers' on the same tokens. PyTorch computes in float64 from the weights as they are stored, so that
none of its own rounding is in the figures (how much there is in float32 is printed). `amc generate` computes in float32
whatever is stored; only the training code computes in bfloat16, so the loss alone is given bfloat16's tolerance.

A tuned model is saved in the dtypes of the model that it began from, so float32 begins from a copy in float32.
"""

import json
import shutil

from common import arguments, call, expect, ok, overrides, say, token_rows, write_token_file

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

PROMPTS = [
    "The capital of France is",
    "def fibonacci(n):\n    ",
    "Question: How many people live on the island of Oskerra, and what do they do in winter when the harbour is frozen "
    "and the ferry cannot come? Answer:",
]
NEW_TOKENS = 32
LOGITS = 1e-4
LOSS = {"float32": 1e-4, "bfloat16": 2e-2}
# Enough to move every logit, not so much as to forget how to speak.
LEARNING_RATE = {"lora": 1e-3, "sft": 5e-5}
STEPS, ROWS, LENGTH = 6, 2, 64
VALIDATION_ROWS = 4


def main():
    given = arguments(__doc__)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    rows = token_rows(given.model, STEPS * ROWS + VALIDATION_ROWS, LENGTH)
    training, validation = rows[:-VALIDATION_ROWS], rows[-VALIDATION_ROWS:]
    write_token_file(given.work / "training.jsonl", training)
    write_token_file(given.work / "validation.jsonl", validation)
    say_rounding(given.model)
    bases = {"bfloat16": given.model, "float32": float32_copy(given.model, given.work / "float32")}
    untuned = compare_generation("base", given, [given.model], load(given.model, "bfloat16"))
    for mode in "lora", "sft":
        for dtype, base in bases.items():
            name = f"{mode} {dtype}"
            folder, loss = train(mode, dtype, base, given)
            if mode == "lora":
                theirs = PeftModel.from_pretrained(load(base, dtype), folder).double().eval()
                words = [base, "--adapter", folder]
            else:
                theirs, words = load(folder, dtype), [folder]
            tuned = compare_generation(name, given, words, theirs)
            moved = max(float((a - b).abs().max()) for a, b in zip(tuned, untuned))
            expect(moved > 0.1, f"{name}: how far training moved the logits", moved, "more than 0.1")
            compare_loss(name, loss, theirs, validation, LOSS[dtype])
    ok()


def float32_copy(model, folder):
    """The same model, stored in float32."""
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("*.safetensors", ".cache"))
    tensors = {name: tensor.float() for name, tensor in load_file(model / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def load(folder, dtype):
    """A model in float64, whose every weight came from the folder, where they are stored as `dtype`."""
    stored = {str(tensor.dtype) for file in folder.glob("*.safetensors") for tensor in load_file(file).values()}
    expect(stored == {f"torch.{dtype}"}, folder, f"weights of {stored}", dtype)
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, output_loading_info=True)
    odd = {kind: keys for kind, keys in info.items() if keys}
    expect(not odd, folder, odd, "exactly the tensors of the model")
    return model.eval()


@torch.no_grad()
def say_rounding(folder):
    """How far PyTorch's own float32 is from its float64: what no float32 program can be held to be better than."""
    dtypes = torch.float32, torch.float64
    single, double = (AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval() for dtype in dtypes)
    ids = [AutoTokenizer.from_pretrained(folder)(prompt, return_tensors="pt") for prompt in PROMPTS]
    apart = [float((single(**i).logits - double(**i).logits).abs().max()) for i in ids]
    say(f"PyTorch's logits in float32 and float64: within {', '.join(f'{most:.1e}' for most in apart)}")


def train(mode, dtype, base, given):
    """Trains; returns the folder for Hugging Face and the last validation loss."""
    folder = given.work / f"{mode}_{dtype}"
    settings = {
        "model.pretrained_model_name_or_path": base,
        "model.torch_dtype": dtype,
        "dataset.path": given.work / "training.jsonl",
        "validation_dataset._target_": "amc.datasets.TokenFile",
        "validation_dataset.path": given.work / "validation.jsonl",
        "optimizer.lr": LEARNING_RATE[mode],
        "checkpoint.enabled": "true",
        "checkpoint.checkpoint_dir": folder / "checkpoints",
    }
    if mode == "lora":
        settings["amc.initial_adapter"] = "none"
    recipe = f"recipes/bench/smollm2_135m_{mode}.yaml"
    call(given.amc, "compile", recipe, "-o", folder / "artifact", *overrides(settings))
    call(given.amc, "run", folder / "artifact")
    last = json.loads((folder / "checkpoints/validation.jsonl").read_text().splitlines()[-1])
    found, wanted = last["num_label_tokens"], VALIDATION_ROWS * (LENGTH - 1)
    expect(found == wanted, f"{mode} {dtype}: validation", f"{found} tokens", wanted)
    return folder / "checkpoints/LATEST/model" / ("" if mode == "lora" else "consolidated"), last["val_loss"]


@torch.no_grad()
def compare_generation(name, given, words, theirs):
    """Logits and greedy text of every prompt; returns amc's logits."""
    tokenizer, ours, apart = AutoTokenizer.from_pretrained(words[-1]), [], []
    file = given.work / "logits.safetensors"
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt")
        options = ["--prompt", prompt, "--max-new-tokens", NEW_TOKENS, "--logits", file]
        printed = call(given.amc, "generate", *words, *options)
        ours.append(load_file(file)["logits"])
        wanted = theirs(**ids).logits[0]
        expect(ours[-1].shape == wanted.shape, f"{name}: logits of {prompt!r}", ours[-1].shape, wanted.shape)
        apart.append(float((ours[-1] - wanted).abs().max()))
        tokens = theirs.generate(**ids, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=tokenizer.eos_token_id)
        text = tokenizer.decode(tokens[0, ids.input_ids.shape[1]:], skip_special_tokens=True)
        expect(printed == text + "\n", f"{name}: greedy text behind {prompt!r}", repr(printed), repr(text + "\n"))
    say(f"{name}: greedy text the same, logits within {', '.join(f'{most:.1e}' for most in apart)}")
    expect(max(apart) <= LOGITS, f"{name}: largest difference of the logits", f"{max(apart):.2e}", f"at most {LOGITS}")
    return ours


@torch.no_grad()
def compare_loss(name, found, theirs, rows, tolerance):
    """The mean over rows of equal length is the mean over their tokens."""
    ids = torch.tensor(rows)
    wanted = theirs(input_ids=ids, labels=ids).loss.item()
    say(f"{name}: validation loss {found:.6f}, transformers {wanted:.6f}, {abs(found - wanted):.1e} apart")
    expect(abs(found - wanted) <= tolerance, f"{name}: validation loss", found, f"{wanted} within {tolerance}")


if __name__ == "__main__":
    main()
