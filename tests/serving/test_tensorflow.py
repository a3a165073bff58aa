"""The same on TensorFlow, where that is the engine."""

import pytest

from serving.conftest import started

PROMPT = 'Once upon a time'


@pytest.fixture(scope='module')
def tensorflow(models):
    with started('--model_name', '7M', '--engine', 'tf', models=models) as running:
        yield running


def test_the_answers_are_those_of_litert(tensorflow, server):
    for fields in (
        {'seed': 1, 'max_tokens': 12, 'n': 2, 'top_k': 40},
        {'seed': 2, 'max_tokens': 8, 'best_of': 3, 'stop': ','},
        {'max_tokens': 0, 'echo': True},
    ):
        choices = [each.completion([PROMPT, 'London'], **fields)['choices'] for each in (tensorflow, server)]
        assert choices[0] == choices[1]
    for fields in ({'seed': 3, 'max_tokens': 5, 'logprobs': 2}, {'max_tokens': 1, 'echo': True, 'logprobs': 1}):
        ours, theirs = (
            each.completion(PROMPT, temperature=0, **fields)['choices'][0]['logprobs'] for each in (tensorflow, server)
        )
        assert ours['tokens'] == theirs['tokens']
        assert ours['token_logprobs'][1:] == pytest.approx(theirs['token_logprobs'][1:], abs=1e-3)
    assert tensorflow.metric('gpt2_batch_size') == 0


def test_scores_and_embeddings(tensorflow, server):
    ours, theirs = (each.ask('/v1/score', {'text': PROMPT, 'likeliest': 2})[1] for each in (tensorflow, server))
    assert ours['log_probability'] == pytest.approx(theirs['log_probability'], abs=1e-3)
    for pooling in ('mean', 'last'):
        ours, theirs = (
            each.ask('/v1/embeddings', {'input': PROMPT, 'pooling': pooling})[1]['data'][0]['embedding']
            for each in (tensorflow, server)
        )
        assert ours == pytest.approx(theirs, abs=1e-4)


def test_what_is_not_drawn_inside_the_graph(tensorflow, server):
    for fields in (
        {'presence_penalty': 1, 'frequency_penalty': 0.5, 'logit_bias': {'5': 3}, 'max_tokens': 9},
        {'choices': [' there was', ' a king', '.'], 'n': 3},
        {'ban': ' the', 'repetition_penalty': 1.3, 'min_p': 0.02, 'n': 2, 'max_tokens': 9},
        {'beams': 2, 'n': 2, 'max_tokens': 4}, {'beyond_window': True, 'keep_prompt': 2, 'max_tokens': 9},
    ):
        choices = [each.completion(PROMPT, seed=4, **fields)['choices'] for each in (tensorflow, server)]
        assert choices[0] == choices[1]
