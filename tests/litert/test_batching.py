"""A running batch: samples that join and leave, prompts taken in blocks, and what is remembered of them."""

import collections

import numpy as np
import pytest
from example_models import TINY, as_params, random_tokens, random_values, save
from litert.test_engine import both_engines
from samples import EVERYTHING

from gpt2.checkpoints.source import open_source
from gpt2.hparams import HParams
from gpt2.litert.batching import Batch
from gpt2.litert.engine import BLOCK, Generator
from gpt2.litert.export import PRECISIONS, exported_file
from gpt2.noise import noise_stream
from gpt2.sampling import Sampling

LONGER = HParams(n_vocab=61, n_ctx=800, n_embd=32, n_head=4, n_layer=2)
LENGTH = 15


@pytest.fixture(scope='module')
def longer(tmp_path_factory):
    """Generators of one model, by precision."""
    folder = tmp_path_factory.mktemp('longer')
    source = open_source(save(folder, LONGER, as_params(random_values(LONGER))))
    return {precision: Generator(exported_file(source, precision), LONGER) for precision in PRECISIONS}


@pytest.fixture(scope='module')
def generator(longer):
    return longer['float32']


def add(batch, prompt, number=1, seed=3, **how):
    ids = prompt.ids.tolist()
    return batch.add_row(prompt, noise_stream(seed, ids, number), Sampling(**how))


def logits_alone(generator, ids, **how):
    """Logits [LENGTH, n_vocab] before the tokens of a sample, in a batch of its own."""
    batch = Batch(generator)
    row = add(batch, batch.add_prompt(ids), **how)
    found = []
    while len(row.drawn) < LENGTH:
        found += [logits.copy() for _, logits in batch.step()]
    batch.remove_row(row)
    batch.remove_prompt(row.prompt)
    return np.array(found)


def alone(generator, ids, number=1, seed=3, **how):
    steps = generator.generate([ids], LENGTH, numbers=[number], seed=seed, **how)
    return [int(tokens[0]) for tokens in steps]


@pytest.mark.parametrize('remembered', [0, 10**7])
@pytest.mark.parametrize('precision', PRECISIONS)
def test_a_row_is_to_the_bit_what_it_is_alone_whoever_joins_and_leaves(longer, precision, remembered):
    generator = longer[precision]
    tokens = random_tokens(LONGER, 1, 780)[0].tolist()
    cases = [
        (tokens[:650], {}), (tokens[:1], {'temperature': 0.5}), (tokens[:650], {'top_k': 3}), (tokens[9:150], {}),
        (tokens[:400], {'top_p': 0.8}), (tokens[:256], {'temperature': 0}), (tokens[:257], {}),
        (tokens[:90], EVERYTHING),
    ]  # fmt: skip
    batch, expected, places, seen = Batch(generator, remembered), {}, {}, collections.defaultdict(list)
    pending = list(cases)
    while pending or batch.rows:
        if pending:
            ids, how = pending.pop(0)
            prompt = batch.add_prompt(ids)
            for number in (1, 2):
                row = add(batch, prompt, number, **how)
                expected[row] = alone(generator, ids, number, **how), logits_alone(generator, ids, number=number, **how)
                places[prompt] = places.get(prompt, 0) + 1
        for row, logits in batch.step():
            seen[row].append(logits.copy())
            if len(row.drawn) == LENGTH:
                drawn, logits = expected.pop(row)
                assert row.drawn == drawn
                np.testing.assert_array_equal(seen.pop(row), logits)
                batch.remove_row(row)
                places[row.prompt] -= 1
                if not places[row.prompt]:
                    batch.remove_prompt(row.prompt)
    assert expected == {}
    with generator.alone():
        assert generator.cache.in_use() == 0


