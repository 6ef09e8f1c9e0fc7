"""The report: what it says is what was found, in words, on one page that stands alone, whatever names the file has."""

import dataclasses
import html
import json
import math
import re
import shlex
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import torch

import pyrovae as pv
from pyrovae.commands.main import main
from pyrovae.comparison._words import ESTIMATORS, NOISES, SHAPES, nats
from pyrovae.comparison.compare_file import compare_file
from pyrovae.comparison.recommendation import Gain, Limit, Verdict
from pyrovae.comparison.report import command_of, write_report
from pyrovae.comparison.report._answer import answer, interval, meaning
from pyrovae.comparison.report._candidates import Candidate, candidates_of
from pyrovae.comparison.report._forest import forest_of
from pyrovae.comparison.report._pictures import _colors, _columns
from pyrovae.comparison.report._worst import blame, names_of_test, times_usual
from pyrovae.comparison.study import COMPARED_BY_DEFAULT, Study
from pyrovae.datasets import read_data
from pyrovae.elbo import ESTIMATORS as ALL_ESTIMATORS
from pyrovae.fitted import VAE, Linear
from pyrovae.likelihoods import LIKELIHOODS
from pyrovae.linear_gaussian import FactorModel
from pyrovae.posteriors import POSTERIORS
from pyrovae.trained_model import TrainedModel

NUM, CHANNELS, STRANGE, KINK = 160, 16, 7, 5
NASTY = ("$x^2", "<script>alert(1)</script>", "\x1b[31m", "樣品", "a&b", '"quoted"', "{{ 7 * 6 }}", "$\\frac{")

RAW = (
    "ar1-per", "full-covariance", "gaussian-per", "_", "Normal(", "Posterior", "Likelihood", "ELBO", "d = ", "‖", "k̂",
    "linear, ", "None", "NaN", "nan", "p(x|z)", "q(z|x)", "Estimator", "monte-carlo", "closed form",
)  # fmt: skip
"""The library's own symbols, which mean nothing to a reader of the page."""


def write_spectra(path):
    """Smooth spectra with falling wavenumbers, nasty names and classes, and one test datum with a kink."""
    g = np.random.default_rng(0)
    axis = np.linspace(4000.0, 400.0, CHANNELS)
    t = np.linspace(0, 1, CHANNELS)
    x = g.normal(size=(NUM, 1)) * np.sin(3 * t) + g.normal(size=(NUM, 1)) * np.cos(5 * t)
    x += 0.05 * g.normal(size=x.shape)
    names = [f"{NASTY[i % len(NASTY)]} {i}" for i in range(NUM)]
    kinds = [("<b>$young$</b>", "old & $")[i % 2] for i in range(NUM)]
    table = pd.DataFrame(x, columns=[f"{a:g} cm-1" for a in axis])
    table.insert(0, "sample name", names)
    table["class $"] = kinds
    table["age"] = g.normal(size=NUM)
    table.to_csv(path, index=False)
    test = pv.datasets.split_spectra(read_data(path)).test
    strange = test.targets["sample name"][STRANGE]
    table.loc[table["sample name"] == strange, table.columns[KINK + 1]] += 2.0
    table.to_csv(path, index=False)
    return strange


