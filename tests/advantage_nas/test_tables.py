# SPDX-License-Identifier: Apache-2.0
"""The table of NAS-Bench-201 and the exact curve of random search on it (page, section 7.5)."""

import hashlib
import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxsafe.advantage_nas import enumeration, losses, oracle, strings, tables
from jaxsafe.core.checks import UserError
from tests import real_data

# Of the table whose digits the tests and the README quote.
SHA256 = "2f401fa68aed7f33e9de5cefd149f6c956cda78e9fce8dfb80217a23e864f085"
NAMES = ("cifar10_valid", "cifar10_test", "cifar100_valid", "cifar100_test")


@pytest.fixture(scope="module")
def path():
    return real_data.file("nas_bench_201/accuracy_12_epochs.csv")


@pytest.fixture(scope="module")
def table(path):
    return tables.load(path)


@pytest.fixture(scope="module")
def paper_table(path):
    return tables.load(path, strings.PAPER_OPS)


def tiny(num_edges=3, ops=("none", "skip_connect")):
    choice = enumeration.architectures(num_edges, len(ops))
    values = np.random.default_rng(0).uniform(0, 100, len(choice)).round(2)
    return tables.Table(ops, choice, {"valid": values, "test": values[::-1].copy()})


def test_the_file_is_the_one_whose_digits_we_quote(path, table):
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SHA256
    assert tuple(table.columns) == NAMES and table.choice.shape == (15_625, 6)
    np.testing.assert_array_equal(table.choice, enumeration.architectures(6, 5))
    np.testing.assert_array_equal(table.place(table.choice), np.arange(15_625))


@pytest.mark.parametrize(
    ("name", "best", "mean", "median", "sd", "best_4", "mean_4"),
    [
        ("cifar10_valid", 84.892, 68.8517, 72.2780, 12.7802, 84.892, 70.9072),
        ("cifar10_test", 89.16, 75.9842, 79.6200, 13.4142, 89.09, 77.8440),
        ("cifar100_valid", 61.32, 40.4596, 42.6400, 11.0825, 61.32, 42.0678),
        ("cifar100_test", 61.18, 40.4039, 42.2200, 11.0067, 61.18, 42.0356),
    ],
)
def test_columns(table, paper_table, name, best, mean, median, sd, best_4, mean_4):
    x, four = table.column(name), paper_table.column(name)
    assert len(four) == 4096
    found = (x.max(), x.mean(), np.median(x), x.std(), four.max(), four.mean())
    np.testing.assert_allclose(found, (best, mean, median, sd, best_4, mean_4), atol=6e-5)


def test_the_best_cells(table):
    valid, test = table.column("cifar10_valid"), table.column("cifar10_test")
    best = table.choice[valid.argmax()]
    assert strings.encode(best) == (
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+"
        "|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|"
    )
    row = [table.column(name)[valid.argmax()] for name in NAMES]
    np.testing.assert_allclose(row, [84.892, 89.03, 61.32, 60.64])
    assert (test > test[valid.argmax()]).sum() == 4
    assert strings.encode(table.choice[test.argmax()]) == (
        "|nor_conv_3x3~0|+|nor_conv_1x1~0|nor_conv_3x3~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"
    )
    assert stats.spearmanr(valid, test).statistic == pytest.approx(0.9602, abs=5e-5)


def test_means_by_the_number_of_zero_edges(table):
    zeros = (table.choice == table.ops.index("none")).sum(axis=1)
    means = np.bincount(zeros, table.column("cifar10_test")) / np.bincount(zeros)
    expected = [77.844, 78.481, 76.470, 64.411, 40.059, 20.922, 10.000]
    np.testing.assert_allclose(means, expected, atol=6e-4)


def test_the_first_gradient_points_to_a_cell_that_is_not_good(table):
    """Independent credit from uniform averages: convolutions everywhere (page, 7.5)."""
    loss = jnp.asarray(-table.column("cifar10_valid") / 100, jnp.float32)
    strides = jnp.asarray(tables.strides(6, 5))
    problem = losses.Losses(lambda gates, choice: (loss[choice @ strides], ()))
    gradient = jax.jit(lambda t: enumeration.exact_gradient(problem, t))(jnp.zeros((6, 5)))
    choice = np.argmin(gradient, axis=1)
    assert (choice == table.ops.index("nor_conv_3x3")).all()
    test = table.column("cifar10_test")
    assert test[table.place(choice)] == 82.20
    assert (test > 82.20).sum() + 1 == 5773


ALL = {1: (75.9842, 13.4142, 75.9842), 10: (86.0797, 1.6797, 86.0792)}
ALL |= {50: (87.7505, 0.7187, 87.7495), 100: (88.0940, 0.4806, 88.0928)}
ALL |= {150: (88.2253, 0.4067, 88.2239), 300: (88.3909, 0.3569, 88.3889)}


def test_random_search_is_exact_to_the_published_digits(table, paper_table):
    valid, test = table.column("cifar10_valid"), table.column("cifar10_test")
    curve = oracle.random_search(valid, test, list(ALL))
    again = oracle.random_search(valid, test, list(ALL), replacement=True)
    np.testing.assert_allclose(curve.mean, [mean for mean, _, _ in ALL.values()], atol=6e-5)
    np.testing.assert_allclose(curve.sd, [sd for _, sd, _ in ALL.values()], atol=6e-5)
    np.testing.assert_allclose(again.mean, [mean for _, _, mean in ALL.values()], atol=6e-5)
    winner = oracle.random_search(valid, valid, [10, 300])
    np.testing.assert_allclose(winner.mean, [80.6246, 84.1537], atol=6e-5)
    other = oracle.random_search(valid, table.column("cifar100_test"), [10, 300])
    np.testing.assert_allclose(other.mean, [53.4611, 59.6241], atol=6e-5)
    np.testing.assert_allclose(other.sd, [4.1348, 0.9024], atol=6e-5)
    four = [paper_table.column(name) for name in NAMES[:2]]
    curve = oracle.random_search(*four, [10, 100])
    np.testing.assert_allclose(curve.mean, [86.6730, 88.3072], atol=6e-5)


