"""Secrets: where they are read, and that they are not shown."""

from odin_core.secrets import read_secrets, redacted


def test_the_environment_wins_over_the_file_and_empty_lines_say_nothing(tmp_path):
    env_file = tmp_path / ".env"
    env_file.write_text('# a comment\nKITE_API_KEY="from file"\nKITE_ACCESS_TOKEN=\nTRADOVATE_CID=7\n')
    found = read_secrets({"TRADOVATE_CID": "8", "HOME": "/root"}, env_file)
    assert found == {"KITE_API_KEY": "from file", "TRADOVATE_CID": "8", "HOME": "/root"}


def test_without_a_file_the_environment_is_all_there_is(tmp_path):
    assert read_secrets({"A": "1"}, tmp_path / ".env") == {"A": "1"}


def test_values_of_secrets_are_taken_out_of_a_text_longest_first():
    secrets = {"USER": "ab12", "PASSWORD": "ab12cd34", "OTHER": "visible", "SHORT": "a"}
    text = "login ab12 with ab12cd34 at visible, a try"
    assert redacted(text, secrets, ["USER", "PASSWORD", "SHORT", "ABSENT"]) == (
        "login [secret] with [secret] at visible, a try"
    )


def test_of_an_address_the_password_is_taken_out_too_as_it_stands_and_decoded():
    secrets = {"URL": "postgresql://me:p%40ssword@host/db", "PLAIN": "http://[half", "NO_PASSWORD": "https://host/path"}
    text = "p@ssword or p%40ssword of postgresql://me:p%40ssword@host/db, on host"
    assert redacted(text, secrets, secrets) == "[secret] or [secret] of [secret], on host"
    local = {"URL": "postgresql://odin:odin@localhost/odin"}
    assert redacted("run `odin bootstrap` again", local, local) == "run `odin bootstrap` again"


def test_the_template_names_every_secret_that_somebody_asks_for():
    from pathlib import Path

    from odin_core.home import REGISTRY_URL
    from odin_core.market.sources.source import secrets_of, source_kinds
    from odin_core.monitoring.channels import SMTP, WEBHOOK
    from odin_core.monitoring.service import SERVICE
    from odin_core.registry.mlflow_log import TRACKING_URI

    template = (Path(__file__).parents[1] / ".env.example").read_text()
    named = {line.partition("=")[0] for line in template.splitlines() if "=" in line and not line.startswith("#")}
    asked = {name for kind in source_kinds() for name in secrets_of(kind)}
    assert asked | {REGISTRY_URL, SMTP, WEBHOOK, SERVICE, TRACKING_URI} == named
    assert all(line.endswith("=") for line in template.splitlines() if not line.startswith("#") and line)
