"""What of an environment is hidden in plans: all that is a secret in files that people have, and little else."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmctl.compose.secretive import secretive


@pytest.mark.parametrize(
    "name",
    [
        "MYSQL_ROOT_PASSWORD", "POSTGRES_PASS", "password", "dbPassword", "DB_PWD", "SECRET_KEY_BASE", "JWT_SECRET", "API_KEY", "apiKey",
        "APIKEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "SLACK_WEBHOOK_URL", "SENTRY_DSN", "SALT", "BASIC_AUTH",
        "PRIVATE_KEY", "PASSPHRASE", "CREDENTIALS", "SESSION_COOKIE", "LICENSE", "traefik.http.middlewares.x.basicauth.users",
    ],
)  # fmt: skip
def test_by_its_name(name):
    assert secretive(name, "x")


@pytest.mark.parametrize(
    "value",
    [
        "postgres://me:hunter2@db:5432/app", "redis://:hunter2@cache", "https://token@example.com/x", "-----BEGIN RSA PRIVATE KEY-----",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.x", "ghp_0123456789abcdefABCDEF", "sk-proj-abcdefgh1234", "AKIAIOSFODNN7EXAMPLE",
        "admin:$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8wj/", "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC",
        "Server=db;User Id=sa;Password=hunter2", "--flag --password hunter2 --token=x", '{"secret": "x"}', "https://x.example/?api_key=abc",
        "Bearer abcdef", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
        "550e8400-e29b-41d4-a716-446655440000", "Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MA==", "a" * 5000,
    ],
)  # fmt: skip
def test_by_how_it_looks(value):
    assert secretive("X", value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LOG_LEVEL", "debug"), ("TZ", "Europe/Berlin"), ("DATABASE_HOST", "db"), ("URL", "https://example.com/a/b?x=1"), ("PORT", "8080"),
        ("MYSQL_ROOT_PASSWORD_FILE", "/run/secrets/root"), ("KEYCLOAK_URL", "https://sso.example.com"), ("PATH", "/usr/local/bin:/usr/bin"),
        ("JAVA_OPTS", "-Xms512m -Xmx512m -Djava.net.preferIPv4Stack=true"), ("traefik.http.routers.web.rule", "Host(`a.example.com`)"),
        ("MYSQL_PASSWORD", ""), ("ELASTICSEARCH_HOSTS", "http://elasticsearch-node-1:9200"), ("KAFKA_LISTENERS", "PLAINTEXT://kafka:9092"),
        ("CLUSTER", "a-name-of-twenty-or-more-letters"), ("DEFAULT_LANGUAGE_CODE_OF_THE_SITE", "en_US.UTF-8"), ("AUTHOR", "me"),
        ("RELEASE", "release-2024-01-15-production"), ("BUCKET", "backups-of-the-year-2024-in-europe"),
    ],
)  # fmt: skip
def test_what_is_worth_reading_is_shown(name, value):
    assert not secretive(name, value)


def test_a_name_of_a_file_says_nothing_of_what_is_no_path():
    assert secretive("PASSWORD_FILE", "hunter2")
    assert secretive("PASSWORD_FILE", "/srv/x?token=hunter2")


@settings(deadline=None)
@given(st.text(), st.text())
def test_any_text(name, value):
    assert secretive(name, value) in (True, False)


@pytest.mark.parametrize("piece", ["pass", "://", "a1", "key ", "eyJ", '"', "basic ", "auth", "sk-"])
def test_no_text_takes_long(piece):
    began = time.process_time()
    secretive("X", (piece * 4096)[:4096])
    assert time.process_time() - began < 1
