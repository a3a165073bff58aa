import os
import pathlib
import pickle
import stat
import subprocess
import sys

import pytest

pytest.importorskip('datatrove')


from gpt2.preparation import executors
from gpt2.preparation.blocks import Documents, writer
from gpt2.preparation.executors import Engine, Step, StepError, run_local, submit
from gpt2.preparation.pages import Folder


def writes(folder, dies_once=None, fails=()):
    """A block that writes a file a task; in task dies_once its process is killed the first time, in those of fails it
    raises. It is a function in a function, which other processes get by value."""
    def block(data, rank, world_size):
        import os
        import pathlib

        mark = pathlib.Path(folder, 'died')
        if rank == dies_once and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), 9)
        if rank in fails and not pathlib.Path(folder, 'mended').exists():
            raise OSError(28, 'No space left on device', 'a file')
        with open(os.path.join(folder, f'{rank}.txt'), 'a') as file:
            file.write(f'{rank} of {world_size}\n')
    return block


def written(folder):
    return {path.name: path.read_text() for path in pathlib.Path(folder).glob('*.txt')}


@pytest.mark.parametrize('workers', [1, 2])
def test_a_task_that_fails_stops_no_other_and_is_done_again(tmp_path, workers):
    step = Step('write', [writes(str(tmp_path), fails=(0, 2))], 4)
    logs, engine = str(tmp_path / 'steps' / 'write'), Engine(workers=workers)
    with pytest.raises(StepError) as failed:
        run_local(step, logs, engine)
    assert '2 of 4 tasks of write failed, task ' in str(failed.value)
    assert 'No space left on device (a file)' in str(failed.value)
    assert set(written(tmp_path)) == {'1.txt', '3.txt'}
    (tmp_path / 'mended').touch()
    run_local(step, logs, engine)
    run_local(step, logs, engine)
    assert written(tmp_path) == {f'{rank}.txt': f'{rank} of 4\n' for rank in range(4)}  # each once


def test_a_worker_that_is_killed_takes_no_other_with_it(tmp_path):
    step, logs = Step('write', [writes(str(tmp_path), dies_once=1)], 4), str(tmp_path / 'steps' / 'write')
    with pytest.raises(StepError, match='1 of 4 tasks of write failed, task 1 since its process was ended by signal 9'):
        run_local(step, logs, Engine(workers=2))
    assert set(written(tmp_path)) == {'0.txt', '2.txt', '3.txt'}
    run_local(step, logs, Engine(workers=2))
    assert written(tmp_path) == {f'{rank}.txt': f'{rank} of 4\n' for rank in range(4)}


def test_nothing_is_printed(tmp_path, capfd):
    run_local(Step('write', [writes(str(tmp_path))], 2), str(tmp_path / 'steps' / 'write'), Engine())
    assert capfd.readouterr() == ('', '')


SBATCH = """\
#!/bin/sh
for word; do script=$word; done
echo "$*" | sed 's/ [^ ]*$//' >> "$JOBS/arguments"
number=$(ls "$JOBS" | wc -l)
cp "$script" "$JOBS/$number.sh"
if [ -n "$CARRY_OUT" ]; then
    last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
    for task in $(seq 0 "$last"); do
        SLURM_ARRAY_TASK_ID=$task SLURM_JOB_ID=$number SLURM_NODELIST=localhost sh "$script" >> "$JOBS/output" 2>&1
    done
fi
echo "Submitted batch job $number"
"""
SRUN = '#!/bin/sh\nwhile [ "$1" != launch_pickled_pipeline ]; do shift; done\nexec "$@"\n'
SCONTROL = '#!/bin/sh\necho localhost\n'


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A folder of what was given to a sbatch that is none: scripts by number, and a file of the arguments."""
    programs, jobs = tmp_path / 'bin', tmp_path / 'jobs'
    programs.mkdir()
    jobs.mkdir()
    for name, text in (('sbatch', SBATCH), ('srun', SRUN), ('scontrol', SCONTROL)):
        (programs / name).write_text(text)
        (programs / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv('PATH', f'{programs}{os.pathsep}{os.environ["PATH"]}')
    monkeypatch.setenv('JOBS', str(jobs))
    return jobs


def two_steps(folder):
    for number in range(2):
        (folder / f'{number}.html').write_text(f'<p>page {number}')
    first, second = (str(folder / name) for name in ('first', 'second'))
    steps = [
        Step('first', [Folder([str(folder / f'{number}.html') for number in range(2)], 100), writer(first)], 2),
        Step('second', [Documents(first), writer(second)], 1),
    ]
    return [(step, str(folder / 'text' / 'steps' / step.name)) for step in steps]


def texts(folder):
    return [document.text for document in Documents(str(folder)).run()]


def test_slurm_gets_a_job_a_step_each_after_the_one_before(tmp_path, slurm):
    submit(two_steps(tmp_path), Engine('slurm', 4, 'cpu', '1:00:00'))
    scripts = {path.stem: path.read_text() for path in slurm.glob('*.sh')}
    first = next(text for text in scripts.values() if 'job-name=text-first\n' in text and 'launch_pickled' in text)
    for line in ('--array=0-1%4', '--partition=cpu', '--time=1:00:00', '--cpus-per-task=1'):
        assert f'#SBATCH {line}\n' in first
    assert f'export PYTHONPATH="{executors.SOURCE}' in first
    arguments = (slurm / 'arguments').read_text().splitlines()
    assert any('--dependency=afterok:' in line for line in arguments[1:])
    assert '--dependency' not in arguments[0]


def test_a_job_that_slurm_does_not_take_is_one_line(tmp_path, slurm):
    (tmp_path / 'bin' / 'sbatch').write_text('#!/bin/sh\nexit 1\n')
    with pytest.raises(StepError, match=r'sbatch took no job .*; is cpu a partition of this Slurm'):
        submit(two_steps(tmp_path), Engine('slurm', 4, 'cpu', '1:00:00'))


@pytest.mark.slow
def test_what_slurm_gets_does_the_work(tmp_path, slurm, monkeypatch):
    monkeypatch.setenv('CARRY_OUT', '1')
    submit(two_steps(tmp_path), Engine('slurm', 4, 'cpu', '1:00:00'))
    assert texts(tmp_path / 'second') == ['<p>page 0', '<p>page 1'], (slurm / 'output').read_text()
    jobs = len(list(slurm.glob('*.sh')))
    submit(two_steps(tmp_path), Engine('slurm', 4, 'cpu', '1:00:00'))
    assert len(list(slurm.glob('*.sh'))) == jobs  # nothing is left


@pytest.mark.slow
def test_ray_does_the_work(tmp_path):
    pytest.importorskip('ray')
    steps = two_steps(tmp_path)
    code = 'import pickle, sys\nfrom gpt2.preparation.executors import Engine, run_on_ray\n'
    code += 'for step, logs in pickle.load(sys.stdin.buffer):\n    run_on_ray(step, logs, Engine("ray", 2))'
    environment = os.environ | {'PYTHONPATH': executors.SOURCE}
    command = [sys.executable, '-c', code]
    subprocess.run(command, input=pickle.dumps(steps), env=environment, timeout=300, check=True)
    assert texts(tmp_path / 'second') == ['<p>page 0', '<p>page 1']
