"""What is said of work in progress."""

import os
import sys

from gpt2.system import progress


def test_work_goes_on_when_nobody_listens_any_more(monkeypatch, tmp_path):
    """As after `2>&1 | head`, or once the disk of a log is full: what is said then is lost, and nothing else."""
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(progress, 'shown', True)
    with open(writer, 'w', buffering=1) as stream:
        monkeypatch.setattr(sys, 'stderr', stream)
        progress.note('one line')
        progress.note('another')
        with progress.bar(total=2, disable=False, delay=0, mininterval=0) as bar:
            bar.update()
        assert os.fstat(writer).st_rdev == os.stat(os.devnull).st_rdev
