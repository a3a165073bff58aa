"""The stages, from links to token files: of which steps each is made, what it depends on, and what it has done.

A stage is a folder of the output: `documents`, what it lets through, a file a task; `survey`, counts of that;
`steps/<step>`, datatrove's logs, counts and marks of tasks that are done; `settings.json`, what it depends on.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

from gpt2.errors import UsageError
from gpt2.preparation import blocks, executors
from gpt2.preparation.blocks import REMEDY, Documents, Survey, writer
from gpt2.preparation.contamination import Contaminated
from gpt2.preparation.duplicates import BUCKETS, Exact, Near, page_of
from gpt2.preparation.executors import LOCAL, SLURM, Engine, Step
from gpt2.preparation.fetching import Fetch
from gpt2.preparation.links import Submissions
from gpt2.preparation.network import Limits
from gpt2.preparation.pages import Folder, Warcs
from gpt2.preparation.text import English, Length, Text, quality
from gpt2.preparation.tokens import Encode, Shuffle
from gpt2.system import progress
from gpt2.system.files import make_folder, whole_file
from gpt2.system.locks import locked

STAGES = ('links', 'fetch', 'text', 'filter', 'duplicates', 'contamination', 'tokens')
DOCUMENTS, SURVEY, STEPS, SETTINGS, WORK = 'documents', 'survey', 'steps', 'settings.json', 'work'


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is prepared, of what and how. Fields are the command's flags; submissions, warc and html are patterns;
    before: seconds since 1970; vocabulary: a folder; against: digests of evaluation sets, or none."""

    output: str
    tasks: int = 8
    submissions: tuple[str, ...] = ()
    min_score: int = 3
    before: float = 0.0
    blocked: frozenset[str] = frozenset()
    warc: tuple[str, ...] = ()
    html: tuple[str, ...] = ()
    agent: str = ''
    allow_private: bool = False
    max_bytes: int = 10_000_000
    max_seconds: float = 30.0
    pause: float = 1.0
    threads: int = 32
    min_tokens: int = 128
    quality: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    contaminated: str = 'drop'
    vocabulary: str = ''
    vocabulary_digest: str = ''
    held_out: float = 0.005
    seed: int = 0

    def folder(self, stage: str, *parts: str) -> str:
        return os.path.join(self.output, stage, *parts)


# On which fields what a stage lets through depends, beside the stage before.
FIELDS = {
    'links': ('tasks', 'submissions', 'min_score', 'before', 'blocked'),
    'fetch': ('tasks', 'warc', 'html', 'blocked', 'max_bytes'),
    'text': ('tasks',),
    'filter': ('tasks', 'min_tokens', 'quality', 'vocabulary_digest'),
    'duplicates': ('tasks',),
    'contamination': ('tasks', 'against', 'contaminated'),
    'tokens': ('tasks', 'vocabulary_digest', 'held_out', 'seed'),
}


def chain(plan: Plan) -> list[str]:
    """The stages that a plan has: none of links where there are none, none of contamination with nothing to find."""
    left_out = {'links'} if not plan.submissions else set()
    return [each for each in STAGES if each not in left_out | (set() if plan.against else {'contamination'})]


def stage_before(plan: Plan, stage: str) -> str | None:
    stages = chain(plan)
    place = stages.index(stage)
    return stages[place - 1] if place else None


def kept(plan: Plan, stage: str) -> list[Any]:
    """The blocks that end a stage."""
    return [Survey(plan.folder(stage, SURVEY)), writer(plan.folder(stage, DOCUMENTS))]


def given(plan: Plan, stage: str) -> Documents:
    """The block that reads what the stage before has let through."""
    before = stage_before(plan, stage)
    assert before is not None
    return Documents(plan.folder(before, DOCUMENTS))


def links(plan: Plan) -> list[Step]:
    voted = plan.folder('links', WORK, 'voted')
    exact = Exact(plan.folder('links', WORK, 'exact'), page_of)
    selected = Submissions(plan.submissions, plan.min_score, plan.before, plan.blocked)
    return [
        Step('select', [selected, writer(voted)], plan.tasks, counted=True),
        Step('sign', [Documents(voted), exact.signature()], plan.tasks),
        Step('find', [exact.find()], 1),
        Step('keep', [Documents(voted), exact.filter(), *kept(plan, 'links')], plan.tasks, counted=True),
    ]


def fetch(plan: Plan) -> list[Step]:
    known = plan.folder('links', DOCUMENTS) if plan.submissions else None
    if plan.html:
        source: Any = Folder(plan.html, plan.max_bytes)
    elif plan.warc:
        source = Warcs(plan.warc, known, plan.max_bytes, plan.blocked)
    else:
        assert known is not None
        limits = Limits(plan.agent, plan.max_bytes, plan.max_seconds, plan.allow_private)
        source = Fetch(known, plan.folder('fetch'), limits, plan.pause, plan.threads, plan.blocked)
    return [Step('fetch', [source, *kept(plan, 'fetch')], plan.tasks, counted=True)]


def text(plan: Plan) -> list[Step]:
    return [Step('extract', [given(plan, 'text'), Text(), *kept(plan, 'text')], plan.tasks, counted=True)]


def filtered(plan: Plan) -> list[Step]:
    rules = [English(), Length(plan.vocabulary, plan.min_tokens), *quality(plan.quality)]
    return [Step('filter', [given(plan, 'filter'), *rules, *kept(plan, 'filter')], plan.tasks, counted=True)]


