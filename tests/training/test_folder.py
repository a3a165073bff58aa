"""The folder of a model in training: what is saved is whole, whenever the saving ends."""

import contextlib
import itertools
import os
import pathlib

import numpy as np
import pytest
from example_models import TINY, as_params, random_values, training_settings

from gpt2 import model
from gpt2.checkpoints import bundle, release
from gpt2.errors import Error
from gpt2.system import files
from gpt2.training import folder as folders
from gpt2.training import loop
from gpt2.training.optimizer import make_optimizer

RECORD = {'steps': 3, 'seed': 1, 'tokens_crc32': [[0, 0]]}
TOKENS = 'tokens-0123456789abcdef'
STAGES = ('write_values', 'write_meta_graph', 'write_state_file', 'remove')


class Killed(BaseException):
    """Nothing cleans up after it, as after SIGKILL."""


class Saver:
    """A folder that is saved into, each time with other weights."""

    def __init__(self, folder, monkeypatch, encoder):
        self.folder, self.encoder = str(folder), encoder
        self.params = as_params(random_values(TINY))
        self.optimizer = make_optimizer(list(model.flatten(self.params).values()), training_settings())
        self.left = None  # stages until the end
        # The graph takes long.
        monkeypatch.setattr(release, 'write_meta_graph', lambda path, _: open(path, 'w').close())
        self.write_values = release.write_values
        monkeypatch.setattr(release, 'write_values', self.write_in_parts)
        for name in STAGES:
            monkeypatch.setattr(release, name, self.counted(getattr(release, name)))
        monkeypatch.setattr(release.os, 'remove', self.counted(os.remove))
        replace = self.counted(os.replace)
        monkeypatch.setattr(files.os, 'replace', lambda *paths: (replace(*paths), self.stage()))

    def stage(self):
        if self.left is not None:
            if self.left == 0:
                raise Killed
            self.left -= 1

    def counted(self, function):
        def call(*arguments, **named):
            self.stage()
            return function(*arguments, **named)

        return call

    def write_in_parts(self, prefix, values):
        """As TensorFlow does: the values under another name, then under their own, and the index likewise. Each
        may be there by half."""
        self.write_values(prefix, values)
        paths = [pathlib.Path(prefix + end) for end in ('.data-00000-of-00001', '.index')]
        whole = [path.read_bytes() for path in paths]
        for path in paths:
            path.unlink()
        for path, content in zip(paths, whole):
            part = pathlib.Path(f'{path}.tempstate1')
            part.write_bytes(content[: len(content) // 2])
            self.stage()
            part.write_bytes(content)
            self.stage()
            part.rename(path)
            self.stage()

    def save(self, name, step, left=None):
        with self.killed_after(step, left):
            folders.save(self.folder, TINY, self.encoder, self.params, self.optimizer, name)

    @contextlib.contextmanager
    def killed_after(self, step, left):
        """Context with the weights of a step, which is killed after so many stages."""
        self.params['model']['ln_f']['b'].assign(np.full([TINY.n_embd], float(step)))
        self.optimizer.iterations.assign(step)
        self.left = left
        try:
            yield
        finally:
            self.left = None

    def saved_step(self):
        """Of the current checkpoint, which is read whole; that of the optimizer beside it is the same."""
        prefix = folders.current_prefix(self.folder)
        values = dict(bundle.read_values(prefix, {name: list(each.shape) for name, each in self.shapes().items()}))
        count = dict(bundle.read_values(f'{prefix}.optimizer', {'optimizer/iteration': []}))
        assert values['model/ln_f/b'][0] == count['optimizer/iteration']
        return int(values['model/ln_f/b'][0])

    def shapes(self):
        return model.flatten(self.params)


@pytest.fixture
def saver(tmp_path, monkeypatch, encoder):
    return Saver(tmp_path, monkeypatch, encoder)


@pytest.mark.parametrize(('first', 'second'), [('model-1', 'model-2'), ('model-1', 'model.ckpt'), ('model.ckpt',) * 2])
def test_a_kill_at_any_stage_of_saving_leaves_a_whole_checkpoint(saver, first, second):
    seen = []
    for stages in itertools.count():
        saver.save('model-0', 0)
        saver.save(first, 1)
        try:
            saver.save(second, 2, stages)
        except Killed:
            seen.append(saver.saved_step())
            continue
        break
    assert len(seen) > 8 and seen == sorted(seen) and set(seen) == {1, 2}
    kept = {name.partition('.')[0] if name.startswith('model-') else 'model.ckpt'
            for name in os.listdir(saver.folder) if name.startswith('model')}  # fmt: skip
    assert kept == {second}


def test_a_kill_as_the_best_becomes_the_model_leaves_a_checkpoint_to_go_on_from(saver, tmp_path):
    """Where the last save is not the best: the one before or the best, from both of which a run comes to the same."""
    habits = loop.Habits(1, 1, keep='best')
    seen = []
    for stages in itertools.count():
        saver.folder = str(tmp_path / str(stages))
        os.mkdir(saver.folder)
        run = loop.Run(saver.folder, TINY, saver.encoder, training_settings(), habits, None, None, {})
        state = loop.Progress(0, [], lambda *_: None)
        try:
            for step, loss in enumerate([1.0, 2.0, 3.0], start=1):
                state.step = step
                state.entries.append({'step': step, 'held_out_loss': loss})
                with saver.killed_after(step, stages if step == 3 else None):
                    loop.checkpoint(run, state, saver.params, saver.optimizer, step == 3)
        except Killed:
            seen.append(saver.saved_step())
            continue
        break
    assert len(seen) > 5 and seen == sorted(seen, reverse=True) and set(seen) == {2, 1}
    assert saver.saved_step() == 1 and state.saved.endswith('model-1')
    assert {name.partition('.')[0] for name in os.listdir(saver.folder) if name.startswith('model')} == {'model-1'}


def test_a_first_save_that_was_killed_is_a_run_not_begun(saver):
    folders.write_record(saver.folder, RECORD)
    with pytest.raises(Killed):
        saver.save('model-1', 1, left=0)
    for part in ('hparams.json.part', 'encoder.json.2.part'):  # of one that was killed twice
        pathlib.Path(saver.folder, part).touch()
    assert folders.run_in(saver.folder) is None
    saver.save('model-1', 1)
    assert folders.run_in(saver.folder) == RECORD


def test_parts_of_checkpoints_are_no_run(saver):
    folders.write_record(saver.folder, RECORD)
    saver.save('model-1', 1)
    os.remove(os.path.join(saver.folder, 'checkpoint'))
    os.remove(os.path.join(saver.folder, 'model-1.index'))
    with pytest.raises(Error, match='no whole checkpoint, only parts'):
        folders.run_in(saver.folder)


def test_no_other_checkpoint_is_promised_where_there_is_none(saver):
    folders.write_record(saver.folder, RECORD)
    saver.save('model-1', 1)
    os.remove(os.path.join(saver.folder, 'model-1.index'))
    with pytest.raises(Error, match='names a checkpoint that is not there, and there is no other; put it back'):
        folders.run_in(saver.folder)


def test_a_checkpoint_of_the_run_that_is_cut_is_no_download(saver):
    saver.save('model-1', 1)
    prefix = os.path.join(saver.folder, 'model-1')
    for end, remedy in (('', 'put it back'), ('.optimizer', 'start another run')):
        path = pathlib.Path(f'{prefix}{end}.data-00000-of-00001')
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(Error, match=remedy) as caught:
            folders.starting_point(prefix, None, TINY, training_settings())
        assert 'download' not in str(caught.value)
        path.write_bytes(content)


def test_a_context_that_fails_leaves_no_folder_but_one_that_was_there(tmp_path):
    for folder in (tmp_path / 'a' / 'b', tmp_path / 'there'):
        if folder.name == 'there':
            folder.mkdir()
            (folder / 'mine').write_text('x')
        with pytest.raises(Error, match='wrong'), folders.held(str(folder)):
            (folder / TOKENS).mkdir()
            (folder / TOKENS / 'ids').write_text('x')
            raise Error('wrong')
    assert sorted(path.name for path in tmp_path.rglob('*')) == ['ids', 'mine', 'there', TOKENS]


def test_token_files_that_nothing_is_read_from_are_removed_and_those_of_a_refused_run(tmp_path):
    used, old, new, mine = (tmp_path / f'tokens-{digit * 16}' for digit in '0123')
    for path in (used, old, mine):
        path.mkdir()
        (path / 'ids').write_text('x')
    (mine / 'mine').write_text('x')
    with pytest.raises(Error, match='wrong'), folders.tokens_tidied(str(tmp_path)):
        new.mkdir()
        raise Error('wrong')
    assert set(tmp_path.iterdir()) == {used, old, mine}
    with folders.tokens_tidied(str(tmp_path)) as paths:
        new.mkdir()
        paths |= {str(used), str(new), 'elsewhere'}
    assert set(tmp_path.iterdir()) == {used, new, mine}


def test_two_threads_are_two_runs(tmp_path):
    folder = str(tmp_path / 'x')
    with folders.held(folder), pytest.raises(Error, match='another run is training'), folders.held(folder):
        pass


ENTRY = '{"step": 1, "loss": 2.0, "learning_rate": 0.1}\n'


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        ('training.jsonl', '{"text": "a"}\n'),
        ('training.jsonl', ENTRY + '{"prompt": "a"'),
        ('training.lock', 'mine'),
        ('tokens-mine', None),
        ('tokens-0123456789abcdef', 'mine'),
    ],
)
def test_what_only_has_the_name_of_what_a_run_leaves_is_neither_written_over_nor_removed(tmp_path, name, content):
    path = tmp_path / name
    path.mkdir() if content is None else path.write_text(content)
    with pytest.raises(Error, match=f'holds {name}, and not of a run that could go on'):
        folders.run_in(str(tmp_path))
    if name != 'training.lock':
        with pytest.raises(Error, match='wrong'), folders.held(str(tmp_path)):
            raise Error('wrong')
        assert path.exists() and (content is None or path.read_text() == content)


