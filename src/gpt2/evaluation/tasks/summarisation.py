"""Summaries of news after TL;DR: - Radford et al. 2019, section 3.6 and Table 4, CNN and Daily Mail
(Nallapati et al. 2016).

Published for the 1542M model: ROUGE-1 29.34, ROUGE-2 8.27, ROUGE-L 26.58, from 100 tokens drawn with top_k 2,
of which the first three sentences are the summary.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from gpt2.evaluation.language_model import LanguageModel
from gpt2.evaluation.tasks import published
from gpt2.evaluation.tasks.task import Metrics, Source, Task, read_objects

LENGTH, TOP_K, SENTENCES = 100, 2, 3
FILE = 'cnn_dm.test.jsonl'
KINDS = ('rouge1', 'rouge2', 'rougeL', 'rougeLsum')


def sentences(text: str) -> list[str]:
    """Sentences, each ending with . ! or ? and what closes after it, or with its line."""
    found = re.findall(r'[^\n]+?(?:[.!?]+["\'”’)\]]*(?=\s)|$)', text, re.MULTILINE)
    return [sentence.strip() for sentence in found if sentence.strip()]


def read(path: str) -> list[tuple[str, str]]:
    return [(entry['article'], entry['highlights']) for entry in read_objects(path, article=str, highlights=str)]


def summaries(model: LanguageModel, articles: Iterable[str]) -> Iterator[str]:
    """Yield the generated summary of each of articles, a sentence a line."""
    tail = model.encoder.encode('\nTL;DR:')
    room = model.room(LENGTH) - len(tail)
    prompts = (model.encoder.encode(article.strip())[:room] + tail for article in articles)
    for continuation in model.continue_all(prompts, LENGTH, top_k=TOP_K):
        yield '\n'.join(sentences(continuation)[:SENTENCES])


def metrics(model: LanguageModel, examples: Sequence[tuple[str, str]]) -> Metrics:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(KINDS, use_stemmer=True)
    found = summaries(model, (article for article, _ in model.progress(examples)))
    scores = [
        scorer.score('\n'.join(sentences(highlights)), summary) for summary, (_, highlights) in zip(found, examples)
    ]
    means = {kind: 100 * sum(score[kind].fmeasure for score in scores) / len(scores) for kind in KINDS}
    return means | {'articles': len(examples)}


TASKS = [
    Task(
        'cnn-dm', 'CNN and Daily Mail',
        {FILE: Source(note='the test split of CNN/Daily Mail, not anonymised (See et al. 2017); write one object with '
                           'article and highlights a line')},
        'prompt: the article, whose end is cut where the window asks for it, and "TL;DR:" on a line of its own; '
        f'{LENGTH} tokens with top_k {TOP_K} and seed 0; the first {SENTENCES} sentences are the summary; F '
        'measures of rouge-score with stemming; rougeLsum is ROUGE-L of the summary sentence by sentence, as in '
        'the literature on this set',
        read, metrics,
        {'rouge1': published.ROUGE_1, 'rouge2': published.ROUGE_2, 'rougeL': published.ROUGE_L,
         'rougeLsum': published.ROUGE_L},
        requires={'rouge_score': 'rouge-score'}, unit='articles', item='articles', draws=LENGTH,
    ),
]  # fmt: skip
