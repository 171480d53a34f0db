"""The page of a run and of a sweep: what is in it, what cannot break it, and a real browser."""

import base64
import html
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from made_up_runs import HOSTILE, record, write_records, write_run, write_sweep, write_untrained
from PIL import Image

from gmma.cli import main
from gmma.config import config_from_json
from gmma.files import read_json
from gmma.report import render
from gmma.report.command import report
from gmma.report.render import embed, fit_trees, picture_uri, render_page, thin
from gmma.report.run import repeat_command, run_page, trained_words
from gmma.report.sweep import sweep_page
from gmma.run.lines import resolve
from gmma.run.summary import column_names

CHROMIUM = shutil.which("chromium")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--v=0",
    "--virtual-time-budget=4000",
    "--window-size=1200,2000",
    "--dump-dom",
)


def open_in_browser(path, profile):
    """The page's elements once its scripts ran, and what its console said."""
    arguments = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", f"file://{path}"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=True)
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout.split('<script type="application/json"')[0], said


def data_of(text):
    """The JSON that a page carries."""
    found = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert len(found) == 1
    return json.loads(found[0])


def test_texts_of_a_run_cannot_leave_the_data(tmp_path):
    text = report(write_run(tmp_path / "run"))
    data = data_of(text)
    assert data["trees"][0]["record"]["question"] == HOSTILE
    assert HOSTILE not in text
    assert "\u2028" not in text.split('id="data">')[1].split("</script>")[0]
    assert "<title>made up &lt;b&gt;run&lt;/b&gt; · gmma</title>" in text
    assert text.count("<script") == 2  # the data and the code
    assert "default-src 'none'; img-src data:;" in text
    assert "innerHTML" not in "".join(
        render.read_part(name) for name in render.SCRIPTS if "uplot" not in name
    )


def test_text_that_looks_like_the_template_is_no_place_to_fill(tmp_path):
    text = report(write_run(tmp_path / "run", question="{{script}} {{nothing}}"))
    assert data_of(text)["trees"][0]["record"]["question"] == "{{script}} {{nothing}}"


def test_what_is_not_finite_is_null_in_the_page():
    assert json.loads(embed([float("nan"), float("inf"), {"x": -float("inf")}, 1 / 3])) == [
        None,
        None,
        {"x": None},
        0.333333,
    ]


def test_phases_sum_their_own_steps_and_score_their_own_gradients(tmp_path):
    data = data_of(report(write_run(tmp_path / "run")))
    sft, rl = data["phases"]
    assert (sft["steps"], sft["tokens"], sft["seconds"]["rollout"]) == (12, 120, None)
    assert (rl["steps"], rl["tokens"], rl["seconds"]["rollout"]) == (20, 2000, 5)
    norms = [record("rl", step)["grad_norm"] for step in range(12, 32)]
    held = np.asarray([norm for norm in norms if np.isfinite(norm)], np.float32)
    expected = (held * np.arange(1, len(held) + 1) / np.cumsum(held)).max()
    assert rl["spikes"]["largest"] == pytest.approx(expected, rel=1e-5)
    assert rl["spikes"]["not_finite"] == len(norms) - len(held) > 0


def test_quality_has_intervals_and_the_paired_difference(tmp_path):
    quality = data_of(report(write_run(tmp_path / "run")))["quality"]
    assert quality["columns"] == ["after SFT", "after RL", "difference"]
    row = next(row for row in quality["rows"] if row["name"] == "sampled/iou")
    before, after, gain = row["figures"]
    assert before[1] < before[0] < before[2]
    assert after[0] == pytest.approx(0.5)
    assert gain[0] == pytest.approx(0.25)
    assert gain[1] < gain[0] < gain[2]


def test_missing_parts_are_left_out(tmp_path):
    run = write_run(tmp_path / "run")
    shutil.rmtree(run / "evaluation")
    shutil.rmtree(run / "samples")
    (run / "metrics.jsonl").unlink()
    data = run_page(run)
    assert (data["quality"], data["trees"], data["phases"]) == (None, [], [])
    render_page(data)


def test_a_base_model_is_not_said_to_be_trained(tmp_path):
    text = report(write_untrained(tmp_path / "base"))
    data = data_of(text)
    assert "<title>made up base, not trained · gmma</title>" in text
    assert data["trained"] == "not trained: the base model"
    assert data["quality"]["columns"] == ["not trained"]
    config = json.loads((tmp_path / "base/config.json").read_text())
    config |= {"init_from": "runs/other"}
    assert trained_words(config, []) == "not trained: the parameters of runs/other"
    trained = run_page(write_run(tmp_path / "run"))
    assert trained["trained"] == "trained for 12 steps of SFT and 20 steps of RL"
    alone = config | {"rl": {"steps": 9}}  # RL of a model that somebody else has taught the form
    assert column_names(alone) == {"sft": "before RL", "rl": "after RL"}


