"""What a run starts from."""

import json
import os
import pathlib
import shutil
import signal
import types

import pytest
from example_models import HERE, TINY, training_settings

from gpt2.encoder import VocabularyError
from gpt2.errors import Error, UsageError
from gpt2.system.signals import Ended
from gpt2.training import loop, run
from gpt2.training.data import DatasetError
from gpt2.training.run import fitting, train_in
from gpt2.training.settings import DONE


def test_a_vocabulary_that_the_run_s_folder_cannot_hold_is_refused_before_it_is_made(tmp_path):
    folder = shutil.copytree(HERE / 'huggingface' / 'tiny', tmp_path / 'tiny')
    path = folder / 'tokenizer.json'
    content = json.loads(path.read_text(encoding='utf-8'))
    content['added_tokens'][-1]['content'] = ' the'  # which the merges make too
    path.write_text(json.dumps(content))
    (folder / 'tokenizer_config.json').unlink()
    (tmp_path / 'text.txt').write_text('some text' * 100)
    with pytest.raises(VocabularyError, match="the added token ' the' is spelt in"):
        train_in(str(tmp_path / 'a' / 'run'), [f'{tmp_path}/text.txt'], {'init_from': str(folder)}, {}, str(tmp_path))
    assert not (tmp_path / 'a').exists()


def test_log_lines_are_a_fifth_of_the_evaluations_apart_also_of_those_that_were_given():
    settings = training_settings(steps=60)
    assert fitting(settings, None) == {'every': 6, 'log_every': 1}
    assert fitting(settings, 20) == {'every': 20, 'log_every': 4}


def test_a_run_that_another_has_overtaken_does_not_write_over_it(tmp_path, monkeypatch):
    """A run in the same folder has ended between the look at the folder and the lock."""
    (tmp_path / 'text.txt').write_text('some text' * 100)
    (tmp_path / 'run').mkdir()
    before, assembled = run.folders.run_in, run.assembled

    def overtaken():
        monkeypatch.setattr(run.folders, 'run_in', lambda _: {})
        return assembled()

    monkeypatch.setattr(run, 'assembled', overtaken)
    with pytest.raises(Error, match=r'another run has trained in .* meanwhile'):
        train_in(str(tmp_path / 'run'), [f'{tmp_path}/text.txt'], {'n_embd': 8, 'n_head': 1}, {}, str(tmp_path))
    assert before(str(tmp_path / 'run')) is None


FLAGS = {'n_embd': 8, 'n_head': 1, 'n_layer': 1, 'n_ctx': 16, 'batch_size': 2, 'steps': 4}


def record_of(folder, patterns, record=None, **flags):
    """What a run would write of itself, without TensorFlow. record: of the run that goes on."""
    folder.mkdir(exist_ok=True)
    start = run.prepared(str(folder), list(map(str, patterns)), FLAGS | flags, {}, 'models')
    return run.planned(str(folder), start._replace(record=record), {}, run.Team())[0].record


@pytest.fixture
def texts(tmp_path, monkeypatch):
    """a.txt and b.txt in the current folder, and the model run/."""
    for name in ('a.txt', 'b.txt'):
        (tmp_path / name).write_text(f'{name}: the cat sat on the mat. ' * 50)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_goes_on_with_its_own_weights_and_held_out_text_alone(texts):
    before = record_of(texts / 'run', ['a.txt:1', 'b.txt:1->0'])
    assert before['weights'] == [[1, 1], [1, 0]]
    before = json.loads(json.dumps(before))
    assert record_of(texts / 'run', ['a.txt:1', 'b.txt:1->0'], before) == before
    with pytest.raises(UsageError, match=r'was trained with weights .* now it is'):
        record_of(texts / 'run', ['a.txt:1', 'b.txt:30'], before)
    before = record_of(texts / 'run', ['a.txt'], held_out_data=['b.txt'])
    (texts / 'b.txt').write_text('other words ' * 50)
    with pytest.raises(UsageError, match='was trained with held_out_crc32'):
        record_of(texts / 'run', ['a.txt'], before, held_out_data=['b.txt'])


def test_the_shape_of_a_run_from_a_model_is_that_of_the_model(texts):
    where = {'init_from': str(HERE / 'huggingface' / 'tiny'), 'batch_size': 2, 'steps': 4}
    start = run.prepared(str(texts / 'run'), ['a.txt'], where, {}, 'models')
    assert {name: start.flags[name] for name in run.SHAPE} == {name: getattr(start.hparams, name) for name in run.SHAPE}


@pytest.mark.parametrize(
    ('habits', 'flags', 'message'),
    [
        ({'patience': 1}, {'held_out': 0}, '--patience needs held-out text'),
        ({'keep': 'best'}, {'held_out': 0}, '--keep best needs held-out text'),
        ({}, {'held_out_data': ['empty.txt']}, r'empty\.txt holds no text to evaluate on'),
        ({}, {'held_out_data': ['./a.txt']}, r'a\.txt is both trained on and --held_out_data'),
    ],
)
def test_an_evaluation_of_nothing_or_of_the_training_text_is_refused(texts, habits, flags, message):
    (texts / 'empty.txt').write_text('')
    with pytest.raises(Error, match=message):
        train_in(str(texts / 'run'), ['a.txt'], FLAGS | flags, habits, 'models')
    assert not (texts / 'run').exists()


