"""Which of two a pronoun means: Radford et al. 2019, section 3.4 and figure 3, Winograd Schema Challenge
(Levesque et al. 2012), with the partial scoring of Trinh & Le 2018.

Published for the 1542M model: 70.70 % of 273. Partial scoring puts each candidate in the pronoun's place
and compares the log-probability of what comes after it; full scoring compares the whole sentences.
"""

import itertools
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence

from gpt2.evaluation.language_model import LanguageModel
from gpt2.evaluation.tasks import published
from gpt2.evaluation.tasks.choices import choice_rows, likeliest
from gpt2.evaluation.tasks.task import Metrics, Source, Task, malformed, percentage, read_bytes
from gpt2.scoring.windows import Row, conditional

Example = tuple[str, str, str, list[str], int]  # see read
SCHEMAS = 273  # the collection has grown since; Trinh & Le and the paper use the first 273
DETERMINERS = ('The', 'A', 'An', 'My', 'His', 'Her', 'Our', 'Their')
POSSESSIVES = ('his', 'its', 'their')


def read(path: str) -> list[Example]:
    """List of (text before the pronoun, pronoun, text after, candidates, index of the right one)."""
    try:
        root = ElementTree.fromstring(read_bytes(path))
    except ElementTree.ParseError as error:
        raise malformed(path, error.position[0], f'no XML ({error})') from None
    examples = []
    for number, schema in enumerate(root.iter('schema'), start=1):
        before, pronoun, after = (' '.join((schema.findtext(f'text/{part}') or '').split())
                                  for part in ('txt1', 'pron', 'txt2'))  # fmt: skip
        candidates = [' '.join((answer.text or '').split()) for answer in schema.iter('answer')]
        right = (schema.findtext('correctAnswer') or '').strip(' .\n\t')
        if not pronoun or not after or len(candidates) != 2 or right not in ('A', 'B'):
            raise malformed(path, 1, f'schema {number} lacks a pronoun, a text, two answers or the right one')
        examples.append((before, pronoun, after, candidates, 'AB'.index(right)))
    if not examples:
        raise malformed(path, 1, 'no schema')
    return examples[:SCHEMAS]


def fill(pronoun: str, candidate: str) -> str:
    """The candidate in the form the pronoun's place asks for."""
    first, space, rest = candidate.partition(' ')
    if first in DETERMINERS and pronoun[0].islower():
        candidate = first.lower() + space + rest
    if pronoun.lower() in POSSESSIVES and not candidate.endswith("'s"):
        candidate += "'s"
    return candidate


def parts(example: Example) -> list[tuple[str, str]]:
    """For each candidate (text up to and with it, text after it)."""
    before, pronoun, after, candidates, _ = example
    lead = before + ' ' if before else ''
    tail = ' ' + after if after[0].isalnum() else after
    return [(lead + fill(pronoun, candidate), tail) for candidate in candidates]


def metrics(model: LanguageModel, examples: Sequence[Example]) -> Metrics:
    encode, n_ctx = model.encoder.encode, model.hparams.n_ctx

    def partial(example: Example) -> list[Row]:
        return [conditional(model.start + encode(lead), encode(tail), n_ctx) for lead, tail in parts(example)]

    def full(example: Example) -> list[Row]:
        return choice_rows([model.start + encode(lead) + encode(tail) for lead, tail in parts(example)], n_ctx)

    def accuracy(rows: Callable[[Example], list[Row]]) -> float:
        scores = model.score_rows(row for example in model.progress(examples) for row in rows(example))
        return percentage(likeliest(list(itertools.islice(scores, 2))) == right for *_, right in examples)

    return {'accuracy_partial': accuracy(partial), 'accuracy_full': accuracy(full), 'schemas': len(examples)}


TASKS = [
    Task(
        'winograd', 'Winograd Schema Challenge',
        {'WSCollection.xml': Source('https://cs.nyu.edu/~davise/papers/WinogradSchemas/WSCollection.xml')},
        f'the first {SCHEMAS} schemas; context: the end-of-text token; a candidate takes the place of the '
        f"pronoun, its article in lower case within the sentence, with 's for {', '.join(POSSESSIVES)}; "
        'accuracy_partial: the log-probability of the text after the candidate decides; accuracy_full: that of '
        'the whole text',
        read, metrics, {'accuracy_partial': published.WINOGRAD, 'accuracy_full': published.WINOGRAD},
        unit='schemas', item='schemas',
    ),
]  # fmt: skip