def test_the_command_repeats_the_config(tmp_path, monkeypatch):
    run = write_run(tmp_path / "run", name="it's here")
    monkeypatch.chdir(tmp_path)
    lines = run_page(run)["command"].rsplit("\n", 1)
    code = lines[0].split("<<'END'\n")[1].removesuffix("END")
    (tmp_path / "repeat.py").write_text(code)
    assert lines[1].startswith("gmma train repeat.py --name ")
    config, resumed = resolve(["repeat.py", "--name", "it's here"])
    assert config == config_from_json(read_json(run / "config.json"), run / "config.json")
    assert not resumed
    assert repeat_command(run, {**read_json(run / "config.json"), "init_from": "runs/a"}).endswith(
        "--repeat-sft"
    )


def test_thinned_curves_keep_every_spike():
    records = [{"step": s, "phase": "rl", "grad_norm": 1.0, "low": s} for s in range(1000)]
    records[617]["grad_norm"] = 50.0
    records[618]["grad_norm"] = float("nan")
    kept = thin(records, 100)
    assert len(kept) == 100
    assert max(record.get("grad_norm", 0) for record in kept) == 50
    assert [record["low"] for record in kept if "low" in record][:: len(kept) - 1] == [0, 999]
    assert [record["step"] for record in kept] == sorted({record["step"] for record in kept})


def test_a_long_run_with_many_metrics_stays_small(tmp_path, monkeypatch):
    monkeypatch.setattr("gmma.report.run.CURVE_VALUES", 5000)
    run = write_run(tmp_path / "run")
    metrics = {f"own/{place}": 1.23456789 for place in range(8)}
    records = [{"step": s, "phase": "rl", "grad_norm": s / 7, **metrics} for s in range(2000)]
    write_records(run, records)
    curves = data_of(report(run))["curves"]
    assert curves["logged"] == 2000
    assert len(curves["step"]) == 500  # of 8 own metrics, gradient norm and spike score
    assert curves["metrics"]["grad_norm"][-1] == pytest.approx(1999 / 7, rel=1e-5)


def test_trees_that_do_not_fit_are_left_out_evenly():
    trees = [{"step": step, "image": "x" * 1000} for step in range(8)]
    assert [tree["step"] for tree in fit_trees(trees, 4500)] == [1, 3, 5, 7]
    assert fit_trees(trees, 100) == []


def test_large_pictures_become_smaller():
    noise = np.random.default_rng(0).integers(0, 255, (900, 1600, 3), np.uint8)
    written = io.BytesIO()
    Image.fromarray(noise).save(written, format="PNG")
    kind, payload = picture_uri(written.getvalue()).split(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(payload))).size == (1280, 720)


def test_a_page_that_cannot_be_small_says_so(tmp_path, capsys):
    run = write_run(tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"own": "x" * 15_000_000}))
    with pytest.raises(SystemExit) as ended:
        main(["report", str(run)])
    assert ended.value.code == 2
    assert "the limit is 15,000,000" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "said"),
    [(lambda path: None, "is no directory"), (lambda path: path.mkdir(), "neither a run nor")],
)
def test_what_is_no_run_is_an_error(tmp_path, capsys, make, said):
    make(tmp_path / "there")
    with pytest.raises(SystemExit) as ended:
        main(["report", str(tmp_path / "there")])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_the_command_writes_where_it_is_told(tmp_path, capsys):
    run = write_run(tmp_path / "run")
    main(["report", str(run)])
    main(["report", str(run), "--output", str(tmp_path / "own.html")])
    assert (run / "report.html").read_bytes() == (tmp_path / "own.html").read_bytes()
    assert f"{tmp_path / 'own.html'}: 0." in capsys.readouterr().out


def test_a_sweep_has_norms_and_late_trees_of_the_runs_that_are_there(tmp_path):
    data = sweep_page(write_sweep(tmp_path / "sweep"))
    assert [tree["step"] for tree in data["trees"]] == [2] * 5
    assert [(run["arm"], run["seed"]) for run in data["norms"]][-1] == ("T16A1", 0)
    assert data["norms"][0]["step"][0] == 0
    assert len(data["norms"][0]["step"]) == 20  # RL alone


@needs_browser
def test_a_run_opens_from_disk_without_an_error(tmp_path):
    (tmp_path / "run.html").write_text(report(write_run(tmp_path / "run")))
    shown, said = open_in_browser(tmp_path / "run.html", tmp_path / "profile")
    assert said == []
    assert shown.count("<canvas") == 7  # the default charts of which there are metrics
    assert html.escape(HOSTILE.split("\u2028")[0], quote=False) in shown
    assert 'style="width: 384px;"' in shown  # 24 pixels, loaded, enlarged by a whole factor
    for text in ("Quality", "Gradient spikes", "0.250", "no answer", "advantage +1.00", "RL"):
        assert text in shown, text
    for text in (
        "form broken, written: </em>nothing but www",
        ", ran out of slots",
        "trained for 12",
        "Responses of after RL that broke the form",
        "&lt;think&gt;no end &lt;/script",
        "w" * 300,
    ):
        assert text in shown, text


