"""Notes of a study in the words of its report."""

from collections.abc import Mapping

from pyrovae.comparison._words import components, nats, the, upper
from pyrovae.comparison.notes import Note, NoteKind
from pyrovae.comparison.recommendation import Gain
from pyrovae.comparison.report._answer import interval, of_many, of_one, value
from pyrovae.comparison.study_result import StudyResult, in_words_of


def said(result: StudyResult, names: Mapping[str, str]) -> list[str]:
    """Further notes, a sentence or two each.

    Args:
        result: the study.
        names: the candidates' names in words, by those in files.
    """
    texts = [_say(note, result, names) for note in result.notes]
    return [text for text in texts if text]


def _say(note: Note, result: StudyResult, names: Mapping[str, str]) -> str:
    n, one, many = note.numbers, of_one(result), of_many(result)
    who = [the(names.get(name, name)) for name in note.names]
    match note.kind:
        case NoteKind.TRAINING_HARMED:
            return (
                f"Training did not help {'; '.join(who)}: it was never better on the validation {many} than at its "
                "start. Use a lower rate (--learning-rate)."
            )
        case NoteKind.VALIDATION_DIVERGED:
            return (
                f"{upper('; '.join(who))}: the validation loss rose by {nats(n['rise'])} nats per {one} after epoch "
                f"{n['best_epoch']:.0f} of {n['epochs']:.0f}. The best epoch was kept; a lower rate (--learning-rate) "
                "may be better."
            )
        case NoteKind.LATENT_DIM_TOO_SMALL:
            gain = Gain(n["gain"], n["low"], n["high"])
            better = f"better by {value(gain)} nats per {one} ({interval(gain, result.recommendation.level)})"
            most = components(round(n["more"]))
            models = f"{who[0]}, with {most}, is {better} than {who[-1]}, with {n['latent_dim']:.0f}"
            if note.names[0] not in names:
                models = f"the linear model of the same noise is {better} with {most} than with {n['latent_dim']:.0f}"
            return f"There may be too few latent values: {models}. Try --latent-dim {n['more']:.0f}."
        case NoteKind.NO_GAIN_FROM_NETWORKS:
            return ""  # which is one of the answers
        case NoteKind.BAD_WEIGHTS:
            return (
                f"The scores of up to {100 * n['share']:.0f}\u00a0% of the test {many} are doubtful ({who[0]}): they "
                "may be too low. Train longer (--epochs), or use more draws (--log-marginal-samples)."
            )
        case NoteKind.ENOUGH_DATA:
            return f"About {n['num']:,.0f} {many} of the same kind would leave enough to test on ({n['least']:.0f})."
        case NoteKind.RESOLUTION:
            return (
                f"{n['num_test']:,.0f} independent test {many} can tell models apart that differ by about "
                f"{nats(n['test'], n['test'] / 10)} nats per {one} or more; more {many} show smaller differences."
            )
        case NoteKind.GAPS_LEFT_OUT:
            return "There was no time to measure the losses of the posterior’s shape and of the encoder (--budget)."
        case NoteKind.NO_LINEAR_MODELS:
            return "Linear models were not compared: their values are densities, and these are not."
        case NoteKind.COPIES:
            kinds = [f"{round(n['equal'])} {many} equal others"] if n["equal"] else []
            kinds += [f"{round(n['near'])} {many} nearly equal others"] if n["near"] else []
            kept = "they may be in different parts, which makes the scores too high"
            kept = kept if n["allowed"] else "they are in the same part, and count as one"
            return f"{' and '.join(kinds)}: {kept}."
        case _:  # of the split, which names no candidate
            return in_words_of(note, result.study).text
