"""One system of benchmarks/peers.py, run by the Python of its own environment.

    python peer_systems.py SYSTEM convert WEIGHTS FOLDER    make what the system loads from an .npz of the
                                                            checkpoint's variables
    python peer_systems.py SYSTEM serve FOLDER THREADS      read what to do from standard input, a line each, and print
                                                            {"seconds"} and what was found: {"prompts", "length"}
                                                            samples, prompts: their sizes in tokens; {"text", "ids",
                                                            "windows"} scores so many first windows of a text, ids:
                                                            .npy of its tokens, int32 [all windows, N_CTX]
    python peer_systems.py "llama.cpp q4_0" logits GGUF WINDOWS LOGITS
                                                            quantise a float32 model, and write what it says after each
                                                            token, float32 [windows, n, n_vocab] as .npy; WINDOWS: .npy

Scoring is what llama.cpp's perplexity tool does: windows that do not overlap, of each of which all tokens are read and
the last SCORED are scored. Ours and transformers leave out the last token, which is only predicted. Loading, making
tokens and the first calls, which allocate memory, are not counted; log-probabilities are. transformers takes a window
at a time and llama.cpp 512 tokens, its default: four windows and 1,024 tokens took longer.
"""

import json
import math
import os
import pathlib
import re
import subprocess
import sys
import time

import numpy as np

N_CTX, TOP_K = 1024, 40
SCORED = N_CTX // 2 - 1  # tokens of a window
BATCH = 4  # windows that our TensorFlow scores together; score.py's default
HEAD = 64  # features of a head, in all released sizes
SRC = pathlib.Path(__file__).parent.parent / 'src'
VOCABULARY = pathlib.Path(__file__).parent.parent / 'tests' / 'release' / '124M'


def prompt_tokens(sizes):
    """Token ids of prompts, of which those of one size are the same."""
    return [list(range(100 + size, 100 + 2 * size)) for size in sizes]


def layer_names(p):
    return [f'model/h{layer}' for layer in range(sum(name.endswith('ln_1/g') for name in p))]


# LiteRT and TensorFlow, ours: the model folder is what they load


def serve_litert(folder, threads, precision):
    sys.path.insert(0, str(SRC))
    from gpt2.checkpoints.source import open_source
    from gpt2.hparams import load_hparams
    from gpt2.litert.engine import Generator
    from gpt2.litert.export import exported_file

    hparams = load_hparams(f'{folder}/hparams.json')
    return our_tasks(Generator(exported_file(open_source(folder), precision), hparams))


def serve_tf(folder, threads):
    sys.path.insert(0, str(SRC))
    from gpt2 import sample
    from gpt2.checkpoints import release as checkpoint
    from gpt2.hparams import load_hparams

    hparams = load_hparams(f'{folder}/hparams.json')
    return our_tasks(sample.Generator(hparams, checkpoint.load_params(folder, hparams)))


def our_tasks(generator):
    from gpt2.scoring.fastest import fastest_score
    from gpt2.scoring.windows import batches

    score = fastest_score(generator)

    def sample(prompts, length):
        steps = generator.generate(prompt_tokens(prompts), length, numbers=range(len(prompts)), seed=0, top_k=TOP_K)
        return sum(1 for _ in steps)

    def log_probabilities(windows):
        rows = [(window, SCORED) for window in windows.tolist()]
        return [found[0] for batch in batches(rows, BATCH * N_CTX) for found in score(batch)]

    return sample, timed_score(log_probabilities)


# CTranslate2


def convert_ctranslate2(p, folder, quantization):
    from ctranslate2.specs import TransformerDecoderModelSpec, common_spec

    layers = layer_names(p)
    spec = TransformerDecoderModelSpec.from_config(
        len(layers), len(p['model/wpe'][0]) // HEAD, pre_norm=True, activation=common_spec.Activation.GELUTanh
    )
    decoder = spec.decoder

    def norm(target, name):
        target.gamma, target.beta = p[f'{name}/g'], p[f'{name}/b']

    def linear(target, name):
        target.weight, target.bias = np.ascontiguousarray(p[f'{name}/w'][0].T), p[f'{name}/b']

    decoder.scale_embeddings = False
    decoder.embeddings.weight = decoder.projection.weight = p['model/wte']
    decoder.position_encodings.encodings = p['model/wpe']
    norm(decoder.layer_norm, 'model/ln_f')
    for target, name in zip(decoder.layer, layers):
        norm(target.self_attention.layer_norm, f'{name}/ln_1')
        linear(target.self_attention.linear[0], f'{name}/attn/c_attn')
        linear(target.self_attention.linear[1], f'{name}/attn/c_proj')
        norm(target.ffn.layer_norm, f'{name}/ln_2')
        linear(target.ffn.linear_0, f'{name}/mlp/c_fc')
        linear(target.ffn.linear_1, f'{name}/mlp/c_proj')
    tokens = token_names(p)
    spec.register_vocabulary(tokens)
    spec.config.bos_token = spec.config.eos_token = spec.config.unk_token = tokens[-1]
    spec.validate()
    spec.optimize(quantization=quantization)
    os.makedirs(folder, exist_ok=True)
    spec.save(folder)


