"""The page as a whole: self-contained, well formed, safe whatever the data says, and alive in a browser."""

import base64
import hashlib
import re
from pathlib import Path

import browser
import numpy as np
import pytest
import torch
from test_markup import read

from quartznet.breakdown import Clip, Group
from quartznet.exhibits import Exhibit, audio_uri, spectrogram_uri
from quartznet.page import MOST_MESSAGES, Page, asset, direction_of, render, write_page
from quartznet.report import evaluate_texts
from quartznet.significance import Result, compare
from quartznet.words import Word

EVIL = '</script><script>document.title="taken"</script><img src="x" onerror="document.title=\'taken\'">'
VOID = {"meta", "br", "img", "input", "link", "hr", "col"}


def page(evil: str = "") -> Page:
    """Twelve utterances of two speakers, every third one wrong; whatever can be text holds ``evil``."""
    names = [f"clips/{n} {evil}.wav" for n in range(12)]
    said = [f"word{n} the cat {evil}".strip() for n in range(12)]
    heard = [text.replace("cat", f"hat {evil}") if n % 3 == 0 else text for n, text in enumerate(said)]
    result = evaluate_texts(names, said, heard, 1.0)
    clips = tuple(
        Clip({"speaker": f"s{n % 2}{evil}"}, 1.5 + n, one.words, one.characters)
        for n, one in enumerate(result.utterances)
    )
    sound = torch.from_numpy(0.2 * np.sin(np.arange(24000) / 8).astype(np.float32))
    words = tuple(Word(word, 0.1 + 0.2 * n, 0.25 + 0.2 * n, 0.9) for n, word in enumerate(heard[0].split()))
    first = Exhibit(
        1.5, audio_uri(sound, 16000), spectrogram_uri(torch.linspace(-2, 3, 64 * 150).view(64, 150)), (), words
    )
    exhibits = {0: first, 3: Exhibit(70.0, problem=f"too long {evil}")}
    other = Result(f"other{evil}", tuple(zip(names, said, said, strict=True)))
    against = compare(other, Result("this", tuple(zip(names, said, heard, strict=True))), resamples=200)
    facts = (("checkpoint", f"runs/es{evil}"), (f"data{evil}", "corpus"))
    groups = (Group("clean", clips), Group(f"noise{evil}", clips))
    left_out = tuple(f"message {n} {evil}" for n in range(MOST_MESSAGES + 3))
    return Page(f"Report {evil}", facts, f"en{evil}", result, clips, ("speaker",), groups, exhibits, against, left_out)


def test_every_part_is_there_and_linked() -> None:
    found = read(render(page()))
    names = ["rates", "against", "kinds", "conditions", "fields", "confusions", "worst", "all", "skipped"]
    assert [a["id"] for name, a in found.tags if name == "section"] == names
    assert [a["href"] for name, a in found.tags if name == "a"] == ["#main", *(f"#{name}" for name in names)]
    identities = [a["id"] for _, a in found.tags if "id" in a]
    assert len(identities) == len(set(identities))
    labelled = {a["aria-labelledby"] for _, a in found.tags if "aria-labelledby" in a}
    assert labelled <= set(identities) and "and 3 more" in found.text


def test_a_small_page_has_no_empty_parts() -> None:
    result = evaluate_texts(["a"], ["b"], ["b"])
    made = render(Page("t", (), "en", result, (Clip({}, 1.0, result.words, result.characters),)))
    assert re.findall(r'<section id="(\w+)"', made) == ["rates", "kinds", "confusions", "all"]
    assert "Nothing is confused." in made


def test_tags_close_in_order() -> None:
    made = re.sub(r"(?s)<(script|style)>.*?</\1>", "", render(page(EVIL)))
    opened: list[str] = []
    for end, name in re.findall(r"<(/?)([a-z][a-z0-9]*)[^>]*>", made):
        if end:
            assert opened.pop() == name
        elif name not in VOID:
            opened.append(name)
    assert opened == []


def test_nothing_is_fetched() -> None:
    found = read(render(page()))
    addresses = [value for _, a in found.tags for key, value in a.items() if key in ("src", "href", "data", "action")]
    assert addresses and all(value.startswith(("#", "data:")) for value in addresses)
    for name in ("page.css", "page.js"):
        assert "http" not in asset(name) and "@import" not in asset(name) and "url(" not in asset(name)


def test_hostile_data_changes_nothing_but_texts() -> None:
    plain, taken = read(render(page())), read(render(page(EVIL)))
    kinds = [{name for name, _ in found.tags} for found in (plain, taken)]
    assert kinds[1] <= kinds[0] | {"del", "ins"}
    assert [name for name, _ in taken.tags].count("script") == 1
    assert not any(key.startswith("on") for _, a in taken.tags for key in a)
    assert taken.text.count('document.title="taken"') > 20  # it is all there, as text