def duplicates(plan: Plan) -> list[Step]:
    source = given(plan, 'duplicates')
    exact = Exact(plan.folder('duplicates', WORK, 'exact'))
    near = Near(plan.folder('duplicates', WORK, 'near'))
    last = [source, exact.filter(), near.filter(), *kept(plan, 'duplicates')]
    return [
        Step('sign', [source, exact.signature()], plan.tasks),
        Step('find', [exact.find()], 1),
        Step('hash', [source, exact.filter(), near.signature()], plan.tasks),
        Step('pair', [near.pair()], BUCKETS),
        Step('cluster', [near.cluster()], 1),
        Step('keep', last, plan.tasks, counted=True),
    ]


def contamination(plan: Plan) -> list[Step]:
    rule = Contaminated(plan.folder('contamination', WORK), plan.contaminated == 'drop')
    last = [given(plan, 'contamination'), rule, *kept(plan, 'contamination')]
    return [Step('compare', last, plan.tasks, counted=True)]


def tokens(plan: Plan) -> list[Step]:
    folder = plan.folder('tokens')
    encode = Encode(folder, plan.vocabulary, plan.held_out, plan.seed)
    return [
        Step('encode', [given(plan, 'tokens'), encode], plan.tasks, counted=True),
        Step('shuffle', [Shuffle(folder, plan.vocabulary, plan.seed)], 1),
    ]


MAKERS: dict[str, Callable[[Plan], list[Step]]] = {
    'links': links, 'fetch': fetch, 'text': text, 'filter': filtered, 'duplicates': duplicates,
    'contamination': contamination, 'tokens': tokens,
}  # fmt: skip


def settings(plan: Plan, stage: str) -> dict[str, Any]:
    """What a stage depends on, as JSON has it: input files by the patterns that name them."""
    fields = {name: plain(getattr(plan, name)) for name in FIELDS[stage]}
    before = stage_before(plan, stage)
    if before:
        earlier = json.dumps(settings(plan, before), sort_keys=True)
        fields['before_it'] = hashlib.sha256(earlier.encode()).hexdigest()[:16]
    return fields


def plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, frozenset) else list(value) if isinstance(value, tuple) else value


def check_settings(plan: Plan, stage: str) -> None:
    """Note what a stage depends on, or raise UsageError where it was done otherwise."""
    path, wanted = plan.folder(stage, SETTINGS), settings(plan, stage)
    try:
        with open(path, encoding='utf-8') as file:
            found = json.load(file)
    except FileNotFoundError:
        make_folder(plan.folder(stage), REMEDY)
        with whole_file(path, remedy=REMEDY) as file:
            json.dump(wanted, file, sort_keys=True)
        return
    except ValueError:
        found = {}
    if found != wanted:
        names = [name for name in wanted if found.get(name) != wanted[name]]
        told = 'another stage before it' if names[0] == 'before_it' else f'another {names[0]}'
        raise UsageError(
            f'{plan.folder(stage)} was made with {told}; give the flags of then, remove the folder to make it '
            'again, or choose another --output'
        )


def steps_of(plan: Plan, stage: str) -> list[tuple[Step, str]]:
    """The steps of a stage, each with the folder of its logs."""
    return [(step, plan.folder(stage, STEPS, step.name)) for step in MAKERS[stage](plan)]


def is_done(plan: Plan, stage: str) -> bool:
    return all(len(completed(logs)) == step.tasks for step, logs in steps_of(plan, stage))


def completed(logs: str) -> list[str]:
    folder = os.path.join(logs, 'completions')
    return os.listdir(folder) if os.path.isdir(folder) else []


def run(plan: Plan, stages: Sequence[str], engine: Engine) -> None:
    """Run stages in their order; what is done already is not done again. Raises Error."""
    for stage in stages:
        check_settings(plan, stage)
    if engine.kind == SLURM:
        executors.submit([each for stage in stages for each in steps_of(plan, stage)], engine)
        return
    make_folder(plan.output, 'choose another --output')
    with locked(os.path.join(plan.output, 'prepare'), lambda: progress.note(f'waiting for who works in {plan.output}')):
        run_here(plan, stages, engine)


def run_here(plan: Plan, stages: Sequence[str], engine: Engine) -> None:
    """run(), on an executor that waits for what it runs."""
    for stage in stages:
        before = stage_before(plan, stage)
        if before and not is_done(plan, before):
            raise UsageError(f'{stage} needs what {before} lets through, which is not done; run {before} first')
        for step, logs in steps_of(plan, stage):
            (executors.run_local if engine.kind == LOCAL else executors.run_on_ray)(step, logs, engine)


def counts(plan: Plan, stage: str) -> dict[str, Any]:
    """What a stage has done: documents in and out, skipped {reason: documents}, and what its survey found."""
    found = [blocks.statistics(logs) for step, logs in steps_of(plan, stage) if step.counted]
    left_out: dict[str, int] = {}
    for each in found:
        for reason, count in blocks.skipped(each).items():
            left_out[reason] = left_out.get(reason, 0) + count
    survey = blocks.surveyed(plan.folder(stage, SURVEY))
    out = survey['documents'] if stage != 'tokens' else found[0].get('encode', {}).get('total', 0)
    return {'in': out + sum(left_out.values()), 'out': out, 'skipped': left_out, 'survey': survey, 'blocks': found}
