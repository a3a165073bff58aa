"""What /metrics tells, in the format of Prometheus."""

import time
from collections.abc import Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from gpt2.serving.models import ServedModel

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
SPEEDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Metrics:
    """Counts since the server was started."""

    def __init__(self) -> None:
        disable_created_metrics()
        self.registry = CollectorRegistry()

        def new(kind: Any, name: str, text: str, labels: Iterable[str] = (), **more: Any) -> Any:
            return kind(f'gpt2_{name}', text, labels, registry=self.registry, **more)

        self.requests = new(Counter, 'requests', 'Requests answered.', ['path', 'status'])
        self.prompt_tokens = new(Counter, 'prompt_tokens', 'Tokens of prompts.')
        self.drawn_tokens = new(Counter, 'completion_tokens', 'Tokens drawn.')
        self.restarts = new(Gauge, 'worker_restarts', 'Processes that ended and were started again.')
        self.waiting = new(Gauge, 'queue_length', 'Requests that wait for a place.')
        self.running = new(Gauge, 'batch_size', 'Samples and prompts that share a step.')
        self.first_token = new(
            Histogram, 'time_to_first_token_seconds', 'From a request to its first token.', buckets=SECONDS
        )
        self.speed = new(Histogram, 'tokens_per_second', 'Of a request, after its first token.', buckets=SPEEDS)

    def text(self, models: Iterable[ServedModel]) -> bytes:
        """All of it."""
        models = list(models)
        self.waiting.set(sum(model.load.waiting for model in models))
        self.running.set(sum(model.load.running for model in models))
        self.restarts.set(sum(model.restarts for model in models))
        return generate_latest(self.registry)

    def watch(self) -> 'Watch':
        return Watch(self)


class Watch:
    """One request's time to its first token, and its speed after that."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics, self.start, self.first, self.tokens = metrics, time.monotonic(), 0.0, 0

    def drew(self, tokens: int) -> None:
        if tokens and not self.first:
            self.first = time.monotonic()
            self.metrics.first_token.observe(self.first - self.start)
        self.tokens += tokens
        self.metrics.drawn_tokens.inc(tokens)

    def ended(self) -> None:
        if self.tokens > 1 and (seconds := time.monotonic() - self.first) > 0:
            self.metrics.speed.observe((self.tokens - 1) / seconds)
