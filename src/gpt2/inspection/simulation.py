"""Scoring what somebody says a neuron does: its activations are simulated from that alone, and the score is how the
simulated ones go with the real ones (ev_correlation_score of Bills et al. 2023). No TensorFlow.

A simulator is a function: (explanation, tokens) -> how active the neuron should be at each token, 0 to 10.
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from gpt2.errors import Error, UsageError
from gpt2.inspection.published import correlation
from gpt2.inspection.records import Passage

Simulator = Callable[[str, Sequence[str]], list[float]]
MOST = 10
WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
# Words of explanations that say how they speak, not of what.
SPEECH = frozenset({
    'a', 'about', 'all', 'an', 'and', 'are', 'as', 'at', 'be', 'by', 'containing', 'each', 'either', 'for',
    'from', 'in', 'including', 'into', 'is', 'it', 'its', 'like', 'mentions', 'of', 'often', 'on', 'or', 'other',
    'related', 'references', 'referring', 'relating', 'she', 'so', 'some', 'such', 'than', 'that', 'the', 'their',
    'them', 'these', 'they', 'this', 'those', 'to', 'token', 'tokens', 'usually', 'was', 'were', 'when', 'where',
    'which', 'with', 'word', 'words',
})  # fmt: skip
TIMEOUT = (10, 300)  # seconds to connect, and to answer
CHUNK = 1 << 14
LARGEST = 1 << 24  # bytes of an answer; one of a hundred tokens has some ten thousand
LIKELIEST = 5  # tokens that a server tells of each place; OpenAI's limit


def score_explanation(simulate: Simulator, explanation: str, passages: Sequence[Passage]) -> float:
    """The correlation over all tokens of all passages; nan where either never varies. Raises UsageError for an empty
    explanation or no passage."""
    if not explanation.strip():
        raise UsageError('the explanation is empty, expected a text')
    if not passages:
        raise UsageError('there is no passage to score an explanation on; give a --corpus, or --published')
    simulated = [value for each in passages for value in simulate(explanation, each.tokens)]
    return correlation(simulated, [value for each in passages for value in each.activations])


def by_words(explanation: str, tokens: Sequence[str]) -> list[float]:
    """The simulator that comes with this: 10 at the tokens of words that the explanation names, 0 elsewhere. It knows
    no meaning: "king" names kings and "royalty" does not."""
    named = {stem(word) for word in WORD.findall(explanation.lower())} - SPEECH
    values, end = [0.0] * len(tokens), 0
    ends = [end := end + len(token) for token in tokens]
    for word in WORD.finditer(''.join(tokens).lower()):
        if stem(word.group()) in named:
            for place, token in enumerate(tokens):
                if ends[place] > word.start() and ends[place] - len(token) < word.end():
                    values[place] = float(MOST)
    return values


def stem(word: str) -> str:
    """A word without the commonest endings."""
    return re.sub(r"(?<=\w\w\w)('s|es|s|ed|ing)$", '', word)


class Completions:
    """The simulator that asks a model behind an API of the form of /v1/completions, in one request a passage.

    The model reads the passage with a place for a number after each token; its probabilities of 0 to 10 there, of those
    tokens it tells of, give the expected number. Needs `echo` with `logprobs`, as src/serve.py has them.
    """

    def __init__(self, url: str, model: str | None = None, key: str | None = None) -> None:
        """url: up to /v1, such as http://localhost:8000/v1."""
        if not re.match(r'https?://[^/]+', url):
            raise UsageError(f'{url!r} is no address of a server, expected one such as http://localhost:8000/v1')
        self.url, self.model, self.key = url.rstrip('/'), model, key

    def __call__(self, explanation: str, tokens: Sequence[str]) -> list[float]:
        prompt = (
            f'A neuron of a language model is active for {explanation.strip()}\n'
            'For each token of a text, how active it is, from 0 to 10:\n\n'
        )
        places = []
        for token in tokens:
            prompt += f'{visible(token)}\t'
            places.append(len(prompt))
            prompt += 'unknown\n'
        told = self.logprobs(prompt)
        try:
            at = dict(zip(told['text_offset'], told['top_logprobs']))
            return [expected(at.get(place) or {}) for place in places]
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError):
            raise Error(f'{self.url} does not say how likely tokens are: its logprobs are of another form') from None

    def logprobs(self, prompt: str) -> dict[str, Any]:
        """What a server tells of the tokens of a prompt. Raises Error."""
        import requests

        content = {'prompt': prompt, 'max_tokens': 0, 'echo': True, 'logprobs': LIKELIEST, 'temperature': 0}
        if self.model is not None:
            content['model'] = self.model
        headers = {'Authorization': f'Bearer {self.key}'} if self.key else {}
        try:
            with requests.post(
                f'{self.url}/completions', json=content, headers=headers, timeout=TIMEOUT, stream=True
            ) as answer:
                found = json.loads(body(answer))
        except (requests.RequestException, ValueError, RecursionError) as error:
            raise Error(f'{self.url} gives no answer ({type(error).__name__}); is a server there?') from None
        try:
            return found['choices'][0]['logprobs'] | {}
        except (KeyError, IndexError, TypeError):
            said = found.get('error') if isinstance(found, dict) else None
            why = said.get('message') if isinstance(said, dict) else f'no logprobs in its answer {answer.status_code}'
            raise Error(f'{self.url} does not say how likely tokens are: {why}') from None


def body(answer: Any) -> bytes:
    """What a server answers, unpacked. Raises ValueError beyond LARGEST bytes."""
    found = bytearray()
    for chunk in answer.iter_content(CHUNK):
        found += chunk
        if len(found) > LARGEST:
            raise ValueError
    return bytes(found)


def visible(token: str) -> str:
    """A token on one line."""
    return token.replace('\n', '\\n').replace('\t', '\\t')


def expected(logprobs: dict[str, float]) -> float:
    """The mean of the numbers 0 to 10 by their probabilities, of what is told; 0 where none is."""
    weights = {int(text): math.exp(value) for text, value in logprobs.items() if re.fullmatch(r'\s*(\d|10)\s*', text)}
    total = sum(weights.values())
    if not math.isfinite(total):
        raise ValueError(total)
    return sum(number * weight for number, weight in weights.items()) / total if total else 0.0