@needs_browser
def test_a_sweep_opens_from_disk_without_an_error(tmp_path):
    (tmp_path / "sweep.html").write_text(report(write_sweep(tmp_path / "sweep")))
    shown, said = open_in_browser(tmp_path / "sweep.html", tmp_path / "profile")
    assert said == []
    assert shown.count("<canvas") == 5  # quality against four budgets, gradient norms
    assert shown.count("<svg") == 3  # quality by arm, quality and variance against M
    for text in ("no difference shown", "equal tokens, 2,000", "T16A1, seed 0", "width: 384px"):
        assert text in shown, text


@needs_browser
def test_keys_and_drags_zoom_every_chart(tmp_path):
    """Steps 0 to 31: ranges of the first two charts after each of what a reader does."""
    page = report(write_run(tmp_path / "run"))
    steps = [
        "show('all')",
        "key('+'); show('plus')",
        "key('ArrowRight'); show('right')",
        "key('ArrowLeft'); key('ArrowLeft'); show('left')",
        "key('Escape'); show('escape')",
        "drag(0.25, 0.75); show('drag')",
        "over.dispatchEvent(new MouseEvent('dblclick', { bubbles: true })); show('double')",
    ]
    code = """
    const nodes = [...document.querySelectorAll("figure")].slice(0, 2);
    const chart = nodes[0];
    const over = chart.querySelector(".u-over");
    const key = (name) => chart.dispatchEvent(new KeyboardEvent("keydown", { key: name }));
    const drag = (from, to) => {
      const box = over.getBoundingClientRect();
      const send = (kind, target, share) => target.dispatchEvent(new MouseEvent(kind, {
        bubbles: true, button: 0, movementX: 9,
        clientX: box.left + share * box.width, clientY: box.top + 40 }));
      send("mousemove", over, from);
      send("mousedown", over, from);
      send("mousemove", over, to);
      send("mouseup", document, to);
    };
    const show = (name) => {
      const rows = nodes.map((node) => {
        node.querySelector("details").open = true;
        return [...node.querySelectorAll("tbody td:first-child")].map((cell) => cell.textContent);
      });
      console.log(name, ...rows.map((steps) => `${steps[0]}-${steps.at(-1)}`), "end");
    };
    nodes.forEach((node) => { node.querySelector("details").open = true; });
    """
    waits = "\n".join(f"await new Promise((go) => setTimeout(go, 100)); {one};" for one in steps)
    (tmp_path / "run.html").write_text(
        f"{page}<script>(async () => {{ {code} {waits} }})()</script>"
    )
    _, said = open_in_browser(tmp_path / "run.html", tmp_path / "profile")
    ranges = [re.search(r'"(\w+) (\S+) (\S+) end"', line) for line in said]
    assert all(ranges), said
    assert all(found[2] == found[3] for found in ranges if found), said  # the charts go together
    found = {one[1]: one[2] for one in ranges if one}
    assert found["all"] == found["escape"] == found["double"] == "0-31"
    assert found["plus"] == "5-26"  # 70 % of the range around its middle: 4.65 to 26.35
    assert found["right"] == "8-29"  # an eighth of what is shown: 2.71 further
    assert found["left"] == "2-23"
    assert found["drag"] == "8-23"


@needs_browser
@pytest.mark.parametrize("write", [write_run, write_sweep, write_untrained])
def test_a_phone_scrolls_down_only(tmp_path, write):
    page = report(write(tmp_path / "it"))
    watch = "<script>{ const { scrollWidth, clientWidth, lang } = document.documentElement; "
    watch += "console.log(lang, scrollWidth - clientWidth, innerWidth) }</script>"
    (tmp_path / "it.html").write_text(page + watch)
    frame = f'<iframe src="file://{tmp_path}/it.html" style="width:390px;height:800px;border:0">'
    (tmp_path / "phone.html").write_text(frame)
    _, said = open_in_browser(tmp_path / "phone.html", tmp_path / "profile")
    assert len(said) == 1
    assert '"en 0 390"' in said[0]  # nothing is wider than the window


@needs_browser
def test_the_browser_would_tell_of_errors_and_requests(tmp_path):
    page = report(write_run(tmp_path / "run"))
    page = page.replace("<main", '<img src="https://example.invalid/x.png"><main')
    (tmp_path / "run.html").write_text(page + "<script>missing()</script>")
    _, said = open_in_browser(tmp_path / "run.html", tmp_path / "profile")
    assert any("Content Security Policy" in line for line in said)
    assert any("missing is not defined" in line for line in said)
