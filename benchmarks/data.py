#!/usr/bin/env python3
"""Prepare synthetic pages as WebText was made: what is kept, what is found, how fast and in how much memory.

    .venv/bin/python benchmarks/data.py --folder /tmp/pages 1000 10000 100000

The pages are those of tests/example_pages.py: text among boilerplate, near-duplicates of a known similarity, other
languages, links to Wikipedia, broken markup. Every stage is a run of src/prepare_data.py with one worker, whose
processor time and peak memory of a process are taken; results go to <folder>/<pages>/results.json as each stage ends,
and the same command goes on from there. --minutes ends it in good time, in the midst of a stage, too. Needs
requirements-data.txt.
"""

import argparse
import collections
import gzip
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / 'tests')]

from example_pages import SIMILARITIES, page_of, write_submissions, write_warc  # noqa: E402

STAGES = ('links', 'fetch', 'text', 'filter', 'duplicates', 'tokens')
FILES = 10  # WARC files, and so tasks
AGAIN = 75  # status of a run that the same command continues


def make_pages(folder, count):
    """WARC files and submissions, unless they are there."""
    done = folder / 'made'
    if done.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    share = -(-count // FILES)
    for file in range(FILES):
        found = [page_of(number) for number in range(file * share, min((file + 1) * share, count))]
        write_warc(folder / f'{file:02d}.warc.gz', found)
        write_submissions(folder / f'{file:02d}.jsonl', found)
    done.touch()


def run_stage(folder, stage, seconds):
    """(seconds, processor seconds, megabytes of the largest process, whether it ended) of a stage."""
    command = [
        sys.executable, ROOT / 'src' / 'prepare_data.py', stage, '--output', folder / 'out', '--tasks', FILES,
        '--warc', folder / '*.warc.gz', '--submissions', folder / '*.jsonl',
    ]  # fmt: skip
    start = time.monotonic()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL)
    timer = threading.Timer(seconds, process.send_signal, [signal.SIGTERM])
    timer.start()
    _, status, used = os.wait4(process.pid, 0)  # of it and of all that it waited for
    process.returncode = os.waitstatus_to_exitcode(status)
    stopped = not timer.is_alive()
    timer.cancel()
    if process.returncode and not stopped:
        sys.exit(f'{stage} failed')
    done = process.returncode == 0
    return time.monotonic() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1000, done


def documents(folder, stage):
    """{number of the page: text} of what a stage let through."""
    found = {}
    for path in sorted((folder / 'out' / stage / 'documents').glob('*.gz')):
        with gzip.open(path, 'rt', encoding='utf-8') as file:
            for line in file:
                document = json.loads(line)
                found[int(document['id'].rpartition('/')[2])] = document.get('text', '')
    return found


def extraction(folder):
    """Parts of the paragraphs that are kept whole, and of the boilerplate that is gone."""
    kept = wanted = gone = unwanted = 0
    for number, text in documents(folder, 'text').items():
        page, text = page_of(number), ' '.join(text.split())
        wanted, unwanted = wanted + len(page.text), unwanted + len(page.boilerplate)
        kept += sum(paragraph in text for paragraph in page.text)
        gone += sum(phrase not in text for phrase in page.boilerplate)
    return {'paragraphs_kept': kept / wanted, 'boilerplate_removed': gone / unwanted}


def duplication(folder):
    """How many of the pairs of each similarity are found, and precision and recall of those of 0.5 or more."""
    before, after = (set(documents(folder, stage)) for stage in ('filter', 'duplicates'))
    found, pairs, similar, right, removed = collections.Counter(), collections.Counter(), 0, 0, len(before - after)
    for number in before:
        page = page_of(number)
        if page.original is None or page.original not in before:
            continue
        goal = 1.0 if page.kind == 'exact' else min(SIMILARITIES, key=lambda each: abs(each - page.similarity))
        hit = not {number, page.original} <= after
        pairs[goal], found[goal] = pairs[goal] + 1, found[goal] + hit
        similar, right = similar + (page.similarity >= 0.5), right + (hit and page.similarity >= 0.5)
    return {
        'found_of_similarity': {str(goal): round(found[goal] / pairs[goal], 4) for goal in sorted(pairs)},
        'recall': right / similar, 'precision': right / removed,
    }  # fmt: skip


def measure(folder, count, deadline):
    """Run what is left of a size. Returns whether all is done."""
    make_pages(folder, count)
    path = folder / 'results.json'
    results = json.loads(path.read_text()) if path.exists() else {'pages': count, 'stages': {}}
    for stage in STAGES:
        entry = results['stages'].setdefault(stage, {'seconds': 0, 'cpu_seconds': 0, 'megabytes': 0, 'done': False})
        if not entry['done']:
            left = max(1, deadline - time.monotonic())
            seconds, cpu, megabytes, entry['done'] = run_stage(folder, stage, left)
            entry['seconds'] += seconds
            entry['cpu_seconds'] += cpu
            entry['megabytes'] = max(entry['megabytes'], megabytes)
            path.write_text(json.dumps(results, indent=1))
        if not entry['done']:
            return False
    cpu = sum(entry['cpu_seconds'] for entry in results['stages'].values())
    results |= {'documents_a_core_second': count / cpu, **extraction(folder), **duplication(folder)}
    path.write_text(json.dumps(results, indent=1))
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('pages', type=int, nargs='+')
    parser.add_argument('--folder', type=pathlib.Path, required=True)
    parser.add_argument('--minutes', type=float, default=1e6)
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    for count in options.pages:
        if not measure(options.folder / str(count), count, deadline):
            sys.exit(AGAIN)
        print((options.folder / str(count) / 'results.json').read_text())


if __name__ == '__main__':
    main()
