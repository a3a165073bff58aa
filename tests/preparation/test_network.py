"""Requests to servers that misbehave, all of them on this computer."""

import contextlib
import gzip
import http.server
import socket
import ssl
import threading
import time

import pytest

pytest.importorskip('datatrove')

from gpt2.preparation import fetching, hosts, network
from gpt2.preparation.fetching import Archive, Fetch, fetch_all
from gpt2.preparation.hosts import Hosts
from gpt2.preparation.network import Limits, Refused, get, public

PAGE = b'<html><body><p>A page.</p></body></html>'
LIMITS = Limits('gpt2-prepare-data/1 (+me@example.org)', 10_000, 5.0, private=True)


class Site(http.server.ThreadingHTTPServer):
    """Answers by functions of the handler, by path; other paths get PAGE. agents: what the clients called themselves.
    most: requests that ran at once."""

    daemon_threads = True

    def __init__(self, answers=(), address='127.0.0.1'):
        super().__init__((address, 0), Handler)
        self.answers, self.paths, self.agents, self.running, self.most = dict(answers), [], set(), 0, 0
        self.lock = threading.Lock()
        self.url = f'http://{address}:{self.server_port}'

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={'poll_interval': 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def handle_error(self, *_):
        """Clients that go away are part of the tests."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *_):
        pass

    def do_GET(self):
        site = self.server
        with site.lock:
            site.running += 1
            site.most = max(site.most, site.running)
            site.paths.append(self.path)
            site.agents.add(self.headers['User-Agent'])
        try:
            site.answers.get(self.path, page() if self.path != '/robots.txt' else status(404))(self)
        finally:
            with site.lock:
                site.running -= 1

    def send(self, code, body, **headers):
        self.send_response(code)
        for name, value in {'Content_Length': len(body), **headers}.items():
            self.send_header(name.replace('_', '-'), str(value))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)


def page(body=PAGE, code=200, **headers):
    return lambda handler: handler.send(code, body, **{'Content_Type': 'text/html; charset=utf-8', **headers})


def status(code):
    return page(b'', code)


def moved(target):
    return page(b'', 302, Location=target)


def raw(*parts, pause=0.0):
    """Send bytes as they are, with a pause after each part."""
    def answer(handler):
        handler.close_connection = True
        with contextlib.suppress(OSError):
            for part in parts:
                handler.wfile.write(part)
                handler.wfile.flush()
                time.sleep(pause)
    return answer


HEAD = b'HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n'


@pytest.mark.parametrize(
    ('answer', 'reason'),
    [
        (page(b'x' * 10_001), 'too large'),
        (raw(HEAD, b'\r\n', *[b'x' * 1000] * 11), 'too large'),  # which does not say how much will come
        (raw(HEAD, b'Transfer-Encoding: chunked\r\n\r\n', *[b'3e8\r\n' + b'x' * 1000 + b'\r\n'] * 11), 'too large'),
        (raw(HEAD, b'Content-Length: 500\r\n\r\nhalf'), 'cut off'),
        (raw(HEAD, b'Transfer-Encoding: chunked\r\n\r\n3e8\r\nhalf'), 'broken answer'),
        (raw(b'nonsense\r\n\r\n'), 'broken answer'),
        (raw(b''), 'broken answer'),
        (raw(b'HTTP/1.1 200 OK\r\n', *[b'X: y\r\n'] * 200, b'\r\n'), 'broken answer'),
        (raw(b'HTTP/1.1 200 OK\r\nX: ' + b'y' * 70_000), 'broken answer'),
    ],
)
def test_answers_that_are_not_taken(answer, reason):
    with Site({'/': answer}) as site, pytest.raises(Refused) as refused:
        get(f'{site.url}/', LIMITS)
    assert str(refused.value) in (reason, 'no connection')  # the latter: reset, as what came was more than was read
    assert str(refused.value) == reason or reason == 'broken answer'


@pytest.mark.parametrize(
    'answer',
    [
        raw(*[b'H'] * 100, pause=0.05),
        raw(HEAD, *[b'X: y\r\n'] * 90, pause=0.05),
        raw(HEAD, b'\r\n', *[b'x'] * 100, pause=0.05),
        raw(*[b'HTTP/1.1 100 Continue\r\n\r\n'] * 100, pause=0.05),
    ],
)
def test_who_drips_is_left_when_the_time_is_over(answer):
    limits = Limits('agent', 10_000, 0.3, private=True)
    with Site({'/': answer}) as site, pytest.raises(Refused, match='too slow'):
        get(f'{site.url}/', limits)


def test_a_server_that_never_speaks_tls():
    with socket.create_server(('127.0.0.1', 0)) as silent, pytest.raises(Refused, match='too slow'):
        get(f'https://127.0.0.1:{silent.getsockname()[1]}/', Limits('agent', 100, 0.2, private=True))


def test_tls_that_is_none():
    with Site() as site, pytest.raises(Refused, match='TLS fails'):
        get(site.url.replace('http:', 'https:') + '/', LIMITS)


def test_nobody_there():
    with socket.create_server(('127.0.0.1', 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(Refused, match='no connection'):
        get(f'http://127.0.0.1:{port}/', LIMITS)


def test_reasons_are_few():
    assert network.reason(socket.gaierror()) == 'no such host'
    assert network.reason(ssl.SSLCertVerificationError()) == 'no valid certificate'


@pytest.mark.parametrize(
    'address',
    [
        '127.0.0.1', '10.0.0.1', '172.16.0.1', '192.168.1.1', '169.254.169.254', '0.0.0.0', '100.64.0.1', '224.0.0.1',
        '255.255.255.255', '192.0.0.1', '198.18.0.1', '::1', '::', 'fe80::1%eth0', 'fc00::1', 'ff02::1',
        '::ffff:127.0.0.1', '::ffff:10.0.0.1', '64:ff9b::7f00:1', '2002:7f00:1::', '::127.0.0.1', '2001:db8::1',
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address):
    assert not public(address)


@pytest.mark.parametrize(
    'address', ['93.184.216.34', '8.8.8.8', '2606:4700::1111', '::ffff:8.8.8.8', '64:ff9b::808:808']
)
def test_addresses_that_are(address):
    assert public(address)


@pytest.mark.parametrize('host', ['127.0.0.1', 'localhost', '127.1', '2130706433', '0x7f.1', '0'])
def test_this_computer_is_never_asked_unless_one_says_so(host):
    with Site() as site:
        address = f'http://{host}:{site.server_port}/'
        with pytest.raises(Refused, match=r'private address|no such host|no connection'):
            get(address, Limits('agent', 100, 5.0))
        assert site.paths == []


def test_a_redirect_to_a_private_address_is_not_followed(monkeypatch, tmp_path):
    monkeypatch.setattr(network, 'public', lambda address: address == '127.0.0.1')
    limits = Limits('agent', 10_000, 5.0)
    with Site(address='127.0.0.2') as inner, Site({'/': moved(f'{inner.url}/secret')}) as site:
        with pytest.raises(Refused, match='private address'):
            Hosts(str(tmp_path), limits, 0, frozenset()).page(f'{site.url}/')
        assert inner.paths == []


def test_a_name_is_resolved_once_and_the_checked_address_is_asked(monkeypatch):
    asked, tried = [], []

    def resolve(host, port, **_):
        asked.append(host)
        address = '93.184.216.34' if len(asked) == 1 else '127.0.0.1'
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, '', (address, port))]

    class Socket(socket.socket):
        def connect(self, place):
            tried.append(place)
            raise OSError

    monkeypatch.setattr(network.socket, 'getaddrinfo', resolve)
    monkeypatch.setattr(network.socket, 'socket', Socket)
    with pytest.raises(Refused, match='no connection'):
        get('http://rebinding.example/', Limits('agent', 100, 5.0))
    assert (asked, tried) == (['rebinding.example'], [('93.184.216.34', 80)])


def test_a_name_with_one_private_address_among_others_is_refused(monkeypatch):
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, '', (each, 80)) for each in ('93.184.216.34', '10.0.0.1')]
    monkeypatch.setattr(network.socket, 'getaddrinfo', lambda *_, **__: found)
    with pytest.raises(Refused, match='private address'):
        get('http://both.example/', Limits('agent', 100, 5.0))


# Hosts, politely


@pytest.fixture
def polite(tmp_path):
    return Hosts(str(tmp_path / 'hosts'), LIMITS, 0, frozenset({'blocked.example'}))


def test_robots_txt_is_honoured(polite):
    rules = b'User-agent: *\nDisallow: /private\nAllow: /private/open\nDisallow: /*.cgi$\n'
    with Site({'/robots.txt': page(rules, Content_Type='text/plain')}) as site:
        for path in ('/private/a', '/x.cgi'):
            with pytest.raises(Refused, match=r'robots\.txt'):
                polite.page(site.url + path)
        assert polite.page(f'{site.url}/private/open/a')[1].body == PAGE
        assert site.paths == ['/robots.txt', '/private/open/a']
        assert site.agents == {LIMITS.agent}


RULES = b'User-agent: *\nDisallow: /\n'


@pytest.mark.parametrize(
    'answer',
    [
        page(gzip.compress(RULES), Content_Encoding='gzip'), page(gzip.compress(RULES)),
        page(b'\xef\xbb\xbf' + RULES), page(RULES.decode().encode('utf-16')),
    ],
)  # fmt: skip
def test_a_robots_txt_is_read_however_it_comes(polite, answer):
    with Site({'/robots.txt': answer}) as site, pytest.raises(Refused, match=r'^robots\.txt$'):
        polite.page(f'{site.url}/')


@pytest.mark.parametrize(
    ('answer', 'reason'),
    [
        (page(b'\x1f\x8b\x08 no gzip', Content_Encoding='gzip'), 'broken answer'),
        (page(RULES, Content_Encoding='br'), 'broken answer'),
        (page(gzip.compress(bytes(2**20)), Content_Encoding='gzip'), 'too large'),
    ],
)
def test_who_has_a_robots_txt_that_cannot_be_read_is_not_asked(polite, answer, reason):
    with Site({'/robots.txt': answer}) as site, pytest.raises(Refused, match=reason):
        polite.page(f'{site.url}/')
    assert site.paths == ['/robots.txt']


def test_rules_for_our_own_name_count(polite):
    rules = b'User-agent: gpt2-prepare-data\nDisallow: /\n\nUser-agent: *\nDisallow:\n'
    with Site({'/robots.txt': page(rules)}) as site, pytest.raises(Refused, match=r'robots\.txt'):
        polite.page(f'{site.url}/')


@pytest.mark.parametrize(('code', 'allowed'), [(404, True), (403, True), (500, False), (503, False), (429, False)])
def test_a_robots_txt_that_is_not_had(polite, code, allowed):
    with Site({'/robots.txt': status(code)}) as site:
        if allowed:
            assert polite.page(f'{site.url}/')[1].status == 200
        else:
            with pytest.raises(Refused, match=r'robots\.txt fails'):
                polite.page(f'{site.url}/')


def test_a_robots_txt_that_does_not_come_is_the_reason_and_is_asked_for_once(polite):
    with Site({'/robots.txt': raw(b'x')}) as site:
        for path in '/a', '/b':
            with pytest.raises(Refused, match='broken answer'):
                polite.page(site.url + path)
        assert site.paths == ['/robots.txt']


@pytest.mark.parametrize(
    ('target', 'reason'),
    [
        ('https://en.wikipedia.org/wiki/A', 'Wikipedia'), ('http://blocked.example/', 'blocked domain'),
        ('file:///etc/passwd', 'redirect to no web address'), ('/a.zip', 'file type'), ('/', 'too many redirects'),
        ('', 'too many redirects'), ('http://[', 'redirect to no web address'),
        ('http://a\xa0b.com/', 'redirect to no web address'),
    ],
)  # fmt: skip
def test_redirects_that_are_not_followed(polite, target, reason):
    with Site({'/': moved(target)}) as site, pytest.raises(Refused, match=reason):
        polite.page(f'{site.url}/')


def test_a_redirect_is_followed_and_its_own_robots_txt_asked(polite):
    closed = {'/robots.txt': page(b'User-agent: *\nDisallow: /closed')}
    with Site(closed) as other, Site({'/a': moved(f'{other.url}/b'), '/c': moved(f'{other.url}/closed')}) as site:
        assert polite.page(f'{site.url}/a')[0] == f'{other.url}/b'
        with pytest.raises(Refused, match=r'robots\.txt'):
            polite.page(f'{site.url}/c')
        assert other.paths == ['/robots.txt', '/b']


def test_one_request_at_a_time_a_host(tmp_path):
    both = [Hosts(str(tmp_path / 'hosts'), LIMITS, 0, frozenset()) for _ in range(2)]  # as two processes have them
    slow = page()
    with Site({f'/{n}': lambda handler: (time.sleep(0.02), slow(handler)) for n in range(8)}) as site:
        [each.page(f'{site.url}/first') for each in both]
        threads = [threading.Thread(target=both[n % 2].page, args=(f'{site.url}/{n}',)) for n in range(8)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert site.most == 1
        assert len(site.paths) == 8 + 4


@pytest.mark.parametrize(('theirs', 'pause'), [(b'7', 7), (b'nan', 0), (b'-1', 0), (b'100', 60)])
def test_the_pause_is_the_longer_of_ours_and_theirs(polite, monkeypatch, theirs, pause):
    pauses = []
    monkeypatch.setattr(hosts.time, 'sleep', pauses.append)
    with Site({'/robots.txt': page(b'User-agent: *\nCrawl-delay: ' + theirs + b'\n')}) as site:
        polite.page(f'{site.url}/')
    assert pauses == [0, pause]


# Fetching, and going on


def fetched(folder, links, rank=0, world_size=1, limits=LIMITS):
    from datatrove.data import Document

    from gpt2.preparation.blocks import writer

    if not (folder / 'links').exists():
        list(writer(str(folder / 'links')).run(iter([Document(link, link) for link in links])))
    block = Fetch(str(folder / 'links'), str(folder), limits, 0, 4, frozenset())
    found = list(block.run(rank=rank, world_size=world_size))
    return [page.text for page in found], {name: block.stats[name].total for name in block.stats.stats}


def test_pages_come_in_the_order_of_links_and_what_fails_is_counted(tmp_path):
    answers = {
        '/slow': lambda handler: (time.sleep(0.05), page(b'<p>slow')(handler)), '/gone': status(404),
        '/pdf': page(b'%PDF', Content_Type='application/pdf'),
        '/packed': page(gzip.compress(b'<p>packed'), Content_Encoding='gzip'),
        '/bomb': page(gzip.compress(bytes(5_000_000)), Content_Encoding='gzip'), '/empty': page(b' '),
        '/latin': page('<p>é'.encode('latin-1'), Content_Type='text/html; charset=latin-1'),
    }  # fmt: skip
    with Site(answers) as site, Site({'/robots.txt': page(b'User-agent: *\nDisallow: /')}, '127.0.0.2') as closed:
        links = [site.url + path for path in ('/slow', '/gone', '/pdf', '/packed', '/bomb', '/empty', '/latin')]
        texts, counted = fetched(tmp_path, [*links, f'{closed.url}/', 'http://nobody.invalid/'])
        assert texts == ['<p>slow', '<p>packed', '<p>é']
        assert counted == {
            'total': 9, 'forwarded': 3, 'dropped_status 404': 1, 'dropped_not HTML': 1, 'dropped_too large': 1,
            'dropped_empty': 1, 'dropped_robots.txt': 1, 'dropped_no such host': 1,
        }  # fmt: skip
        assert closed.paths == ['/robots.txt']
        before = len(site.paths)
        assert fetched(tmp_path, links) == (texts, counted)
        assert len(site.paths) == before  # nothing is asked twice


def test_what_servers_say_costs_their_page_alone(tmp_path):
    with Site({'/odd': raw(b'HTTP/1.1 200 \xff\xe9 ok\r\nContent-Type: text/html\r\nX: \xe9\r\n\r\n<p>odd')}) as site:
        texts, counted = fetched(tmp_path, ['http://a b/', f'{site.url}/odd', f'{site.url}/a'])
    assert texts == ['<p>odd', PAGE.decode()]
    assert counted == {'total': 3, 'forwarded': 2, 'dropped_no web address': 1}


def test_an_error_over_one_answer_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, 'member_of', lambda address, answer: {}[address])
    with Site() as site:
        texts, counted = fetched(tmp_path, [f'{site.url}/a'])
    assert (texts, counted) == ([], {'total': 1, 'dropped_unexpected content (KeyError)': 1})


def test_what_failed_for_the_time_being_is_tried_again_and_nothing_else(tmp_path):
    cut = raw(HEAD, b'Content-Length: 9\r\n\r\n')
    with Site({'/down': status(503), '/busy': status(429), '/gone': status(404), '/cut': cut}) as site:
        links = [f'{site.url}/{name}' for name in ('down', 'busy', 'gone', 'cut', 'here')]
        _, counted = fetched(tmp_path, links)
        assert counted == {
            'total': 5, 'forwarded': 1, 'dropped_status 503': 1, 'dropped_status 429': 1, 'dropped_status 404': 1,
            'dropped_cut off': 1,
        }  # fmt: skip
        site.answers.clear()
        site.paths.clear()
        assert fetched(tmp_path, links)[1] == {'total': 5, 'forwarded': 4, 'dropped_status 404': 1}
        assert sorted(site.paths) == ['/busy', '/cut', '/down', '/robots.txt']


def test_without_the_flag_all_of_it_is_refused(tmp_path):
    with Site() as site:
        texts, counted = fetched(tmp_path, [f'{site.url}/a', f'{site.url}/b'], limits=Limits('agent', 10_000, 5.0))
        assert (texts, counted, site.paths) == ([], {'total': 2, 'dropped_private address': 2}, [])
        assert len(fetched(tmp_path, [f'{site.url}/a', f'{site.url}/b'])[0]) == 2  # with it


def test_tasks_share_the_hosts(tmp_path):
    with Site() as first, Site(address='127.0.0.2') as second:
        links = [f'{site.url}/{n}' for n in range(3) for site in (first, second)]
        sizes = [len(fetched(tmp_path, links, rank, 8)[0]) for rank in range(8)]
    assert sum(sizes) == 6
    assert set(sizes) <= {0, 3, 6}


def test_what_was_broken_off_goes_on(tmp_path):
    with Site({f'/{n}': page(b'<p>%d' % n) for n in range(4)}) as site:
        links = [f'{site.url}/{n}' for n in range(4)]
        archive = Archive(str(tmp_path / 'archives'), 0)
        fetch_all(links[:2], Hosts(str(tmp_path / 'hosts'), LIMITS, 0, frozenset()), archive, 1)
        archive.close()
        for name in ('00000.warc.gz', '00000.jsonl'):  # killed while it wrote a third page
            with open(tmp_path / 'archives' / name, 'ab') as file:
                file.write(b'["half a')
        assert fetched(tmp_path, links)[0] == ['<p>0', '<p>1', '<p>2', '<p>3']
        assert sorted(site.paths) == ['/0', '/1', '/2', '/3', '/robots.txt', '/robots.txt']


def test_an_error_that_is_no_page_s_ends_all_of_it(tmp_path, monkeypatch):
    def full(self, link, outcome):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(Archive, 'add', full)
    with Site() as first, Site(address='127.0.0.2') as second, pytest.raises(OSError, match='No space'):
        fetched(tmp_path, [f'{site.url}/{n}' for n in range(50) for site in (first, second)])
    assert len(first.paths) + len(second.paths) < 10


def test_archives_are_warc_files_like_others(tmp_path):
    from gpt2.preparation.pages import Warcs

    with Site({'/a': page(gzip.compress(b'<p>a'), Content_Encoding='gzip')}) as site:
        fetched(tmp_path, [f'{site.url}/a', f'{site.url}/b'])
    found = Warcs([str(tmp_path / 'archives' / '00000.warc.gz')], None, 10_000, frozenset()).run()
    assert sorted(each.text for each in found) == ['<html><body><p>A page.</p></body></html>', '<p>a']