def token_names(p):
    return [*(f'token{index}' for index in range(len(p['model/wte']) - 1)), '<|endoftext|>']


def serve_ctranslate2(folder, threads, compute_type):
    import ctranslate2

    generator = ctranslate2.Generator(folder, compute_type=compute_type, inter_threads=1, intra_threads=threads)

    def sample(prompts, length):
        results = generator.generate_batch(
            [[f'token{index}' for index in tokens] for tokens in prompt_tokens(prompts)],
            max_length=length, min_length=length, sampling_topk=TOP_K, include_prompt_in_result=False,
        )  # fmt: skip
        return len(results[0].sequences_ids[0])

    return sample, None


# llama.cpp


def convert_llama(p, folder, file_type):
    os.makedirs(folder, exist_ok=True)
    exact, path = f'{folder}/exact.gguf', f'{folder}/model.gguf'
    write_gguf(p, path if file_type == 'f32' else exact)
    if file_type != 'f32':
        quantise_llama(exact, path, file_type)
        os.remove(exact)


def quantise_llama(exact, path, file_type):
    import ctypes

    import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f'LLAMA_FTYPE_MOSTLY_{file_type.upper()}')
    if llama_cpp.llama_model_quantize(exact.encode(), path.encode(), ctypes.byref(parameters)):
        raise RuntimeError(f'{exact} could not be quantised')


def llama_logits(exact, file_type, windows):
    """Yield the logits [n, n_vocab] after each token of windows, int [windows, n]."""
    import llama_cpp

    path = f'{exact}.{file_type}'
    quantise_llama(exact, path, file_type)
    n = windows.shape[1]
    model = llama_cpp.Llama(path, n_ctx=n, n_batch=n, logits_all=True, verbose=False)
    for window in windows.tolist():
        model.reset()
        model.eval(window)
        yield model.scores[:n].copy()


def write_gguf(p, path):
    import gguf

    layers, embd = layer_names(p), p['model/wte'].shape[1]
    writer = gguf.GGUFWriter(path, 'gpt2')
    writer.add_context_length(N_CTX)
    writer.add_embedding_length(embd)
    writer.add_block_count(len(layers))
    writer.add_feed_forward_length(4 * embd)
    writer.add_head_count(embd // HEAD)
    writer.add_layer_norm_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    encoder = json.loads((VOCABULARY / 'encoder.json').read_text(encoding='utf-8'))
    tokens, merges = sorted(encoder, key=encoder.get), (VOCABULARY / 'vocab.bpe').read_text(encoding='utf-8')
    writer.add_tokenizer_model('gpt2')
    writer.add_tokenizer_pre('gpt-2')
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * len(tokens))
    writer.add_token_merges(merges.splitlines()[1:])
    writer.add_bos_token_id(len(tokens) - 1)
    writer.add_eos_token_id(len(tokens) - 1)
    parts = {
        'ln_1': 'attn_norm', 'attn/c_attn': 'attn_qkv', 'attn/c_proj': 'attn_output',
        'ln_2': 'ffn_norm', 'mlp/c_fc': 'ffn_up', 'mlp/c_proj': 'ffn_down',
    }  # fmt: skip
    names = {f'{name}/{ours}': f'blk.{layer}.{its}' for layer, name in enumerate(layers) for ours, its in parts.items()}
    names['model/ln_f'] = 'output_norm'
    writer.add_tensor('token_embd.weight', p['model/wte'])
    writer.add_tensor('position_embd.weight', p['model/wpe'])
    for ours, its in names.items():
        weight = p[f'{ours}/g'] if f'{ours}/g' in p else np.ascontiguousarray(p[f'{ours}/w'][0].T)
        writer.add_tensor(f'{its}.weight', weight)
        writer.add_tensor(f'{its}.bias', p[f'{ours}/b'])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def serve_llama(folder, threads):
    import llama_cpp

    model = llama_cpp.Llama(
        f'{folder}/model.gguf', n_ctx=N_CTX, n_threads=threads, n_threads_batch=threads, verbose=False
    )

    def sample(prompts, length):
        model.reset()  # otherwise the prompt, known from the last run, would not be processed
        [tokens] = prompt_tokens(prompts)
        steps = model.generate(tokens, top_k=TOP_K, top_p=1.0, min_p=0.0, temp=1.0, repeat_penalty=1.0)
        return sum(1 for _ in zip(range(length), steps))

    return sample, lambda text, ids, windows: llama_score(f'{folder}/model.gguf', threads, text, windows)


def llama_score(path, threads, text, windows):
    """What its perplexity tool says of so many first windows of a text."""
    command = [
        f'{sys.prefix}/bin/llama-perplexity', '--model', path, '--file', text, '--chunks', windows, '--ctx-size', N_CTX,
        '--batch-size', N_CTX, '--threads', threads, '--threads-batch', threads,
        '--log-prefix', '--log-timestamps',
    ]  # fmt: skip
    return told(subprocess.run([*map(str, command)], capture_output=True, text=True, check=True).stderr)


