"""Perplexity and compression of whole corpora: Radford et al. 2019, section 3.1 and Table 3.

Published for the 117M model: WikiText-2 29.41, Penn Treebank 65.85, WikiText-103 37.50, One Billion Words 75.20,
each a perplexity; enwik8 1.16 bits a byte, text8 1.17 bits a character. The paper divides by a canonical unit: a
word with the first four, a byte and a character with the others. A word here is what the tokenised file divides by
spaces, and the end of each line, as in the literature on these sets; the token count of the model does not enter.
"""

import functools
import math
from collections.abc import Callable, Sequence

from gpt2.evaluation.language_model import LanguageModel
from gpt2.evaluation.tasks import published
from gpt2.evaluation.tasks.detokenise import (
    ONE_BILLION_WORD_RULES,
    PENN_TREEBANK_RULES,
    WIKITEXT_RULES,
    Rule,
    describe,
    detokenise,
)
from gpt2.evaluation.tasks.task import READING, Metrics, Source, Task, malformed, read_bytes, read_lines
from gpt2.scoring.scores import exponential

Divide = Callable[[list[str]], list[str]]  # from lines that end to the texts they make up
ONE_BILLION_WORDS = '1-billion-word-language-modeling-benchmark-r13output'
SHARD = 'news.en.heldout-00000-of-00050'
HELD_OUT_BYTES = 5_000_000
WHOLE_BYTES = 100_000_000


def words(lines: Sequence[str]) -> int:
    """Number of words and line ends."""
    return sum(len(line.split()) for line in lines) + len(lines)


def corpus_metrics(divide: Divide, rules: Sequence[Rule], model: LanguageModel, lines: list[str]) -> Metrics:
    """Of a corpus detokenised, and as the file stands. divide: from lines that end to the texts they make up."""
    restored, left = detokenise(rules, lines)
    count = words(lines)
    metrics: Metrics = {}
    for suffix, shown in (('', restored), ('_tokenised', lines)):
        log_probability, tokens = model.score_texts(divide([line + '\n' for line in shown]), f'perplexity{suffix}')
        metrics[f'perplexity{suffix}'] = exponential(-log_probability, count)
        metrics[f'perplexity_per_bpe_token{suffix}'] = exponential(-log_probability, tokens)
    return metrics | {'words': count, 'lines_left_tokenised': left}


def one_text(lines: list[str]) -> list[str]:
    return [''.join(lines)]


def held_out(path: str) -> bytes:
    """The last 5,000,000 bytes of a file of 100,000,000: what the literature tests on. They are taken as they are, line
    ends and all, for every byte counts: the rule for texts (system/text.py) is not for them."""
    content = read_bytes(path)
    if len(content) != WHOLE_BYTES:
        raise malformed(path, 1, f'the file has {len(content)} bytes, expected the whole {WHOLE_BYTES}')
    return content[-HELD_OUT_BYTES:]


def compression_metrics(name: str, model: LanguageModel, content: bytes) -> Metrics:
    # Bytes that are not UTF-8, such as a character cut at the start, are encoded as they are.
    log_probability, _ = model.score_texts([content.decode('utf-8', 'surrogateescape')], name)
    return {name: -log_probability / math.log(2) / len(content)}


PERPLEXITY = (
    'perplexity: exp(-log-probability / words), words being what spaces divide in the file as it stands plus one '
    'for each line end, which is scored as a newline; perplexity_per_bpe_token: divided by the number of the '
    "model's tokens instead, no canonical unit; _tokenised: the same without detokenisation; the sign for unknown "
    'words stays; '
    f'{READING}; detokenisation: '
)


def corpus_task(
    name: str, title: str, file: str, source: Source, rules: Sequence[Rule], figures: dict[str, float],
    divide: Divide = one_text,
) -> Task:  # fmt: skip
    whole = 'the file is one text after the end-of-text token, in windows of n_ctx tokens that move by the stride; '
    apart = 'each line is a text of its own after the end-of-text token; '
    metrics = [f'perplexity{unit}{suffix}' for unit in ('', '_per_bpe_token') for suffix in ('', '_tokenised')]
    return Task(
        name, title, {file: source}, (whole if divide is one_text else apart) + PERPLEXITY + describe(rules),
        read_lines, functools.partial(corpus_metrics, divide, rules), dict.fromkeys(metrics, figures),
    )  # fmt: skip


def compression_task(name: str, title: str, metric: str, unit: str, figures: dict[str, float]) -> Task:
    recipe = (
        f'the last {HELD_OUT_BYTES:,} {unit} of the file, as they stand, in one text after the end-of-text token, in '
        f'windows of n_ctx tokens that move by the stride; {metric}: -log2 probability / {HELD_OUT_BYTES:,}'
    )
    return Task(
        name, title, {name: Source(f'http://mattmahoney.net/dc/{name}.zip', name)}, recipe, held_out,
        functools.partial(compression_metrics, metric), {metric: figures},
        unit='bytes', item='kilobytes', item_size=1000,
    )  # fmt: skip


TASKS = [
    corpus_task(
        'wikitext2', 'WikiText-2', 'wikitext2.test.txt',
        Source(note='wiki.test.tokens of wikitext-2-v1.zip, Merity et al. 2016'),
        WIKITEXT_RULES, published.WIKITEXT2,
    ),
    corpus_task(
        'ptb', 'Penn Treebank', 'ptb.test.txt',
        Source(note="data/ptb.test.txt of Mikolov's simple-examples.tgz; the text may not be passed on"),
        PENN_TREEBANK_RULES, published.PENN_TREEBANK,
    ),
    corpus_task(
        'wikitext103', 'WikiText-103', 'wikitext103.test.txt',
        Source(note='wiki.test.tokens of wikitext-103-v1.zip, Merity et al. 2016'),
        WIKITEXT_RULES, published.WIKITEXT103,
    ),
    compression_task('enwik8', 'enwik8', 'bits_per_byte', 'bytes', published.ENWIK8),
    compression_task('text8', 'text8', 'bits_per_character', 'characters', published.TEXT8),
    corpus_task(
        '1bw', 'One Billion Words', SHARD, Source(
            f'http://www.statmt.org/lm-benchmark/{ONE_BILLION_WORDS}.tar.gz',
            f'{ONE_BILLION_WORDS}/heldout-monolingual.tokenized.shuffled/{SHARD}',
        ),
        ONE_BILLION_WORD_RULES, published.ONE_BILLION_WORDS, divide=list,
    ),
]  # fmt: skip
