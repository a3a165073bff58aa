"""From what clients ask to what is to be computed. Everything that is wrong with a request is found here."""

import re
from collections.abc import Iterable
from typing import Any

from gpt2.api import Model, new_seed
from gpt2.errors import Error, UsageError
from gpt2.patterns import check_pattern
from gpt2.sampling import ADJUSTMENTS, CHECKS, DRAWING
from gpt2.serving.answers import token_text
from gpt2.serving.failures import wrong
from gpt2.serving.schema import (
    BANS,
    CHOICES,
    INPUTS,
    STOP_TEXTS,
    TEXT_LENGTH,
    TOKENIZE_LENGTH,
    CompletionRequest,
    DetokenizeRequest,
    EmbeddingRequest,
    Prompt,
    ScoreRequest,
    TokenizeRequest,
    shortened,
)
from gpt2.serving.settings import Settings
from gpt2.serving.work import Completions, Embedding, Scoring

TOKEN_ID = re.compile('0|[1-9][0-9]{0,8}')


def parts(name: str, given: Prompt) -> list[Any]:
    """The texts, or lists of token ids, that a prompt or an input is. Raises Failure."""
    if isinstance(given, str):
        return [given]
    if not given:
        raise wrong(name, f'{name} is an empty list, expected a text or more')
    return [given] if isinstance(given[0], int) else list(given)


def token_lists(model: Model, name: str, given: list[Any], most: int) -> list[list[int]]:
    """The token ids of each of parts. most: tokens that a text may have. Raises Failure, and before a text is encoded
    that cannot have so few: for a long one that takes long."""
    for text in given:
        if isinstance(text, str) and (size := len(text.encode())) > most * model.encoder.longest:
            raise wrong(name, f'{name} has {size} bytes, more than {most} tokens have, which are the limit; shorten it')
    found = [model.encoder.encode(each) if isinstance(each, str) else list(each) for each in given]
    for ids in found:
        check_ids(model, name, ids)
    return found


def check_ids(model: Model, name: str, ids: list[int]) -> None:
    """Raise Failure for token ids that are none, or not of the vocabulary."""
    if not ids:
        raise wrong(name, f'{name} is empty, expected one token or more; null draws from nothing'
                    if name == 'prompt' else f'{name} is empty, expected one token or more')  # fmt: skip
    if bad := [token for token in ids if token >= len(model.encoder)]:
        raise wrong(name, f'{name} has the token id {bad[0]}, expected 0 to {len(model.encoder) - 1}')


def check_size(name: str, size: int, most: int) -> None:
    """Raise Failure for a text of more tokens than are taken."""
    if size > most:
        raise wrong(name, f'{name} has {size} tokens, the limit is {most}; shorten it')


def max_prompt(model: Model, settings: Settings, beyond_window: bool | None = False) -> int:
    """How many tokens a prompt may have."""
    window = model.hparams.n_ctx
    most = settings.max_prompt or window
    return most if beyond_window else min(most, window)


def completions(request: CompletionRequest, model: Model, settings: Settings) -> Completions:
    """The work that a request for completions is. Raises Failure."""
    n = value(request.n, 1)
    best_of = value(request.best_of, n)
    given = None if request.prompt is None else parts('prompt', request.prompt)
    check_choices(request, settings, 1 if given is None else len(given), n, best_of)
    beams = beams_of(request, settings, n)
    bias = logit_bias(model, request.logit_bias or {})
    keep = tokens_to_keep(request, model)
    most = max_prompt(model, settings, request.beyond_window)
    prompts = prompt_lists(request, model, given, most)
    for ids in prompts:
        check_size('prompt', len(ids), most)
    choices = choice_lists(request, model)
    length = max(map(len, choices)) if choices else value(request.max_tokens, 16)
    check_length(request, model, settings, taken := max(map(len, prompts)), length)
    check_echo(request, model, taken)
    return Completions(
        prompts=tuple(map(tuple, prompts)), n=n, best_of=best_of, length=length,
        seed=new_seed() if request.seed is None else request.seed,
        sampling={
            **{name: given for name in CHECKS if (given := getattr(request, name)) is not None},
            'logit_bias': bias,
        },
        texts={'ban': few_texts('ban', request.ban, BANS), 'regex': pattern(request)},
        stop=few_texts('stop', request.stop, STOP_TEXTS),
        stop_at_end=value(request.stop_at_end, True) or bool(request.regex),
        logprobs=request.logprobs, echo=bool(request.echo), choices=choices,
        beams=beams, length_penalty=value(request.length_penalty, 1), keep=keep,
    )  # fmt: skip


