"""A running batch: samples that join and leave, prompts taken in blocks, and what is remembered of them."""

import numpy as np
import pytest
from example_models import TINY, as_params, random_tokens, random_values
from litert.test_engine import both_engines

from gpt2.engine import Adjustment, Sampling
from gpt2.hparams import HParams
from gpt2.litert import batching
from gpt2.litert.batching import CHUNK, Batch
from gpt2.noise import noise_stream

LONGER = HParams(n_vocab=61, n_ctx=400, n_embd=20, n_head=4, n_layer=2)
LENGTH = 15


@pytest.fixture(scope='module')
def generator(tmp_path_factory):
    return both_engines(tmp_path_factory.mktemp('longer'), LONGER, as_params(random_values(LONGER)))[1]


def add(batch, prompt, number=1, seed=3, adjustment=Adjustment(), **how):  # noqa: B008 - it is frozen
    ids = prompt.ids.tolist()
    return batch.add_row(prompt, noise_stream(seed, ids, number), Sampling(**how), adjustment)


def alone(generator, ids, number=1, seed=3, **how):
    steps = generator.generate([ids], LENGTH, numbers=[number], seed=seed, **how)
    return [int(tokens[0]) for tokens in steps]


@pytest.mark.parametrize('remembered', [0, 10**7])
def test_a_row_is_what_it_is_alone_whoever_joins_and_leaves(generator, remembered):
    tokens = random_tokens(LONGER, 1, 380)[0].tolist()
    cases = [
        (tokens[:350], {}), (tokens[:1], {'temperature': 0.5}), (tokens[:350], {'top_k': 3}), (tokens[9:150], {}),
        (tokens[:200], {'top_p': 0.8}), (tokens[:128], {'temperature': 0}), (tokens[:129], {}),
    ]  # fmt: skip
    batch, expected, places = Batch(generator, remembered), {}, {}
    pending = list(cases)
    while pending or batch.rows:
        if pending:
            ids, how = pending.pop(0)
            prompt = batch.add_prompt(ids)
            for number in (1, 2):
                row = add(batch, prompt, number, **how)
                expected[row] = alone(generator, ids, number, **how)
                places[prompt] = places.get(prompt, 0) + 1
        for row, _ in batch.step():
            if len(row.drawn) == LENGTH:
                assert row.drawn == expected.pop(row)
                batch.remove_row(row)
                places[row.prompt] -= 1
                if not places[row.prompt]:
                    batch.remove_prompt(row.prompt)
    assert expected == {}
    with generator.alone():
        assert not np.count_nonzero(generator.owners >= 0)


def test_samples_go_on_while_a_long_prompt_is_taken(generator):
    tokens = random_tokens(LONGER, 1, 380)[0].tolist()
    batch = Batch(generator)
    running = add(batch, batch.add_prompt(tokens[:3]))
    batch.step()
    late = add(batch, batch.add_prompt(tokens[:350]))
    steps = 0
    while not late.drawn:
        batch.step()
        steps += 1
    assert steps == -(-350 // batching.BLOCK_BESIDE) == 3
    assert len(running.drawn) == 1 + steps


def test_what_is_heard_of_a_prompt(generator):
    tokens = random_tokens(LONGER, 1, 300)[0].tolist()
    for first in (0, 70, 299):
        heard = []
        batch = Batch(generator, 10**7)
        for _ in range(2):  # the second time its start is remembered
            prompt = batch.add_prompt(tokens, first, lambda *found: heard.append(found))  # noqa: B023
            while prompt.logits is None:
                batch.step()
            batch.remove_prompt(prompt)
        logits, hidden = (np.concatenate(parts) for parts in zip(*heard))
        expected = np.concatenate(generator.map_logits(np.array, tokens, first))
        np.testing.assert_allclose(logits, np.concatenate([expected, expected]), atol=1e-4)
        np.testing.assert_allclose(hidden @ np.array(generator.wte).T, logits, atol=1e-4)


def test_a_shared_start_is_not_computed_again(generator, monkeypatch):
    tokens = random_tokens(LONGER, 1, 380)[0].tolist()
    counts = []
    step = generator.step
    monkeypatch.setattr(generator, 'step', lambda tokens, *rest: counts.append(len(tokens)) or step(tokens, *rest))
    batch = Batch(generator, 10**7)
    for ids in (tokens[:200], tokens[:200], tokens[:150], tokens[:70] + tokens[:70], tokens[1:]):
        row = add(batch, batch.add_prompt(ids))
        while not row.drawn:
            batch.step()
        batch.remove_row(row)
        batch.remove_prompt(row.prompt)
        counts.append(None)
    taken = [sum(group) for group in split(counts)]
    assert taken == [200, 200 - 3 * CHUNK, 150 - 2 * CHUNK, 140 - CHUNK, 379]


def split(counts):
    groups = [[]]
    for count in counts:
        groups[-1].append(count) if count is not None else groups.append([])
    return groups[:-1]


def test_what_is_remembered_is_bounded(generator):
    size = 2 * LONGER.n_layer * LONGER.n_embd * CHUNK * 4
    batch = Batch(generator, 3 * size + 1)
    for start in range(4):
        prompt = batch.add_prompt(random_tokens(LONGER, 1, 300, seed=start)[0])
        while prompt.logits is None:
            batch.step()
        batch.remove_prompt(prompt)
        assert len(batch.memory.chunks) == 3
        assert batch.memory.bytes == sum(chunk.nbytes for chunk in batch.memory.chunks.values()) == 3 * size


def test_prompts_and_rows_leave_in_the_midst(generator):
    tokens = random_tokens(LONGER, 1, 380)[0].tolist()
    batch = Batch(generator)
    gone = batch.add_prompt(tokens)
    row = add(batch, batch.add_prompt(tokens[:10]))
    batch.step()
    batch.remove_prompt(gone)
    while len(row.drawn) < LENGTH:
        batch.step()
    assert row.drawn == alone(generator, tokens[:10])


def test_adjustments():
    logits = np.float32([1, 2, 3, 4])
    adjusted = Adjustment(presence=0.5, frequency=0.25, bias=((0, 10.0), (3, -1.0))).apply(logits, [1, 1, 3])
    np.testing.assert_allclose(adjusted, [11, 2 - 0.5 - 0.5, 3, 4 - 1 - 0.5 - 0.25])
    assert Adjustment().apply(logits, [1, 2]) is logits
    np.testing.assert_array_equal(logits, [1, 2, 3, 4])


def test_tiny_prompts_to_the_end_of_the_window(tmp_path, tiny_params):
    generator = both_engines(tmp_path, TINY, tiny_params)[1]
    ids = random_tokens(TINY, 1, TINY.n_ctx)[0].tolist()
    batch = Batch(generator)
    row = add(batch, batch.add_prompt(ids), temperature=0)
    batch.step()
    assert row.drawn == [int(token[0]) for token in generator.generate([ids], 1, numbers=[1], seed=0, temperature=0)]
