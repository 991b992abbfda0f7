"""A run that is killed goes on as if nothing had happened: proves that SIGKILL at any instant, followed
by `amc run --resume auto`, leads to the bits of a run that was never interrupted, and never leaves an unreadable
checkpoint.

A LoRA run of 40 steps, shuffled, with dropout, validation and pruning of old checkpoints, is killed again and again
until it ends, over as many runs as it takes to kill 50 times. Every other kill waits after its random instant for the
next checkpoint to be begun, and comes at a random instant of its writing and publishing. Compared are all files of the
checkpoint directory (adapter, optimizer state, losses, links) and, of the journals, all that does not measure the
machine.
"""

import json
import random
import re
import shutil
import signal
import subprocess
import time

from common import arguments, call, contents, expect, expect_same, ok, overrides, say, token_rows, write_token_file

from safetensors import SafetensorError, safe_open

KILLS, SEED = 50, 20260101
STEPS, ROWS, LENGTH = 40, 2, 16
# Seconds that a checkpoint takes, generously.
SAVING = 0.3
SETTINGS = {
    "model.torch_dtype": "bfloat16",
    "peft.dropout": 0.1,
    "amc.initial_adapter": "none",
    "dataloader.shuffle": "true",
    "validation_dataset._target_": "amc.datasets.TokenFile",
    "validation_dataset.limit_dataset_samples": ROWS,
    "step_scheduler.ckpt_every_steps": 3,
    "checkpoint.enabled": "true",
    "checkpoint.checkpoint_dir": "checkpoints",
    "checkpoint.max_recent_checkpoints": 2,
}


def main():
    given = arguments(__doc__)
    compile_recipe(given)
    reference, seconds = uninterrupted(given)
    say(f"never interrupted: {STEPS} steps in {seconds:.1f} s; now kills at random instants (seed {SEED})")
    instants, kills, runs, torn = random.Random(SEED), 0, 0, 0
    while kills < KILLS:
        runs += 1
        folder, after = given.work / f"run_{runs}", []
        folder.mkdir()
        while kills < KILLS:
            saving = instants.uniform(0, SAVING) if kills % 2 else None
            if not killed(given, folder, instants.uniform(0, seconds / 4), saving):
                break
            kills += 1
            torn += check_checkpoints(folder / "checkpoints")
            after.append(steps_done(folder / "checkpoints"))
        call(given.amc, "run", given.work / "artifact", "--resume", "auto", cwd=folder)
        expect_same(contents(folder), reference, folder)
        shutil.rmtree(folder)
        say(f"run {runs}: killed after {after} steps, the same bits; {kills} kills in all")
    say(f"{kills} kills in {runs} runs, {torn} of them left a checkpoint half written or half removed")
    ok()


def compile_recipe(given):
    """Paths are absolute but for the checkpoints', which lie where a run is started."""
    tokens = given.work / "tokens.jsonl"
    write_token_file(tokens, token_rows(given.model, STEPS * ROWS, LENGTH))
    model = {"model.pretrained_model_name_or_path": given.model}
    data = {"dataset.path": tokens, "validation_dataset.path": tokens}
    recipe = "recipes/bench/smollm2_135m_lora.yaml"
    call(given.amc, "compile", recipe, "-o", given.work / "artifact", *overrides(SETTINGS | model | data))


def uninterrupted(given):
    """What a run leaves that nobody kills, and how long it takes."""
    folder = given.work / "reference"
    folder.mkdir()
    start = time.monotonic()
    call(given.amc, "run", given.work / "artifact", cwd=folder)
    seconds, left = time.monotonic() - start, contents(folder)
    expect(steps_done(folder / "checkpoints") == STEPS, folder, f"{steps_done(folder / 'checkpoints')} steps", STEPS)
    saved = {name.split("/")[1] for name in left if name.endswith("/state.json")}
    expect(len(saved) in (2, 3), folder, f"the checkpoints {saved}", "the last two and the best")
    return left, seconds


def killed(given, folder, seconds, saving):
    """Starts or resumes a run and kills it after `seconds` and, where given, `saving` seconds after the next checkpoint
    is begun; whether the run was still going then."""
    with open(given.work / "run.log", "w") as log:
        words = [given.amc, "run", given.work / "artifact", "--resume", "auto"]
        run = subprocess.Popen(words, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        wait_while(run, lambda until=time.monotonic() + seconds: time.monotonic() < until)
        if saving is not None:
            wait_while(run, lambda: not any((folder / "checkpoints").glob("*.reserving-*")))
            time.sleep(saving)
        run.kill()
        status = run.wait()
    where = f"{folder}, see {given.work}/run.log"
    expect(status in (0, -signal.SIGKILL), where, f"exit status {status}", "0 or killed")
    return status != 0


def wait_while(run, condition):
    while run.poll() is None and condition():
        time.sleep(0.001)


def check_checkpoints(folder):
    """Reads every checkpoint that the kill left; whether there are remains of others."""
    remains = False
    for path in folder.iterdir() if folder.exists() else []:
        if path.is_symlink():
            expect((path / "state.json").is_file(), path, f"a link to {path.readlink()}", "a checkpoint")
        elif ".reserving-" in path.name or ".deleting-" in path.name:
            remains = True
        elif path.is_dir():
            expect(re.fullmatch(r"epoch_\d+_step_\d+", path.name), path, "an odd name", "a checkpoint")
            read_checkpoint(path)
    return remains


def read_checkpoint(folder):
    for name in ["state.json", *json.loads((folder / "state.json").read_text())["files"]]:
        try:
            if name.endswith(".json"):
                json.loads((folder / name).read_text())
            elif name.endswith(".safetensors"):
                with safe_open(folder / name, "np") as file:
                    expect(file.keys(), folder / name, "no tensors", "some")
        except (OSError, ValueError, SafetensorError) as error:
            expect(False, folder / name, error, "a file that can be read")


def steps_done(folder):
    """Whole lines of the journal."""
    journal = folder / "training.jsonl"
    return journal.read_text().count("\n") if journal.exists() else 0


if __name__ == "__main__":
    main()
