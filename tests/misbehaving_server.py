"""A local HTTP server that serves files and, where a test asks for it, does it badly."""

import base64
import hashlib
import http.server
import re
import threading
import time


class MisbehavingServer(http.server.ThreadingHTTPServer):
    """Serves files, a dict from path to bytes, at `url`.

    faults: a dict from path to a list, of which each request takes the first; when none is left
    the server behaves. A fault is a function of the handler and the body, or one of:
    an int, a status to answer with; 'html', a web page; 'break', half of the answer, then the end
    of the connection; 'no range', the whole file whatever was asked for; 'no length', no
    Content-Length, and the end of the connection as that of the file; 'slow', after a second.
    requests: what came, as (path, Range header or None, status).
    """

    def __init__(self, files):
        super().__init__(('127.0.0.1', 0), Handler)
        self.files, self.faults, self.requests, self.with_md5 = files, {}, [], True
        self.lock = threading.Lock()
        self.url = f'http://127.0.0.1:{self.server_port}'

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={'poll_interval': 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def next_fault(self, path):
        with self.lock:
            faults = self.faults.get(path, [])
            return faults.pop(0) if faults else None

    def handle_error(self, *_):
        """Clients that go away are part of the tests."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *_):
        pass

    def answer(self, status, body, headers, length):
        self.server.requests.append((self.path, self.headers.get('Range'), status))
        self.send_response(status)
        if length is not None:
            headers = {**headers, 'Content-Length': length}
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def answer_with_page(self, status, text):
        body = f'<html>{text}</html>'.encode()
        self.answer(status, body, {'Content-Type': 'text/html; charset=utf-8'}, len(body))

    def do_GET(self):
        fault, body = self.server.next_fault(self.path), self.server.files.get(self.path)
        if isinstance(fault, int):
            self.answer_with_page(fault, 'Sorry')
        elif fault == 'html':
            self.answer_with_page(200, 'Please log in')
        elif body is None:
            self.answer_with_page(404, 'Not here')
        elif callable(fault):
            fault(self, body)
        else:
            self.send_file(body, fault)

    def send_file(self, body, fault):
        asked = re.match(r'bytes=(\d+)-$', self.headers.get('Range', ''))
        start = int(asked.group(1)) if asked and fault != 'no range' else 0
        md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
        headers = {'Content-Type': 'application/octet-stream'}
        if start >= len(body) > 0:
            self.answer(416, b'', {'Content-Type': 'text/html', 'Content-Range': f'bytes */{len(body)}'}, 0)
            return
        if self.server.with_md5:
            headers['x-ms-blob-content-md5' if start else 'Content-MD5'] = md5
        if start:
            headers['Content-Range'] = f'bytes {start}-{len(body) - 1}/{len(body)}'
        rest = body[start:]
        if fault == 'slow':
            time.sleep(1)
        sent = rest[: len(rest) // 2] if fault == 'break' else rest
        self.answer(206 if start else 200, sent, headers, None if fault == 'no length' else len(rest))
        self.close_connection = fault in ('break', 'no length')
