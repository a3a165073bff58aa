"""How tokens are drawn: the settings, their ranges and the order in which they act. Knows nothing of text.

The order. First what changes logits: repetition_penalty, which multiplies and so must see the model's own zero;
then what is added, logit_bias, presence_penalty and frequency_penalty; then what is excluded for good, no_repeat_ngram
and the rules, last so that nothing can bring it back. Then what the release has, in its order: temperature, top_k,
top_p; then the cuts it lacks, min_p and typical_p, of what those leave. Then the race.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from gpt2.checks import choice, integer, number

FLOAT32 = np.finfo(np.float32)
TOP_P_RULES = ('released', 'inclusive')
MOST_PENALTY, MOST_BIAS = 2, 100  # either way, as OpenAI's API has them
MOST_LENGTH_PENALTY = 10
Check = Callable[[str, Any], Any]  # (name, value): the value as it is used, or UsageError


class Walk(Protocol):
    """A rule along one sample."""

    def exclude(self, logits: np.ndarray) -> None:
        """Make -inf, in place, the logits, float32 [n_vocab], of tokens that the rule does not let come next."""

    def take(self, token: int) -> None:
        """Note the token that came."""

    def fork(self) -> 'Walk':
        """Another one that goes on from here."""


class Rule(Protocol):
    """Something that excludes tokens by what came before them in a sample."""

    def begin(self, prompt: Sequence[int]) -> Walk:
        """Its walk along a sample of a prompt, token ids."""


def numbers(allowed: Callable[[float], bool], limits: str) -> Check:
    """The check that a value is a number for which allowed(value) holds; limits says when."""
    return lambda name, value: number(name, value, allowed, limits)


def within(most: float) -> Check:
    """The check that a value is a number from -most to most."""
    return numbers(lambda value: abs(value) <= most, f'from -{most} to {most}')


CHECKS: dict[str, Check] = {
    'temperature': numbers(lambda value: value >= 0, 'of at least 0'),
    'top_k': lambda name, value: integer(name, value, 0),
    'top_p': numbers(lambda value: 0 < value <= 1, 'above 0 and at most 1'),
    'top_p_rule': lambda name, value: choice(name, value, TOP_P_RULES),
    'min_p': numbers(lambda value: 0 <= value <= 1, 'from 0 to 1'),
    'typical_p': numbers(lambda value: 0 < value <= 1, 'above 0 and at most 1'),
    # float32 holds what a logit is multiplied with or divided by, and what becomes of it.
    'repetition_penalty': numbers(lambda value: 0.01 <= value <= 100, 'from 0.01 to 100'),
    'presence_penalty': within(MOST_PENALTY),
    'frequency_penalty': within(MOST_PENALTY),
    'no_repeat_ngram': lambda name, value: integer(name, value, 0),
}
# What changes logits before the temperature acts, and what has a say in the draw.
ADJUSTMENTS = ('repetition_penalty', 'presence_penalty', 'frequency_penalty', 'no_repeat_ngram', 'logit_bias')
DRAWING = ('temperature', 'top_k', 'top_p', 'top_p_rule', 'min_p', 'typical_p')
check_bias = within(MOST_BIAS)
check_length_penalty = within(MOST_LENGTH_PENALTY)


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; every default but the temperature's is off. Raises UsageError.

    temperature: at least 0; 0 takes the likeliest token. top_k: at least 0; 0 keeps all. top_p: above 0, at
    most 1; 1 keeps all. top_p_rule: 'released' leaves out the token that crosses top_p, as the release does (see
    sample.top_p_logits), 'inclusive' keeps it (Holtzman et al. 2020, section 3.1). min_p: 0 to 1; keeps tokens at
    least so likely as that part of the likeliest. typical_p: above 0, at most 1; keeps the tokens whose surprise is
    nearest the expected one, until they hold so much (Meister et al. 2023, section 4).
    repetition_penalty: 0.01 to 100; divides the logit of every token of prompt and sample, or multiplies it where it
    is below 0 (Keskar et al. 2019, section 4.1); 1 is off. presence_penalty, frequency_penalty: -2 to 2; taken from
    the logit of every token the sample holds, once, and as often as it was drawn (OpenAI's API; the prompt does not
    count). no_repeat_ngram: at least 0; so many tokens never come twice in the same order, in prompt and sample
    together; 0 is off. logit_bias: (token id, -100 to 100) pairs; added to logits. rules: exclude tokens.
    """

    temperature: float = 1
    top_k: int = 0
    top_p: float = 1
    top_p_rule: str = 'released'
    min_p: float = 0
    typical_p: float = 1
    repetition_penalty: float = 1
    presence_penalty: float = 0
    frequency_penalty: float = 0
    no_repeat_ngram: int = 0
    logit_bias: tuple[tuple[int, float], ...] = ()
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        for name, check in CHECKS.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))
        for _, value in self.logit_bias:
            check_bias('logit_bias', value)

    def changed(self, names: Sequence[str]) -> list[str]:
        """Those settings, of names, that are not what they are by default."""
        return [name for name in names if getattr(self, name) != getattr(Sampling, name)]

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken; TensorFlow takes temperatures this small for 0."""
        return self.temperature < float(FLOAT32.tiny)

    @property
    def adjusting(self) -> bool:
        """Whether logits are changed before the temperature acts."""
        return bool(self.changed((*ADJUSTMENTS, 'rules')))

    @property
    def released(self) -> bool:
        """Whether all that is asked for is what the release has."""
        cuts = self.min_p > 0 or self.typical_p < 1 or (self.top_p < 1 and self.top_p_rule != 'released')
        return not self.adjusting and (self.greedy or not cuts)

    def bounded(self, n_vocab: int) -> tuple[float, int, float]:
        """(temperature, top_k, top_p) that mean the same, within what float32 and int32 hold."""
        if self.greedy:
            return 1.0, 0, 1.0
        return min(self.temperature, float(FLOAT32.max)), min(self.top_k, n_vocab), self.top_p

    def drawing(self, n_vocab: int) -> tuple[float, int, float, bool, float, float]:
        """What drawing.draw takes after the noise."""
        temperature, top_k, top_p = self.bounded(n_vocab)
        edge = math.log(self.min_p) if self.min_p else -math.inf
        inclusive = self.top_p_rule == 'inclusive'
        return (0 if self.greedy else temperature), top_k, top_p, inclusive, edge, self.typical_p
