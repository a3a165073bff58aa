"""A local server that behaves like the Hugging Face hub and, where a test asks for it, does not."""

import hashlib
import json
import re

from misbehaving_server import Handler, MisbehavingServer

COMMIT = '1' * 40
LARGE = ('.safetensors', '.bin')


class HubServer(MisbehavingServer):
    """Serves repositories at `url`; large files lie on another host, to which it redirects.

    repositories: a dict from OWNER/NAME to a dict from commit to a dict from file to bytes.
    branches: a dict from OWNER/NAME to a dict from branch to commit.
    token: what a request must be signed with, or None. faults: as MisbehavingServer takes them, for
    either method; a function is called with the handler alone. moved: a dict from an old repository's
    name to its present one. asked: what came, as (method, path, Authorization header or None).
    storage: the other host, a server of its own.
    """

    def __init__(self, repositories, token=None):
        super().__init__({})
        self.RequestHandlerClass = HubHandler
        self.repositories, self.token = repositories, token
        self.branches = {name: {'main': next(iter(commits))} for name, commits in repositories.items()}
        self.asked, self.moved = [], {}
        self.storage = StorageServer({})

    def __enter__(self):
        self.storage.__enter__()
        return super().__enter__()

    def __exit__(self, *arguments):
        super().__exit__(*arguments)
        self.storage.__exit__(*arguments)

    def commit(self, repository, revision):
        commits = self.repositories.get(repository, {})
        commit = self.branches.get(repository, {}).get(revision, revision)
        return commit if commit in commits else None


class StorageServer(MisbehavingServer):
    """Another host than the hub: `localhost` where that is `127.0.0.1`. asked: as the hub's."""

    def __init__(self, files):
        super().__init__(files)
        self.RequestHandlerClass = StorageHandler
        self.asked = []
        self.url = f'http://localhost:{self.server_port}'


class StorageHandler(Handler):
    def answer(self, *arguments):
        self.server.asked.append((self.command, self.path, self.headers.get('Authorization')))
        super().answer(*arguments)


class HubHandler(StorageHandler):
    def answer(self, status, body, headers, length):
        super().answer(status, b'' if self.command == 'HEAD' else body, headers, length)

    def do_GET(self):
        fault = self.server.next_fault(self.path)
        if callable(fault):
            fault(self)
        elif isinstance(fault, int):
            self.answer_with_page(fault, 'Sorry')
        elif self.server.token and self.headers.get('Authorization') != f'Bearer {self.server.token}':
            self.answer_with_page(401, 'Who are you?')
        else:
            self.behave()

    do_HEAD = do_GET

    def behave(self):
        listing = re.fullmatch(r'/api/models/([^/]+/[^/]+)/revision/([^/]+)', self.path)
        file = re.fullmatch(r'/([^/]+/[^/]+)/resolve/([^/]+)/(.+)', self.path)
        repository, revision = (listing or file).groups()[:2]
        present, commit = self.server.moved.get(repository), self.server.commit(repository, revision)
        if present:
            self.answer(307, b'', {'Location': self.path.replace(repository, present)}, 0)
        elif commit is None:
            self.answer_with_page(404, 'Not here')
        elif listing:
            self.send_listing(repository, commit)
        else:
            self.send_named(self.server.repositories[repository][commit], file[3], commit)

    def send_listing(self, repository, commit):
        names = self.server.repositories[repository][commit]
        body = json.dumps({'id': repository, 'sha': commit, 'siblings': [{'rfilename': name} for name in names]})
        self.answer(200, body.encode(), {'Content-Type': 'application/json'}, len(body))

    def send_named(self, files, name, commit):
        if name not in files:
            self.answer_with_page(404, 'Not here')
        elif name.endswith(LARGE):
            self.redirect_to_storage(files[name], commit)
        else:
            body = files[name]
            etag = hashlib.sha1(b'blob %d\0' % len(body) + body).hexdigest()
            self.send_whole(body, {'ETag': f'"{etag}"', 'X-Repo-Commit': commit})

    def send_whole(self, body, headers):
        self.answer(200, body, {'Content-Type': 'text/plain', **headers}, len(body))

    def redirect_to_storage(self, body, commit):
        sha256 = hashlib.sha256(body).hexdigest()
        path = f'/{sha256}'
        self.server.storage.files.setdefault(path, body)
        linked = {'X-Linked-Etag': f'"{sha256}"', 'X-Linked-Size': len(body), 'X-Repo-Commit': commit}
        self.answer(302, b'', {'Location': f'{self.server.storage.url}{path}', **linked}, 0)
