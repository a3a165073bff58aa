"""What clients send and get, as the OpenAPI document describes it. A field that is not here is refused by name."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from gpt2.sampling import MOST_LENGTH_PENALTY
from gpt2.serving.failures import SHOWN, cut


def unicode(text: str) -> str:
    """text, unless it holds half of a surrogate pair, which JSON can write but no text has. Raises ValueError."""
    text.encode()
    return text


def first_unlikely(bias: Any) -> Any:
    """A bias without all that is after the first number that is none: in a dict pydantic seeks every fault."""
    for token, number in bias.items() if isinstance(bias, dict) else ():
        if type(number) not in (int, float) or not -100 <= number <= 100:
            return {token: number}
    return bias


Text = Annotated[str, AfterValidator(unicode)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
# Of a long list the first fault is enough: a million of them would take the event loop half a minute.
Texts = Annotated[list[Text], Field(fail_fast=True)]
TokenIds = Annotated[list[TokenId], Field(fail_fast=True)]
Bias = Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], BeforeValidator(first_unlikely)]
Prompt = Text | Texts | TokenIds | Annotated[list[TokenIds], Field(fail_fast=True)]
STOP_TEXTS, BANS, CHOICES, TEXT_LENGTH = 4, 16, 100, 1000
INPUTS = 2048  # texts of a request for embeddings
TOKENIZE_LENGTH = 200_000  # characters
LIKELIEST = 5  # of each token that completions tell, as OpenAI's do
SCORE_LIKELIEST = 100


class Given(BaseModel):
    """What is given; of the fields that are not known the first alone is sought, as in lists."""

    model_config = ConfigDict(extra='forbid', strict=True)

    @model_validator(mode='before')
    @classmethod
    def first_unknown(cls, given: Any) -> Any:
        unknown = [each for each in given if each not in cls.model_fields] if isinstance(given, dict) else []
        if not unknown:
            return given
        return {name: given[name] for name in (*cls.model_fields, unknown[0]) if name in given}


class Request(Given):
    """Numbers are numbers, not texts that look like one."""

    model_config = ConfigDict(extra='forbid', strict=True, allow_inf_nan=False)
    model: str | None = Field(None, description='A name of /v1/models; the first of them if it is left out.')


class StreamOptions(Given):
    include_usage: bool | None = Field(False, description='A last chunk with the usage, and no choices.')


class CompletionRequest(Request):
    prompt: Prompt | None = Field(
        None, description='A text, a list of texts, token ids or a list of such lists; null draws from nothing.'
    )
    max_tokens: int | None = Field(16, ge=0, description='Prompt and max_tokens are at most n_ctx + 1 tokens.')
    temperature: float | None = Field(1.0, ge=0, description='0 takes the likeliest token.')
    top_k: int | None = Field(0, ge=0, description='Draw from so many likeliest tokens; 0 means all.')
    top_p: float | None = Field(1.0, gt=0, le=1, description='Draw from the nucleus.')
    top_p_rule: Literal['released', 'inclusive'] | None = Field(
        'released', description='Whether the token that crosses top_p is left out, as the release does.'
    )
    min_p: float | None = Field(0.0, ge=0, le=1, description='Draw from tokens so likely, of the likeliest.')
    typical_p: float | None = Field(1.0, gt=0, le=1, description='Draw from the typical tokens that hold so much.')
    n: int | None = Field(1, ge=1, description='Choices of each prompt: its samples 1 to n.')
    best_of: int | None = Field(None, ge=1, description='Draw so many, give the n of the highest mean log-probability.')
    stream: bool | None = Field(False, description='Server-sent events, each a part of the answer.')
    stream_options: StreamOptions | None = None
    logprobs: int | None = Field(
        None, ge=0, le=LIKELIEST,
        description="Tell of each token how likely it was, and so many likeliest: the model's own probabilities, "
        'before temperature, top_k, top_p, penalties and logit_bias.',
    )  # fmt: skip
    echo: bool | None = Field(False, description='Put the prompt before the completion, in logprobs too.')
    stop: Text | Texts | None = Field(None, description='Up to four texts before which the completion ends.')
    start: str | None = Field(None, description='An added token before each prompt, such as <|endoftext|>.')
    stop_at_end: bool | None = Field(True, description='End at the end-of-text token; false goes on after it.')
    presence_penalty: float | None = Field(0.0, ge=-2, le=2, description='Off the logit of tokens drawn before.')
    frequency_penalty: float | None = Field(0.0, ge=-2, le=2, description='The same, for each time they were drawn.')
    repetition_penalty: float | None = Field(
        1.0, ge=0.01, le=100, description='Divides the logits of tokens that were there, or multiplies those below 0.'
    )
    no_repeat_ngram: int | None = Field(0, ge=0, description='So many tokens never come twice in the same order.')
    ban: Text | Texts | None = Field(None, description='Up to 16 texts that no completion will hold.')
    choices: Texts | None = Field(
        None, description='Up to 100 texts of which each completion is one, by its probability, whatever max_tokens.'
    )
    regex: Text | None = Field(None, description='A pattern that each completion, whole, matches, unless it is cut.')
    beams: int | None = Field(
        1, ge=1, description='Above 1 nothing is drawn: the n likeliest texts that a search with so many finds.'
    )
    length_penalty: float | None = Field(
        1.0, ge=-MOST_LENGTH_PENALTY, le=MOST_LENGTH_PENALTY,
        description='What beams find is compared by log-probability divided by the tokens to this power.',
    )  # fmt: skip
    beyond_window: bool | None = Field(
        False, description='The text may outgrow the n_ctx tokens of the window: then its oldest leave, what stays is '
        'processed again, and only the limits of the server hold for max_tokens and the prompt.',
    )  # fmt: skip
    keep_prompt: int | None = Field(
        0, ge=0, description='With beyond_window, so many tokens at its start stay, n_ctx / 2 at most.'
    )
    logit_bias: Bias | None = Field(
        None, description='Added to logits, by token id, as a decimal number without leading zeros.'
    )
    seed: int | None = Field(None, ge=0, lt=2**63, description='The same seed, prompt and settings, the same text.')
    user: str | None = Field(None, description="Who asks, as OpenAI's clients say; nothing is done with it.")
    suffix: None = Field(None, description='null alone: nothing can be put behind a completion.')


class TokenizeRequest(Request):
    text: Text = Field(description=f'Up to {TOKENIZE_LENGTH} characters.')


class DetokenizeRequest(Request):
    ids: TokenIds


class ScoreRequest(Request):
    text: Text | TokenIds = Field(description='A text, or token ids.')
    likeliest: int | None = Field(
        0, ge=0, le=SCORE_LIKELIEST, description='So many tokens that were likeliest in its place.'
    )
    end_of_text: bool | None = Field(True, description='Score the text as what follows the end-of-text token.')


class EmbeddingRequest(Request):
    input: Prompt = Field(description=f'Up to {INPUTS} texts, or lists of token ids.')
    encoding_format: Literal['float', 'base64'] | None = Field('float', description='base64: of little-endian float32.')
    pooling: Literal['mean', 'last'] | None = Field('mean', description='Of the final hidden states of all tokens.')
    normalise: bool | None = Field(True, description='To length 1.')
    user: str | None = Field(None, description='Who asks; nothing is done with it.')


class Logprobs(BaseModel):
    tokens: list[str] = Field(description='A token that is no whole characters is written bytes:\\xe2\\x80.')
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class Choice(BaseModel):
    index: int
    text: str
    finish_reason: Literal['stop', 'length'] | None
    logprobs: Logprobs | None


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Completion(BaseModel):
    id: str
    object: Literal['text_completion']
    created: int
    model: str
    seed: int = Field(description='With which the same is drawn again.')
    choices: list[Choice]
    usage: Usage | None = None


class ModelCard(BaseModel):
    id: str
    object: Literal['model']
    created: int
    owned_by: str
    ready: bool = Field(description='Whether it is loaded.')


class ModelList(BaseModel):
    object: Literal['list']
    data: list[ModelCard]


class Tokens(BaseModel):
    model: str
    ids: list[int]
    tokens: list[str]
    n_ctx: int = Field(description='So many tokens the model sees together.')
    max_prompt: int = Field(description='So many tokens a prompt may have here.')


class Detokenized(BaseModel):
    model: str
    text: str


class Likely(BaseModel):
    id: int
    token: str
    log_probability: float


class ScoredToken(Likely):
    rank: int = Field(description='1 for the likeliest.')
    offset: int = Field(description='Of its first character in the text.')
    likeliest: list[Likely]


class Score(BaseModel):
    object: Literal['score']
    model: str
    log_probability: float = Field(description='Natural logarithm, of all tokens together.')
    tokens: list[ScoredToken]


class EmbeddingData(BaseModel):
    object: Literal['embedding']
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class Embeddings(BaseModel):
    object: Literal['list']
    model: str
    data: list[EmbeddingData]
    usage: EmbeddingUsage


class Health(BaseModel):
    status: Literal['ready', 'loading']


class ErrorBody(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    error: ErrorBody


def explained(errors: list[dict[str, Any]]) -> tuple[str | None, str]:
    """(the field, a sentence) of what pydantic found wrong with a request."""
    first = errors[0]
    path = [str(part) for part in first['loc'] if part != 'body']
    field = path[0] if path else None
    if first['type'] == 'json_invalid' or not path:
        return None, 'the body is no JSON object; send one with Content-Type: application/json'
    if first['type'] == 'extra_forbidden':
        name = '.'.join(path)
        return printable(name), f'{shortened(name)} is no field that is known here; /docs lists those that are'
    name = '.'.join(part for part in path if part.isidentifier() and part not in ('str', 'int', 'list'))
    if field == 'suffix':
        return field, 'suffix cannot be honoured: nothing can be put behind a completion; leave it out'
    if field in ('prompt', 'input'):
        return field, f'{field} is none of a text, a list of texts, token ids, a list of lists of token ids'
    if field in ('stop', 'ban', 'choices'):
        return field, f'{field} is neither a text nor a list of texts'
    if first['type'] == 'missing':
        return field, f'{name} is missing'
    return field, f'{name} is {cut(repr(first["input"]))}: {first["msg"][0].lower()}{first["msg"][1:]}'


def printable(name: str) -> str:
    """A stranger's name for a field as an answer can hold it: half of a surrogate pair is written out."""
    return cut(name.encode(errors='backslashreplace').decode())


def shortened(name: str) -> str:
    """A stranger's text within a sentence: as it is where it is a name, else in quotes."""
    return name if len(name) <= SHOWN and name.replace('.', '_').isidentifier() else cut(repr(name))
