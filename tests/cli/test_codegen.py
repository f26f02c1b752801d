"""`codegen` as a command: where it asks, where it writes, how it ends. What it writes is in tests/fetching/test_keys.py."""


def test_it_writes_a_class_for_what_is_served_and_names_the_rest(run, server, tmp_path):
    path = tmp_path / "experiences.py"
    done = run("codegen", "--customer-id", "john@example.com", "--output", path)
    assert (done.status, done.out) == (0, "")
    assert "class HomeHero:" in path.read_text()
    assert "class WinterSale:" not in path.read_text()
    (said,) = done.err.splitlines()
    assert "no class for " in said
    assert "summer-sale, winter-sale: the visitor of the sample is not served them" in said


def test_it_takes_the_options_that_say_where_and_as_whom(run, server, monkeypatch):
    monkeypatch.delenv("MOENGAGE_WORKSPACE_ID")
    done = run("codegen", "--workspace-id", "DEMO_WORKSPACE")
    assert done.status == 0
    assert 'HOME_HERO: Final = "home-hero"' in done.out


def test_it_ends_as_the_other_commands_do(run, server, tmp_path):
    assert run("codegen", "--api-key", "another").status == 2
    assert run("codegen", "--output", tmp_path / "nowhere" / "experiences.py").status == 4
    server.emulator.trouble(endpoints=("metadata",), status=503)
    assert run("codegen").status == 3
