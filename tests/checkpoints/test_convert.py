"""From any format to any other: the same weights, whole or not at all."""

import importlib
import os
import resource
import signal
import threading

import pytest
from example_models import BUNDLED, HERE, random_values

from gpt2.checkpoints import bundle, convert, huggingface
from gpt2.checkpoints.convert import WRITERS, new_at
from gpt2.checkpoints.source import Source, open_source
from gpt2.commands.flags import exit_status
from gpt2.encoder import END_OF_TEXT, Encoder, bytes_to_unicode
from gpt2.errors import Error, UsageError
from gpt2.hparams import HParams
from gpt2.system.files import WriteError

TOKENS = [*bytes_to_unicode().values(), END_OF_TEXT]
SMALL = HParams(n_vocab=len(TOKENS), n_ctx=12, n_embd=8, n_head=2, n_layer=1)
ENCODER = Encoder({token: index for index, token in enumerate(TOKENS)}, [])


def small_source(values=None, encoder=ENCODER):
    values = values or random_values(SMALL)
    return Source('small', 'release', SMALL, encoder, values.__getitem__, 'identity')


def available(to):
    try:
        return importlib.import_module(WRITERS[to])
    except ImportError:
        pytest.skip(f'no writer of {to}')


# Round trips


@pytest.mark.parametrize('between', ['huggingface', 'gguf'])
def test_the_bundled_model_comes_back_byte_for_byte(tmp_path, between):
    available(between)
    source = open_source(str(BUNDLED))
    there = convert.convert(source, str(tmp_path / 'there'), between)
    back = convert.convert(open_source(there.destination), str(tmp_path / 'back'), 'release')
    assert there.digest == back.digest == source.digest()
    for name in ('model.ckpt.data-00000-of-00001', 'model.ckpt.index', 'encoder.json', 'vocab.bpe', 'hparams.json'):
        assert (tmp_path / 'back' / name).read_bytes() == (BUNDLED / name).read_bytes(), name


def test_added_tokens_and_an_end_token_of_its_own_survive_every_way(tmp_path):
    source = open_source(str(HERE / 'huggingface' / 'tiny'))
    theirs = source.encoder
    own_end = Encoder(theirs.encoder, list(theirs.bpe_ranks), added=theirs.added, end_of_text=298)
    source = Source('tiny', 'huggingface', source.hparams, own_end, source.read, 'identity')
    first = convert.convert(source, str(tmp_path / 'release'), 'release')
    second = convert.convert(open_source(first.destination), str(tmp_path / 'huggingface'), 'huggingface')
    for done in (first, second):
        again = open_source(done.destination).encoder
        assert (again.added, again.end_of_text) == (own_end.added, 298)


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_the_digest_is_of_what_was_written(tmp_path, dtype):
    done = convert.convert(small_source(), str(tmp_path / 'a'), 'huggingface', dtype)
    again = open_source(str(tmp_path / 'a'))
    assert again.dtype == dtype
    assert again.digest() == done.digest != small_source().digest()


def test_progress_and_digest_cover_every_variable(tmp_path):
    values = random_values(SMALL)
    done = convert.convert(small_source(values), str(tmp_path / 'a'), 'huggingface')
    changed = values | {'model/ln_f/g': values['model/ln_f/g'] + 1}
    assert convert.convert(small_source(changed), str(tmp_path / 'b'), 'huggingface').digest != done.digest


# What is refused


@pytest.mark.parametrize('make', [os.mkdir, lambda path: open(path, 'w').close(), lambda path: os.symlink('/x', path)])
def test_a_destination_that_is_there(tmp_path, make):
    make(str(tmp_path / 'mine'))
    with pytest.raises(UsageError, match='mine is there already'):
        convert.convert(small_source(), str(tmp_path / 'mine'), 'huggingface')
    assert [path.name for path in tmp_path.iterdir()] == ['mine']


def test_a_dtype_that_a_format_cannot_hold(tmp_path):
    with pytest.raises(UsageError, match="--dtype is 'float16', and --to release holds float32"):
        convert.convert(small_source(), str(tmp_path / 'mine'), 'release', 'float16')
    with pytest.raises(UsageError, match='--to huggingface holds float32 or float16 or bfloat16'):
        convert.convert(small_source(), str(tmp_path / 'mine'), 'huggingface', 'q8_0')


def test_a_weight_that_a_dtype_cannot_hold_is_named(tmp_path):
    values = random_values(SMALL)
    values['model/h0/ln_1/g'][0] = 1e6
    with pytest.raises(Error, match=r'small: model/h0/ln_1/g: a weight of 1e\+06 is too large for float16'):
        convert.convert(small_source(values), str(tmp_path / 'mine'), 'huggingface', 'float16')
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('to', ['release', 'huggingface'])
def test_a_model_without_vocabulary(tmp_path, to):
    with pytest.raises(Error, match='small has no vocabulary'):
        convert.convert(small_source(encoder=None), str(tmp_path / 'mine'), to)
    assert list(tmp_path.iterdir()) == []


def test_an_added_token_that_the_release_s_layout_cannot_hold(tmp_path):
    """A line break that is a token of its own, beside that of the byte."""
    encoder = Encoder(ENCODER.encoder, [], added={END_OF_TEXT: 256, '\n': 257})
    with pytest.raises(Error, match=r"the added token '\\n' is spelt in encoder.json as token 198 is"):
        bundle.write(str(tmp_path / 'mine'), small_source(encoder=encoder))


