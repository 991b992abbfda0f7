"""Prints frontend/tests/rope/reference.json: rotary frequencies and tables as transformers computes them, one case a kind of scaling.

Run it with Python, torch and transformers 5.
"""
import json

import torch
from transformers import LlamaConfig, Phi3Config
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding

BASE = {"hidden_size": 256, "num_attention_heads": 4, "max_position_embeddings": 4096, "vocab_size": 8,
        "intermediate_size": 8, "num_hidden_layers": 1}
SHORT = [1 + 0.05 * i for i in range(32)]
LONG = [1.1 + 0.7 * i for i in range(32)]
LONGROPE = {"rope_type": "longrope", "short_factor": SHORT, "long_factor": LONG}
CASES = {
    "default": (96, {"rope_theta": 500000.0}),
    "odd_theta": (96, {"rope_theta": 999999.4420358813}),
    "linear": (96, {"rope_scaling": {"type": "linear", "factor": 4.0}}),
    "dynamic_within": (96, {"rope_scaling": {"type": "dynamic", "factor": 2.0}}),
    "dynamic_beyond": (96, {"max_position_embeddings": 64, "rope_scaling": {"type": "dynamic", "factor": 6.0}}),
    "yarn": (96, {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}}),
    "yarn_without_original": (96, {"rope_scaling": {"type": "yarn", "factor": 4.0}}),
    "yarn_all_keys": (96, {"rope_scaling": {
        "type": "yarn", "factor": 40.0, "original_max_position_embeddings": 512, "mscale": 0.7, "mscale_all_dim": 1.0,
        "beta_fast": 24, "beta_slow": 2, "truncate": False}}),
    "yarn_attention_factor": (96, {"rope_scaling": {
        "type": "yarn", "factor": 2.0, "attention_factor": 1.25, "original_max_position_embeddings": 2048}}),
    "llama3": (96, {"rope_theta": 500000.0, "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 512}}),
    "longrope_short": (96, {"original_max_position_embeddings": 96, "rope_scaling": LONGROPE}),
    "longrope_long": (96, {"original_max_position_embeddings": 95, "rope_scaling": LONGROPE}),
    "longrope_factor": (96, {"original_max_position_embeddings": 95, "rope_scaling": {
        **LONGROPE, "attention_factor": 1.19}}),
    "phi3_partial": (96, {"architectures": ["Phi3ForCausalLM"], "partial_rotary_factor": 0.75, "pad_token_id": None,
                          "original_max_position_embeddings": 64, "rope_scaling": {
                              "type": "longrope", "short_factor": SHORT[:24], "long_factor": LONG[:24]}}),
}


def case(seq, keys):
    keys = {"architectures": ["LlamaForCausalLM"], **BASE, **keys}
    phi3 = keys["architectures"][0].startswith("Phi3")
    config = (Phi3Config if phi3 else LlamaConfig)(**json.loads(json.dumps(keys)))
    rotary = (Phi3RotaryEmbedding if phi3 else LlamaRotaryEmbedding)(config)
    cos, sin = rotary(torch.zeros(1), torch.arange(seq)[None])
    half = cos.shape[-1] // 2
    probes = [1, 37, seq - 1]
    return {"config": keys, "seq": seq, "frequencies": rotary.inv_freq.tolist(), "magnitude": rotary.attention_scaling,
            "probes": probes, "cos": cos[0, probes, :half].tolist(), "sin": sin[0, probes, :half].tolist()}


print(json.dumps({name: case(*given) for name, given in CASES.items()}, indent=1))
