"""REDIS_URL: what its forms mean, and that a wrong one is told without being shown."""

from pathlib import Path

import pytest

from app.storage.storage import Storage
from app.storage.url import RedisUrl
from tests.support.authority import Authority

SECRET = "hunter2hunter2"


@pytest.mark.parametrize(
    ("url", "hosts", "more"),
    [
        ("redis://localhost:6379/0", [("localhost", 6379)], {}),
        ("redis://", [("localhost", 6379)], {}),
        ("redis://db/7", [("db", 6379)], {"db": 7}),
        ("redis://db?db=7", [("db", 6379)], {"db": 7}),
        ("redis://[::1]:7000", [("::1", 7000)], {}),
        ("redis://[::1]", [("::1", 6379)], {}),
        ("rediss://db", [("db", 6379)], {"tls": True}),
        ("redis://db?ssl=true", [("db", 6379)], {"tls": True}),
        ("unix:///run/redis.sock?db=2", [], {"path": "/run/redis.sock", "db": 2}),
        ("redis+sentinel://a,b:1/users", [("a", 26379), ("b", 1)], {"service": "users"}),
        (
            "redis+sentinel://a/users?ssl=true&db=3",
            [("a", 26379)],
            {"service": "users", "tls": True, "db": 3},
        ),
        ("redis+cluster://a,[::1]:1", [("a", 6379), ("::1", 1)], {}),
        ("redis+cluster://a/0?ssl=true", [("a", 6379)], {"tls": True}),
    ],
)
def test_every_form_is_read(url: str, hosts: list[tuple[str, int]], more: dict[str, object]) -> None:
    """Hosts, service, path, database, TLS; what is not named has its default."""
    found = RedisUrl.read(url)
    assert found.hosts == hosts
    defaults = {"service": "", "path": "", "db": 0, "tls": False}
    assert {name: getattr(found, name) for name in defaults} == {**defaults, **more}
    Storage(url, 1.0).close()


@pytest.mark.parametrize(
    "form", ["redis://{}a", "unix://{}/a", "redis+sentinel://{}a/s", "redis+cluster://{}a"]
)
def test_user_and_password_belong_to_every_form(form: str) -> None:
    """Percent-encoded; the password alone too. They do not show in `repr`."""
    found = RedisUrl.read(form.format("ada:p%40ss%2F%3F@"))
    assert found.options == {"username": "ada", "password": "p@ss/?"}
    assert "p@ss" not in repr(found)
    assert RedisUrl.read(form.format(":only@")).options == {"password": "only"}


def test_options_of_redis_py_are_read(tmp_path: Path) -> None:
    """With their types."""
    ca = Authority(tmp_path).ca_file
    found = RedisUrl.read(
        f"rediss://a?ssl_ca_certs={ca}&socket_timeout=0.5&ssl_check_hostname=no&max_connections=9"
    )
    assert found.options == {
        "ssl_ca_certs": str(ca),
        "socket_timeout": 0.5,
        "ssl_check_hostname": False,
        "max_connections": 9,
    }


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://{}",
        "redis://a:{}",
        "redis://a:70000",
        "redis://a,b",
        "redis://a/{}",
        "redis://a/-1",
        "redis://u:{}@:6379",
        "redis://[::1",
        "redis://::1:6379",
        "redis://a?{}=1",
        "redis://a?decode_responses=true",
        "redis://a?socket_timeout={}",
        "redis://a?client_name=two%20words",
        "redis://a?ssl=perhaps",
        "redis://a?ssl_ca_certs=/etc/ssl/{}",
        "rediss://a?ssl_ca_certs=/nowhere/{}",
        "rediss://a?ssl_cert_reqs={}",
        "unix://relative/{}",
        "unix:///",
        "unix:///a?ssl=true",
        "redis+sentinel://a",
        "redis+sentinel://a/s/{}",
        "redis+cluster://a,,b",
        "redis+cluster://a/1",
        "redis+cluster://a?read_from_replicas=true",
    ],
)
def test_what_cannot_be_read_is_refused_and_not_shown(url: str) -> None:
    """Options that would change answers, repeat writes or read from replicas are among it."""
    with pytest.raises(ValueError, match=r"\w") as refused:
        RedisUrl.read(url.format(SECRET))
    assert SECRET not in str(refused.value)
    assert not refused.value.__cause__
