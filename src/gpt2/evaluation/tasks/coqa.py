"""Questions in a conversation about a text: Radford et al. 2019, section 3.5, CoQA (Reddy et al. 2019).

Published for the 1542M model: F1 55 on the development set, "when conditioned on a document, the history of
the associated conversation, and a final token A:", decoding greedily.
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from gpt2.evaluation.language_model import LanguageModel
from gpt2.evaluation.tasks import published
from gpt2.evaluation.tasks.answers import f1_of_several
from gpt2.evaluation.tasks.task import Metrics, Source, Task, malformed, read_bytes

Conversation = tuple[str, list[tuple[str, list[str]]]]  # see read
LENGTH = 32
FILE = 'coqa-dev-v1.0.json'


def read(path: str) -> list[Conversation]:
    """List of (story, turns), a turn being (question, its answers, that of the conversation first)."""
    try:
        conversations = [conversation(entry) for entry in json.loads(read_bytes(path))['data'] if entry['questions']]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise malformed(path, getattr(error, 'lineno', 1), f'not as CoQA 1.0 is laid out ({error!r})') from None
    if not conversations:
        raise malformed(path, 1, 'no question')
    return conversations


def conversation(entry: dict[str, Any]) -> Conversation:
    sources = [entry['answers'], *entry.get('additional_answers', {}).values()]
    return entry['story'], [
        (question['input_text'], [answers[index]['input_text'] for answers in sources])
        for index, question in enumerate(entry['questions'])
    ]


def prompts(story: str, turns: Iterable[tuple[str, list[str]]]) -> Iterator[tuple[str, list[str]]]:
    """Yield (prompt, answers) of each turn; what was said before is in the prompt as it was said."""
    text = story + '\n'
    for question, answers in turns:
        text += f'\nQ: {question}\nA:'
        yield text, answers
        text += f' {answers[0]}'


def metrics(model: LanguageModel, conversations: Sequence[Conversation]) -> Metrics:
    asked = (pair for story, turns in model.progress(conversations) for pair in prompts(story, turns))
    texts, expected = itertools.tee(asked)
    ids = (model.encoder.encode(prompt)[-model.room(LENGTH) :] for prompt, _ in texts)
    given = model.continue_all(ids, LENGTH, stop=['\n'])
    scores = [f1_of_several(answer, answers) for answer, (_, answers) in zip(given, expected)]
    return {'f1': 100 * sum(scores) / len(scores), 'questions': len(scores)}


TASKS = [
    Task(
        'coqa', 'CoQA', {FILE: Source(f'https://nlp.stanford.edu/data/coqa/{FILE}')},
        'prompt: the story, an empty line, and for each turn a line "Q: question" and a line "A: answer" with '
        'the answers the people gave, the last one left to the model; of a prompt too long for the window the '
        f'end is kept; greedy, up to {LENGTH} tokens or the end of the line; f1: of words without case, '
        'punctuation and articles, as CoQA counts',
        read, metrics, {'f1': published.COQA_F1}, unit='questions', item='conversations', draws=LENGTH,
    ),
]  # fmt: skip
