"""Addresses of pages: one spelling for each, and which are left out before anything is fetched."""

import ipaddress
import posixpath
import re
from urllib.parse import quote, unquote, urlsplit, urlunsplit

PORTS = {'http': 80, 'https': 443}
# Parameters that say where a visitor came from, not what the page is.
TRACKING = re.compile(r'(utm_\w+|fbclid|gclid|mc_cid|mc_eid|igshid)=[^&]*(&|$)')
UNSEEN = re.compile(r'[\x00-\x20\x7f]')
HOST = re.compile(r'[a-z0-9_-]+(\.[a-z0-9_-]+)*')
NEEDLESS = re.compile(r'%(2[dDeE]|3\d|[46][1-9a-fA-F]|[57][0-9aA]|5[fF]|7[eE])')  # escapes of letters, digits and -._~
WIKIPEDIA = ('wikipedia.org', 'wikipedia.com')
# Where links lead to pictures, films, sound, short posts, programs or back to Reddit, not to text.
BLOCKED = (
    'reddit.com', 'redd.it', 'redditmedia.com', 'redditstatic.com', 'imgur.com', 'gfycat.com', 'giphy.com',
    'flickr.com', 'instagram.com', 'instagr.am', 'facebook.com', 'fb.com', 'twitter.com', 'x.com', 't.co',
    'tumblr.com', 'pinterest.com', 'youtube.com', 'youtu.be', 'vimeo.com', 'dailymotion.com', 'liveleak.com',
    'streamable.com', 'twitch.tv', 'vine.co',
    'soundcloud.com', 'spotify.com', 'bandcamp.com', 'deviantart.com', 'steampowered.com', 'steamcommunity.com',
    'play.google.com', 'itunes.apple.com', 'apps.apple.com', 'amazon.com', 'ebay.com', 'discord.gg', 'discord.com',
)  # fmt: skip
FILES = frozenset(
    [
        'jpg', 'jpeg', 'png', 'gif', 'gifv', 'webp', 'svg', 'bmp', 'tif', 'tiff', 'ico',
        'mp3', 'ogg', 'wav', 'flac', 'm4a', 'mp4', 'm4v', 'webm', 'avi', 'mov', 'mkv', 'wmv', 'flv', 'swf',
        'pdf', 'ps', 'djvu', 'doc', 'docx', 'xls', 'xlsx', 'ppt', 'pptx', 'odt', 'ods', 'odp', 'epub', 'mobi',
        'zip', 'gz', 'bz2', 'xz', '7z', 'rar', 'tar', 'tgz', 'dmg', 'iso', 'exe', 'msi', 'apk', 'jar', 'bin',
        'deb', 'rpm', 'csv', 'tsv', 'json', 'xml', 'rss', 'atom', 'css', 'js', 'torrent', 'ttf', 'woff', 'woff2',
    ]
)  # fmt: skip


def normal(address: str) -> str | None:
    """An http or https address in one spelling: the host in lower-case ASCII, no default port, no fragment, no
    parameters of trackers, no steps up a path, no needless escapes. None for what is no such address, or names a user.
    """
    address = address.strip()
    try:
        parts = urlsplit(address)
        scheme, host, port = parts.scheme.lower(), ascii_host(parts.hostname or ''), parts.port
    except (ValueError, UnicodeError):
        return None
    if scheme not in PORTS or parts.username is not None or UNSEEN.search(address):
        return None
    place = f'[{host}]' if ':' in host else host
    if port not in (None, PORTS[scheme]):
        place = f'{place}:{port}'
    query = TRACKING.sub('', parts.query).rstrip('&')
    return urlunsplit((scheme, place, without_dots(escaped(parts.path or '/')), escaped(query), ''))


def ascii_host(host: str) -> str:
    """A host's name as the network has it, in lower case. Raises ValueError for what can be none."""
    host = unquote(host).rstrip('.').lower()
    if ':' in host and '%' not in host:
        return str(ipaddress.IPv6Address(host))
    if not host.isascii():
        import idna

        host = idna.encode(host, uts46=True).decode()
    if not HOST.fullmatch(host):
        raise ValueError(f'{host!r} is no name of a host')
    return host


def escaped(part: str) -> str:
    """A path or query in ASCII, with escapes that are there left as they are, unless they are needless."""
    plain = NEEDLESS.sub(lambda found: unquote(found[0]), part)
    return quote(plain, safe="%/:=&?~+!$,;'@()*[]|", errors='replace')


def without_dots(path: str) -> str:
    """A path without `.` and `..` (RFC 3986, section 5.2.4)."""
    parts: list[str] = []
    for part in path.split('/')[1:]:
        if part == '..':
            parts[-1:] = []
        elif part != '.':
            parts.append(part)
    end = '/' if parts and path.endswith(('/.', '/..')) else ''
    return f'/{"/".join(parts)}{end}'


def host_of(address: str) -> str:
    return urlsplit(address).hostname or ''


def domain_of(address: str) -> str:
    """The host without www., by which a report counts."""
    return host_of(address).removeprefix('www.')


def key(address: str) -> str:
    """What two normal addresses of one page have in common."""
    parts = urlsplit(address)
    port = f':{parts.port}' if parts.port else ''
    query = f'?{parts.query}' if parts.query else ''
    return f'{domain_of(address)}{port}{parts.path.rstrip("/")}{query}'


def below(host: str, domains: tuple[str, ...] | frozenset[str]) -> bool:
    """Whether a host is one of some domains, or lies below one."""
    parts = host.split('.')
    return any('.'.join(parts[start:]) in domains for start in range(len(parts)))


def refusal(address: str, blocked: frozenset[str]) -> str | None:
    """Why a normal address is left out, or None. blocked: domains beside BLOCKED."""
    host = host_of(address)
    if below(host, WIKIPEDIA):
        return 'Wikipedia'
    if below(host, BLOCKED) or below(host, blocked):
        return 'blocked domain'
    suffix = posixpath.splitext(urlsplit(address).path.partition(';')[0])[1]
    return 'file type' if suffix[1:].lower() in FILES else None
