"""Learning a byte-level BPE vocabulary from text."""

import json
from collections.abc import Iterable

from gpt2.encoder import END_OF_TEXT, Encoder, bytes_to_unicode
from gpt2.errors import Error


def learn_vocabulary(texts: Iterable[str], size: int) -> Encoder:
    """A vocabulary of so many tokens at most, its ids laid out as in the release: the 256 bytes, the merges by
    rank, the end-of-text token."""
    merges = learn_merges(texts, size - 1)
    # Two merges may make the same token.
    tokens = [*dict.fromkeys([*bytes_to_unicode().values(), *map(''.join, merges)]), END_OF_TEXT]
    return Encoder({token: index for index, token in enumerate(tokens)}, merges)


def learn_merges(texts: Iterable[str], size: int) -> list[tuple[str, str]]:
    """Merges in rank order, as pairs of tokens, of a vocabulary of so many tokens at most. Raises Error."""
    try:
        from tokenizers import ByteLevelBPETokenizer
    except ImportError:
        raise Error('the tokenizers package is missing; pip install tokenizers') from None
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(texts, vocab_size=size, min_frequency=2, show_progress=False)
    return [(first, second) for first, second in json.loads(tokenizer.to_str())['model']['merges']]
