"""Which samples are used for what."""

import re

import numpy as np
import pytest

from hf_geo.data.config import DataArguments
from hf_geo.data.splits import add_label_noise, choose_splits, hold_out, subset

FILES = {"all": ["a", "b"], "train": ["a"], "test": ["b"], "dev": ["c"]}


@pytest.mark.parametrize(
    ("there", "train", "evaluation", "test", "chosen"),
    [
        (["train", "test"], "train", None, None, ("train", None, "test")),
        (["train", "validation", "test"], "train", None, None, ("train", "validation", "test")),
        (["train", "valid", "extra"], "train", None, None, ("train", "valid", None)),
        (["train", "dev"], "train", None, None, ("train", "dev", None)),
        (["train", "test"], "train", "test", None, ("train", "test", "test")),
        (["train", "test", "extra"], "extra", "train", "test", ("extra", "train", "test")),
        (["train", "validation", "test"], "validation", None, None, ("validation", None, "test")),
        (["test"], "test", None, None, ("test", None, None)),
        (["train", "validation", "test"], "train+validation", None, None, ("train+validation", None, "test")),
        (["train", "validation", "val"], "train + validation", None, None, ("train+validation", "val", None)),
        (["train", "validation", "test"], "train+test", None, None, ("train+test", "validation", None)),
        (["train", "validation", "test"], "validation+test+train", None, None, ("validation+test+train", None, None)),
        # "all" is read from the files of "train" and "test", and so is not disjoint from either.
        (["all", "train", "test", "dev"], "all", None, None, ("all", "dev", None)),
        (["all", "train", "test", "dev"], "train", "dev", None, ("train", "dev", "test")),
    ],
)
def test_splits_are_chosen_that_nothing_trained_on_is_evaluated_on(there, train, evaluation, test, chosen):
    names = choose_splits(dict.fromkeys(there), train, evaluation, test, FILES)
    assert ("+".join(names.train), names.eval, names.test) == chosen


@pytest.mark.parametrize(
    ("train", "evaluation", "test", "message"),
    [
        ("train", "train", None, "--eval_split train names samples that --train_split train trains on: name another"),
        ("train", None, "train", "--test_split train names samples that --train_split train trains on"),
        ("train+test", "test", None, "--eval_split test names samples that --train_split train+test trains on"),
        ("all", "test", None, "--eval_split test names samples that --train_split all trains on"),
        ("test", None, "all", "--test_split all names samples that --train_split test trains on"),
        ("train+train", None, None, "--train_split train+train would train on samples of 'train' twice: leave 'train' out"),
        ("train+all", None, None, "--train_split train+all would train on samples of 'train' twice: leave 'all' out"),
        ("train[:80%]", None, None, "no split 'train[:80%]' (--train_split): it has all, train, test, dev. Slices are not"),
        ("train", "train[80%:]", None, "no split 'train[80%:]' (--eval_split): it has all, train, test, dev. Slices are"),
        ("train+", None, None, "no split '' (--train_split)"),
    ],
)  # fmt: skip
def test_splits_that_share_samples_are_refused(train, evaluation, test, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        choose_splits(dict.fromkeys(["all", "train", "test", "dev"]), train, evaluation, test, FILES)


def test_held_out_part_is_a_tenth_of_each_class_and_no_sample_is_in_both():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [1000, 500, 100]))
    kept, held = hold_out(labels)
    assert np.array_equal(np.sort(np.concatenate([kept, held])), np.arange(1600))
    assert np.bincount(labels[held]).tolist() == [100, 50, 10]
    assert np.array_equal(held, hold_out(labels)[1])
    assert not np.array_equal(held, np.arange(160))


@pytest.mark.parametrize("size", [2, 600, 1598])
def test_a_held_out_part_of_a_given_size(size):
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [1000, 500, 100]))
    kept, held = hold_out(labels, size)
    assert len(held) == size and np.array_equal(np.sort(np.concatenate([kept, held])), np.arange(1600))
    if 3 <= size <= 1597:
        assert np.bincount(labels[held]) == pytest.approx(size * np.array([10, 5, 1]) / 16, abs=1)


def test_a_held_out_part_leaves_something():
    with pytest.raises(ValueError, match="--eval_size 20 leaves nothing to train on: there are 20"):
        hold_out(np.zeros(20, dtype=int), 20)


@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 4], [0] * 19 + [1], [7, 7, 7]])
def test_classes_too_rare_to_be_divided_are_held_out_all_the_same(labels):
    kept, held = hold_out(np.array(labels))
    assert sorted([*kept, *held]) == list(range(len(labels)))
    assert len(held) == -(-len(labels) // 10)


def test_a_subset_is_random_but_fixed():
    chosen = subset(1000, 100)
    assert len(np.unique(chosen)) == 100
    assert np.array_equal(chosen, np.sort(chosen))
    assert 350 < chosen.mean() < 650, "taken from one end"
    assert np.array_equal(chosen, subset(1000, 100))
    assert np.array_equal(subset(5, 9), subset(5, None))
    assert np.array_equal(subset(5, None), np.arange(5))


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_label_noise_leaves_one_class_in_ten_right(share):
    labels = np.arange(20_000) % 10
    noisy = add_label_noise(labels, share, 10, seed=3)
    wrong = np.mean(noisy != labels)
    assert wrong == pytest.approx(0.9 * share, abs=0.01)
    assert np.array_equal(labels, np.arange(20_000) % 10), "the given labels are left alone"
    if share:
        drawn = noisy[noisy != labels]
        assert np.bincount(drawn, minlength=10).min() > 0.9 * len(drawn) / 10
        assert not np.array_equal(noisy, add_label_noise(labels, share, 10, seed=4))
    assert np.array_equal(noisy, add_label_noise(labels, share, 10, seed=3))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_train_samples": 0}, "--max_train_samples must be at least 1, not 0"),
        ({"bptt": 0}, "--bptt must be at least 1, not 0"),
        ({"block_size": 1}, "--block_size must be at least 2, not 1"),
        ({"max_bad_samples": -1}, "--max_bad_samples must be at least 0, not -1"),
        ({"label_noise": 1.5}, "--label_noise is a share between 0 and 1, not 1.5"),
        ({"label_noise": -0.1}, "--label_noise is a share between 0 and 1, not -0.1"),
    ],
)
def test_impossible_amounts_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        DataArguments(dataset="digits", **values)
