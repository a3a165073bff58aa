"""The last word of a passage: Radford et al. 2019, section 3.3 and Table 3, LAMBADA (Paperno et al. 2016).

Published for the 117M model: perplexity 35.13, accuracy 45.99; for the 1542M model 8.63, 63.24, and 52.66 without
the stop-word filter, which stands for the constraint that the word ends the sentence. The paper does not list the
stop words. Whether the last word or the last token of the model is meant, reports differ: with the 117M weights
others found 26 to 33 % of words, without and with filters, and 46 % of last tokens. So all are measured here.
"""

import functools
import math
import re

from gpt2.evaluation.language_model import progress
from gpt2.evaluation.tasks import published
from gpt2.evaluation.tasks.task import Source, Task, malformed, percentage, read_lines, read_objects
from gpt2.scoring.windows import conditional

# Words that rarely end a sentence's thought; the paper does not list its own.
STOP_WORDS = """
    a about above after again against all am an and any are as at be because been before being below between
    both but by can cannot could did do does doing down during each few for from further had has have having he
    her here hers herself him himself his how i if in into is it its itself just let me more most must my myself
    no nor not now of off on once only or other our ours ourselves out over own same shall she should so some
    such than that the their theirs them themselves then there these they this those through to too under until
    up upon us very was we were what when where which while who whom whose why will with would you your yours
    yourself yourselves
"""
LAST_WORD = re.compile(r'\s+\S+$')


def release_preparation(text):
    """As OpenAI prepared the set: straight double quotes, stripped, a newline before."""
    for quote in ('“', '”', "''", '``'):
        text = text.replace(quote, '"')
    return '\n' + text.strip()


def check_passages(path, texts):
    for number, text in enumerate(texts, start=1):
        if not LAST_WORD.search(text.strip()):
            raise malformed(path, number, 'a passage of less than two words')
    return texts


def read_release(path):
    return [release_preparation(text) for text in check_passages(path, [
        entry['text'] for entry in read_objects(path, text=str)
    ])]  # fmt: skip


def read_plain(path):
    return [text.strip() for text in check_passages(path, read_lines(path))]


def stop_ids(encoder):
    """Ids of the tokens that are a space and a stop word."""
    words = set(STOP_WORDS.split())
    tokens = {encoder.decode_bytes([token]).decode('utf-8', 'replace'): token for token in encoder.encoder.values()}
    return [token for text, token in tokens.items() if text[:1] == ' ' and text[1:].lower() in words]


def metrics(with_start, model, texts):
    """with_start: whether the context begins with the end-of-text token."""
    def split(text):
        place = LAST_WORD.search(text).start()
        start = model.start if with_start else []
        return start + model.encoder.encode(text[:place]), model.encoder.encode(text[place:])

    stop = stop_ids(model.encoder)
    rows = (conditional(*split(text), model.hparams.n_ctx) for text in progress(texts, 'lambada'))
    found = [result(split(text)[1], scores, set(stop)) for text, scores in zip(texts, model.score_rows(rows, stop))]
    words, tokens, *correct = zip(*found)
    names = ('word', 'word_stop_filtered', 'last_token', 'last_token_stop_filtered')
    return {
        'perplexity_word': math.exp(-sum(words) / len(words)),
        'perplexity_last_token': math.exp(-sum(tokens) / len(tokens)),
        **{f'accuracy_{name}': percentage(values) for name, values in zip(names, correct)},
        'passages': len(texts),
    }


def result(ids, scores, stop):
    """Of the ids of a last word: its log-probability, that of its last token, and whether either was
    predicted, without and with the filter, which takes the stop words out of the running."""
    log_probabilities, ranks, likelier = scores
    allowed = ranks - likelier  # ranks among the tokens that are no stop words
    return (
        log_probabilities.sum(dtype='float64').item(),
        log_probabilities[-1].item(),
        (ranks == 1).all(),
        ids[0] not in stop and allowed[0] == 1 and (ranks[1:] == 1).all(),
        ranks[-1] == 1,
        ids[-1] not in stop and allowed[-1] == 1,
    )


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
    'of its tokens are the likeliest; accuracy_last_token: the last is, after the others; stop_filtered: tokens '
    'that are a space and a stop word (STOP_WORDS in src/tasks/lambada.py) take no part as first token of the '
    'word, or as last token'
)
TASKS = [
    Task(
        'lambada',
        {'lambada_test.jsonl': Source(
            'https://openaipublic.blob.core.windows.net/gpt-2/data/lambada_test.jsonl',
            sha256='4aa8d02cd17c719165fc8a7887fddd641f43fcafa4b1c806ca8abc31fabdb226',
        )},
        "context: a newline and the passage, in OpenAI's preparation: double quotes made straight, white space "
        f'stripped at both ends; no end-of-text token; {METRICS}',
        read_release, functools.partial(metrics, False), FIGURES,
    ),
    Task(
        'lambada-plain',
        {'lambada_test_plain_text.txt': Source(
            'https://zenodo.org/records/2630551/files/lambada-dataset.tar.gz', 'lambada_test_plain_text.txt'
        )},
        f'context: the passage as the file has it, lower-case and tokenised, after the end-of-text token; {METRICS}',
        read_plain, functools.partial(metrics, True), FIGURES,
    ),
]  # fmt: skip
