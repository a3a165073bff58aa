"""Texts that no sample may hold."""

import numpy as np
import pytest

from gpt2.bans import Ban


def excluded(walk, size):
    logits = np.zeros(size, np.float32)
    walk.exclude(logits)
    return set(np.flatnonzero(np.isneginf(logits)).tolist())


@pytest.mark.parametrize('words', [[' the'], ['e', 'o'], ['aa', 'aab'], ['and the'], ['é', '漢字'], ['.\n', 'nation ']])
def test_just_those_tokens_are_excluded_with_which_the_text_would_hold_one(encoder, words):
    random = np.random.default_rng(0)
    ban, spelt = Ban(encoder, words), [word.encode() for word in words]
    for start in ('', 'a', ' t', 'xa', 'and th', 'An é', 'of the nat', '漢'):
        walk, text = ban.begin([]), b''
        for token in encoder.encode(start):
            walk.take(token)
            text += encoder.decode_bytes([token])
        for _ in range(4):
            expected = {
                index for index in range(len(encoder))
                if any(word in text[-20:] + encoder.token_bytes[index] for word in spelt)
            }  # fmt: skip
            if any(word in text for word in spelt):
                break
            assert excluded(walk, len(encoder)) == expected
            token = int(random.choice(sorted(set(range(len(encoder))) - expected)))
            walk.take(token)
            text += encoder.token_bytes[token]


def test_a_text_that_began_in_the_prompt_is_none_of_the_sample(encoder):
    walk = Ban(encoder, ['the']).begin(encoder.encode('of th'))
    assert encoder.encode('e')[0] not in excluded(walk, len(encoder))


def test_a_token_that_ends_the_sample_spells_nothing(encoder):
    end = encoder.end_of_text
    assert end in excluded(Ban(encoder, ['text']).begin([]), len(encoder))
    assert end not in excluded(Ban(encoder, ['text'], {end}).begin([]), len(encoder))


def test_a_fork_goes_its_own_way(encoder):
    one = Ban(encoder, ['abc']).begin([])
    [a], [b], [c] = map(encoder.encode, 'abc')
    one.take(a)
    other = one.fork()
    one.take(b), other.take(a)
    assert c in excluded(one, len(encoder)) and c not in excluded(other, len(encoder))
