# SPDX-License-Identifier: Apache-2.0
"""transformers' torch models, the oracle of the decoder's parity tests."""

import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra parity")
transformers = pytest.importorskip("transformers")
torch.manual_seed(0)

_BASE = dict(
    vocab_size=67,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
# Name: config class, model class, fields.
KINDS = {
    "llama": ("Llama", {"num_key_value_heads": 4, "rms_norm_eps": 1e-5}),
    "llama3": ("Llama", {"rope_parameters": _LLAMA3, "tie_word_embeddings": True}),
    "mistral": ("Mistral", {"sliding_window": 5, "head_dim": 12}),
    "mistral_open": ("Mistral", {"sliding_window": None, "num_key_value_heads": 1}),
    "qwen2": ("Qwen2", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "qwen2_window": (
        "Qwen2",
        {
            "use_sliding_window": True,
            "sliding_window": 6,
            "max_window_layers": 1,
            "tie_word_embeddings": True,
        },
    ),
    "qwen3": ("Qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
}


def make(kind, **change):
    """A random model of a kind, in float32, biases drawn and norms away from 1."""
    family, fields = KINDS[kind]
    config = getattr(transformers, f"{family}Config")(**(_BASE | fields | change))
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim == 1:
                weight.add_(0.3 * noise)
            else:
                weight.copy_(noise * (1.0 if weight.shape[0] == _BASE["vocab_size"] else 0.15))
    return model


def logits(model, ids, mask=None):
    """Its logits `[B, T, V]` as numpy."""
    with torch.no_grad():
        mask = None if mask is None else torch.tensor(np.asarray(mask)).long()
        out = model(torch.tensor(np.asarray(ids)).long(), attention_mask=mask)
    return out.logits.float().numpy()


def tokens(shape, seed=0):
    """Random ids that are no special token."""
    rng = np.random.default_rng(seed)
    return rng.integers(3, _BASE["vocab_size"], shape).astype(np.int32)


def asarray(tensor):
    """A torch tensor as a JAX array."""
    return jnp.asarray(tensor.detach().numpy())
