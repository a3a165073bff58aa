"""What the tests of both engines draw, and how draws are compared with probabilities."""

import numpy as np

PLAIN = [2.0, 1.0, 0.5, 0.0, -0.5, -1.0, -3.0, -8.0]
TIED = [1.0, 0.0, 1.0, 0.0, 1.0, -2.0, 0.0, -2.0]
TEXTBOOK = list(np.log([0.5, 0.35, 0.1, 0.05]))  # the design's nucleus example
LARGE = [-101.0, -100.0, -99.5, -130.0, -99.0]


def settings(temperature=1.0, top_k=0, top_p=1.0):
    return {'temperature': temperature, 'top_k': top_k, 'top_p': top_p}


# Each of the settings that the release lacks, so that all act and something is left to draw.
EVERYTHING = {
    'temperature': 1.1, 'top_k': 25, 'top_p': 0.95, 'top_p_rule': 'inclusive', 'min_p': 0.01, 'typical_p': 0.95,
    'repetition_penalty': 1.2, 'presence_penalty': 0.3, 'frequency_penalty': 0.2, 'no_repeat_ngram': 3,
    'logit_bias': ((5, 3.0), (7, -100.0)),
}  # fmt: skip

CASES = [
    (PLAIN, settings()),
    (PLAIN, settings(temperature=0.5)),
    (PLAIN, settings(temperature=3.0)),
    (PLAIN, settings(temperature=1e-6)),
    (PLAIN, settings(top_k=1)),
    (PLAIN, settings(top_k=3)),
    (PLAIN, settings(top_k=100)),
    (PLAIN, settings(top_p=0.9)),
    (PLAIN, settings(top_p=1e-6)),
    (PLAIN, settings(top_p=0.999999)),
    (PLAIN, settings(temperature=2.0, top_k=5, top_p=0.8)),
    (PLAIN, settings(temperature=0.7, top_k=6, top_p=0.95)),
    (TIED, settings(top_k=2)),
    (TIED, settings(top_k=4)),
    (TIED, settings(top_p=0.5)),
    (TIED, settings(top_k=4, top_p=0.7)),
    (TEXTBOOK, settings(top_p=0.9)),
    (TEXTBOOK, settings(top_p=0.4)),
    (LARGE, settings(temperature=0.8, top_k=4)),
]


def assert_follow(drawn, expected):
    """Draws [n] of tokens against their probabilities [n_vocab]."""
    counts, draws = np.bincount(drawn, minlength=len(expected)), len(drawn)
    assert not counts[expected == 0].any()
    kept = expected * draws >= 5
    rest = ~kept & (expected > 0)
    observed, wanted = [*counts[kept], counts[rest].sum()], [*expected[kept] * draws, expected[rest].sum() * draws]
    chi_square = sum((o - w) ** 2 / w for o, w in zip(observed, wanted) if w > 0)
    # The 99.99 % quantiles of chi-square are below this line for up to 8 degrees of freedom.
    assert chi_square < 15.2 + 2.4 * (np.count_nonzero(kept) - 1)


def draw_samples(generator, context, length, numbers, batch_size, seed=5, **how):
    """Rows of ids of all sample numbers, drawn batch_size at a time."""
    rows = []
    for start in range(0, len(numbers), batch_size):
        batch = numbers[start : start + batch_size]
        steps = generator.generate([context] * len(batch), length, numbers=batch, seed=seed, **how)
        rows += np.stack(list(steps), axis=1).tolist()
    return rows
