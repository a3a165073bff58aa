"""Completion: ids to text as they are drawn, stop texts, the end-of-text token."""

import random

import pytest
from example_models import RELEASE

from gpt2.completion import Completion, complete, overlap
from gpt2.encoder import END_OF_TEXT, get_encoder

REPLACEMENT = '\ufffd'


class ChunkEncoder:
    """A vocabulary in which id n + 1 means the n-th of some chunks of bytes; id 0 is end-of-text."""

    end_of_text = 0
    end_ids = (0,)
    errors = 'replace'

    def __init__(self, chunks):
        self.chunks = [END_OF_TEXT.encode(), *chunks]

    def decode_bytes(self, tokens):
        return b''.join(self.chunks[token] for token in tokens)


@pytest.fixture(scope='module')
def released():
    return get_encoder('124M', str(RELEASE))


def as_bytes(chunks):
    return [chunk.encode() if isinstance(chunk, str) else chunk for chunk in chunks]


def grow(chunks, finish='length', **settings):
    """A Completion that was given the chunks one by one, and what new_text() returned after each."""
    completion = Completion(ChunkEncoder(as_bytes(chunks)), 1, **settings)
    pieces = []
    for token in range(1, len(chunks) + 1):
        completion.add(token)
        pieces.append(completion.new_text())
    if finish:
        completion.finish(finish)
        pieces.append(completion.new_text())
    return completion, pieces


class ScriptedRows:
    """Rows that draw what they are told: steps is a list of the tokens of all rows, step by step."""

    def __init__(self, steps):
        self.steps, self.taken, self.left, self.closed = steps, 0, list(range(len(steps[0]))), False

    def step(self):
        self.taken += 1
        return [self.steps[self.taken - 1][row] for row in self.left]

    def keep(self, rows):
        self.left = [self.left[row] for row in rows]

    def close(self):
        self.closed = True


# Characters cut between tokens


@pytest.mark.parametrize('character', ['é', '€', '漢', '😀', '\U0010ffff'])
def test_a_character_cut_into_single_bytes_comes_whole_with_its_last_byte(character):
    data = character.encode()
    _, pieces = grow([data[index : index + 1] for index in range(len(data))])
    assert pieces == [''] * (len(data) - 1) + [character, '']


def test_release_tokens_that_cut_characters_stream_without_replacement_marks(released):
    text = 'naïve 漢字かな 😀🤖 ελληνικά 𝔘𝔫𝔦'
    ids = released.encode(text)
    assert REPLACEMENT in ''.join(released.decode([token]) for token in ids), 'no character is cut: proves nothing'
    completion = Completion(released, 1)
    pieces = []
    for token in ids:
        completion.add(token)
        pieces.append(completion.new_text())
    assert ''.join(pieces) == completion.text == text
    completion.finish('length')
    assert completion.new_text() == ''


def test_a_character_cut_at_the_end_becomes_a_replacement_mark_at_finish():
    completion, pieces = grow(['a', '😀'.encode()[:3]])
    assert pieces == ['a', '', REPLACEMENT]
    assert completion.text == f'a{REPLACEMENT}'


def test_bytes_that_are_no_utf8_become_a_replacement_mark_at_once():
    _, pieces = grow([b'\xff', 'b'])
    assert pieces == [REPLACEMENT, 'b', '']


# Stop texts