def test_the_policy_names_the_script_by_its_hash() -> None:
    made = render(page(EVIL))
    [script] = re.findall(r"(?s)<script>(.*?)</script>", made)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    [policy] = [a["content"] for name, a in read(made).tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy and script == asset("page.js")


def test_directions() -> None:
    assert direction_of(["שלום עולם", "ok"]) == "rtl" and direction_of(["مرحبا"]) == "rtl"
    assert direction_of(["привет", "hello"]) == "ltr" and direction_of([]) == "ltr"


def test_the_file_is_complete_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.html"
    assert write_page(path, page("\udcff")) == path.stat().st_size > 20_000
    assert path.read_text(encoding="utf-8") == render(page("\udcff"))

    def broken(made: Page) -> str:
        raise ValueError("no")

    monkeypatch.setattr("quartznet.page.render", broken)
    with pytest.raises(ValueError, match="no"):
        write_page(tmp_path / "b.html", page())
    assert [file.name for file in tmp_path.iterdir()] == ["a.html"]


# ---------------------------------------------------------------------------------------------------------------------
# In a browser

VISIBLE = "[...document.querySelectorAll('#utterances tbody tr')].filter((row) => !row.hidden)"
FIRST = "document.querySelector('#utterances tbody tr').cells[0].textContent"


@pytest.mark.slow
def test_in_a_browser(tmp_path: Path) -> None:
    program = browser.find_browser()
    if program is None:
        pytest.skip("no Chromium is installed; Debian: apt-get install chromium")
    path = tmp_path / "page.html"
    write_page(path, page(EVIL))
    with browser.Browser(program, tmp_path / "profile") as window:
        window.look(1200, 900)
        window.open(path)
        assert window.run("document.title") == f"Report {EVIL}" and window.problems == []
        assert all(address.startswith(("file:", "data:")) for address in window.requests)
        check_sorting(window)
        check_filter(window)
        check_sound(window)
        for width in (1200, 360):
            window.look(width, 800)
            assert window.run("document.documentElement.scrollWidth <= innerWidth") is True
        dark, light = (window.look(800, 600, scheme) or background(window) for scheme in ("dark", "light"))
        assert max(dark) < 60 and min(light) > 200
        assert window.problems == []
        # were a script to slip through, the page's policy would not run it
        window.run("document.body.append(Object.assign(document.createElement('script'), {text: 'window.taken = 1'}))")
        assert window.run("window.taken") is None


def check_sorting(window: browser.Browser) -> None:
    assert window.run(FIRST) == "1"  # the worst first
    for column, first in ((0, "12"), (0, "1"), (5, "1"), (6, "12"), (6, "1"), (7, "1"), (7, "12")):
        window.run(f"document.querySelectorAll('#utterances thead button')[{column}].click()")
        assert window.run(FIRST) == first, column
    assert window.run("document.querySelectorAll('#utterances [aria-sort]').length") == 1


def check_filter(window: browser.Browser) -> None:
    typed = "const box = document.querySelector('input[type=search]'); box.value = {!r}; "
    event = "box.dispatchEvent(new Event('input', {bubbles: true}));"
    for text, count in (("WORD1", 3), ("word1 hat", 0), ("word3 hat", 1), ("", 12)):
        window.run("{ " + typed.format(text) + event + " }")
        assert window.run(f"{VISIBLE}.length") == count
        assert window.run("document.querySelector('output').textContent") == f"{count} of 12"
    window.run("document.querySelector('form.tools input[type=checkbox]').click()")
    assert window.run(f"{VISIBLE}.length") == 4


def check_sound(window: browser.Browser) -> None:
    """The sound decodes to its length, and a click on a word plays that word and stops."""
    audio = "const audio = document.querySelector('audio');"
    ready = "await new Promise((done) => audio.readyState >= 2 ? done() : (audio.oncanplay = done, audio.load()));"
    assert window.run(f"(async () => {{ {audio} {ready} return audio.duration; }})()") == pytest.approx(1.5, abs=0.06)
    stopped = "await new Promise((done) => audio.addEventListener('pause', done, {once: true}));"
    click = "audio.parentElement.querySelectorAll('button[data-start]')[2].click();"  # 0.5 to 0.65 s
    plays = "await new Promise((done) => audio.addEventListener('playing', done, {once: true}));"
    end = window.run(f"(async () => {{ {audio} {click} {plays} {stopped} return audio.currentTime; }})()")
    assert 0.65 < end < 1.5


def background(window: browser.Browser) -> list[int]:
    colour = window.run("getComputedStyle(document.body).backgroundColor")
    return [int(part) for part in re.findall(r"\d+", str(colour))[:3]]
