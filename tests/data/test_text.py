# SPDX-License-Identifier: Apache-2.0
"""Text files become streams of words, and say where they are damaged."""

import numpy as np
import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.data import text
from tests import real_data

LINES = [f"the {n} of us are <unk>" for n in range(40)]


def write(folder, **parts):
    for part, lines in parts.items():
        (folder / f"ptb.{part}.txt").write_text("\n".join(lines) + "\n")
    return folder


def words(corpus, part):
    return [corpus.vocabulary[i] for i in getattr(corpus, part)]


def test_three_files_are_three_parts(tmp_path):
    corpus = text.load(write(tmp_path, train=["a b a"], valid=["b c"], test=["c", " a "]))
    assert corpus.vocabulary == ("a", "b", "<eos>", "<unk>") and corpus.comparable
    assert words(corpus, "train") == ["a", "b", "a", "<eos>"]
    assert words(corpus, "valid") == ["b", "<unk>", "<eos>"]
    assert words(corpus, "test") == ["<unk>", "<eos>", "a", "<eos>"]
    assert corpus.train.dtype == np.int32
    assert corpus.note == "train: ptb.train.txt; valid: ptb.valid.txt; test: ptb.test.txt"


@pytest.mark.parametrize(
    ("given", "counts", "said"),
    [
        ({"valid"}, (32, 4, 4), "80, 10, 10 % of valid"),
        ({"test"}, (32, 4, 4), "80, 10, 10 % of test"),
        ({"valid", "test"}, (32, 8, 40), "the first 80 % of valid"),
        ({"train"}, (32, 4, 4), "valid: the last tenth of train"),
        ({"train", "valid"}, (36, 40, 4), "test: the last tenth of train"),
        ({"train", "test"}, (36, 4, 40), "valid: the last tenth of train"),
    ],
)
def test_absent_parts_are_cut_from_others_and_labelled(tmp_path, given, counts, said):
    corpus = text.load(write(tmp_path, **dict.fromkeys(given, LINES)))
    found = tuple(words(corpus, part).count("<eos>") for part in text.PARTS)
    assert found == counts and not corpus.comparable and said in corpus.note
    assert ("not comparable" in corpus.note) == ("train" not in given)
    if given == {"valid"}:
        together = [word for part in text.PARTS for word in words(corpus, part)]
        everything = [*" <eos> ".join(LINES).split(), "<eos>"]
        known = set(corpus.vocabulary)
        assert together == [w if w in known else "<unk>" for w in everything]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"the cat\nsat \xff on", r"ptb.train.txt, offset 12: byte 0xff is no UTF-8"),
        (b"the\0cat", "offset 3: a NUL byte"),
        (b" \n\n", "has no words"),
        (b"one line", "too short to be split"),
    ],
)
def test_damage_is_named_with_its_offset(tmp_path, content, message):
    (tmp_path / "ptb.train.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        text.load(tmp_path)


def test_absent_folders_and_texts_are_named(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        text.load(tmp_path / "none")
    with pytest.raises(UserError, match="holds no text"):
        text.load(tmp_path)


def test_streams_and_chunks_hold_each_word_once_in_order():
    tokens = np.arange(47)
    streams = text.streams(tokens, 4)
    assert streams.shape == (11, 4) and streams[:, 1].tolist() == list(range(11, 22))
    assert text.num_chunks(streams, 3) == 3
    chunks = [text.chunk(streams, n, 3) for n in range(4)]
    joined = np.concatenate([c.tokens for c in chunks[:3]])
    np.testing.assert_array_equal(joined, streams[:9])
    for c in chunks:
        np.testing.assert_array_equal(c.targets, np.asarray(c.tokens) + 1)
    np.testing.assert_array_equal(chunks[3].tokens, chunks[0].tokens)
    for call, message in (
        (lambda: text.streams(tokens, 24), "batch=24 of 47 words leaves no stream"),
        (lambda: text.streams(tokens, 0), "batch=0 is out of range"),
        (lambda: text.num_chunks(streams, 11), "hold no chunk of 11"),
    ):
        with pytest.raises(UserError, match=message):
            call()


def test_the_penn_treebank_is_read():
    folder = real_data.file("ptb/ptb.valid.txt").parent
    real_data.file("ptb/ptb.test.txt")
    corpus = text.load(folder)
    assert not corpus.comparable and "no training file" in corpus.note
    # 3,370 and 3,761 lines; 70,390 words of the first and 78,669 of the second, ends not counted.
    ends = {part: words(corpus, part).count("<eos>") for part in text.PARTS}
    assert ends == {"train": 2696, "valid": 674, "test": 3761}
    assert len(corpus.train) + len(corpus.valid) == 70390 + 3370
    assert len(corpus.test) == 78669 + 3761
    assert words(corpus, "train")[:5] == ["consumers", "may", "want", "to", "move"]
    assert 4000 < len(corpus.vocabulary) < 10000
