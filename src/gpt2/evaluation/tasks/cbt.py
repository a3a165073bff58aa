"""Ten candidates for a word left out of a children's book: Radford et al. 2019, section 3.2 and Table 3,
Children's Book Test (Hill et al. 2016).

Published for the 117M model: 87.65 % of common nouns, 83.4 % of named entities. The paper scores each
candidate and the rest of its sentence, and reports the validation split, because one book of the test
split is in the training data.
"""

import itertools
from collections.abc import Sequence

from gpt2.evaluation.language_model import LanguageModel
from gpt2.evaluation.tasks import published
from gpt2.evaluation.tasks.choices import choice_rows, likeliest
from gpt2.evaluation.tasks.detokenise import BOOK_RULES, describe, detokenise
from gpt2.evaluation.tasks.task import READING, Metrics, Source, Task, malformed, percentage, read_lines
from gpt2.scoring.windows import Row

Example = tuple[list[str], str, str, list[str]]  # sentences, question, answer, candidates
BLANK = 'XXXXX'
ARCHIVE = 'http://www.thespermwhale.com/jaseweston/babi/CBTest.tgz'


def read(path: str) -> list[Example]:
    """List of (sentences, question, answer, candidates)."""
    examples, sentences = [], []
    for number, line in enumerate(read_lines(path), start=1):
        index, _, text = line.partition(' ')
        if not line.strip():
            continue
        if not index.isdigit():
            raise malformed(path, number, 'no sentence number')
        if '\t' not in text:
            sentences.append(text)
            continue
        question, answer, *_, listed = text.split('\t')
        candidates = listed.strip().split('|')
        if BLANK not in question or answer not in candidates:
            raise malformed(path, number, f'no {BLANK} in the question, or its answer is no candidate')
        examples.append((sentences, question, answer, candidates))
        sentences = []
    if not examples or sentences:
        raise malformed(path, number, 'the last sentence is no question')
    return examples


def texts(example: Example) -> list[str]:
    """The passage with each candidate in the blank, as text."""
    sentences, question, _, candidates = example
    context = detokenise(BOOK_RULES, sentences)[0]
    filled = detokenise(BOOK_RULES, [question.replace(BLANK, candidate) for candidate in candidates])[0]
    return [' '.join([*context, last]) for last in filled]


def metrics(model: LanguageModel, examples: Sequence[Example]) -> Metrics:
    def rows(example: Example) -> list[Row]:
        return choice_rows([model.start + model.encoder.encode(text) for text in texts(example)], model.hparams.n_ctx)

    scores = model.score_rows(row for example in model.progress(examples) for row in rows(example))
    return {
        'accuracy': percentage(
            candidates[likeliest(list(itertools.islice(scores, len(candidates))))] == answer
            for _, _, answer, candidates in examples
        ),
        'questions': len(examples),
    }


def task(name: str, title: str, kind: str, figures: dict[str, float]) -> Task:
    file = f'cbtest_{kind}_valid_2000ex.txt'
    return Task(
        name, title, {file: Source(ARCHIVE, f'CBTest/data/{file}')},
        'validation split; context: the end-of-text token and the 20 sentences, joined by spaces; the '
        'log-probability of a candidate and the rest of its sentence decides (of the whole text, which is the '
        f'same: what all candidates share counts for none); {READING}; detokenisation: {describe(BOOK_RULES)}',
        read, metrics, {'accuracy': figures}, unit='questions', item='questions',
    )  # fmt: skip


TASKS = [
    task('cbt-cn', 'Children’s Book Test, common nouns', 'CN', published.CBT_COMMON_NOUNS),
    task('cbt-ne', 'Children’s Book Test, named entities', 'NE', published.CBT_NAMED_ENTITIES),
]
