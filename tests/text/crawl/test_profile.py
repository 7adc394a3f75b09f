from pathlib import Path

import pytest

from yanmo.core.errors import ConfigError
from yanmo.settings.places import shipped
from yanmo.text.crawl.profile import Profile, host_of, load_profile

GOOD = 'start = ["http://a.example/"]\npermission = "a test"\n'


def load(text: str) -> Profile:
    Path("x.toml").write_text(text, encoding="utf-8")
    return load_profile("x.toml")


def problem(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert caught.value.where and caught.value.hint
    return caught.value


def test_a_minimal_profile_is_polite() -> None:
    profile = load(GOOD)
    assert profile.delay == 1
    assert not profile.private_network and not profile.verified
    assert profile.allowed_hosts == {"a.example"}


@pytest.mark.parametrize("name", ["prose", "prose2", str(shipped("sites") / "template.toml")])
def test_our_profiles_load_and_claim_nothing(name: str) -> None:
    profile = load_profile(name)
    assert not profile.verified
    assert profile.permission
    assert profile.delay >= 1


def test_the_template_shows_every_key() -> None:
    text = (shipped("sites") / "template.toml").read_text(encoding="utf-8")
    sections = [Profile, type(load(GOOD).select), type(load(GOOD).budget)]
    for key in (key for section in sections for key in section.model_fields):
        assert any(line.lstrip("# ").startswith((f"{key} =", f"[{key}]")) for line in text.splitlines()), key


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("", "'start' is missing", "template.toml"),
        ('start = ["http://a.example/"]', "'permission' is missing", "template.toml"),
        (GOOD + 'strat = "x"', "unknown key 'strat'", "did you mean 'start'?"),
        (GOOD + '[select]\nbdy = "x"', "unknown key 'select.bdy'", "did you mean '[select] body'?"),
        (GOOD + 'body = "x"', "unknown key 'body'", "did you mean '[select] body'?"),
        (GOOD + "robots = false", "unknown key 'robots'", "template.toml shows every key"),
        (GOOD + "delay = 0.2", "delay=0.2: a site gets at most one request a second", "set delay to 1"),
        (GOOD + "delay = nan", "delay=nan", "change it"),
        (GOOD + f"[budget]\nmax_pages = {'9' * 5000}", "not valid TOML", "fix that line"),
        (GOOD + "hosts = " + "[" * 5000, "not valid TOML", "fix that line"),
        (GOOD + "hosts = " + "{a=" * 5000, "not valid TOML", "fix that line"),
        (GOOD + "[budget]\nmax_pages = 0", "budget.max_pages=0", "change it"),
        (GOOD + '[select]\nbody = "a["', "select.body='a[' is no CSS selector", "fix the selector"),
        (GOOD + '[select]\ndrop = [".x", "::nothing"]', "select.drop 2='::nothing'", "fix the selector"),
        (GOOD + 'encoding = "gbkk"', "no encoding is called 'gbkk'", "gb18030"),
        (GOOD + 'contact = "a\\r\\nCookie: x"', "contact=", "change it"),
        ('permission = "x"\nstart = ["file:///etc/passwd"]', "is no http:// or https:// page", "change it"),
        ('permission = "x"\nstart = []', "start=[]", "change it"),
        ("start = [", "not valid TOML", "fix that line"),
    ],
)
def test_a_wrong_profile_is_a_clear_error(text: str, what: str, hint: str) -> None:
    error = problem(text)
    assert what in error.what
    assert hint in error.hint


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("pros", "did you mean 'prose'"),
        ("xyz", "ours are prose, prose2;"),
        ("../x", "ours"),
        ("template", "ours"),
        ("mine", "did you mean 'mine.toml'"),
    ],
)
def test_an_unknown_site_names_the_known_ones(name: str, hint: str) -> None:
    Path("mine.toml").touch()
    with pytest.raises(ConfigError) as caught:
        load_profile(name)
    assert hint in caught.value.hint


def test_a_profile_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_profile("none.toml")


def test_hosts_have_their_port_where_it_is_unusual() -> None:
    assert (
        host_of("http://A.example:80/x")
        == host_of("https://a.example:443")
        == host_of("http://a.example./")
        == "a.example"
    )
    assert host_of("http://a.example:443/") == "a.example:443"


def test_an_ipv6_host_is_in_brackets() -> None:
    assert host_of("http://[::1]:8000/a") == "[::1]:8000"
    assert host_of("http://[::1]:80/a") == host_of("https://[::1]/") == "[::1]"
    hosts = ("::1", "[FD00::1]:8000", "A.example:81")
    allowed = Profile(start=("http://[::1]/",), permission="a test", hosts=hosts).allowed_hosts
    assert allowed == {"[::1]", "[fd00::1]:8000", "a.example:81"}