@pytest.mark.parametrize(
    'row',
    [{'prompt': 'some words ' * 99, 'completion': ''}, {'messages': [{'role': 'gpt', 'content': 'some words ' * 99}]}],
)
def test_data_of_which_nothing_is_trained_on_is_refused(texts, row):
    (texts / 'a.jsonl').write_text(json.dumps(row))
    with pytest.raises(DatasetError, match=r'a\.jsonl has no completion, .*--train_on_prompt'):
        train_in(str(texts / 'run'), ['a.jsonl'], FLAGS, {}, 'models')


@pytest.mark.parametrize('others', [['./a.txt:3'], ['b.txt:1', '*.txt:1'], ['link.txt:2']])
def test_a_file_with_two_weights_is_refused(texts, others):
    """What is held out of one text would be trained on as part of the other."""
    (texts / 'link.txt').symlink_to('a.txt')
    with pytest.raises(UsageError, match=r'\.txt is given with two weights; leave it out of one of them'):
        train_in(str(texts / 'run'), ['a.txt:1', *others], FLAGS, {}, 'models')


def test_token_files_of_texts_that_were_changed_are_not_kept(texts, monkeypatch):
    old = texts / 'run' / 'tokens-0123456789abcdef'
    old.mkdir(parents=True)
    (old / 'ids').write_text('x')
    left = []
    monkeypatch.setattr(run, 'carry_out', lambda *_: left.extend(sorted((texts / 'run').glob('tokens-*'))))
    train_in(str(texts / 'run'), ['a.txt'], FLAGS | {'held_out_data': ['b.txt']}, {}, 'models')
    assert len(left) == 2 and old not in left


def test_the_text_that_is_too_short_for_a_mixture_is_named(texts):
    (texts / 'short.txt').write_text('two words')
    with pytest.raises(DatasetError, match=r'text 2 of the mixture has . training tokens'):
        train_in(str(texts / 'run'), ['a.txt:1', 'short.txt:1'], FLAGS | {'held_out': 0}, {}, 'models')


def test_a_run_whose_patience_was_at_an_end_is_done_for_the_same_patience_alone(tmp_path):
    lines = [{'step': step, 'loss': 1.0, 'learning_rate': 0.1, 'held_out_loss': float(step)} for step in (1, 2, 3)]
    run.folders.write_log(str(tmp_path), lines)

    def way(before, steps, patience):
        habits = loop.Habits(1, 1, patience=patience)
        it = types.SimpleNamespace(folder=str(tmp_path), habits=habits, settings=training_settings(steps=steps))
        return run.way_past_end(it, before, 3)

    assert 'with more --patience' in way({DONE: 3}, 40, 2)
    assert way({DONE: 3}, 40, 3) is way({DONE: 3}, 40, None) is way({}, 40, 2) is None
    assert 'with more --steps' in way({DONE: 3}, 3, None)


def test_a_loss_that_is_no_number_is_never_the_best_and_null_in_the_log(tmp_path):
    lines = [
        {'step': step, 'loss': float('inf'), 'learning_rate': 0.1, 'held_out_loss': loss}
        for step, loss in enumerate((float('nan'), 2.0, 1.0), start=1)
    ]
    run.folders.write_log(str(tmp_path), lines[:2])
    run.folders.append_log(str(tmp_path), lines[2])
    text = (tmp_path / 'training.jsonl').read_text()
    assert 'NaN' not in text and 'Infinity' not in text and text.count('null') == 4
    state = loop.Progress(3, run.folders.read_log(str(tmp_path)), lambda *_: None)
    assert state.best() == 3 and not state.out_of_patience(1)


def test_a_signal_before_the_first_update_leaves_nothing(texts, monkeypatch):
    def come(*_):
        signal.raise_signal(signal.SIGUSR1)

    monkeypatch.setattr('gpt2.training.tokens.encode', come)
    with pytest.raises(Ended):
        train_in(str(texts / 'run'), ['a.txt'], FLAGS, {}, 'models')
    assert not (texts / 'run').exists() and signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


@pytest.mark.parametrize('name', ['hparams.json', 'encoder.json', 'vocab.bpe'])
def test_nobody_is_told_to_download_a_run_of_ones_own(texts, encoder, name):
    run.folders.write_encoder(str(texts), encoder)
    run.folders.save_hparams('hparams.json', TINY)
    pathlib.Path(name).write_text('')
    with pytest.raises(Error, match=f'{name}.*; put it back as it was, or train again') as caught:
        run.origin(str(texts), {'lora_rank': 0}, {}, 'models', None)
    assert 'download' not in str(caught.value)
    os.remove(name)
    with pytest.raises(Error, match=f'{name}.*; put it back as it was'):
        run.origin(str(texts), {'lora_rank': 0}, {}, 'models', None)