def make_study(path, **settings):
    training = pv.TrainingSettings(epochs=500, learning_rate=1e-2)
    small = {"hidden": (8,), "log_marginal_samples": 20, "seeds": (0, 2)} | settings
    compared = dataclasses.replace(COMPARED_BY_DEFAULT, training=training, **small)
    return Study(data=path, settings=compared, epochs=2, gap_data=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("a study")


@pytest.fixture(scope="module")
def strange(folder):
    return write_spectra(folder / "$my & <data>.csv")


@pytest.fixture(scope="module")
def found(folder, strange):
    study = make_study(folder / "$my & <data>.csv", likelihoods=("gaussian", "ar1-per-dimension"))
    return compare_file(study, folder / "study", progress=False)


@pytest.fixture(scope="module")
def page(folder, found):
    return Page(write_report(found, folder / "study").read_text(encoding="utf-8"))


class Page(HTMLParser):
    """A page as a browser sees it: every tag closed, its text by the tag it stands in."""

    def __init__(self, source):
        super().__init__()
        self.source, self.open, self.tags, self.images, self.ids = source, [], set(), [], set()
        self.texts = []
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.add(tag)
        self.ids.add(attributes.get("id"))
        assert not any(name.startswith("on") for name in attributes)
        if tag == "img":
            self.images.append(attributes)
        if tag not in ("meta", "img", "input", "line", "circle", "rect", "path"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if self.open[-1:] == [tag]:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def text(self, *without):
        return " ".join(" ".join(text for tag, text in self.texts if tag not in ("style", *without)).split())

    def of(self, tag):
        return [text for t, text in self.texts if t == tag]

    def commands(self):
        texts = re.findall("<pre>(.*?)</pre>", self.source, re.DOTALL)
        return [shlex.split(html.unescape(re.sub("<.*?>", "", text))) for text in texts]

    def matches(self, pattern):
        return [html.unescape(text).strip() for text in re.findall(pattern, self.source, re.DOTALL)]


def test_the_page_stands_alone(page):
    assert {"script", "link", "iframe", "object"}.isdisjoint(page.tags)
    assert not re.search(r"https?:|url\(|@import|srcset|javascript:", page.source)
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.images)
    assert all(len(image["alt"]) > 10 for image in page.images)
    assert "width=device-width" in page.source
    assert "@media print" in page.source


def test_every_candidate_is_in_the_plot_and_in_the_table(found, page):
    names = {one.name for one in candidates_of(found)}
    assert len(names) == len(found.table) == 2 * 2 + 5
    plotted = page.matches(r'<span class="name">([^<]*?)<')
    assert set(filter(None, plotted)) == names
    assert {text.removesuffix(" ✓") for text in page.matches(r'data-label="candidate">(.*?)</td>')} == names
    assert set(page.matches(r'data-label="name in files"><code>(.*?)</code>')) == set(found.table["model"])


def test_everything_names_the_same_winner(folder, found, page):
    said = json.loads((folder / "study" / "recommendation.json").read_text())
    (choice,) = [one for one in candidates_of(found) if one.key == said["choice"]]
    assert page.of("title") == [f"$my & <data>: {choice.name}"]
    assert page.matches(r'<p class="main">(.*?)</p>')[0].startswith((f"Take the {choice.name}", f"Take {choice.name}"))
    assert page.matches(r'<li class="choice">\s*<span class="name">(.*?)<') == [choice.name]
    assert page.matches(r'data-label="candidate">([^<]*) ✓</td>') == [choice.name]
    for command in [one for one in page.commands() if one[1] != "compare"]:
        assert command[2] == str((folder / "study" / found.model).absolute())


def test_the_commands_can_be_pasted(folder, found, page, strange, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    commands = page.commands()
    assert {command[1] for command in commands} == {
        "outliers", "evaluate", "reconstruct", "encode", "sample", "compare"
    }  # fmt: skip
    for _, *arguments in commands:
        if "NEW.csv" not in arguments and "compare" not in arguments:
            main(arguments)
    assert {"outliers.csv", "reconstruct.csv", "encode.csv", "sample.csv"} <= {path.name for path in folder.iterdir()}
    judged = pd.read_csv(folder / "outliers.csv")
    assert len(judged) == NUM
    assert judged["outlier"][judged["sample name"] == strange].all()
    assert commands[-1] == shlex.split(command_of(found.study))


def test_no_symbol_of_the_librarys_own(page):
    said = page.text("pre", "code").replace("--log-marginal-samples", "")
    for raw in RAW:
        assert raw not in said, said[max(0, said.find(raw) - 60) : said.find(raw) + 60]


def test_every_part_of_the_library_has_words():
    assert set(NOISES) == set(LIKELIHOODS)
    assert set(SHAPES) == set(POSTERIORS)
    assert set(ESTIMATORS) == set(ALL_ESTIMATORS)
    for parts in (NOISES, SHAPES, ESTIMATORS):
        names = [words.name for words in parts.values()]
        assert len(set(names)) == len(names)


def test_the_answer_is_what_was_found(found, page):
    candidates = candidates_of(found)
    (choice,) = [one for one in candidates if one.key == found.recommendation.choice]
    main = page.matches(r'<p class="main">(.*?)</p>')[0]
    if found.recommendation.verdict is Verdict.BETTER:
        assert interval(choice.gain, 0.95) in main
    assert "one nat more per spectrum is a factor of 2.7 in probability" in page.text()


def test_the_worst_are_those_of_the_smallest_density(folder, found, page, strange):
    scores = TrainedModel.load(folder / "study" / found.model).scores(found.test)["log_prob"]
    order = np.argsort(scores.to_numpy(), kind="stable")[:6]
    names = found.split.test.targets["sample name"].tolist()
    shown = [
        text.split(". ", 1)[1] for text in page.matches(r'<td class="title left" data-label="spectrum">(.*?)</td>')
    ]
    assert shown == [pv.errors.visible(names[i]) for i in order]
    assert shown[0] == pv.errors.visible(strange)
    held_out = TrainedModel.load(folder / "study" / found.model).scores(found.split.validation.x)["log_prob"]
    p_values = [(1 + sum(held_out <= score)) / (1 + len(held_out)) for score in scores]
    assert page.matches(r'data-label="p-value">(.*?)<') == [f"{p_values[i]:.2g}" for i in order]
    num = sum(p <= 0.05 for p in p_values)
    assert f"{num} of the {len(scores)} are outliers. If all were good, about 1 would be" in page.text()
    to_blame = page.matches(r'data-label="channels to blame">(.*?)</td>')[0]
    first, last = map(float, re.match(r"(\d+)(?: to (\d+))? cm", to_blame).group(1, 2 if " to " in to_blame[:9] else 1))
    step = 3600 / (CHANNELS - 1)
    assert first >= found.data.axis[KINK] >= last
    assert first - last <= 4 * step


def test_nasty_names_do_no_harm(page):
    assert "<script" not in page.source
    assert "<b>$young" not in page.source
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", page.source)
    assert {"class $", "age"} <= {text.strip() for text in page.of("label")}
    assert {"<b>$young$</b>", "old & $"} <= {text.strip() for text in page.of("li")}


def test_a_picture_has_the_axis_in_its_direction(found, monkeypatch):
    from pyrovae.comparison.report import _figures

    axis = found.data.axis.numpy()
    row = np.zeros(len(axis))
    figure = _figures.spectrum_with_band(axis, row, row, (row - 1, row + 1), "cm⁻¹", [(axis[3], axis[4])])
    above, below = figure.axes
    assert below.get_xlim() == (4000.0, 400.0)
    assert above.get_xlim() == (4000.0, 400.0)
    assert below.get_xlabel() == "cm⁻¹"


def test_what_was_read_is_said(found, page):
    said = page.text()
    for line in found.data.reading.lines(on_console=True):
        assert pv.errors.visible(line) in said
    assert f"{len(found.split.train)} spectra to train on" in said
    assert f"{len(found.test)} to test on" in said


def candidate(name, gain, low, high, **parts):
    of_gain = None if gain is None else Gain(gain, low, high)
    rest = {"behind": None, "model": None, "baseline": None, "has_correlated_noise": False} | parts
    return Candidate(name, name, of_gain, **rest)


def test_places_of_the_forest_plot():
    @dataclasses.dataclass
    class Advice:
        choice: str = "b"
        simplest: str = "a"
        level: float = 0.95

    rows = [candidate("a", 0.0, 0.0, 0.0), candidate("b", 10.0, 5.0, 15.0), candidate("c", None, 0, 0)]
    plot = forest_of(Advice(), rows)
    assert [row.candidate.name for row in plot.rows] == ["b", "a", "c"]
    best, simplest, failed = plot.rows
    assert best.ends[0] < best.at < best.ends[1] <= 100
    assert best.at == pytest.approx((best.ends[0] + best.ends[1]) / 2, abs=0.02)
    assert simplest.at == plot.zero
    assert (failed.at, failed.text) == (None, "failed")
    assert best.text == "+10 (5 to 15)"
    for place, text in plot.ticks:
        at = plot.zero + float(text.replace("−", "-")) * (best.at - plot.zero) / 10.0
        assert place == pytest.approx(at, abs=0.05)
    far = forest_of(Advice(), [*rows, candidate("d", -1e6, -2e6, -1e5), candidate("e", 12.0, 11.0, 13.0)])
    assert far.is_cut
    assert far.rows[0].at - far.zero > 10
    unknown = forest_of(Advice(), [candidate("a", 0.0, np.nan, np.nan), candidate("b", 3.0, np.nan, np.nan)])
    assert [row.ends for row in unknown.rows] == [None, None]
    assert unknown.rows[0].text == "+3.00"


@pytest.mark.parametrize(
    ("changes", "begin", "holds"),
    [
        ({"verdict": Verdict.BETTER}, "Take ", "better than the simplest candidate"),
        ({"verdict": Verdict.NO_DIFFERENCE}, "Take ", "none of the others is better by more than 0.1 nats"),
        ({"verdict": Verdict.UNDECIDED, "limit": Limit.DATA, "num_enough": 321}, "Take ", "321 spectra to test on"),
        ({"verdict": Verdict.UNDECIDED, "limit": Limit.SEEDS}, "Take ", "(--seeds)"),
        ({"verdict": Verdict.UNDECIDED, "limit": Limit.ESTIMATE}, "Take ", "(--log-marginal-samples)"),
        ({"verdict": Verdict.TOO_FEW, "num_groups": 4, "num_seeds": 1}, "Too few spectra", "at least 20"),
    ],
)
def test_every_verdict_has_its_sentence(found, changes, begin, holds):
    advice = found.recommendation
    rivals = tuple(row.model for row in advice.by_model[1:3])
    choice = advice.by_model[1].model if changes["verdict"] is Verdict.BETTER else advice.simplest
    changed = dataclasses.replace(advice, choice=choice, rivals=rivals, **changes)
    result = dataclasses.replace(found, recommendation=changed)
    candidates = candidates_of(result)
    said = answer(result, candidates)
    assert said.startswith(begin)
    assert holds in " ".join([said, *meaning(result, candidates)])


@pytest.mark.parametrize(("lost", "is_said"), [(12.3, True), (0.3, False), (math.nan, False)])
def test_what_the_encoder_loses_is_said_where_it_is_much(found, page, lost, is_said):
    assert "lost by the encoder" in page.of("th")
    results = {
        cell: dataclasses.replace(result, metrics=result.metrics | {"lost_by_encoder": lost})
        for cell, result in found.comparison.results.items()
    }
    advice = dataclasses.replace(found.recommendation, choice=next(iter(found.names.values())))
    of_vae = dataclasses.replace(
        found, comparison=dataclasses.replace(found.comparison, results=results), recommendation=advice
    )
    said = " ".join(meaning(of_vae, candidates_of(of_vae)))
    assert ("it loses 12.3 nats per spectrum of new data" in said) == is_said
    assert ("encoder" in said) == is_said


def test_numbers_have_the_decimals_that_their_errors_leave():
    assert [nats(25.26, 2.0), nats(25.26, 0.5), nats(-0.126, 0.05)] == ["25", "25.3", "−0.13"]
    assert interval(Gain(25.0, 23.0, 27.0), 0.95) == "95\u00a0% interval 23 to 27"
    assert interval(Gain(25.0, np.nan, np.nan), 0.95) == ""


def test_channels_to_blame():
    times = np.ones((1, 12))[0]
    times[3:5], times[9] = 8.0, 4.0
    blamed, largest = blame(times)
    assert [(found.first, found.last, found.times) for found in blamed] == [(3, 4, 8.0), (9, 9, 4.0)]
    assert largest.first == 3
    times[3] = 40.0
    assert [(found.first, found.last) for found in blame(times)[0]] == [(3, 3)]
    assert blame(np.array([1.0, 2.0, 0.5]))[0] == ()


def test_a_kink_is_to_blame_where_errors_go_together():
    """A step of one channel is small beside errors that drift, and large beside what its neighbours lead to expect."""
    torch.manual_seed(0)
    likelihood = pv.AR1GaussianLikelihood(1, 40)
    with torch.no_grad():
        likelihood.raw_noise[-1] = 2.5
    linear = FactorModel(torch.zeros(40, 1), torch.zeros(40), likelihood)
    x = linear.sample(200).float()
    x[0, 17] += 1.5 * float(x.std())
    times = times_usual(x, TrainedModel(Linear(linear)))
    assert times[0].argmax() == 17
    assert times[0, 17] > 6
    vae = TrainedModel(VAE(linear.to_model().float(), linear.to_guide().float()))
    assert times_usual(x, vae)[0].argmax() == 17


def test_equal_data_are_named_in_the_files_order():
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]])
    data = pv.datasets.Spectra(x, torch.arange(2.0), "nm", pd.DataFrame({"id": ["a", "b", "c"]}))
    assert names_of_test(data, x[[2, 0, 1]]) == ["a", "c", "b"]
    unnamed = dataclasses.replace(data, targets=pd.DataFrame(index=range(3)))
    assert names_of_test(unnamed, x[[1]]) == ["row\u00a01"]


def test_columns_that_colour():
    numbers, legend = _colors(pd.Series(np.linspace(0, 1, 30)))
    assert legend == ()
    assert numbers[-1] == 1.0
    classes, legend = _colors(pd.Series(["b", "a", None] * 10))
    assert [entry.name for entry in legend] == ["a", "b", "others, or unknown"]
    assert classes[:3].tolist() == [1, 0, -1]
    codes, legend = _colors(pd.Series([10, 2, 10, 2] * 5))
    assert [entry.name for entry in legend] == ["2", "10"]
    assert _colors(pd.Series([f"name {i}" for i in range(30)])) is None
    assert _columns([*(f"pc_{i}" for i in range(1, 20)), "fat"]) == ["pc_1", "pc_2", "pc_3", "fat"]