def told(log):
    """Seconds from the first window to the result, by the tool's own clock, and the perplexity."""
    times = re.findall(r'(\d+)\.(\d+)\.(\d+)\.(\d+) I (?:perplexity: calculating|Final estimate)', log)
    start, end = (60 * int(m) + int(s) + int(ms) / 1e3 + int(us) / 1e6 for m, s, ms, us in times)
    return {'seconds': end - start, 'perplexity': float(re.search(r'Final estimate: PPL = (\S+)', log)[1])}


# transformers


def convert_transformers(p, folder):
    import torch
    import transformers

    embd = p['model/wte'].shape[1]
    config = transformers.GPT2Config(n_embd=embd, n_head=embd // HEAD, n_layer=len(layer_names(p)))
    model = transformers.GPT2LMHeadModel(config)
    names = {'g': 'weight', 'w': 'weight', 'b': 'bias'}
    state = {'transformer.wte.weight': p['model/wte'], 'transformer.wpe.weight': p['model/wpe']}
    for name, value in p.items():
        *path, leaf = name.removeprefix('model/').split('/')
        if leaf in names:
            place = '.'.join(path).replace('h', 'h.', 1) if path[0].startswith('h') else path[0]
            state[f'transformer.{place}.{names[leaf]}'] = value[0] if value.ndim == 3 else value
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in state.items()}
    missing = model.load_state_dict(tensors, strict=False)
    if missing.unexpected_keys or set(missing.missing_keys) - {'lm_head.weight'}:
        raise RuntimeError(f'names do not fit: {missing}')
    model.save_pretrained(folder)


def serve_transformers(folder, threads):
    import torch
    import transformers

    torch.set_num_threads(threads)
    model = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()

    def sample(prompts, length):
        context = torch.tensor(prompt_tokens(prompts))
        with torch.inference_mode():
            tokens = model.generate(
                context, attention_mask=torch.ones_like(context), do_sample=True, top_k=TOP_K,
                min_new_tokens=length, max_new_tokens=length, pad_token_id=0,
            )  # fmt: skip
        return tokens.shape[1] - prompts[0]

    def log_probabilities(windows):
        tokens = torch.from_numpy(windows.astype(np.int64))
        with torch.inference_mode():
            for part in tokens.split(1):
                logits = model(part[:, :-1], use_cache=False, logits_to_keep=SCORED).logits
                yield logits.log_softmax(-1).gather(-1, part[:, -SCORED:, None]).numpy()

    return sample, timed_score(log_probabilities)


SYSTEMS = {
    'litert int4': (None, lambda folder, threads: serve_litert(folder, threads, 'int4')),
    'litert int8': (None, lambda folder, threads: serve_litert(folder, threads, 'int8')),
    'litert float32': (None, lambda folder, threads: serve_litert(folder, threads, 'float32')),
    'tf float32': (None, serve_tf),
    'ctranslate2 int8': (
        lambda p, folder: convert_ctranslate2(p, folder, 'int8'),
        lambda folder, threads: serve_ctranslate2(folder, threads, 'int8'),
    ),
    'ctranslate2 float32': (
        lambda p, folder: convert_ctranslate2(p, folder, None),
        lambda folder, threads: serve_ctranslate2(folder, threads, 'float32'),
    ),
    'llama.cpp q4_0': (lambda p, folder: convert_llama(p, folder, 'q4_0'), serve_llama),
    'llama.cpp q8_0': (lambda p, folder: convert_llama(p, folder, 'q8_0'), serve_llama),
    'llama.cpp f32': (lambda p, folder: convert_llama(p, folder, 'f32'), serve_llama),
    'transformers float32': (convert_transformers, serve_transformers),
}


def timed_score(log_probabilities):
    """A function that scores, of one that returns arrays of log-probabilities of windows, int [count, N_CTX]."""

    def score(text, ids, windows):
        chosen = np.load(ids)[:windows]
        start = time.perf_counter()
        found = np.concatenate([array.ravel() for array in log_probabilities(chosen)])
        return {'seconds': time.perf_counter() - start, 'perplexity': math.exp(-found.mean(dtype=np.float64))}

    return score


def timed_sample(sample, prompts, length):
    start = time.perf_counter()
    drawn = sample(prompts, length)
    seconds = time.perf_counter() - start
    if drawn != length:
        raise RuntimeError(f'{drawn} tokens were drawn, not {length}')
    return {'seconds': seconds}


def serve(sample, score):
    answers = os.fdopen(os.dup(1), 'w')  # libraries that chat on standard output shall not reach it
    os.dup2(2, 1)
    for line in sys.stdin:
        asked = json.loads(line)
        answer = timed_sample(sample, **asked) if 'prompts' in asked else score(**asked)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == '__main__':
    system, task, *arguments = sys.argv[1:]
    convert, load = SYSTEMS[system]
    if task == 'convert':
        weights, folder = arguments
        convert(dict(np.load(weights)), folder)
    elif task == 'logits':
        exact, windows, found = arguments
        np.save(found, list(llama_logits(exact, system.split()[1], np.load(windows))))
    else:
        folder, threads = arguments
        serve(*load(folder, int(threads)))
