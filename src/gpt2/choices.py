"""One of several continuations, drawn whole. Knows nothing of text."""

from collections.abc import Sequence

import numpy as np

from gpt2.drawing import draw, exponential_noise
from gpt2.engine import Engine, Rows
from gpt2.noise import noise_stream
from gpt2.sampling import Sampling

AT_ONCE = 64  # choices whose probabilities are found together


def choice_scores(engine: Engine, prompt: Sequence[int], choices: Sequence[Sequence[int]]) -> np.ndarray:
    """The log-probabilities in nats, float64 [choices], that the model gives to the tokens of each of choices after a
    prompt, token ids all; what follows a choice does not count. Raises UsageError where there is no room for one."""
    found = np.zeros(len(choices))
    order = sorted(range(len(choices)), key=lambda index: tuple(choices[index]))  # those that begin alike together
    for start in range(0, len(order), AT_ONCE):
        group = order[start : start + AT_ONCE]
        rows = engine.start([prompt], numbers=[1], seed=0, sampling=Sampling())
        try:
            found[group] = group_scores(rows, [choices[index] for index in group])
        finally:
            rows.close()
    return found


def group_scores(rows: Rows, choices: Sequence[Sequence[int]]) -> np.ndarray:
    """choice_scores() by rows of the prompt, one so far. What several choices begin with is computed once."""
    found = np.zeros(len(choices))
    members = [list(range(len(choices)))]  # of each row, the choices that begin with its tokens
    for depth in range(max(map(len, choices))):
        logits = rows.next_logits().astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
        following: dict[tuple[int, int], list[int]] = {}  # by row and token, the choices that go on
        for row, indices in enumerate(members):
            for index in indices:
                token = choices[index][depth]
                found[index] += logits[row, token]
                if len(choices[index]) > depth + 1:
                    following.setdefault((row, token), []).append(index)
        if following:
            members = list(following.values())
            parents, tokens = zip(*following)
            rows.keep(parents)
            rows.take(tokens)
    return found


def choose(scores: np.ndarray, seed: int, prompt: Sequence[int], number: int, sampling: Sampling) -> int:
    """The choice, by its place, that a sample of a prompt is: drawn as a token is from its vocabulary."""
    noise = None if sampling.greedy else exponential_noise(noise_stream(seed, prompt, number), len(scores))
    return draw(scores.astype(np.float32), noise, *sampling.drawing(len(scores)))