@pytest.mark.parametrize(
    ('chunks', 'stop', 'text'),
    [
        pytest.param(['one. two'], ['.'], 'one', id='inside a token'),
        pytest.param(['one', '.', ' two'], ['.'], 'one', id='a whole token'),
        pytest.param(['on', 'e E', 'N', 'D t', 'wo'], ['END'], 'one ', id='across three tokens'),
        pytest.param(['.', 'one'], ['.'], '', id='first of all'),
        pytest.param(['one.two.three'], ['.'], 'one', id='first of two places'),
        pytest.param(['one, two. three'], ['.', ','], 'one', id='the earliest of two texts'),
        pytest.param(['one, two. three'], [',', '.'], 'one', id='the earliest, in the other order'),
        pytest.param(['xabcd'], ['bc', 'abcd'], 'x', id='the earliest of two that overlap'),
        pytest.param(['xa', 'bc', 'd'], ['bc', 'abcd'], 'xa', id='the one that is whole first'),
        pytest.param(['ab', 'c'], ['abc', 'abcd'], '', id='one begins another'),
        pytest.param(['aa', 'ab'], ['aab'], 'a', id='repeats before the stop'),
        pytest.param(['line\r', '\n', 'more'], ['\r\n'], 'line', id='line end across tokens'),
        pytest.param(['A漢', '字B'], ['漢字'], 'A', id='other scripts'),
        pytest.param([b'A\xf0\x9f', b'\x98\x80B'], ['😀'], 'A', id='a character cut between tokens'),
    ],
)
def test_text_is_cut_before_the_stop(chunks, stop, text):
    completion, pieces = grow(chunks, stop=stop)
    assert completion.text == ''.join(pieces) == text
    assert completion.finish_reason == 'stop'


@pytest.mark.parametrize('stop', ['END', 'longer than the whole text', 'One', '..'])
def test_a_stop_that_never_comes_changes_nothing(stop):
    completion, pieces = grow(['one', ' two', '.'], stop=[stop])
    assert completion.text == ''.join(pieces) == 'one two.'
    assert completion.finish_reason == 'length'


@pytest.mark.parametrize(
    ('chunks', 'stop', 'pieces'),
    [
        pytest.param(['one E', 'N', 'd'], ['END'], ['one ', '', 'ENd', ''], id='released when it goes another way'),
        pytest.param(['one E', 'N'], ['END'], ['one ', '', 'EN'], id='released at the end'),
        pytest.param(['aa', 'a', 'b'], ['aab'], ['', 'a', '', ''], id='only what may still begin it'),
        pytest.param(['xab', 'y'], ['b.', 'ab!'], ['x', 'aby', ''], id='the longest of several beginnings'),
        pytest.param(['one', ' two'], ['END'], ['one', ' two', ''], id='nothing without a beginning'),
        pytest.param(['ENDE', 'N'], ['END'], ['', '', ''], id='nothing after the stop'),
    ],
)
def test_text_that_may_begin_a_stop_is_held_back(chunks, stop, pieces):
    assert grow(chunks, stop=stop)[1] == pieces


def test_a_replacement_mark_at_finish_can_complete_a_stop():
    completion, pieces = grow(['one', '😀'.encode()[:2]], stop=[f'e{REPLACEMENT}'])
    assert (completion.text, completion.finish_reason) == ('on', 'stop')
    assert ''.join(pieces) == 'on'


@pytest.mark.parametrize(
    ('text', 'stop', 'length'),
    [('', 'ab', 0), ('xa', 'ab', 1), ('xb', 'ab', 0), ('ab', 'ab', 0), ('a', 'a', 0), ('aa', 'aaa', 2)],
)
def test_overlap(text, stop, length):
    assert overlap(text, stop) == length


# End of text, ids, finish


def test_stop_at_end_ends_before_the_token_and_keeps_its_id():
    completion = Completion(ChunkEncoder([b'one']), 1, stop_at_end=True)
    for token in (1, 0, 1):
        completion.add(token)
    assert (completion.text, completion.finish_reason, completion.ids) == ('one', 'end_of_text', [1, 0])


def test_without_stop_at_end_the_token_is_text_like_any_other():
    completion = Completion(ChunkEncoder([b'one']), 1)
    for token in (1, 0, 1):
        completion.add(token)
    assert (completion.text, completion.finish_reason) == (f'one{END_OF_TEXT}one', None)


def test_stop_at_end_with_the_released_vocabulary(released):
    completion = Completion(released, 1, stop_at_end=True)
    for token in (*released.encode(' literal <|endoftext|> goes on'), 50256, 13):
        completion.add(token)
    assert completion.text == ' literal <|endoftext|> goes on'
    assert (completion.finish_reason, completion.ids[-1]) == ('end_of_text', 50256)


