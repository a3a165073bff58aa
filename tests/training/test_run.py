"""What a run starts from."""

import json
import shutil

import pytest
from example_models import HERE, training_settings

from gpt2.encoder import VocabularyError
from gpt2.errors import Error
from gpt2.training import run
from gpt2.training.run import fitting, train_in


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
