"""Pictures: what is drawn lies where the data do, equal pictures are equal files, and nothing global changes."""

import matplotlib
import matplotlib.image
import matplotlib.text
import numpy as np
import pytest
import torch
from pyro.distributions import MultivariateNormal

from experiments.pictures import grouped_intervals, log_log
from pyrovae import plotting
from pyrovae.errors import one_line


def test_losses_are_drawn_by_epoch_and_by_batch():
    fig = plotting.losses([3.0, 2.0, 1.0], [4.0, 2.0, 3.0, 1.0, 2.0, 0.0], floor=0.5)
    by_epoch, by_batch = fig.axes
    assert by_epoch.lines[0].get_xydata().tolist() == [[1, 3], [2, 2], [3, 1]]
    assert by_batch.lines[0].get_ydata().tolist() == [4, 2, 3, 1, 2, 0]
    assert [ax.lines[-1].get_ydata()[0] for ax in fig.axes] == [0.5, 0.5]


def test_panels_have_common_limits():
    points = {"a": torch.tensor([[0.0, 0.0], [1.0, 2.0]]), "b": torch.tensor([[9.0, 9.0]]), "c": torch.zeros(3, 1)}
    points["a"] = torch.cat([points["a"], torch.tensor([[torch.nan, 5.0]])])  # a missing value, so no point
    fig = plotting.scatter_panels(points, columns=2)
    shown = [ax for ax in fig.axes if ax.axison]
    assert [ax.get_title() for ax in shown] == ["a", "b", "c"]
    for ax in shown:
        np.testing.assert_allclose([ax.get_xlim(), ax.get_ylim()], [(-0.1, 1.1), (-0.2, 2.2)], rtol=1e-6)
    assert shown[2].collections[0].get_offsets().tolist() == [[0, 0]] * 3  # one column lies on the horizontal axis


def test_images_stand_in_rows():
    images = torch.arange(3 * 4.0).reshape(3, 4) / 12
    fig = plotting.image_rows({"x": images, "x̂": images[:2]}, (2, 2))
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["x", "x̂"]
    shown = np.asarray(fig.axes[0].images[0].get_array())
    assert shown.shape == (4, 12)  # a frame of one pixel around each
    np.testing.assert_array_equal(shown[1:3, 5:7], images[1].reshape(2, 2))


def test_ellipses_are_of_one_standard_deviation():
    covariance = torch.tensor([[4.0, 0.0], [0.0, 1.0]])
    posterior = MultivariateNormal(torch.tensor([[1.0, 2.0]]), covariance)
    left = plotting.latent_space(posterior, torch.zeros(1)).axes[0]
    ellipses = left.collections[-1]
    np.testing.assert_allclose(2 * ellipses._widths, [4.0])  # full axes of the ellipse: 2σ
    np.testing.assert_allclose(2 * ellipses._heights, [2.0])
    assert ellipses.get_offsets().tolist() == [[1, 2]]


def test_intervals_reach_two_standard_errors():
    fig = plotting.intervals(["a", "b"], [1.0, 2.0], [0.1, 0.2], "nats", reference=0.0)
    bars = fig.axes[0].containers[0][2][0].get_segments()
    np.testing.assert_allclose([bar[:, 0] for bar in bars], [[0.8, 1.2], [1.6, 2.4]])
    panels = {"p": {"s": ([1.0, 10.0], [0.25, 2.5])}}
    bars = grouped_intervals(["a", "b"], panels, "nats", log=True).axes[0].containers[0][2][0].get_segments()
    low, high = np.array([bar[:, 0] for bar in bars]).T
    np.testing.assert_allclose(high, [1.5, 15.0])
    np.testing.assert_allclose(high / [1.0, 10.0], [1.0, 10.0] / low)  # as far down as up on the logarithmic axis


@pytest.mark.parametrize("dpi", [50, "figure"])
def test_equal_pictures_are_equal_files_whatever_the_settings(tmp_path, dpi):
    with matplotlib.rc_context({"savefig.dpi": dpi}):
        before = dict(matplotlib.rcParams)
        for name in ("a.png", "b.png"):
            fig = log_log({"s": ([1.0, 10.0], [2.0, 3.0])}, "x", "y")
            plotting.write_figure(tmp_path / name, fig)
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    height, width = matplotlib.image.imread(tmp_path / "a.png").shape[:2]
    assert (height, width) == (550, 550)  # 5 inches of 110 dots
    assert b"Software" not in (tmp_path / "a.png").read_bytes()


def test_figures_of_reconstructions_and_draws(tmp_path):
    x = torch.randn(20, 3)
    fig = plotting.reconstructions(x, x + 0.1, num_lines=5)
    joined = fig.axes[2].collections[0].get_segments()
    np.testing.assert_allclose(joined[4], [x[4, :2].tolist(), (x[4, :2] + 0.1).tolist()], rtol=1e-6)
    z = torch.cartesian_prod(torch.linspace(-1, 1, 3), torch.linspace(-1, 1, 3))
    fig = plotting.conditional_draws(z, torch.randn(4, 9, 2), x)
    assert fig.axes[1].collections[1].get_offsets().shape == (36, 2)
    np.testing.assert_array_equal(
        fig.axes[1].collections[1].get_facecolors()[:9], fig.axes[0].collections[0].get_facecolors()
    )


NAMES = [
    "$",
    "$x$",
    "a$b",
    r"\$",
    "$\\frac{$",
    "$$",
    "a_b^c{}%&#~",
    "\x1b[31mred",
    "line\nbreak",
    "\u202eevil",
    "\ud800",
    "µm",
]


def shown_in(fig):
    return [text.get_text() for text in fig.findobj(matplotlib.text.Text)]


def test_names_are_drawn_as_they_stand(tmp_path):
    """None is a formula, which could fail or say something else, and none holds a control character."""
    values = [1.0] * len(NAMES)
    figures = [
        plotting.scatter_panels({name: torch.zeros(2, 2) for name in NAMES}, columns=4),
        plotting.image_rows({name: torch.zeros(2, 4) for name in NAMES}, (2, 2)),
        plotting.intervals(NAMES, values, values, NAMES[4]),
        grouped_intervals(NAMES, {NAMES[4]: dict.fromkeys(NAMES[:5], (values, values))}, NAMES[4]),
        log_log({name: ([1.0, 2.0], [1.0, 2.0]) for name in NAMES}, NAMES[4], NAMES[1]),
    ]
    for i, fig in enumerate(figures):
        plotting.write_figure(tmp_path / f"{i}.png", fig)
        assert not any(set(text) & {"\x1b", "\u202e", "\ud800"} for text in shown_in(fig))
    for name in NAMES:
        text = matplotlib.text.Text(0, 0, plotting.label(name))
        drawn, is_formula = text._preprocess_math(text.get_text())
        assert not is_formula
        assert drawn == one_line(name)


def test_a_picture_that_cannot_be_drawn_is_one_line(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("of an earlier run")

    def formula():
        fig, axes = plotting.figure(1)
        axes[0, 0].set_title("$\\frac{$")
        return fig

    with pytest.warns(
        plotting.PictureWarning, match=r"^cannot draw .*a\.png \(ValueError: .*\); the rest was written"
    ) as warned:
        plotting.write_picture(path, formula)
    assert "\n" not in str(warned[0].message)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match="No such file"):
        plotting.write_picture(tmp_path / "nowhere" / "a.png", lambda: plotting.figure(1)[0])
