"""Samples of a model while it is trained."""

from gpt2.completion import Completion, complete
from gpt2.encoder import Encoder
from gpt2.errors import UsageError
from gpt2.hparams import HParams
from gpt2.sampling import Sampling

LENGTH, TOP_K, SEED = 100, 40, 0


def prompt_ids(encoder: Encoder, prompt: str | None, n_ctx: int) -> list[int]:
    """Ids of a prompt; None is the end-of-text token alone. Raises UsageError for one that leaves no room."""
    ids = [encoder.end_of_text] if prompt is None else encoder.encode(prompt)
    if not 0 < len(ids) <= n_ctx:
        raise UsageError(f'--sample_prompt has {len(ids)} tokens, the model allows 1 to {n_ctx}')
    return ids


def sample(hparams: HParams, params: dict, encoder: Encoder, prompt: str | None) -> str:
    """One sample of the parameters as they are now, behind its prompt: LENGTH tokens, or up to the end of the text."""
    from gpt2.sample import Generator

    ids = prompt_ids(encoder, prompt, hparams.n_ctx)
    length = min(LENGTH, hparams.n_ctx + 1 - len(ids))
    rows = Generator(hparams, params).start([ids], numbers=[1], seed=SEED, sampling=Sampling(top_k=TOP_K))
    completion = Completion(encoder, 1, stop_at_end=True, length=length)
    for _ in complete(rows, [completion]):
        pass
    return (prompt or '') + completion.text
