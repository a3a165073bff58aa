"""What a server is told when it is started."""

import dataclasses

DEFAULT_MODELS_DIR = 'models'


@dataclasses.dataclass(frozen=True)
class Settings:
    """Models and where they are; how they compute; who may ask; and the limits.

    batch_size: samples that share a step. queue: requests that wait beyond so many. max_tokens, max_prompt: tokens;
    None is what the model allows. max_n: samples a request, of all its prompts. max_body: bytes. time_limit, grace:
    seconds. rate: requests a minute for each key, or each address where there are no keys; 0 is no limit.
    max_memory, prefix_cache: megabytes, the first of all models together, None without limit.
    """

    models: tuple[str | None, ...] = (None,)
    models_dir: str = DEFAULT_MODELS_DIR
    engine: str = 'auto'
    precision: str = 'float32'
    host: str = '127.0.0.1'
    port: int = 8000
    api_keys: tuple[str, ...] = ()
    cors: tuple[str, ...] = ()
    allow_hosts: tuple[str, ...] = ()
    batch_size: int = 16
    queue: int = 64
    max_tokens: int | None = None
    max_prompt: int | None = None
    max_n: int = 128
    max_body: int = 10**6
    time_limit: float = 120
    rate: int = 0
    grace: float = 30
    max_memory: int | None = None
    prefix_cache: int = 256
    log: bool = False
    log_prompts: bool = False
