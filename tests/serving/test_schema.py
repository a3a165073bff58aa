"""The server keeps to its own description: whatever schemathesis makes of it, no answer is off it or a 5xx."""

import hypothesis
import pytest
import schemathesis
from running import PATIENCE
from schemathesis import GenerationMode

from serving.conftest import started

EXAMPLES = 25  # of each endpoint, of what fits its description and of what does not
# In a text that nobody knows these are refused before anything else is looked at.
NAMES = ('model', 'start', 'logit_bias')


@pytest.fixture(scope='module')
def described(models):
    with started('--model_name', '7M', '--max_tokens', '3', '--max_n', '4', models=models) as server:
        yield schemathesis.openapi.from_url(f'{server.address}/openapi.json')


OPERATIONS = [
    ('POST', '/v1/completions'), ('POST', '/v1/score'), ('POST', '/v1/embeddings'), ('POST', '/v1/tokenize'),
    ('POST', '/v1/detokenize'), ('GET', '/v1/models'), ('GET', '/v1/models/{name}'), ('GET', '/health'),
    ('GET', '/metrics'),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize('mode', [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=['right', 'wrong'])
@pytest.mark.parametrize(('method', 'path'), OPERATIONS)
def test_answers_are_as_described(described, method, path, mode):
    @hypothesis.settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=described[path][method].as_strategy(generation_mode=mode))
    def ask(case):
        if mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
            case.body = {name: value for name, value in case.body.items() if name not in NAMES}
        case.call_and_validate(timeout=PATIENCE)

    ask()