def test_a_character_cut_by_end_of_text_becomes_a_replacement_mark():
    completion = Completion(ChunkEncoder(['é'.encode()[:1]]), 1, stop_at_end=True)
    completion.add(1)
    completion.add(0)
    assert completion.text == REPLACEMENT


def test_ids_are_all_that_were_drawn_up_to_the_stop():
    completion, _ = grow(['one', ' EN', 'D two', ' three'], stop=['END'])
    assert completion.ids == [1, 2, 3]


def test_ids_are_plain_ints_that_json_can_write():
    numpy = pytest.importorskip('numpy')
    completion = Completion(ChunkEncoder([b'one']), 1)
    completion.add(numpy.int32(1))
    assert [type(token) for token in completion.ids] == [int]


def test_finish_keeps_the_first_reason():
    completion, _ = grow(['one.'], stop=['.'], finish='length')
    assert completion.finish_reason == 'stop'


def test_finish_reason_is_none_while_the_sample_grows():
    assert grow(['one', ' two'], finish=None)[0].finish_reason is None


# complete


def test_complete_gives_every_row_its_own_ids_and_ends_with_length():
    encoder = ChunkEncoder([b'a', b'b', b'c'])
    rows = [Completion(encoder, 1, length=2), Completion(encoder, 2, length=2)]
    for _ in complete(ScriptedRows([[1, 2], [2, 3]]), rows):
        pass
    assert [(row.text, row.ids) for row in rows] == [('ab', [1, 2]), ('bc', [2, 3])]
    assert [row.finish_reason for row in rows] == ['length', 'length']


@pytest.mark.parametrize(
    ('steps', 'needed'),
    [
        pytest.param([[3], [1], [1]], 1, id='one row, at once'),
        pytest.param([[1], [3], [1], [1]], 2, id='one row'),
        pytest.param([[3, 1], [1, 1], [1, 3], [1, 1], [1, 1]], 3, id='two rows, the last decides'),
        pytest.param([[3, 1], [1, 0], [1, 1]], 2, id='a stop text and end-of-text'),
        pytest.param([[1, 3], [1, 1], [1, 1]], 3, id='a row that never ends'),
    ],
)
def test_complete_takes_no_step_that_no_row_needs(steps, needed):
    encoder = ChunkEncoder([b'a', b'b', b'END'])
    scripted = ScriptedRows(steps)
    rows = [Completion(encoder, number, ['END'], stop_at_end=True, length=len(steps)) for number in (1, 2)]
    rows = rows[: len(steps[0])]
    for _ in complete(scripted, rows):
        pass
    assert scripted.taken == needed
    assert all(row.finish_reason for row in rows)
    assert scripted.closed


def test_complete_lets_a_caller_print_after_every_step():
    encoder = ChunkEncoder([b'one', b' two', '€'.encode()[:2]])
    row = Completion(encoder, 1, length=3)
    assert [row.new_text() for _ in complete(ScriptedRows([[1], [2], [3]]), [row])] == ['one', ' two', REPLACEMENT]


def test_complete_passes_over_what_a_row_gets_after_its_end():
    encoder = ChunkEncoder([b'a', b'END'])
    early, late = rows = [Completion(encoder, number, ['END']) for number in (1, 2)]
    for _ in complete(ScriptedRows([[2, 1], [1, 1], [1, 2]]), rows):
        pass
    assert (early.text, early.ids, late.text, late.ids) == ('', [2], 'aa', [1, 1, 2])


def test_completions_end_each_at_its_own_length():
    encoder = ChunkEncoder([b'a'])
    rows = [Completion(encoder, 1, length=length) for length in (3, 1, 2)]
    for _ in complete(ScriptedRows([[1, 1, 1]] * 9), rows):
        pass
    assert [(row.text, row.finish_reason) for row in rows] == [('aaa', 'length'), ('a', 'length'), ('aa', 'length')]


def test_an_abandoned_completion_closes_its_rows():
    scripted = ScriptedRows([[1]] * 9)
    steps = complete(scripted, [Completion(ChunkEncoder([b'a']), 1, length=5)])
    next(steps)
    steps.close()
    assert scripted.closed


# Against the obvious definition


