"""A study's page: generated sections are replaced, what people wrote stays."""

from PIL import Image

from experiments.page import publish


def test_an_introduction_and_other_sections_outlive_a_second_publication(tmp_path):
    written = tmp_path / "synthetic.md"
    written.write_text("# synthetic\n\n**What it shows.** Much.\n\n## first\n\nold\n\n## Reading\n\nby hand\n")
    picture = tmp_path / "samples.png"
    Image.new("RGBA", (3, 2), (200, 10, 20, 255)).save(picture)
    for text in ("new", "newer"):
        publish("synthetic", "first", text, {"samples": picture}, tmp_path)
        publish("synthetic", "second", text, {}, tmp_path)
    found = written.read_text(encoding="utf-8")
    assert found.startswith("# synthetic\n\n**What it shows.** Much.\n\n## first\n")
    assert "old" not in found
    assert found.count("newer\n") == 2
    assert found.count("## Reading\n\nby hand\n") == 1
    assert "![samples](synthetic/first-samples.png)" in found
    with Image.open(tmp_path / "synthetic" / "first-samples.png") as published:
        assert published.mode == "P"  # of 256 colours
        assert published.size == (3, 2)
        assert published.convert("RGB").getpixel((2, 1)) == (200, 10, 20)


def test_the_first_publication_makes_the_page(tmp_path):
    path = publish("benchmarks.training_step", "cpu", "fast", {}, tmp_path)
    assert path == tmp_path / "benchmarks-training-step.md"
    assert path.read_text(encoding="utf-8").startswith("# benchmarks.training_step\n\n## cpu\n")
