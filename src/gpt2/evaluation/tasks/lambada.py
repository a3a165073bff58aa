"""The last word of a passage: Radford et al. 2019, section 3.3 and Table 3, LAMBADA (Paperno et al. 2016).

Published for the 117M model: perplexity 35.13, accuracy 45.99; for the 1542M model 8.63, 63.24, and 52.66 without
the stop-word filter, which stands for the constraint that the word ends the sentence. The paper does not list the
stop words. Whether the last word or the last token of the model is meant, reports differ: with the 117M weights
others found 26 to 33 % of words, without and with filters, and 46 % of last tokens. So all are measured here.
"""

import functools
import re
from collections.abc import Container, Sequence

from gpt2.encoder import Encoder
from gpt2.evaluation.language_model import LanguageModel
from gpt2.evaluation.tasks import published
from gpt2.evaluation.tasks.task import (
    READING,
    Metrics,
    Source,
    Task,
    malformed,
    percentage,
    read_lines,
    read_objects,
)
from gpt2.scoring.scores import exponential
from gpt2.scoring.windows import conditional

# Words that rarely end a sentence's thought; the paper does not list its own.
LISTED = """
    a about above after again against all am an and any are as at be because been before being below between
    both but by can cannot could did do does doing down during each few for from further had has have having he
    her here hers herself him himself his how i if in into is it its itself just let me more most must my myself
    no nor not now of off on once only or other our ours ourselves out over own same shall she should so some
    such than that the their theirs them themselves then there these they this those through to too under until
    up upon us very was we were what when where which while who whom whose why will with would you your yours
    yourself yourselves
"""
STOP_WORDS = frozenset(LISTED.split())
LAST_WORD = re.compile(r'\s+\S+$')


def release_preparation(text: str) -> str:
    """As OpenAI prepared the set: straight double quotes, stripped, a newline before."""
    for quote in ('“', '”', "''", '``'):
        text = text.replace(quote, '"')
    return '\n' + text.strip()


def check_passages(path: str, texts: list[str]) -> list[str]:
    for number, text in enumerate(texts, start=1):
        if not LAST_WORD.search(text.strip()):
            raise malformed(path, number, 'a passage of less than two words')
    return texts


def read_release(path: str) -> list[str]:
    return [release_preparation(text) for text in check_passages(path, [
        entry['text'] for entry in read_objects(path, text=str)
    ])]  # fmt: skip


def read_plain(path: str) -> list[str]:
    return [text.strip() for text in check_passages(path, read_lines(path))]


def is_stop_word(text: str) -> bool:
    """Whether text, which is a space and a word, is one of STOP_WORDS."""
    return text[:1].isspace() and text[1:].lower() in STOP_WORDS


def stop_ids(encoder: Encoder) -> list[int]:
    """Ids of the tokens that are a space and a stop word."""
    texts = ((token, encoder.decode_bytes([token]).decode('utf-8', 'replace')) for token in encoder.encoder.values())
    return [token for token, text in texts if is_stop_word(text)]


def last_word(text: str) -> int:
    """Where the last word of a passage begins, with the white space before it."""
    found = LAST_WORD.search(text)
    if found is None:
        raise ValueError(f'{text!r} has no two words')
    return found.start()


def metrics(with_start: bool, model: LanguageModel, texts: Sequence[str]) -> Metrics:
    """with_start: whether the context begins with the end-of-text token."""
    def split(text: str) -> tuple[list[int], list[int]]:
        place = last_word(text)
        start = model.start if with_start else []
        return start + model.encoder.encode(text[:place]), model.encoder.encode(text[place:])

    stop = stop_ids(model.encoder)
    rows = (conditional(context, ids, model.hparams.n_ctx) for context, ids in map(split, model.progress(texts)))
    found = [
        result(split(text)[1], scores, set(stop), is_stop_word(text[last_word(text) :]))
        for text, scores in zip(texts, model.score_rows(rows, stop))
    ]
    words, tokens, *correct = zip(*found)
    return {
        'perplexity_word': exponential(-sum(words), len(words)),
        'perplexity_last_token': exponential(-sum(tokens), len(tokens)),
        **{f'accuracy_{name}': percentage(values) for name, values in zip(ACCURACIES, correct)},
        'passages': len(texts),
    }


def result(ids: Sequence[int], scores: tuple, stop: Container[int], is_stop: bool) -> tuple:
    """Of the ids of a last word: its log-probability, that of its last token, and whether it was predicted in the
    sense of each of ACCURACIES. stop: ids of the stop words; is_stop: whether the word is one itself."""
    log_probabilities, ranks, likelier = scores
    # The filter is about words, so it has a say where the word begins. The word's own first token, should it spell a
    # stop word (" Is", "abella"), is but a part of it and stays in the running.
    first = not is_stop and ranks[0] - likelier[0] == 1
    rest = (ranks[1:] == 1).all()
    last = ranks[-1] == 1
    return (
        log_probabilities.sum(dtype='float64').item(),
        log_probabilities[-1].item(),
        ranks[0] == 1 and rest,
        first and rest,
        first and rest and ids[0] not in stop,
        last,
        first if len(ids) == 1 else last,
    )


ACCURACIES = (
    'word', 'word_stop_filtered', 'word_stop_filtered_without_pieces', 'last_token', 'last_token_stop_filtered',
)  # fmt: skip
FIGURES = {
    'perplexity_word': published.LAMBADA_PERPLEXITY,
    'perplexity_last_token': published.LAMBADA_PERPLEXITY,
    'accuracy_word': published.LAMBADA_ACCURACY_WITHOUT_STOP_WORD_FILTER,
    'accuracy_word_stop_filtered': published.LAMBADA_ACCURACY,
    'accuracy_last_token': published.LAMBADA_ACCURACY,
    'accuracy_last_token_stop_filtered': published.LAMBADA_ACCURACY,
}
METRICS = (
    'the last word is what follows the last white space; perplexity_word: exp(-mean log-probability of the whole '
    "word); perplexity_last_token: of the last of the word's tokens alone, after the others; accuracy_word: all "
    'of its tokens are the likeliest in turn; accuracy_last_token: the last is, after the others; stop_filtered: '
    'where the word begins, tokens that are a space and a stop word are ruled out, so that a stop word is never right; '
    "the word's own first token is not, where the word goes on after it (Is, abella); without_pieces: it is, so "
    'that no word whose first token spells a stop word is right, as in filters of tokens; the stop words: '
    f'{" ".join(LISTED.split())}'
)
TASKS = [
    Task(
        'lambada', 'LAMBADA',
        {'lambada_test.jsonl': Source(
            'https://openaipublic.blob.core.windows.net/gpt-2/data/lambada_test.jsonl',
            sha256='4aa8d02cd17c719165fc8a7887fddd641f43fcafa4b1c806ca8abc31fabdb226',
        )},
        "context: a newline and the passage, in OpenAI's preparation: double quotes made straight, white space "
        f'stripped at both ends; no end-of-text token; {METRICS}',
        read_release, functools.partial(metrics, False), FIGURES, unit='passages', item='passages',
    ),
    Task(
        'lambada-plain', 'LAMBADA, plain text',
        {'lambada_test_plain_text.txt': Source(
            'https://zenodo.org/records/2630551/files/lambada-dataset.tar.gz', 'lambada_test_plain_text.txt'
        )},
        f'context: the passage as the file has it, lower-case and tokenised, after the end-of-text token; '
        f'{READING}; {METRICS}',
        read_plain, functools.partial(metrics, True), FIGURES, unit='passages', item='passages',
    ),
]  # fmt: skip
