"""Questions of fact: Radford et al. 2019, section 3.8, Natural Questions (Kwiatkowski et al. 2019).

Published for the 1542M model: 4.1 % answered exactly, after "example question answer pairs which helps the model
infer the short answer style". How many pairs, and which, the paper does not say.
"""

from collections.abc import Sequence

from gpt2.evaluation.language_model import LanguageModel
from gpt2.evaluation.tasks import published
from gpt2.evaluation.tasks.answers import exact_match
from gpt2.evaluation.tasks.task import Metrics, Source, Task, malformed, percentage, read_objects

Example = tuple[str, list[str]]  # question, answers
EXAMPLES, LENGTH = 5, 32
REPOSITORY = 'https://raw.githubusercontent.com/google-research-datasets/natural-questions/master'
FILE = 'NQ-open.dev.jsonl'


def read(path: str) -> list[Example]:
    """List of (question, answers)."""
    examples = [(entry['question'], entry['answer']) for entry in read_objects(path, question=str, answer=list)]
    for number, (_, answers) in enumerate(examples, start=1):
        if not answers or not all(isinstance(answer, str) for answer in answers):
            raise malformed(path, number, '"answer" is no list of texts')
    if len(examples) <= EXAMPLES:
        raise malformed(path, len(examples), f'{len(examples)} questions, expected more than {EXAMPLES}')
    return examples


def metrics(model: LanguageModel, examples: Sequence[Example]) -> Metrics:
    shown = ''.join(f'Q: {question}\nA: {answers[0]}\n\n' for question, answers in examples[:EXAMPLES])
    asked = examples[EXAMPLES:]

    prompts = (
        model.encoder.encode(f'{shown}Q: {question}\nA:')[-model.room(LENGTH) :]
        for question, _ in model.progress(asked)
    )
    given = model.continue_all(prompts, LENGTH, stop=['\n'])
    correct = [exact_match(answer, answers) for answer, (_, answers) in zip(given, asked)]
    return {'exact_match': percentage(correct), 'questions': len(asked)}


TASKS = [
    Task(
        'nq', 'Natural Questions', {FILE: Source(f'{REPOSITORY}/nq_open/{FILE}')},
        f'prompt: the first {EXAMPLES} questions of the file, a line "Q: question", a line "A: first answer" and '
        f'an empty line each, and "Q: question", "A:" for each of the others; greedy, up to {LENGTH} tokens or '
        'the end of the line; exact_match: equal to one of the answers without case, punctuation and articles',
        read, metrics, {'exact_match': published.NATURAL_QUESTIONS},
        unit='questions', item='questions', shown=EXAMPLES, draws=LENGTH,
    ),
]  # fmt: skip
