"""From the events of a piece of work to what clients expect. Knows nothing of HTTP."""

import base64
import json
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from gpt2.encoder import Encoder
from gpt2.serving.work import Piece, Token, Vector

as_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(',', ':')).encode


def token_text(encoder: Encoder, token: int) -> str:
    """A token as a text: one that is no whole characters is `bytes:` and these, as OpenAI's servers write it."""
    content = encoder.decode_bytes([token])
    try:
        return content.decode('utf-8')
    except UnicodeDecodeError:
        return 'bytes:' + ''.join(f'\\x{byte:02x}' for byte in content)


def logprobs(encoder: Encoder, tokens: Sequence[Token], likeliest: int) -> dict[str, list]:
    """The `logprobs` of a choice. Among the likeliest is the token itself, whatever its rank."""
    return {
        'tokens': [token_text(encoder, token.id) for token in tokens],
        'token_logprobs': [token.log_probability for token in tokens],
        'top_logprobs': [top(encoder, token) if likeliest else None for token in tokens],
        'text_offset': [token.offset for token in tokens],
    }


def top(encoder: Encoder, token: Token) -> dict[str, float] | None:
    if token.log_probability is None:
        return None
    return {token_text(encoder, other): value for other, value in (*token.likeliest, (token.id, token.log_probability))}


def usage(prompt_tokens: int, drawn: int) -> dict[str, int]:
    return {'prompt_tokens': prompt_tokens, 'completion_tokens': drawn, 'total_tokens': prompt_tokens + drawn}


class Choices:
    """The answer to a request for completions, as it grows.

    prompts: what each choice begins with, by its index: the prompt where it is echoed, else nothing. told: how many
    likeliest tokens are told of each; None tells nothing.
    """

    def __init__(
        self, model: str, encoder: Encoder, seed: int, prompts: Sequence[str], told: int | None
    ) -> None:
        self.encoder, self.told = encoder, told
        self.head = {
            'id': f'cmpl-{uuid.uuid4().hex}', 'object': 'text_completion', 'created': int(time.time()), 'model': model,
            'seed': seed,
        }  # fmt: skip
        self.texts = [[prompt] for prompt in prompts]
        self.tokens: list[list[Token]] = [[] for _ in prompts]
        self.reasons: list[str | None] = [None for _ in prompts]

    def add(self, piece: Piece) -> None:
        self.texts[piece.index].append(piece.text)
        self.tokens[piece.index] += piece.tokens
        self.reasons[piece.index] = piece.finish_reason

    def choice(self, index: int, text: str, tokens: Iterable[Token], reason: str | None) -> dict[str, Any]:
        found = None if self.told is None else logprobs(self.encoder, list(tokens), self.told)
        return {'index': index, 'text': text, 'logprobs': found, 'finish_reason': reason}

    def whole(self, used: dict[str, int]) -> dict[str, Any]:
        parts = enumerate(zip(self.texts, self.tokens, self.reasons))
        choices = [self.choice(index, ''.join(texts), tokens, reason) for index, (texts, tokens, reason) in parts]
        return {**self.head, 'choices': choices, 'usage': used}

    def opening(self) -> list[dict[str, Any]]:
        """The chunks of a stream that hold the prompts, where they are echoed."""
        return [self.chunk(Piece(index, text)) for index, [text] in enumerate(self.texts) if text]

    def chunk(self, piece: Piece) -> dict[str, Any]:
        """What a piece is in a stream."""
        return {**self.head, 'choices': [self.choice(piece.index, piece.text, piece.tokens, piece.finish_reason)]}

    def last_chunk(self, used: dict[str, int]) -> dict[str, Any]:
        return {**self.head, 'choices': [], 'usage': used}


def score(model: str, encoder: Encoder, tokens: Sequence[Token], shift: int) -> dict[str, Any]:
    """The answer of /v1/score. shift: characters before the text, which do not count."""
    told = [
        {
            **likely(encoder, token.id, token.log_probability), 'rank': token.rank, 'offset': token.offset - shift,
            'likeliest': [likely(encoder, *pair) for pair in token.likeliest],
        }
        for token in tokens
    ]  # fmt: skip
    total = sum(token.log_probability or 0 for token in tokens)
    return {'object': 'score', 'model': model, 'log_probability': total, 'tokens': told}


def likely(encoder: Encoder, token: int, log_probability: float | None) -> dict[str, Any]:
    return {'id': token, 'token': token_text(encoder, token), 'log_probability': log_probability}


def embeddings(
    model: str, vectors: Mapping[int, Vector], prompt_tokens: int, normalise: bool, encoding: str
) -> dict[str, Any]:
    """The answer of /v1/embeddings. vectors: by the number of their text."""
    data = [
        {'object': 'embedding', 'index': index, 'embedding': embedding(vector.values, normalise, encoding)}
        for index, vector in sorted(vectors.items())
    ]
    used = {'prompt_tokens': prompt_tokens, 'total_tokens': prompt_tokens}
    return {'object': 'list', 'model': model, 'data': data, 'usage': used}


def embedding(values: Sequence[float], normalise: bool, encoding: str) -> list[float] | str:
    """An embedding as a client wants it."""
    vector = np.array(values)
    if normalise:
        vector = vector / max(float(np.linalg.norm(vector)), 1e-30)
    return base64.b64encode(vector.astype('<f4').tobytes()).decode() if encoding == 'base64' else vector.tolist()


def dumped(content: dict[str, Any]) -> bytes:
    """An answer as JSON, the items of its lists one by one: json lets no other thread run until it has made a whole."""
    parts = (f'{as_json(name)}:{listed(each) if isinstance(each, list) else as_json(each)}'
             for name, each in content.items())  # fmt: skip
    return f'{{{",".join(parts)}}}'.encode()


def listed(items: list[Any]) -> str:
    return f'[{",".join(map(as_json, items))}]'
