import pytest

from gpt2.preparation.addresses import domain_of, key, normal, refusal


@pytest.mark.parametrize(
    ('address', 'expected'),
    [
        ('HTTP://Example.COM', 'http://example.com/'),
        ('https://example.com:443/a?b=1#c', 'https://example.com/a?b=1'),
        ('http://example.com:8080/a', 'http://example.com:8080/a'),
        ('https://example.com./a/', 'https://example.com/a/'),
        ('https://example.com/?utm_source=reddit&a=1&fbclid=2', 'https://example.com/?a=1'),
        ('https://example.com/straße?q=ä', 'https://example.com/stra%C3%9Fe?q=%C3%A4'),
        ('https://example.com/a%20b', 'https://example.com/a%20b'),
        ('http://bücher.example/', 'http://xn--bcher-kva.example/'),
        ('http://straße.de/', 'http://xn--strae-oqa.de/'),  # of IDNA 2003, ss: another site
        ('http://en.wikipedia%2Eorg/', 'http://en.wikipedia.org/'),
        ('http://en。wikipedia。org/', 'http://en.wikipedia.org/'),
        ('http://[2001:DB8:0::1]/', 'http://[2001:db8::1]/'),
        ('http://e.com/%7Ea/%2Fb?c=%7e', 'http://e.com/~a/%2Fb?c=~'),
        ('http://e.com/a/../b/./c/..', 'http://e.com/b/'),
        ('http://e.com/../%2e%2E/a//b/', 'http://e.com/a//b/'),
        ('http://[2001:db8::1]/a', 'http://[2001:db8::1]/a'),
        ('  https://example.com/ ', 'https://example.com/'),
    ],
)
def test_an_address_has_one_spelling(address, expected):
    assert normal(address) == expected
    assert normal(expected) == expected


@pytest.mark.parametrize(
    'address',
    [
        '', 'example.com', 'ftp://example.com/', 'file:///etc/passwd', 'javascript:alert(1)', 'http://', 'http:///a',
        'http://user:password@example.com/', 'http://example.com:99999/', 'http://a b/', 'http://example.com/a b',
        'http://a\xa0b.com/', 'http://<img\xa0src=x>/', 'http://a$b/', 'http://a|b/', 'http://a%20b/', 'http://[::1%25<b>]/',
        'http://a..b/', 'http://s\ud800.com/', 'http://example.com/\r\nHost: other', 'http://[::1',
        f'http://{"a" * 64}ü.example/', 'gopher://example.com/',
    ],
)  # fmt: skip
def test_what_is_no_web_address(address):
    assert normal(address) is None


def test_addresses_of_one_page_have_the_same_key():
    same = ['http://www.example.com/a/', 'https://example.com/a', 'http://example.com/a']
    assert len({key(normal(address)) for address in same}) == 1
    others = ['http://example.com/b', 'http://example.com/a?p=1', 'http://example.com:81/a', 'http://m.example.com/a']
    assert len({key(normal(address)) for address in [*same, *others]}) == 5
    assert domain_of('https://www.example.com/a') == 'example.com'


@pytest.mark.parametrize(
    ('address', 'reason'),
    [
        ('https://en.wikipedia.org/wiki/A', 'Wikipedia'),
        ('https://i.redd.it/a', 'blocked domain'),
        ('https://m.youtube.com/watch?v=1', 'blocked domain'),
        ('https://bad.example/', 'blocked domain'),
        ('https://deep.bad.example/', 'blocked domain'),
        ('http://en.wikipedia%2Eorg/wiki/A', 'Wikipedia'),
        ('http://wikipedia.com/', 'Wikipedia'),
        ('https://good.example/a.PDF', 'file type'),
        ('https://good.example/a%2Epdf', 'file type'),
        ('https://good.example/a.pdf;v=1', 'file type'),
        ('https://good.example/three.js/', None),
        ('https://good.example/a.jpg?size=1', 'file type'),
        ('https://good.example/a.html', None),
        ('https://notwikipedia.org/', None),
        ('https://notbad.example/a.b/c', None),
    ],
)
def test_what_is_left_out_before_it_is_fetched(address, reason):
    assert refusal(normal(address), frozenset({'bad.example'})) == reason