# Whole or not at all


def limited(bytes_, function):
    """What function raises where no file may be longer."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, before[1]))
    try:
        with pytest.raises(WriteError) as caught:
            function()
        return str(caught.value)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize('to', ['release', 'huggingface', 'gguf'])
@pytest.mark.parametrize('limit', [100, 8000])
def test_a_disk_that_fills_leaves_nothing(tmp_path, to, limit):
    available(to)
    message = limited(limit, lambda: convert.convert(small_source(), str(tmp_path / 'mine'), to))
    assert 'cannot be written (File too large); ' in message
    assert '\n' not in message
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_found_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr('shutil.disk_usage', lambda path: type('Usage', (), {'free': 1000}))
    with pytest.raises(WriteError, match=r'has no room: .* are needed and 1000 free'):
        convert.convert(small_source(), str(tmp_path / 'mine'), 'huggingface')
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_turns_out_damaged_leaves_nothing(tmp_path):
    values = random_values(SMALL)
    del values['model/ln_f/b']
    with pytest.raises(KeyError):
        convert.convert(small_source(values), str(tmp_path / 'mine'), 'huggingface')
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_nothing(tmp_path):
    def read(name):
        raise KeyboardInterrupt

    source = Source('small', 'release', SMALL, ENCODER, read, 'identity')
    with pytest.raises(KeyboardInterrupt):
        convert.convert(source, str(tmp_path / 'mine'), 'huggingface')
    assert list(tmp_path.iterdir()) == []


def test_a_destination_that_came_to_be_in_the_meantime_is_kept(tmp_path):
    with pytest.raises(UsageError, match='came to be in the meantime'), new_at(str(tmp_path / 'mine'), 0) as part:
        os.mkdir(part)
        (tmp_path / 'mine').write_text('of another process')
    assert (tmp_path / 'mine').read_text() == 'of another process'


@pytest.mark.skipif(os.name != 'posix', reason='POSIX signals')
@pytest.mark.parametrize('name', ['SIGTERM', 'SIGHUP'])
def test_a_signal_to_end_leaves_nothing(tmp_path, name):
    number = getattr(signal, name)

    def read(name):
        assert list(tmp_path.glob('.mine.*.part'))
        signal.raise_signal(number)

    source = Source('small', 'release', SMALL, ENCODER, read, 'identity')
    try:
        with pytest.raises(SystemExit) as caught, exit_status('convert.py'):
            convert.convert(source, str(tmp_path / 'mine'), 'huggingface')
    finally:
        signal.signal(number, signal.SIG_DFL)
    assert caught.value.code == 128 + number
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_conversion_left_is_removed_by_the_next(tmp_path):
    (tmp_path / '.mine.abcd_123.part' / 'mine').mkdir(parents=True)
    (tmp_path / '.mine.lock').touch()
    others = ['.mine.abcd_124.part/of a user', '.mine2.abcd_123.part/mine2', '.mine.x.part/mine']
    for other in others:
        (tmp_path / other).mkdir(parents=True)
    with new_at(str(tmp_path / 'mine'), 0) as part:
        assert len(list(tmp_path.glob('.mine.*.part'))) == 3
        os.mkdir(part)
    assert {path.name for path in tmp_path.iterdir()} == {'mine', *(other.partition('/')[0] for other in others)}


def test_folders_above_a_conversion_that_fails_go_with_it(tmp_path):
    with pytest.raises(ZeroDivisionError), new_at(str(tmp_path / 'a' / 'b' / 'mine'), 0):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_no_destination():
    with pytest.raises(UsageError, match="the destination is ''"), new_at('', 0):
        pass


def test_what_a_living_conversion_writes_is_left_alone(tmp_path):
    ends = []

    def second():
        with pytest.raises(UsageError, match='is there already'), new_at(str(tmp_path / 'mine'), 0):
            pass
        ends.append('second')

    thread = threading.Thread(target=second)
    with new_at(str(tmp_path / 'mine'), 0) as part:
        thread.start()
        thread.join(1)
        os.mkdir(part)  # which fails if its folder has gone
        ends.append('first')
    thread.join()
    assert ends == ['first', 'second']
    assert [path.name for path in tmp_path.iterdir()] == ['mine']


def test_folders_above_are_made_and_others_may_read_what_is_written(tmp_path):
    done = convert.convert(small_source(), str(tmp_path / 'a' / 'b'), 'huggingface')
    readable = [path.stat().st_mode & 0o444 for path in (tmp_path / 'a' / 'b').iterdir()]
    usual = ~mask_of_the_process() & 0o444
    assert set(readable) == {usual}
    assert (tmp_path / 'a' / 'b').stat().st_mode & 0o444 == usual
    assert done.destination == str(tmp_path / 'a' / 'b')


def mask_of_the_process():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_only_one_variable_is_in_memory_at_a_time(tmp_path):
    """Whoever writes lets go of a value before asking for the next."""
    import weakref

    alive = []
    values = random_values(SMALL)

    def read(name):
        assert not [name for name, value in alive if value() is not None]
        value = values[name].copy()
        alive.append((name, weakref.ref(value)))
        return value

    source = Source('small', 'release', SMALL, ENCODER, read, 'identity')
    huggingface.write(str(tmp_path / 'mine'), source)
    assert len(alive) == len(values)
