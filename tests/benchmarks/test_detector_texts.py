"""The texts that detectors are tried on: passages of books, and what a model says in their place."""

import types

import detector_texts
import numpy as np
from detector_texts import LENGTHS, PROMPT, TEST, TRAIN


def test_passages_follow_one_another_and_have_room():
    ids = list(range(5000))
    found = list(detector_texts.passages(ids, np.random.default_rng(0)))
    joined = [token for prompt, rest in found for token in (*prompt, *rest)]
    assert joined == ids[: len(joined)] and len(ids) - len(joined) < PROMPT + LENGTHS[1]
    assert {len(prompt) for prompt, _ in found} == {PROMPT}
    assert all(LENGTHS[0] <= len(rest) < LENGTHS[1] for _, rest in found)


def test_no_book_is_in_training_and_test(tmp_path):
    for letter, book in zip('abcd', TRAIN + TEST, strict=True):
        (tmp_path / f'{book}.txt').write_text(letter * 8000)
    found = detector_texts.splits(tmp_path, list, np.random.default_rng(0))
    letters = {split: {rest[0] for _, rest in passages} for split, passages in found.items()}
    assert letters == {'train': {'a', 'b'}, 'valid': {'a', 'b'}, 'test': {'c', 'd'}}
    assert len(found['valid']) < len(found['train']) / 3


def test_what_is_continued_is_as_long_as_the_passage_or_ends_before_it():
    asked = []

    def complete(prompts, length, **settings):
        asked.append((prompts, length, settings))
        ends = {'p0': [7, 7, 9], 'p1': [7] * length, 'p2': [7] * length}
        return [
            types.SimpleNamespace(ids=ends[prompt], finish_reason='end_of_text' if ends[prompt][-1] == 9 else 'length')
            for prompt in prompts
        ]

    model = types.SimpleNamespace(complete=complete, decode=lambda ids: ''.join(map(str, ids)))
    found = [(['p0'], [1] * 8), (['p1'], [1] * 4), (['p2'], [1] * 6)]
    records = detector_texts.continued(model, found, top_k=40)
    assert [(record['id'], record['length'], record['ended'], record['text']) for record in records] == [
        (0, 2, True, '77'), (1, 4, False, '7777'), (2, 6, False, '777777')
    ]  # fmt: skip
    [(prompts, length, settings)] = asked
    assert (prompts, length, settings['top_k'], settings['stop_at_end']) == (['p1', 'p2', 'p0'], 8, 40, True)
