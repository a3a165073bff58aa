"""The stages, from links to token files: of which steps each is made, what it depends on, and what it has done.

A stage is a folder of the output: `documents`, what it lets through, a file a task; `survey`, counts of that;
`steps/<step>`, datatrove's logs, counts and marks of tasks that are done; `settings.json`, what it depends on, of its
flags, of files, and of which run of the stage before.
"""

import dataclasses
import hashlib
import itertools
import json
import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from gpt2.errors import UsageError
from gpt2.preparation import blocks, executors
from gpt2.preparation.blocks import REMEDY, Documents, Survey, matching, writer
from gpt2.preparation.contamination import Contaminated
from gpt2.preparation.duplicates import BUCKETS, Exact, Near, page_of
from gpt2.preparation.executors import LOCAL, SLURM, Engine, Step
from gpt2.preparation.fetching import Fetch
from gpt2.preparation.links import Submissions
from gpt2.preparation.network import Limits
from gpt2.preparation.pages import Folder, Warcs
from gpt2.preparation.text import English, Length, Text, quality
from gpt2.preparation.tokens import Encode, Shuffle
from gpt2.system.files import make_folder, whole_file

STAGES = ('links', 'fetch', 'text', 'filter', 'duplicates', 'contamination', 'tokens')
DOCUMENTS, SURVEY, STEPS, SETTINGS, WORK = 'documents', 'survey', 'steps', 'settings.json', 'work'


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is prepared, of what and how. Fields are the command's flags; submissions, warc and html are patterns;
    before: seconds since 1970; vocabulary: a folder; against: digests of evaluation sets, or none; try_again: whether
    fetch begins anew, with the pages that it has."""

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
    try_again: bool = False

    def folder(self, stage: str, *parts: str) -> str:
        return os.path.join(self.output, stage, *parts)


# On which fields what a stage lets through depends, beside the stage before.
FIELDS = {
    'links': ('tasks', 'submissions', 'min_score', 'before', 'blocked'),
    'fetch': ('tasks', 'warc', 'html', 'blocked', 'max_bytes', 'allow_private'),
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


def files(plan: Plan, stage: str) -> list[str]:
    """What a stage reads, as when it was begun, however many files there are by now."""
    return list(noted(plan, stage).get('files', ()))


def links(plan: Plan) -> list[Step]:
    voted = plan.folder('links', WORK, 'voted')
    exact = Exact(plan.folder('links', WORK, 'exact'), page_of)
    selected = Submissions(files(plan, 'links'), plan.min_score, plan.before, plan.blocked)
    return [
        Step('select', [selected, writer(voted)], plan.tasks, counted=True),
        Step('sign', [Documents(voted), exact.signature()], plan.tasks),
        Step('find', [exact.find()], 1),
        Step('keep', [Documents(voted), exact.filter(), *kept(plan, 'links')], plan.tasks, counted=True),
    ]


def fetch(plan: Plan) -> list[Step]:
    known = plan.folder('links', DOCUMENTS) if plan.submissions else None
    if plan.html:
        source: Any = Folder(files(plan, 'fetch'), plan.max_bytes)
    elif plan.warc:
        source = Warcs(files(plan, 'fetch'), known, plan.max_bytes, plan.blocked)
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
    """What a stage depends on, as JSON has it, beside the files that it reads."""
    fields = {name: plain(getattr(plan, name)) for name in FIELDS[stage]}
    before = stage_before(plan, stage)
    if before:
        earlier = json.dumps(settings(plan, before), sort_keys=True)
        fields['before_it'] = hashlib.sha256(earlier.encode()).hexdigest()[:16]
    return fields


def plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, frozenset) else list(value) if isinstance(value, tuple) else value


def noted(plan: Plan, stage: str) -> dict[str, Any]:
    """What was noted when a stage was begun: settings(); `files`, input_files(); `run`, a name that no other run has;
    `after`, that of the run of the stage before whose documents it reads."""
    try:
        with open(plan.folder(stage, SETTINGS), encoding='utf-8') as file:
            return {**json.load(file)}
    except (FileNotFoundError, ValueError, TypeError):
        return {}


def note(plan: Plan, stage: str) -> None:
    before = stage_before(plan, stage)
    after = noted(plan, before).get('run') if before else None
    content = settings(plan, stage) | {'files': input_files(plan, stage), 'run': uuid.uuid4().hex, 'after': after}
    make_folder(plan.folder(stage), REMEDY)
    with whole_file(plan.folder(stage, SETTINGS), remedy=REMEDY) as file:
        json.dump(content, file, sort_keys=True)


def inputs(plan: Plan, stage: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """The flag that names what files a stage reads, its patterns, and suffixes in a folder; of most stages none."""
    if stage == 'links':
        return 'submissions', plan.submissions, Submissions.suffixes
    if stage == 'fetch':
        return ('html', plan.html, Folder.suffixes) if plan.html else ('warc', plan.warc, Warcs.suffixes)
    return '', (), ()


def input_files(plan: Plan, stage: str) -> dict[str, list[int]]:
    """The files that a stage reads: {path: [bytes, nanoseconds of the last change]}."""
    _, patterns, suffixes = inputs(plan, stage)
    return {path: state(path) for path in sorted({path for each in patterns for path in matching(each, suffixes)})}


def state(path: str) -> list[int]:
    """Of a link that leads nowhere, its own."""
    found = os.stat(path) if os.path.exists(path) else os.lstat(path)
    return [found.st_size, found.st_mtime_ns]


def has_begun(plan: Plan, stage: str) -> bool:
    """Whether there is more of a stage than what it depends on."""
    folder = plan.folder(stage)
    return os.path.isdir(folder) and not set(os.listdir(folder)) <= {SETTINGS, WORK}


def begin(plan: Plan, stages: Sequence[str]) -> None:
    """Note of stages what they depend on, unless they were begun. Raises UsageError, and notes nothing, where one was
    begun otherwise, or lacks what it needs."""
    again = [stage for stage in stages if stage == 'fetch' and plan.try_again and has_begun(plan, stage)]
    anew = [stage for stage in stages if stage in again or not has_begun(plan, stage)]
    old = stale(plan, anew)
    for stage in stages:
        before = stage_before(plan, stage)
        if before and before not in stages and not is_done(plan, before):
            raise UsageError(f'{stage} needs what {before} lets through, which is not done; run {before} first')
        if stage in old or before in old:
            raise UsageError(
                f'{old[0]} is of another run of {stage_before(plan, old[0])} than is there now; remove '
                f'{", ".join(map(plan.folder, old))} to make that again, or choose another --output'
            )
        if stage in anew:
            check_inputs(plan, stage)
        if stage not in anew or stage in again:
            check_settings(plan, stage, ('allow_private', 'before_it') if stage in again else ())
    for stage in anew:
        note(plan, stage)
    for stage in again:
        shutil.rmtree(plan.folder(stage, STEPS), ignore_errors=True)


def stale(plan: Plan, anew: Sequence[str] = ()) -> list[str]:
    """The stages that have read another run of the stage before than is there, or what such a stage let through. anew:
    those that are to be begun."""
    found: list[str] = []
    for before, stage in itertools.pairwise(chain(plan)):
        run = noted(plan, before).get('run')
        other = run is not None and run != noted(plan, stage).get('after')
        if has_begun(plan, stage) and stage not in anew and (other or before in [*found, *anew]):
            found.append(stage)
    return found


def check_inputs(plan: Plan, stage: str) -> None:
    flag, patterns, suffixes = inputs(plan, stage)
    for pattern in patterns:
        if not matching(pattern, suffixes):
            raise UsageError(
                f'--{flag} {pattern} names no file; give a file, a folder that holds {" or ".join(suffixes)}, or a glob'
            )


def check_settings(plan: Plan, stage: str, free: Sequence[str]) -> None:
    """Raise UsageError where a stage was begun otherwise than the plan has it. free: settings that may change."""
    found, wanted = noted(plan, stage), settings(plan, stage)
    names = [name for name in wanted if name not in free and (name not in found or found[name] != wanted[name])]
    told = 'another stage before it' if names[:1] == ['before_it'] else f'another {names[0]}' if names else ''
    if not names and (path := changed_file(plan, stage, found.get('files', {}))):
        told = f'other files, as {path} shows'
    if told:
        raise UsageError(
            f'{plan.folder(stage)} was made with {told}; give the flags of then, remove the folder to make it '
            'again, or choose another --output'
        )


def changed_file(plan: Plan, stage: str, kept: dict[str, list[int]]) -> str | None:
    """A file that is not as it was when a stage was begun, or None. What a stage that is done has read may be gone."""
    files = input_files(plan, stage)
    if is_done(plan, stage):
        kept = {path: each for path, each in kept.items() if path in files}
    return next((path for path in sorted({*files, *kept}) if files.get(path) != kept.get(path)), None)


def steps_of(plan: Plan, stage: str) -> list[tuple[Step, str]]:
    """The steps of a stage, each with the folder of its logs."""
    return [(step, plan.folder(stage, STEPS, step.name)) for step in MAKERS[stage](plan)]


def is_done(plan: Plan, stage: str) -> bool:
    return all(len(completed(logs)) == step.tasks for step, logs in steps_of(plan, stage))


def completed(logs: str) -> list[str]:
    folder = os.path.join(logs, 'completions')
    return os.listdir(folder) if os.path.isdir(folder) else []


def run(plan: Plan, stages: Sequence[str], engine: Engine) -> None:
    """Run stages, for which begin() was called, in their order; what is done already is not done again. One at a time
    may work in an output. Raises Error."""
    steps = [each for stage in stages for each in steps_of(plan, stage)]
    if engine.kind == SLURM:
        executors.submit(steps, engine)
        return
    for step, logs in steps:
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
