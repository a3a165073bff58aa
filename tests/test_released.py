"""The released weights say what other programs have published that they say.

    python download_model.py 124M
    python -m pytest -m released

GPT2_MODELS names another models folder.
"""

import os

import pytest
from example_models import BUNDLED, HERE, MODELS
from known_answers import check, read_answers

RELEASED = os.path.join(os.environ.get('GPT2_MODELS') or MODELS, '124M')
ENGINES = ('tf', 'litert')


@pytest.mark.released
@pytest.mark.parametrize('engine', ENGINES)
def test_the_released_model_says_what_others_have_published(engine):
    if not os.path.exists(os.path.join(RELEASED, 'model.ckpt.index')):
        pytest.skip(f'{RELEASED} is not there; get it with `python download_model.py 124M`, or set GPT2_MODELS')
    assert check(RELEASED, read_answers(HERE / 'known_answers.json', '124M'), engine) == []


# The check itself, on the bundled model


@pytest.fixture(scope='module')
def answers():
    """As transformers computed them."""
    return read_answers(HERE / 'known_answers_7M.json', '7M')


@pytest.mark.parametrize('engine', ENGINES)
def test_the_bundled_model_says_what_transformers_says(answers, engine):
    assert check(BUNDLED, answers, engine) == []


def test_every_other_answer_is_found(answers):
    wrong = []
    for answer in answers:
        if 'ids' in answer:
            wrong.append(answer | {'ids': [*answer['ids'][:-1], answer['ids'][-1] + 1]})
            wrong.append(answer | {'prompt_ids': answer['prompt_ids'][1:]})
        else:
            wrong.append(answer | {'text': answer['text'][:-1] + '#'})
    assert len(check(BUNDLED, wrong, 'litert')) == len(wrong)


def test_the_released_models_answers_are_in_its_own_tokens():
    """What can be known without the weights: prompts and texts are those that the ids stand for."""
    from gpt2.encoder import get_encoder

    encoder = get_encoder('124M', str(HERE / 'release'))
    for answer in read_answers(HERE / 'known_answers.json', '124M'):
        assert answer.get('prompt_ids') in (None, encoder.encode(answer['prompt']))
        if 'tokens' in answer:
            assert len(encoder.encode(answer['text'] + '\n')) == answer['tokens']
        assert ('ids' in answer) != ('text' in answer)
        assert answer['seen_in']
