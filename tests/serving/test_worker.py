"""The process that computes: what one request does wrong is no other's."""

import queue

import pytest

from gpt2.litert.batching import Batch
from gpt2.serving.work import Completions, Done, Embedding
from gpt2.serving.worker import Scheduler


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
