"""The same recipe gives the same bits: proves that compiling twice, in two folders, writes identical artifacts, and
that runs with one and with two threads, in either folder, write identical losses and checkpoints (adapter or weights,
and optimizer state). On the way, that compiling SmolLM2 takes under 30 s and 3 GB, and the step of a Llama-3-70B under
30 s and at most three times what the same model takes with 2 layers.
"""

import os
import shutil
import subprocess
import time

from common import ROOT, arguments, call, contents, expect, expect_same, ok, say

SECONDS, BYTES, RATIO = 30, 3e9, 3
RUN_STEPS = 2
RECIPES = ["smollm2_135m_lora", "smollm2_135m_sft"]


def main():
    given = arguments(__doc__)
    folders = [folder_like_the_root(path, given) for path in (given.work / "one", given.work / "another/place/two")]
    for recipe in RECIPES:
        for folder in folders:
            seconds, peak = compile_recipe(given, f"recipes/{recipe}.yaml", folder / recipe, folder)
            say(f"{recipe}: compiled in {seconds:.1f} s, {peak / 1e9:.2f} GB")
            within = seconds < SECONDS and peak < BYTES
            expect(within, recipe, f"{seconds} s, {peak} bytes", f"{SECONDS} s, {BYTES:.0f} bytes")
        artifacts = [contents(folder / recipe) for folder in folders]
        expect_same(*artifacts, f"{recipe}: the second artifact")
        say(f"{recipe}: both artifacts have the same {len(artifacts[0])} files")
        compare_runs(given, recipe, [(folders[0], 1), (folders[0], 2), (folders[1], 2)])
    compile_llama3_70b(given)
    ok()


def folder_like_the_root(folder, given):
    """Recipes name their files relative to where amc is started."""
    (folder / ".amc/models").mkdir(parents=True)
    (folder / "recipes").symlink_to(ROOT / "recipes")
    (folder / ".amc/models/SmolLM2-135M-Instruct").symlink_to(given.model)
    return folder


def compile_recipe(given, recipe, artifact, folder, *words):
    """Seconds, and bytes at the peak."""
    with open(given.work / "compile.log", "w") as log:
        start = time.monotonic()
        command = [given.amc, "compile", recipe, "-o", artifact, *words]
        child = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.monotonic() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    expect(child.returncode == 0, f"{recipe}, see {given.work}/compile.log", f"exit status {child.returncode}", "0")
    return seconds, usage.ru_maxrss * 1024


def compare_runs(given, recipe, runs):
    first = None
    for folder, threads in runs:
        checkpoints = folder / ".amc/checkpoints" / recipe
        call(given.amc, "run", folder / recipe, "--steps", RUN_STEPS, "--threads", threads, cwd=folder)
        left = contents(checkpoints)
        shutil.rmtree(checkpoints)
        first = first or left
        expect(len(left["training.jsonl"]) == RUN_STEPS, checkpoints, left["training.jsonl"], f"{RUN_STEPS} steps")
        expect_same(left, first, f"{recipe}: the checkpoints of {folder} with {threads} threads")
    losses = [step["loss"] for step in first["training.jsonl"]]
    counts = ", ".join(str(threads) for _, threads in runs)
    say(f"{recipe}: runs with {counts} threads left the same {len(first)} files; losses {losses}")


def compile_llama3_70b(given):
    """Best of three each, since these are fractions of a second."""
    def best(layers):
        words = ["--target", "null", "--set", f"model.config.num_hidden_layers={layers}"]
        recipe = "tests/acceptance/llama3_70b.yaml"
        return min(compile_recipe(given, recipe, given.work / f"layers_{layers}", ROOT, *words)[0] for _ in range(3))
    few, all80 = best(2), best(80)
    say(f"Llama-3-70B: {all80:.2f} s, with 2 layers {few:.2f} s, ratio {all80 / few:.2f}")
    expect(all80 < SECONDS and all80 <= RATIO * few, "Llama-3-70B", f"{all80} s", f"{SECONDS} s and {RATIO} x {few} s")


if __name__ == "__main__":
    main()
