"""The server keeps to its own description: whatever schemathesis makes of it, no answer is off it or a 5xx."""

import hypothesis
import pytest
import schemathesis
from running import PATIENCE
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from serving.conftest import started

EXAMPLES = 25  # of each endpoint, of what fits its description and of what does not
# In a text that nobody knows these are refused before anything else is looked at.
NAMES = ('model', 'start', 'logit_bias')


@pytest.fixture(scope='module')
def described(models):
    with started('--model_name', '7M', '--max_tokens', '16', '--max_n', '4', models=models) as server:
        yield schemathesis.openapi.from_url(f'{server.address}/openapi.json')


POSTS = ('/v1/completions', '/v1/score', '/v1/embeddings', '/v1/tokenize', '/v1/detokenize', '/v1/inside')
GETS = ('/v1/models', '/v1/models/{name}', '/health', '/metrics')  # of which nothing can be wrong


@pytest.mark.slow
@pytest.mark.parametrize(
    ('method', 'path', 'mode'),
    [('POST', path, mode) for path in POSTS for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)]
    + [('GET', path, GenerationMode.POSITIVE) for path in GETS],
)
def test_answers_are_as_described(described, method, path, mode):
    @hypothesis.settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=described[path][method].as_strategy(generation_mode=mode))
    def ask(case):
        if mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
            case.body = {name: value for name, value in case.body.items() if name not in NAMES}
        # What fits the description may still be more than a model has room for.
        case.call_and_validate(timeout=PATIENCE, excluded_checks=[positive_data_acceptance])

    ask()
