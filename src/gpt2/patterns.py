"""Texts that match a regular expression, by the library llguidance, which says of each token whether it may come next:
it walks along all tokens at once, so nothing need be prepared for each state of a pattern."""

import math
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpt2.encoder import Encoder
from gpt2.errors import Error, UsageError
from gpt2.system.text import CONVERT, printable

FUEL = 100_000  # of the library, for the start of a pattern: a quarter of a second, in which no other sample goes on
NO_MATCH = 'NoExtensionBias'  # what the library says of a pattern where nothing can come first
SPELT = 1000  # characters ahead that are made tokens, far more than a token has
tokenizers: weakref.WeakKeyDictionary[Encoder, Any] = weakref.WeakKeyDictionary()


class Pattern:
    """The rule that a sample, whole, matches a pattern, in the syntax of Rust's regex without look-around. Where the
    sample matches already, the token that ends a text may come, and where nothing else can, only that."""

    def __init__(self, encoder: Encoder, pattern: str) -> None:
        """pattern: one that check_pattern() lets pass. Raises Error where the library is not there."""
        self.grammar = library().LLMatcher.grammar_from_regex(pattern)
        self.encoder = encoder

    def begin(self, prompt: Sequence[int]) -> 'PatternWalk':
        """A copy of another would share its limits, and a sample depend on those that are drawn beside it."""
        guidance = library()
        limits = guidance.LLParserLimits(initial_lexer_fuel=FUEL)
        matcher = guidance.LLMatcher(tokenizer(self.encoder), self.grammar, limits=limits, log_level=0)
        return PatternWalk(matcher, self.encoder)


class PatternWalk:
    def __init__(self, matcher: Any, encoder: Encoder) -> None:
        self.matcher, self.encoder = matcher, encoder

    def exclude(self, logits: np.ndarray) -> None:
        """Raises Error for a pattern that has grown beyond the library's limits, where no match can be promised."""
        allowed = np.zeros(len(logits), bool)
        if not self.matcher.is_stopped():
            bits = np.unpackbits(np.frombuffer(self.matcher.compute_bitmask(), np.uint8), bitorder='little')
            allowed[: len(bits)] = bits[: len(logits)]
        else:
            allowed[self.encoder.end_of_text] = True
        if self.matcher.is_error():
            raise Error('regex has grown beyond the limits of its library; repeat less in it')
        logits[~allowed] = -math.inf

    def take(self, token: int) -> None:
        if token >= 0 and not self.matcher.is_stopped():
            self.matcher.consume_token(token)

    def fork(self) -> 'PatternWalk':
        return PatternWalk(self.matcher.deep_copy(), self.encoder)


def library() -> Any:
    """llguidance, imported where it is needed. Raises Error."""
    try:
        import llguidance
    except ImportError as error:
        raise Error(f'a pattern needs a package ({error}); pip install -r requirements-regex.txt') from None
    return llguidance


def check_pattern(pattern: str, name: str = 'regex') -> None:
    """Raise UsageError, which calls it by name, unless pattern is one."""
    if not isinstance(pattern, str) or not pattern:
        raise UsageError(f'{name} is {pattern!r}, expected a pattern of at least one character')
    if pattern != printable(pattern):
        raise UsageError(f'{name} is {pattern!r}, which is not UTF-8; {CONVERT}')
    matcher = library().LLMatcher
    if fault := matcher.validate_grammar(matcher.grammar_from_regex(pattern)):
        first = fault.partition('\n')[0]  # below it the library shows the place
        reasons = [line for line in fault.splitlines() if line.startswith('error: ')] or [first]
        why = reasons[-1].removeprefix('error: ')
        raise UsageError(f'{name} is {pattern!r}, which is no pattern that is understood: {why}')
    if matches_nothing(pattern):
        raise UsageError(f'{name} is {pattern!r}, which no text matches; let it match one')


def matches_nothing(pattern: str) -> bool:
    """Whether the library finds soon that no byte can begin a match, and none is empty."""
    guidance = library()
    grammar = guidance.LLMatcher.grammar_from_regex(pattern)
    limits = guidance.LLParserLimits(initial_lexer_fuel=FUEL // 10)
    matcher = guidance.LLMatcher(guidance.LLTokenizer('byte'), grammar, limits=limits, log_level=0)
    matcher.compute_bitmask()
    return matcher.get_error().startswith(NO_MATCH)


def tokenizer(encoder: Encoder) -> Any:
    """What llguidance knows of a vocabulary, made once: 50,257 tokens take it a tenth of a second."""
    if encoder not in tokenizers:
        guidance = library()
        tokenizers[encoder] = guidance.LLTokenizer(guidance.TokenizerWrapper(Vocabulary(encoder)))
    return tokenizers[encoder]


class Vocabulary:
    """A vocabulary as llguidance asks for it. Where a pattern leaves only one text, the library has it spelt as the
    encoder spells it. Holds the Encoder loosely: its memory would never be given back."""

    def __init__(self, encoder: Encoder) -> None:
        self.eos_token_id, self.bos_token_id, self.unk_token_id = encoder.end_of_text, None, None
        self.special_token_ids = sorted({*encoder.added.values(), *encoder.end_ids})
        self.tokens = list(encoder.token_bytes)
        self.encoder = weakref.ref(encoder)

    def __call__(self, text: bytes) -> list[int]:
        """Token ids of a text, or of its start: before every token the library asks for all that is still to come where
        only one text is left, and that may be 40,000 characters."""
        encoder = self.encoder()
        assert encoder is not None  # a Pattern holds it
        return encoder.encode(text.decode()[:SPELT])