@pytest.mark.parametrize("replacement", [False, True])
def test_random_search_on_a_small_table_by_brute_force(replacement):
    valid = np.array([3.0, 1.0, 3.0, 2.0, 0.0])
    test = np.array([7.0, 9.0, 4.0, 5.0, 1.0])
    for k in (1, 2, 3, 5):
        if replacement:
            picks = itertools.product(range(5), repeat=k)
        else:
            picks = itertools.permutations(range(5), k)
        values = []
        for pick in picks:
            winners = [i for i in set(pick) if valid[i] == max(valid[list(pick)])]
            values.append((np.mean(test[winners]), np.mean(test[winners] ** 2)))
        mean, square = np.mean(values, axis=0)
        curve = oracle.random_search(valid, test, [k], replacement)
        assert curve.mean[0] == pytest.approx(mean)
        if not replacement or k == 1:  # with replacement a tie may be drawn unevenly
            assert curve.sd[0] == pytest.approx(math.sqrt(square - mean**2))


def test_random_search_refuses_more_queries_than_there_are():
    with pytest.raises(UserError, match="queries=3 is out of range: give 1 to 2"):
        oracle.random_search([1.0, 2.0], [1.0, 2.0], [3])
    with pytest.raises(UserError, match="give two of one size"):
        oracle.random_search([1.0, 2.0], [1.0], [1])


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_a_table_survives_its_file(tmp_path, suffix):
    table = tiny()
    tables.save(tmp_path / f"t{suffix}", table)
    again = tables.load(tmp_path / f"t{suffix}", table.ops, 3)
    np.testing.assert_array_equal(again.choice, table.choice)
    assert again.ops == table.ops and list(again.columns) == ["valid", "test"]
    for name in again.columns:
        np.testing.assert_array_equal(again.columns[name], table.columns[name])


def test_a_mapping_from_strings_is_a_table_too(tmp_path):
    rows = {
        strings.encode(c, ("none", "skip_connect")): {"acc": float(i)}
        for i, c in enumerate(enumeration.architectures(3, 2))
    }
    (tmp_path / "t.json").write_text(json.dumps(rows))
    table = tables.load(tmp_path / "t.json", ("none", "skip_connect"), 3)
    np.testing.assert_array_equal(table.columns["acc"], np.arange(8))
    with pytest.raises(UserError, match=r"column='ac' is unknown\. Did you mean 'acc'"):
        table.column("ac")


HEADER = "architecture,acc\n"
DAMAGED = [
    ("t.csv", "arch,acc\n", r"t\.csv, row 1, is 'arch,acc': give a header"),
    ("t.csv", "", r"t\.csv, row 1, is '': give a header"),
    ("t.csv", HEADER + "|none~0|,1,2\n", r"t\.csv, row 2, has 3 fields: give 2"),
    ("t.csv", HEADER + "|none~0|,x\n", r"t\.csv, row 2, has acc='x': give a finite number"),
    ("t.csv", HEADER + "|none~0|,nan\n", r"t\.csv, row 2, has acc='nan'"),
    ("t.csv", HEADER + "|none~0|,1\n|non~0|,2\n", r"row 3,: 'non' in .* Did you mean 'none'"),
    ("t.csv", HEADER + "|none~0|,1\n|none~0|,2\n", r"row 3, repeats \|none~0\|"),
    ("t.csv", HEADER + "|none~0|,1\n", r"has 1 of the 2 cells of 2 operations on 1 edges"),
    ("t.csv", HEADER, r"has 0 of the 2 cells"),
    ("t.csv", HEADER + "|none~0|+|none~0|none~1|,1\n", r"row 2, has 3 edges: give cells of 1"),
    ("t.json", "[1", r"t\.json, line 1, is no JSON"),
    ("t.json", "3", r"t\.json holds a int: give a list or a mapping"),
    ("t.json", "[3]", r"t\.json, row 1, is a int"),
    ("t.json", '[{"acc": 1}]', r"t\.json, row 1, has no architecture"),
    ("t.json", '{"|none~0|": {"a": 1}, "|skip_connect~0|": {"b": 1}}', r"row 2, has b, the first"),
    ("t.txt", "", r"t\.txt is no table: give a \.csv or \.json file"),
]


@pytest.mark.parametrize(("name", "text", "message"), DAMAGED)
def test_damage_is_named_by_file_and_row(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        tables.load(tmp_path / name, ("none", "skip_connect"), 1)


def test_other_files_are_named(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        tables.load(tmp_path / "absent.csv")
    (tmp_path / "t.csv").write_bytes(b"architecture,acc\n\xff\xfe")
    with pytest.raises(UserError, match="is no text at byte"):
        tables.load(tmp_path / "t.csv")
    with pytest.raises(UserError, match=r"give a path that ends in \.csv or \.json"):
        tables.save(tmp_path / "t.txt", tiny())
