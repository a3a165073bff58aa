"""How a request fails: a status and what the clients of OpenAI's expect beside it."""

from typing import Any

TYPES = {401: 'authentication_error', 404: 'not_found_error', 408: 'timeout_error', 429: 'rate_limit_error'}
SHOWN = 60  # characters of what a stranger sent, in an answer


class Failure(Exception):
    """An answer that is an error. param: the field that is wrong. code: of the kind of error, for programs."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None,
        retry_after: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.retry_after = status, message, param, code, retry_after

    @property
    def content(self) -> dict[str, Any]:
        kind = TYPES.get(self.status, 'invalid_request_error' if self.status < 500 else 'server_error')
        return {'error': {'message': self.message, 'type': kind, 'param': self.param, 'code': self.code}}

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry_after is None else {'Retry-After': str(self.retry_after)}


def cut(text: str) -> str:
    return text if len(text) <= SHOWN else f'{text[:SHOWN]}...'


def wrong(param: str, message: str) -> Failure:
    """The Failure of a field whose value cannot be honoured."""
    return Failure(400, message, param, 'invalid_value')


def timeout(limit: float) -> Failure:
    message = f'the answer took longer than {limit:g} seconds; ask for fewer tokens, or try when less is asked'
    return Failure(408, message, code='timeout')
