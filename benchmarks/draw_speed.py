"""What drawing a token costs beside the model: `python benchmarks/draw_speed.py` prints microseconds a step, the
quickest tenth of many, for one row of logits of the released vocabulary, with each setting alone and with all of them.

The logits are random, of a spread as a 124M model's, and 900 tokens came before.
"""

import statistics
import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / 'src'))

from gpt2 import drawing  # noqa: E402
from gpt2.bans import Ban  # noqa: E402
from gpt2.encoder import get_encoder  # noqa: E402
from gpt2.history import History  # noqa: E402
from gpt2.sampling import Sampling  # noqa: E402

N_VOCAB, BEFORE, STEPS = 50257, 900, 200
SETTINGS = {
    'temperature': 0.9, 'top_k': 2000, 'top_p': 0.95, 'top_p_rule': 'inclusive', 'min_p': 0.001, 'typical_p': 0.9,
    'repetition_penalty': 1.2, 'presence_penalty': 0.5, 'frequency_penalty': 0.1, 'no_repeat_ngram': 3,
    'logit_bias': tuple((token, -1.0) for token in range(100, 400)),
}  # fmt: skip
PARTNERS = {'top_p_rule': {'top_p': 0.95}}  # what a setting means nothing without


def microseconds(how: Sampling) -> float:
    """The time of a step, noise and all."""
    random = np.random.default_rng(0)
    stream = np.random.Generator(np.random.Philox(1))
    history = History(how, random.integers(8000, size=BEFORE).tolist())
    settings, times = how.drawing(N_VOCAB), []
    for _ in range(STEPS):
        logits = random.standard_normal(N_VOCAB).astype(np.float32) * 2 - 30
        begin = time.perf_counter()
        noise = drawing.exponential_noise(stream, N_VOCAB)
        token = drawing.draw(history.adjusted(logits), noise, *settings)
        history.take(token % 8000)  # the vocabulary of the bans
        times.append(time.perf_counter() - begin)
    return statistics.quantiles(times, n=10)[0] * 1e6


def main() -> None:
    encoder = get_encoder('7M', str(HERE.parent / 'models'))
    ban = {'rules': (Ban(encoder, [' the', 'nation', 'however', '<|endoftext|>']),)}
    print(f'nothing              {microseconds(Sampling()):6.0f}')
    for name, value in SETTINGS.items():
        print(f'{name:<20} {microseconds(Sampling(**{name: value}, **PARTNERS.get(name, {}))):6.0f}')
    print(f'ban                  {microseconds(Sampling(**ban)):6.0f}')
    print(f'all                  {microseconds(Sampling(**SETTINGS, **ban)):6.0f}')
    few = SETTINGS | {'top_k': 40}
    print(f'all, top_k 40        {microseconds(Sampling(**few, **ban)):6.0f}')
    wide = {name: value for name, value in SETTINGS.items() if name != 'top_k'}
    print(f'all but top_k        {microseconds(Sampling(**wide, **ban)):6.0f}')


if __name__ == '__main__':
    main()