def choice_lists(request: CompletionRequest, model: Model) -> tuple[tuple[int, ...], ...]:
    """The token ids of each text in `choices`. Raises Failure for fields that mean nothing beside it."""
    texts = few_texts('choices', request.choices, CHOICES)
    if len(set(texts)) < len(texts):
        raise wrong('choices', 'choices has a text twice; give each once')
    if texts:
        refuse(request, 'choices', (*ADJUSTMENTS, 'ban', 'regex', 'stop', 'best_of', 'beams', 'beyond_window'))
    return tuple(tuple(model.encoder.encode(text)) for text in texts)


def beams_of(request: CompletionRequest, settings: Settings, n: int) -> int:
    """With how many beams a request searches; 1 draws. Raises Failure."""
    beams = value(request.beams, 1)
    if beams == 1 and value(request.length_penalty, 1) != 1:
        raise wrong('length_penalty', 'length_penalty means nothing without beams')
    if beams > settings.batch_size:  # they grow together
        raise wrong('beams', f'beams is {beams}, the limit here is {settings.batch_size}, that of --batch_size')
    if 1 < beams < n:
        raise wrong('n', f'n is {n}, and a search with {beams} beams finds {beams} texts at most')
    if beams > 1:  # which text is likeliest is known at the end alone
        refuse(request, 'beams', (*DRAWING, 'best_of', 'stream', 'beyond_window'))
    return beams


def tokens_to_keep(request: CompletionRequest, model: Model) -> int | None:
    """How many tokens of a prompt stay when its text outgrows the window; None where it may not. Raises Failure."""
    keep, most = value(request.keep_prompt, 0), model.hparams.n_ctx // 2
    if keep and not request.beyond_window:
        raise wrong('keep_prompt', 'keep_prompt means nothing without beyond_window')
    if keep > most:
        raise wrong('keep_prompt', f'keep_prompt is {keep}, the limit is {most}, half of the window')
    return keep if request.beyond_window else None


def pattern(request: CompletionRequest) -> str | None:
    """The pattern of a request. Raises Failure."""
    [text] = few_texts('regex', request.regex, 1) or (None,)
    if text is not None:
        refuse(request, 'regex', ('ban', 'no_repeat_ngram'))
        try:
            check_pattern(text)
        except Error as error:
            raise wrong('regex', str(error)) from None
    return text


def refuse(request: CompletionRequest, name: str, others: Iterable[str]) -> None:
    """Raise Failure for fields that mean nothing beside the one of that name."""
    for other in others:
        if getattr(request, other) not in (None, CompletionRequest.model_fields[other].default):
            raise wrong(other, f'{name} and {other} exclude each other; leave one of them out')


def prompt_lists(
    request: CompletionRequest, model: Model, given: list[Any] | None, most: int
) -> list[list[int]]:
    """The token ids of each prompt, given as parts of so many tokens at most, after those of `start`. Raises
    Failure."""
    try:
        first = [] if request.start is None else [model.planner.added_id(request.start)]
    except UsageError as error:
        raise wrong('start', str(error)) from None
    if given is None:
        return [first or [model.encoder.end_of_text]]
    return [first + ids for ids in token_lists(model, 'prompt', given, most)]


def value(given: Any, default: Any) -> Any:
    """What a field is: null is as if it had been left out."""
    return default if given is None else given


def check_choices(request: CompletionRequest, settings: Settings, prompts: int, n: int, best_of: int) -> None:
    if best_of < n:
        raise wrong('best_of', f'best_of is {best_of} and n {n}; expected at least as many')
    if best_of > n and request.stream:
        raise wrong('best_of', 'best_of above n cannot be streamed: the best are known at the end alone')
    if prompts * best_of > settings.max_n:
        name = 'best_of' if best_of > n else 'n' if n > 1 else 'prompt'
        raise wrong(name, f'{prompts} prompts with {best_of} samples each are {prompts * best_of}, '
                          f'the limit is {settings.max_n} a request')  # fmt: skip
    if request.stream_options and not request.stream:
        raise wrong('stream_options', 'stream_options mean nothing without stream')


