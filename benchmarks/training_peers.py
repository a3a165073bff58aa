#!/usr/bin/env python3
"""Training of one shape by our train step, by transformers on PyTorch and by keras-hub: speed and peak memory.

    pip install torch transformers keras-hub
    python benchmarks/training_peers.py 7M --rounds 3
    python benchmarks/training_peers.py 124M --batch_size 1 --systems ours compiled pytorch

Each system has a process of its own, in which it makes random weights of the shape and does one update, and then takes
turns with the others: so many updates each a round. Printed as JSON: tokens a second, the median over the rounds; the
ratio of each to transformers on PyTorch in the same round, the median of these; the most resident memory.
All have float32, AdamW, gradients clipped at a norm of 1, and as many threads as there are cores. A system that cannot
be had is left out.
"""

import argparse
import contextlib
import json
import pathlib
import statistics
import subprocess
import sys
import time

REPOSITORY = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(REPOSITORY / 'src'))

import numpy as np  # noqa: E402
from memory import peak_megabytes  # noqa: E402

from gpt2.hparams import RELEASED_HPARAMS, load_hparams  # noqa: E402


def shape_of(name):
    return RELEASED_HPARAMS.get(name) or load_hparams(REPOSITORY / 'models' / name / 'hparams.json')


def ours(hparams, tokens, **changed):
    from gpt2.training.run import ask_for_onednn

    ask_for_onednn()
    from gpt2 import model
    from gpt2.training.batches import Batch
    from gpt2.training.optimizer import make_optimizer, trained
    from gpt2.training.settings import Settings
    from gpt2.training.update import make_train_step

    rows, window = tokens.shape[0], tokens.shape[1] - 1
    settings = Settings(1, rows, window, 1e-4, 0, 0.1, 0.0, 0, **changed)
    params = model.initial_params(hparams, seed=0)
    step = make_train_step(hparams, params, make_optimizer(trained(params, None), settings), settings)
    batch = Batch(tokens, np.ones([rows, window], np.float32))
    return lambda: step(batch, 1e-4)


def compiled(hparams, tokens):
    return ours(hparams, tokens, jit_compile=True)


def pytorch(hparams, tokens, compile_it=False):
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=hparams.n_vocab, n_positions=hparams.n_ctx, n_embd=hparams.n_embd, n_head=hparams.n_head,
        n_layer=hparams.n_layer, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=None, eos_token_id=None,
        use_cache=False,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).train()
    groups = [{'params': [each for each in model.parameters() if (each.dim() > 1) == matrices], 'weight_decay': decay}
              for matrices, decay in ((True, 0.1), (False, 0.0))]  # fmt: skip
    optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95), fused=True)
    forward = torch.compile(model) if compile_it else model
    inputs, labels = torch.tensor(tokens[:, :-1]).long(), torch.tensor(tokens[:, 1:]).long()

    def step():
        logits = forward(inputs).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def pytorch_compiled(hparams, tokens):
    return pytorch(hparams, tokens, compile_it=True)


def keras_hub(hparams, tokens):
    import keras
    import keras_hub

    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=hparams.n_vocab, num_layers=hparams.n_layer, num_heads=hparams.n_head,
        hidden_dim=hparams.n_embd, intermediate_dim=4 * hparams.n_embd, dropout=0.0,
        max_sequence_length=hparams.n_ctx,
    )  # fmt: skip
    model = keras_hub.models.GPT2CausalLM(backbone=backbone, preprocessor=None)
    model.compile(
        optimizer=keras.optimizers.AdamW(1e-4, beta_2=0.95, weight_decay=0.1, global_clipnorm=1.0),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    inputs = {'token_ids': tokens[:, :-1], 'padding_mask': np.ones_like(tokens[:, :-1])}
    return lambda: model.train_on_batch(inputs, tokens[:, 1:])


SYSTEMS = {each.__name__: each for each in (ours, compiled, pytorch, pytorch_compiled, keras_hub)}


def work(system, shape, batch_size, window):
    """Do as many updates as each line of standard input says, and answer with the seconds and the memory."""
    hparams = shape_of(shape)
    tokens = np.random.default_rng(0).integers(hparams.n_vocab, size=(batch_size, window + 1)).astype(np.int32)
    step = SYSTEMS[system](hparams, tokens)
    step()
    print(json.dumps('ready'), flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            step()
        print(json.dumps([time.perf_counter() - start, round(peak_megabytes())]), flush=True)


def answer(process):
    """The next line that a worker says in JSON; None where it has ended."""
    for line in process.stdout:
        with contextlib.suppress(ValueError):
            return json.loads(line)
    return None


def compare(systems, shape, batch_size, window, rounds, updates):
    def worker(system):
        command = [sys.executable, __file__, shape, '--batch_size', batch_size, '--window', window, '--work', system]
        pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'text': True}
        return subprocess.Popen(list(map(str, command)), **pipes)

    workers = {}
    for system in systems:
        workers[system] = worker(system)
        if answer(workers[system]) is None:
            del workers[system]
    turns = []
    for _ in range(rounds):
        turns.append({})
        for system, process in workers.items():
            print(updates, file=process.stdin, flush=True)
            turns[-1][system] = answer(process)
    for process in workers.values():
        process.stdin.close()
        process.wait()
    count = batch_size * window * updates
    speeds = {system: [count / turn[system][0] for turn in turns] for system in workers}
    return {
        'shape': shape, 'batch_size': batch_size, 'window': window, 'rounds': rounds, 'updates': updates,
        'tokens_per_second': {system: round(statistics.median(values), 1) for system, values in speeds.items()},
        'ratio_to_pytorch': {
            system: round(statistics.median(a / b for a, b in zip(values, speeds['pytorch'])), 2)
            for system, values in speeds.items() if 'pytorch' in speeds
        },
        'peak_megabytes': {system: turns[-1][system][1] for system in workers},
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('shape', choices=['7M', *RELEASED_HPARAMS])
    parser.add_argument('--systems', nargs='+', choices=SYSTEMS, default=list(SYSTEMS))
    for name, default in (('batch_size', 4), ('window', 512), ('rounds', 3), ('updates', 2)):
        parser.add_argument(f'--{name}', type=int, default=default)
    parser.add_argument('--work', choices=SYSTEMS, help=argparse.SUPPRESS)
    arguments = vars(parser.parse_args())
    system = arguments.pop('work')
    if system:
        work(system, arguments['shape'], arguments['batch_size'], arguments['window'])
    else:
        print(json.dumps(compare(**arguments), indent=1))


if __name__ == '__main__':
    main()
