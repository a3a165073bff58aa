"""Learning a byte-level BPE vocabulary from text."""

import json

from gpt2.errors import Error


def learn_merges(paths, size):
    """Merges in rank order, as pairs of tokens, of a vocabulary of so many tokens at most."""
    try:
        from tokenizers import ByteLevelBPETokenizer
    except ImportError:
        raise Error('the tokenizers package is missing; pip install tokenizers') from None
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train(paths, vocab_size=size, min_frequency=2, show_progress=False)
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())['model']['merges']]