@pytest.mark.parametrize('content', ['', ENTRY, ENTRY * 2, ENTRY + ENTRY[:12]])
def test_a_log_without_a_record_is_of_a_run_that_was_killed_before_it_saved(tmp_path, content):
    (tmp_path / 'training.jsonl').write_text(content)
    assert folders.run_in(str(tmp_path)) is None
    with folders.held(str(tmp_path)):
        pass
    assert not list(tmp_path.iterdir())


def test_a_log_that_is_not_the_run_s_is_not_written_over_either(saver):
    folders.write_record(saver.folder, RECORD)
    saver.save('model-1', 1)
    (pathlib.Path(saver.folder) / 'training.jsonl').write_text('{"text": "a"}\n')
    with pytest.raises(Error, match=r'training\.jsonl, and not of a run'):
        folders.run_in(saver.folder)


@pytest.mark.parametrize(
    ('record', 'beside'),
    [('{"my": "settings"}', 'encoder.json'), (None, 'pytorch_model.bin'), (None, 'adapter_model.safetensors')],
)
def test_a_record_that_is_not_the_run_s_or_lies_beside_others_files_is_no_run_that_broke_off(tmp_path, record, beside):
    if record is None:
        folders.write_record(str(tmp_path), RECORD)
    else:
        (tmp_path / 'training.json').write_text(record)
    (tmp_path / beside).write_text('precious')
    with pytest.raises(Error, match=f'holds {beside}.*, and not of a run that could go on'):
        folders.run_in(str(tmp_path))


@pytest.mark.parametrize('content', ['[' * 100_000, '[]', '{"steps": "3"}', '{"held_out_data": 3}', '{"seed": null}'])
def test_a_record_of_other_kinds_of_values_is_one_line(tmp_path, content):
    (tmp_path / 'training.json').write_text(content)
    with pytest.raises(Error, match=r'training\.json cannot be read .*--init_from') as caught:
        folders.run_in(str(tmp_path))
    assert '\n' not in str(caught.value)
