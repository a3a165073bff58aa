"""The process that computes: what one request does wrong is no other's."""

import collections
import queue
import types

import pytest
from example_models import TINY, random_tokens
from litert.test_engine import both_engines
from test_flow import Letters, drawn, task

from gpt2.engines import open_batch
from gpt2.litert.batching import Batch
from gpt2.serving.work import Completions, Done, Embedding
from gpt2.serving.worker import EVENTS, Scheduler


def completions(ids, **changes):
    fields = {
        'prompts': (tuple(ids),), 'n': 1, 'best_of': 1, 'seed': 1, 'length': 5, 'sampling': {}, 'texts': {}, 'stop': (),
        'stop_at_end': False, 'logprobs': None, 'echo': False,
    }  # fmt: skip
    return Completions(**fields | changes)


def heard(offline, works):
    """The events of pieces of work that are computed together, a list for each."""
    inbox, events = queue.SimpleQueue(), [[] for _ in works]

    def send(kind, found, load):
        for number, event in found:
            events[number].append(event)
        if all(some and isinstance(some[-1], Done) for some in events):
            inbox.put(None)

    for number, work in enumerate(works):
        inbox.put(('add', number, work))
    Scheduler(offline, Batch(offline.engine), 8).run(inbox, send)
    return events


@pytest.mark.parametrize(
    'bad',
    [
        {'sampling': {'logit_bias': ((99999, 1.0),)}},  # fails in the draw
        {'sampling': {'temperature': -1}},  # as it is made
        {'length': 0, 'echo': True, 'logprobs': 'x'},  # as its prompt is heard
        {'logprobs': 'x'},  # as its token is taken
        {'seed': -1},  # as it begins
    ],
)
def test_a_request_that_fails_ends_alone(offline, bad):
    ids = offline.encode('Once upon a time')
    [[*pieces, last], [*_, failed]] = heard(offline, [completions(ids), completions(ids, **bad)])
    assert last == Done(5)
    expected = offline.complete('Once upon a time', seed=1, length=5, stop_at_end=False).text
    assert ''.join(piece.text for piece in pieces) == expected
    assert isinstance(failed, Done)
    assert failed.fault


def test_an_exception_is_the_servers_fault_an_error_the_requests(offline, capsys):
    ids = tuple(offline.encode('Once'))
    bias = {'logit_bias': ((99999, 1.0),)}
    [[error], [fault], [_, last]] = heard(
        offline, [completions(ids, sampling={'top_p': 7}), completions(ids, sampling=bias), Embedding((ids,), True)]
    )
    assert 'top_p is 7' in error.fault
    assert not error.failed
    assert 'IndexError' in fault.fault
    assert fault.failed
    assert 'IndexError' in capsys.readouterr().err
    assert last == Done()


def test_a_search_waits_for_room_and_leaves_nothing(offline):
    ids = tuple(offline.encode('Once'))
    batch = Batch(offline.engine)
    scheduler = Scheduler(offline, batch, 4)
    scheduler.add(1, completions(ids, n=2, best_of=2))
    scheduler.add(2, completions(ids, beams=4, length=3))
    scheduler.add(3, completions(ids, beams=3, length=300))
    running = []
    while 2 in scheduler.jobs:
        scheduler.start_parts()
        scheduler.step()
        running.append(scheduler.running)
    assert (running[0], max(running)) == (1, 4)  # the search begins where all its beams find room
    scheduler.start_parts()
    for _ in range(3):
        scheduler.step()
    [(_, steps)] = scheduler.jobs[3].searches.values()
    inbox = queue.SimpleQueue()
    inbox.put(('cancel', 3))
    scheduler.take_messages(inbox)
    assert not scheduler.jobs
    assert steps.gi_frame is None  # its rows are closed


def test_a_message_holds_few_events(offline):
    """What the server does at once is little, however much a step finds."""
    ids, messages, inbox = offline.encode('Once upon a time'), [], queue.SimpleQueue()

    def send(kind, found, load):
        messages.append(found)
        if any(isinstance(event, Done) for _, event in found):
            inbox.put(None)

    inbox.put(('add', 0, completions(ids, n=20, best_of=20, length=0, echo=True, logprobs=1)))
    Scheduler(offline, Batch(offline.engine), 8).run(inbox, send)
    pieces = [event for found in messages for _, event in found][:-1]
    assert max(map(len, messages)) == EVENTS
    assert collections.Counter(piece.index for piece in pieces if piece.finish_reason) == dict.fromkeys(range(20), 1)
    assert [len(piece.tokens) for piece in pieces] == [1] * 20 + [len(ids) - 1] * 20 + [0] * 20


@pytest.fixture(scope='module')
def engines(tmp_path_factory, tiny_params):
    return both_engines(tmp_path_factory.mktemp('beyond'), TINY, tiny_params)


@pytest.mark.parametrize('how', [{}, {'top_k': 5, 'repetition_penalty': 1.3, 'no_repeat_ngram': 2}])
def test_texts_that_outgrow_the_window(engines, how):
    """Beside one another, also where the prompt has outgrown it, they are what each is alone; and nothing stays."""
    tokens, keep = random_tokens(TINY, 1, 90)[0].tolist(), 7
    prompts, seed = [tokens[:5], tokens[:38], tokens[:90]], 3
    for engine in engines:
        tasks = [task(ids, number, 75, keep, seed=seed, **how) for ids in prompts for number in (1, 2)]
        drawn(engine, tasks, len(tasks))
        batch = open_batch(engine)
        work = completions(
            (), prompts=tuple(map(tuple, prompts)), n=2, best_of=2, length=75, seed=seed, sampling=how, keep=keep
        )
        scheduler = Scheduler(types.SimpleNamespace(encoder=Letters()), batch, 4)
        scheduler.add(0, work)
        while scheduler.jobs:
            scheduler.start_parts()
            scheduler.step()
        texts = collections.defaultdict(str)
        for _, event in scheduler.events[:-1]:
            texts[event.index] += event.text
        assert [texts[index] for index in range(6)] == [each.completion.text for each in tasks]
        assert (batch.rows, batch.prompts, scheduler.events[-1]) == ([], [], (0, Done(6 * 75)))


def test_a_text_beyond_the_window_that_is_given_up_leaves_nothing(engines):
    for engine in engines:
        batch, inbox = open_batch(engine), queue.SimpleQueue()
        scheduler = Scheduler(types.SimpleNamespace(encoder=Letters()), batch, 4)
        scheduler.add(0, completions([1, 2, 3], n=2, best_of=2, length=200, keep=0))
        removed, remove = [], batch.remove_prompt
        batch.remove_prompt = lambda prompt: (removed.append(prompt), remove(prompt))  # noqa: B023
        for _ in range(60):
            scheduler.start_parts()
            scheduler.step()
        known = {row.prompt for row in scheduler.jobs[0].samples}
        assert len(known) == 2
        assert not known & {*removed}
        inbox.put(('cancel', 0))
        scheduler.take_messages(inbox)
        assert known <= {*removed}
        assert len({*removed}) == len(removed)
        assert batch.rows == []