def test_samples_go_on_while_a_long_prompt_is_taken(generator):
    tokens = random_tokens(LONGER, 1, 780)[0].tolist()
    batch = Batch(generator)
    running = add(batch, batch.add_prompt(tokens[:3]))
    batch.step()
    late = add(batch, batch.add_prompt(tokens[:700]))
    steps = 0
    while not late.drawn:
        batch.step()
        steps += 1
    assert steps == -(-700 // BLOCK) == 3
    assert len(running.drawn) == 1 + steps


def test_what_is_heard_of_a_prompt(generator):
    tokens = random_tokens(LONGER, 1, 300)[0].tolist()
    for first in (0, 70, 256, 299):
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


def test_what_was_heard_stays_what_it_was(generator):
    """Whatever is computed later in the same memory: blocks of one size follow one another in it."""
    batch, heard = Batch(generator), []
    for seed in (1, 2):
        tokens = random_tokens(LONGER, 1, 3 * BLOCK, seed=seed)[0]
        prompt = batch.add_prompt(tokens, 0, lambda *found: heard.extend((each, each.copy()) for each in found))
        while prompt.taken < len(tokens):
            batch.step()
        batch.remove_prompt(prompt)
    assert len(heard) == 12
    for now, then in heard:
        np.testing.assert_array_equal(now, then)


def test_a_shared_start_is_not_computed_again(generator, monkeypatch):
    tokens = random_tokens(LONGER, 1, 780)[0].tolist()
    counts = []
    invoke = generator.invoke
    monkeypatch.setattr(generator, 'invoke', lambda tokens, *rest: counts.append(len(tokens)) or invoke(tokens, *rest))
    batch = Batch(generator, 10**7)
    for ids in (tokens[:600], tokens[:600], tokens[:512], tokens[:300] + tokens[:70], tokens[1:]):
        row = add(batch, batch.add_prompt(ids))
        while not row.drawn:
            batch.step()
        batch.remove_row(row)
        batch.remove_prompt(row.prompt)
        counts.append(None)
    taken = [sum(group) for group in split(counts)]
    assert taken == [600, 600 - 2 * BLOCK, 512 - BLOCK, 370 - BLOCK, 779]


def split(counts):
    groups = [[]]
    for count in counts:
        groups[-1].append(count) if count is not None else groups.append([])
    return groups[:-1]


def test_what_is_remembered_is_bounded(generator):
    size = 2 * LONGER.n_layer * LONGER.n_embd * BLOCK * 4
    batch = Batch(generator, 2 * size + 1)
    for start in range(4):
        prompt = batch.add_prompt(random_tokens(LONGER, 1, 700, seed=start)[0])
        while prompt.logits is None:
            batch.step()
        batch.remove_prompt(prompt)
        assert len(batch.memory.blocks) == 2
        assert batch.memory.bytes == sum(block.nbytes for block in batch.memory.blocks.values()) == 2 * size


def test_prompts_and_rows_leave_in_the_midst(generator):
    tokens = random_tokens(LONGER, 1, 780)[0].tolist()
    batch = Batch(generator)
    gone = batch.add_prompt(tokens)
    row = add(batch, batch.add_prompt(tokens[:10]))
    batch.step()
    batch.remove_prompt(gone)
    while len(row.drawn) < LENGTH:
        batch.step()
    assert row.drawn == alone(generator, tokens[:10])


def test_what_memory_held_before_does_not_matter(longer, monkeypatch):
    generator = longer['float32']
    tokens = random_tokens(LONGER, 1, 300)[0].tolist()
    prompts = [tokens[:7], tokens, tokens[5:60]]
    expected = [alone(generator, ids) for ids in prompts]
    allocate = generator.allocate

    def allocate_used_memory():
        allocate()
        for details in generator.interpreter.get_input_details():
            generator.view(details['index'])[:] = np.nan

    monkeypatch.setattr(generator, 'allocate', allocate_used_memory)
    assert [alone(generator, ids) for ids in prompts] == expected
    steps = generator.generate(prompts[::2], LENGTH, numbers=[1, 1], seed=3)
    assert np.stack(list(steps), axis=1).tolist() == expected[::2]


def test_rows_look_at_slots_of_their_own_where_that_takes_few(generator):
    tokens = random_tokens(LONGER, 1, 780)[0].tolist()
    for prompts, apart in (
        ([tokens[:30], tokens[40:60], tokens[50:90]], True), ([tokens[:20]] * 3, False), ([tokens[:600]] * 3, False),
        ([tokens[:600], tokens[:2], tokens[5:8], tokens[6:9]], False), ([tokens[:9]], False),
    ):  # fmt: skip
        steps = generator.generate(prompts, LENGTH, numbers=range(len(prompts)), seed=3)
        first = [next(steps) for _ in range(2)][1]
        slots = generator.cache.owners.size
        assert (generator.cache.rows is not None) == apart, (len(prompts), first)
        assert slots <= 2 * generator.cache.in_use() + 64 * len(prompts)
        steps.close()


def test_tiny_prompts_to_the_end_of_the_window(tmp_path, tiny_params):
    generator = both_engines(tmp_path, TINY, tiny_params)[1]
    ids = random_tokens(TINY, 1, TINY.n_ctx)[0].tolist()
    batch = Batch(generator)
    row = add(batch, batch.add_prompt(ids), temperature=0)
    batch.step()
    assert row.drawn == [int(token[0]) for token in generator.generate([ids], 1, numbers=[1], seed=0, temperature=0)]
