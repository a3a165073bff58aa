"""GPT-2 and the release's sampling rules in NumPy: slow, obvious, written apart from src/.

Works on one sequence of one sample in float64, position by position and head by head.
"""

import numpy as np


def normalise(x, g, b):
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * g + b


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def attend(x, w, b, n_head):
    """Causal self-attention before its output projection; x is [n, features]."""
    n, features = x.shape
    size = features // n_head
    qkv = x @ w[0] + b
    out = np.zeros((n, features))
    for head in range(n_head):
        q, k, v = (qkv[:, part * features + head * size :][:, :size] for part in range(3))
        for position in range(n):
            weights = softmax(q[position] @ k[: position + 1].T / np.sqrt(size))
            out[position, head * size : (head + 1) * size] = weights @ v[: position + 1]
    return out


def logits(values, n_head, n_layer, tokens):
    """Logits [n, n_vocab] of a list of token ids; values maps checkpoint names to arrays."""
    p = {name.removeprefix('model/'): np.asarray(value, np.float64) for name, value in values.items()}
    x = np.array([p['wte'][token] + p['wpe'][position] for position, token in enumerate(tokens)])
    for layer in range(n_layer):
        h = f'h{layer}'
        y = np.array([normalise(row, p[f'{h}/ln_1/g'], p[f'{h}/ln_1/b']) for row in x])
        y = attend(y, p[f'{h}/attn/c_attn/w'], p[f'{h}/attn/c_attn/b'], n_head)
        x = x + y @ p[f'{h}/attn/c_proj/w'][0] + p[f'{h}/attn/c_proj/b']
        y = np.array([normalise(row, p[f'{h}/ln_2/g'], p[f'{h}/ln_2/b']) for row in x])
        y = gelu(y @ p[f'{h}/mlp/c_fc/w'][0] + p[f'{h}/mlp/c_fc/b'])
        x = x + y @ p[f'{h}/mlp/c_proj/w'][0] + p[f'{h}/mlp/c_proj/b']
    x = np.array([normalise(row, p['ln_f/g'], p['ln_f/b']) for row in x])
    return x @ p['wte'].T


def loss(values, n_head, n_layer, tokens):
    """Mean next-token loss in nats."""
    rows = logits(values, n_head, n_layer, tokens[:-1])
    return -np.mean([np.log(softmax(row)[token]) for row, token in zip(rows, tokens[1:])])


def probabilities(row, temperature=1.0, top_k=0, top_p=1.0, top_p_rule='released', min_p=0.0, typical_p=1.0):
    """Exact sampling probabilities of a row of logits: the release's rules in their order, then min_p and typical_p."""
    row = np.asarray(row, np.float64)
    if temperature == 0:
        return (np.arange(len(row)) == row.argmax()).astype(float)
    row = row / temperature
    if top_k:
        row = np.where(row < np.sort(row)[::-1][min(top_k, len(row)) - 1], -np.inf, row)
    if top_p < 1:
        descending = np.sort(row)[::-1]
        running = np.cumsum(softmax(descending))
        crossing = (running < top_p).sum() if top_p_rule == 'inclusive' else (running <= top_p).sum() - 1
        row = np.where(row < descending[max(crossing, 0)], -np.inf, row)
    row = np.where(softmax(row) < min_p * softmax(row).max() * (1 - 1e-12), -np.inf, row)
    if typical_p < 1:
        p = softmax(row)
        surprise = -np.log(np.where(p > 0, p, 1))
        off = np.round(np.where(p > 0, np.abs(surprise - (p * surprise).sum()), np.inf), 9)
        nearest = np.argsort(off, kind='stable')
        last = (np.cumsum(p[nearest]) < typical_p).sum()
        row = np.where(off > off[nearest[last]], -np.inf, row)
    return softmax(row)


def window_starts(count, n_ctx, stride):
    """For each of the ids 1 to count - 1, the first id it is predicted from, by definition: 0 for those
    that one window holds, and then the least multiple of stride from which a window reaches it."""
    return [0 if index <= n_ctx else -(-(index - n_ctx) // stride) * stride for index in range(1, count)]


def windowed_log_probabilities(values, n_head, n_layer, tokens, n_ctx, stride):
    """Log-probability of each token but the first, each from logits of its own window alone."""
    found = []
    for index, start in enumerate(window_starts(len(tokens), n_ctx, stride), start=1):
        row = logits(values, n_head, n_layer, tokens[start:index])[-1]
        found.append(np.log(softmax(row)[tokens[index]]))
    return np.array(found)