def obvious(chunks, stops):
    """(text, finish reason, ids used), by decoding and searching the whole text after every id."""
    for used in range(1, len(chunks) + 1):
        text = b''.join(chunks[:used]).decode('utf-8', 'ignore')  # the texts are valid: only a cut end is ignored
        places = [text.find(stop) for stop in stops if stop in text]
        if places:
            return text[: min(places)], 'stop', used
    return b''.join(chunks).decode('utf-8', 'replace'), 'length', len(chunks)


def may_be_shown(text, stops):
    """The longest beginning of text that no stop can cut, whatever comes next."""
    ends = [start for stop in stops for start in range(len(text)) if stop.startswith(text[start:])]
    return text[: min(ends, default=len(text))]


def random_case(seed):
    """A text of few characters (so that stops and their beginnings are frequent), stops and chunks."""
    generator = random.Random(seed)
    letters = generator.choice(['ab', 'abc', 'aé', 'ab漢😀', '.\n '])
    text = ''.join(generator.choices(letters, k=generator.randrange(1, 40)))
    stops = [''.join(generator.choices(letters, k=generator.randrange(1, 7))) for _ in range(generator.randrange(4))]
    data = text.encode()[: generator.choice([None, None, -1, -2])] or b'a'
    cuts = sorted(generator.sample(range(1, len(data)), generator.randrange(len(data))))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)])], stops


@pytest.mark.parametrize('seed', range(20))
def test_random_texts_stops_and_chunkings_match_the_obvious_definition(seed):
    for case in range(100):
        chunks, stops = random_case(f'{seed}/{case}')
        text, reason, used = obvious(chunks, stops)
        completion, pieces = grow(chunks, stop=stops)
        assert (completion.text, completion.finish_reason) == (text, reason), (chunks, stops)
        assert completion.ids == list(range(1, used + 1)), (chunks, stops)
        assert ''.join(pieces) == text, (chunks, stops)
        for count in range(used):
            shown = may_be_shown(b''.join(chunks[:count]).decode('utf-8', 'ignore'), stops)
            assert ''.join(pieces[:count]) == shown, (chunks, stops, count)


def test_random_cases_hold_every_outcome():
    outcomes = {obvious(*random_case(f'{seed}/{case}'))[1] for seed in range(20) for case in range(100)}
    assert outcomes == {'stop', 'length'}


@pytest.mark.parametrize('seed', range(20))
def test_random_bytes_stream_to_what_decoding_them_whole_gives(seed):
    generator = random.Random(seed)
    data = bytes(generator.choices([*'aé€😀'.encode(), 0xFF], k=200))
    cuts = sorted(generator.sample(range(1, 200), 60))
    _, pieces = grow([data[start:end] for start, end in zip([0, *cuts], [*cuts, 200])])
    assert ''.join(pieces) == data.decode('utf-8', 'replace')


@pytest.mark.parametrize(
    ('chunks', 'offsets'),
    [
        (['a', b'\xf0', b'\xf0', b'\xf0', 'b'], [0, 1, 2, 3, 4]),  # each becomes U+FFFD
        ([b'\xe2', b'\x80', b'\x9c', 'b'], [0, 0, 0, 1]),
        ([b'\xe2', b'\x80', 'a'], [0, 0, 1]),
        ([b'\x80', b'\x80\xc3', b'\xa9', b'\xff', 'zz', 'z'], [0, 1, 2, 3, 4, 6]),
        ([b'a\xe6\x97', b'\xa5\xe6', b'\x9c\xac', '.'], [0, 1, 2, 3]),
    ],
)
def test_offsets_are_those_of_the_characters(chunks, offsets):
    completion, found = Completion(ChunkEncoder(as_bytes(chunks)), 1), []
    for token in range(1, len(chunks) + 1):
        found.append(completion.offset_of(token))
        completion.add(token)
    assert found == offsets
    completion.finish('length')
    text = b''.join(as_bytes(chunks)).decode(errors='replace')
    assert completion.text == text
    for offset, chunk in zip(offsets, chunks):
        if isinstance(chunk, str):
            assert text[offset:].startswith(chunk)