def check_length(request: CompletionRequest, model: Model, settings: Settings, taken: int, length: int) -> None:
    """Raise Failure where there is no room for so many tokens after a prompt."""
    name, what = ('choices', 'the longest of choices') if request.choices else ('max_tokens', 'max_tokens')
    if settings.max_tokens is not None and length > settings.max_tokens:
        raise wrong(name, f'{what} is {length}, the limit here is {settings.max_tokens}')
    most = model.hparams.n_ctx + 1
    if taken + length > most and not request.beyond_window:
        also = ', and beyond_window lifts it' if name == 'max_tokens' else ''
        raise wrong(name, f'{taken} prompt tokens and {what} {length} are {taken + length}, the limit is '
                          f'{most}; {what} {most - taken} fits{also}')  # fmt: skip


def check_echo(request: CompletionRequest, model: Model, taken: int) -> None:
    """Raise Failure where the tokens of a prompt, so many at most, cannot be told."""
    if not request.echo or request.logprobs is None:
        return
    if request.choices or value(request.beams, 1) > 1:
        raise wrong('echo', f'echo with logprobs means nothing beside {"choices" if request.choices else "beams"}, '
                            'which tell of their own tokens alone')  # fmt: skip
    if taken > model.hparams.n_ctx:
        raise wrong('echo', f'echo with logprobs is of a prompt of {model.hparams.n_ctx} tokens at most, not {taken}')


def few_texts(name: str, given: str | list[str] | None, most: int) -> tuple[str, ...]:
    """A field that is a text or some, as a tuple. Raises Failure."""
    texts = () if given is None else (given,) if isinstance(given, str) else tuple(given)
    if len(texts) > most:
        raise wrong(name, f'{name} has {len(texts)} texts, the limit is {most}')
    for text in texts:
        if not 0 < len(text) <= TEXT_LENGTH:
            raise wrong(name, f'{name} has a text of {len(text)} characters, expected 1 to {TEXT_LENGTH}')
    return texts


def logit_bias(model: Model, bias: dict[str, float]) -> tuple[tuple[int, float], ...]:
    return tuple((token_id(model, token), number) for token, number in bias.items())


def token_id(model: Model, given: str) -> int:
    """The token id that a key is, in the one way it is written: no two keys are the same token. Raises Failure."""
    if not TOKEN_ID.fullmatch(given) or (found := int(given)) >= len(model.encoder):
        raise wrong('logit_bias', f'logit_bias has the token id {shortened(given)}, '
                                  f'expected 0 to {len(model.encoder) - 1}')  # fmt: skip
    return found


def scoring(request: ScoreRequest, model: Model, settings: Settings) -> Scoring:
    """The work that a request for scores is. Raises Failure."""
    start = [model.encoder.end_of_text] if value(request.end_of_text, True) else []
    more = 1 - len(start)  # the last token is none that is seen
    most = max_prompt(model, settings)
    [given] = token_lists(model, 'text', parts('text', request.text), most + more) if request.text else [[]]
    ids = start + given
    check_size('text', len(ids) - 1, most)
    return Scoring(tuple(ids), min(value(request.likeliest, 0), model.hparams.n_vocab))


def embedding(request: EmbeddingRequest, model: Model, settings: Settings) -> Embedding:
    """The work that a request for embeddings is. Raises Failure."""
    given = parts('input', request.input)
    if len(given) > INPUTS:
        raise wrong('input', f'input has {len(given)} texts, the limit is {INPUTS} a request')
    most = max_prompt(model, settings)
    texts = token_lists(model, 'input', given, most)
    for ids in texts:
        check_size('input', len(ids), most)
    return Embedding(tuple(map(tuple, texts)), request.pooling == 'last')


def tokens(request: TokenizeRequest, model: Model) -> tuple[list[int], list[str]]:
    """(the token ids of a text, what each of them is). Raises Failure."""
    if len(request.text) > TOKENIZE_LENGTH:
        raise wrong('text', f'text has {len(request.text)} characters, the limit is {TOKENIZE_LENGTH}; send parts')
    ids = model.encode(request.text)
    return ids, [token_text(model.encoder, token) for token in ids]


def text_of(request: DetokenizeRequest, model: Model) -> str:
    """The text of token ids. Raises Failure."""
    if request.ids:
        check_ids(model, 'ids', request.ids)
    return model.decode(request.ids)
