# SPDX-License-Identifier: Apache-2.0
"""Language models: one Flax decoder for Llama 2/3, Mistral, Qwen2/2.5 and Qwen3, and its services.

    from jaxsafe import lm
    from jaxsafe.lm import generate, hf, logprobs, tokenizer

    config, params = hf.load("folder")                  # a Hugging Face folder of safetensors
    words = tokenizer.load("folder")
    prompt = tokenizer.encode_prompt(words, "How do I bake bread?", tokenizer.CHAT)
    model = lm.prepare(params, config)                  # once; then any number of calls
    options = lm.Generation(max_new=64, stop_ids=(words.eos_token_id,))
    out = generate.generate(model, [prompt], options)
    print(tokenizer.decode(words, out.tokens[0, : out.lengths[0]]))

    score = logprobs.sums(config, params, ids, mask, completion)     # [B], differentiable
    logits = lm.apply_fn(config)(params, ids, mask)                  # [B, T, V] float32
    hf.save("other", config, params, like="folder")     # transformers reads it

Parts, each of which can be used alone:
  config, layers, decoder   the network; parameters are plain nested dictionaries
  hf, hf_config, tensors    Hugging Face folders in and out, tensor by tensor, straight to shards
  decoding, generate        cached decoding in one compiled program per bucket; mixtures of models
  logprobs                  log-probabilities of completions without the prompts' logits
  reference_cache           those of a frozen reference, kept on disk under a fingerprint
  tokenizer, tiny           templates, the prompt's boundary; a small model where none is at hand
  lora, optimiser           adapters; AdamW with cosine and warm-up, gradients in parts
  batching                  rows into batches of a few widths (`plan`), or side by side (`pack`)
  sharding                  meshes of data x fsdp x tensor

Above the decoder everything takes `apply(params, ids [B, T], mask [B, T]) -> logits [B, T, V]`
where it can, so another library's model may stand in its place. Logits, gradients, folders and
greedy ids are tested against transformers' torch models for every family (`tests/parity`).
"""

from jaxsafe.lm.choosing import Generation
from jaxsafe.lm.config import DecoderConfig, Llama3Scaling, num_params, validate
from jaxsafe.lm.decoder import Decoder, apply_fn, init
from jaxsafe.lm.decoding import Prepared, prepare
from jaxsafe.lm.generate import Answers

__all__ = [
    "Answers",
    "Decoder",
    "DecoderConfig",
    "Generation",
    "Llama3Scaling",
    "Prepared",
    "apply_fn",
    "init",
    "num_params",
    "prepare",
    "validate",
]
