# SPDX-License-Identifier: Apache-2.0
"""Tokens of prompts and completions, from a tokenizer trained here, read as transformers does."""

import dataclasses
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxsafe import lm
from jaxsafe.core.checks import UserError
from jaxsafe.lm import hf, tiny, tokenizer
from tests.core import toy
from tests.lm import models

TEXTS = [f"say hello to user {i}, please" for i in range(30)] + ["hello there", "nöt ÄSCII ♥"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tiny model's folder, and what was written there."""
    folder = tmp_path_factory.mktemp("tiny")
    config = dataclasses.replace(models.FAMILIES["llama"], vocab_size=300)
    return folder, tiny.make(folder, TEXTS, jax.random.key(0), config)


def test_a_tiny_folder_holds_a_model_and_a_tokenizer(made):
    folder, (config, params, written) = made
    again, back = hf.load(folder)
    assert again == config and 259 < config.vocab_size <= 300
    jax.tree.map(np.testing.assert_array_equal, back, params)
    read = tokenizer.load(folder)
    for text in (*TEXTS, "日本 \n\t x"):
        assert read(text)["input_ids"] == written(text)["input_ids"]
        assert tokenizer.decode(read, read(text)["input_ids"]) == text
    ids = (read.pad_token_id, read.bos_token_id, read.eos_token_id)
    assert ids == (tiny.PAD_ID, tiny.BOS_ID, tiny.EOS_ID)
    assert read.padding_side == "left" and len(read) == config.vocab_size


_WITHOUT_TORCH = """
import sys

sys.modules["torch"] = None  # to import it is an error
from jaxsafe.lm import hf, tokenizer

config, params = hf.load(sys.argv[1])
words = tokenizer.load(sys.argv[1])
print(config.vocab_size, len(words), len(tokenizer.encode_prompt(words, "hello")))
"""


def test_folders_are_read_without_torch(made):
    folder, (config, _, written) = made
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_TORCH, str(folder)],
        cwd=toy.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    prompt = tokenizer.encode_prompt(written, "hello")
    assert done.stdout.split() == [str(config.vocab_size), str(len(written)), str(len(prompt))]


def test_the_benchmarks_model_has_the_pages_size():
    assert lm.num_params(tiny.CONFIG) == 5_261_568


@pytest.mark.parametrize("template", [tokenizer.ALPACA_BEAVER, tokenizer.CHAT])
def test_bos_is_counted_once_and_text_comes_back(made, template):
    """The chat template writes BOS itself; the tokenizer puts one before other text."""
    read = tokenizer.load(made[0])
    ids = tokenizer.encode_prompt(read, "hello {x}", template)
    assert ids.count(read.bos_token_id) == 1 and ids[0] == read.bos_token_id
    said = {
        tokenizer.ALPACA_BEAVER: "BEGINNING OF CONVERSATION: USER: hello {x} ASSISTANT:",
        tokenizer.CHAT: "user: hello {x}\nassistant:",
    }
    assert tokenizer.decode(read, ids) == said[template]


def test_messages_of_several_turns_go_through_the_chat_template(made):
    read = tokenizer.load(made[0])
    turns = [("user", "a"), ("assistant", "b"), ("user", "c")]
    messages = [{"role": role, "content": text} for role, text in turns]
    ids = tokenizer.encode_prompt(read, messages)
    assert tokenizer.decode(read, ids) == "user: a\nassistant: b\nuser: c\nassistant:"
    with pytest.raises(UserError, match="messages need template='chat'"):
        tokenizer.encode_prompt(read, messages, tokenizer.ALPACA_BEAVER)


def test_prompt_and_completion_are_tokenised_apart(made):
    """Where a merge would cross the boundary, the joint text has other tokens."""
    read = tokenizer.load(made[0])
    prompt = tokenizer.encode_prompt(read, "x", "{input} hel")
    completion = tokenizer.encode_completion(read, "lo there")
    joint = read("x hello there")["input_ids"]
    assert joint[: len(prompt)] != prompt
    assert tokenizer.decode(read, prompt + completion) == "x hello there"
    assert completion[-1] == read.eos_token_id and completion.count(read.eos_token_id) == 1
    assert tokenizer.encode_completion(read, "lo</s>") == tokenizer.encode_completion(read, "lo")
    assert read.eos_token_id not in tokenizer.encode_completion(read, "lo", end=False)


def test_truncation_keeps_bos_header_and_eos_by_default():
    prompt, completion = [1, *range(10, 29)], [*range(50, 69), 2]
    whole = tokenizer.truncate(prompt, completion, 8, 40)
    assert whole == (prompt, completion, False)
    cut = tokenizer.truncate(prompt, completion, 8, 20)
    assert cut.truncated and cut.prompt == [1, 10, 11, 12, 25, 26, 27, 28]
    assert cut.completion == [*range(50, 61), 2] and len(cut.prompt + cut.completion) == 20
    literal = tokenizer.truncate(prompt, completion, 8, 20, "trl")
    assert literal.prompt == prompt[-8:] and literal.completion == completion[:12]
    short = tokenizer.truncate([1, 5, 6], completion, 8, 20)
    assert short.prompt == [1, 5, 6] and short.completion == [*range(50, 66), 2]
    assert tokenizer.truncate([1, 5, 6], completion, 8, 20, "trl").completion == completion[:12]


def test_bad_templates_and_folders_are_told(made, tmp_path):
    read = tokenizer.load(made[0])
    for template in ("no place", "{input} {input}"):
        with pytest.raises(UserError, match=r"must be 'chat', or hold \{input\} once"):
            tokenizer.encode_prompt(read, "a", template)
    with pytest.raises(UserError, match="has no tokenizer that transformers reads"):
        tokenizer.load(tmp_path)
    read.chat_template = None
    with pytest.raises(UserError, match="has no chat template"):
        tokenizer.encode_prompt(read, "a")
    with pytest.raises(UserError, match="vocab_size=100 is out of range"):
        tiny.train_tokenizer(TEXTS, 100)
