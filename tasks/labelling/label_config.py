"""What people see in Label Studio: the pages of the three kinds of task, their instructions and their notes.

A page is untrusted in what it sends back. What is written here is for people who never saw the project before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from xml.sax.saxutils import quoteattr

from tasks.labelling.projects import INK, INTENDED, NOTE, PEN, SAYS, SEEN, UNREADABLE_CHOICE

# Name of a pen → the colour it paints, and the one it has on the page: white on white could not be seen.
PENS: dict[str, tuple[tuple[int, int, int], str]] = {
    "black": ((0, 0, 0), "#111827"),
    "white": ((255, 255, 255), "#e5e7eb"),
    "red": ((220, 38, 38), "#dc2626"),
    "green": ((22, 163, 74), "#16a34a"),
    "blue": ((37, 99, 235), "#2563eb"),
}

_STYLE = """<Style>.task{display:flex;flex-wrap:wrap;gap:24px;align-items:flex-start;padding-top:24px}
.picture{flex:0 0 460px}.answers{flex:1;min-width:220px;max-width:480px}
.away *{font-size:14px!important;font-weight:400!important;line-height:1.4!important}</Style>"""
_IMAGE = """<Image name="image" value="$image" smoothing="false" zoom="false" zoomControl="false"
 brightnessControl="false" contrastControl="false" rotateControl="false" width="448px" maxWidth="448px"/>"""
_ASK = (
    "What does the model see? Click the field under that question, type <b>?</b> and press <b>Enter</b>. "
    "Its answer comes within six seconds. Change your picture and ask again, as often as you like."
)


def _steps(*steps: str) -> str:
    """Numbered by hand: Label Studio shows a list without its numbers."""
    return "".join(f"<p>{number}. {step}</p>" for number, step in enumerate(steps, 1))


DRAW_HELP = (
    "<p><b>Draw something that every person reads at once and that the model gets wrong.</b></p>"
    + _steps(
        "Draw with the mouse, a pen or a finger. The slider beside the brush changes its width; "
        "the eraser is below the brush.",
        "Choose the class you meant: click it, or press its key.",
        _ASK,
        "Press <b>Submit</b>.",
    )
    + "<p>Other people will say what they see in your drawing, without knowing what you meant. It counts if they see "
    "the same as you and the model does not. The first task is a practice and does not count.</p>"
)
EDIT_HELP = (
    "<p><b>Paint over the picture so that every person still reads it and the model gets it wrong.</b></p>"
    + _steps(
        "Choose a pen below the picture and paint. Paint covers what is under it, wholly. "
        "Press <b>Escape</b> to change the pen, and to see the picture as bright as it is.",
        "Choose the class that a person sees now.",
        _ASK,
        "Press <b>Submit</b>.",
    )
    + "<p>Other people will say what they see, without knowing what you meant or what the picture was.</p>"
)
VALIDATE_HELP = (
    "<p><b>Say which class you see.</b> Click it or press its key, then press <b>Submit</b>.</p>"
    f"<p>If it could be several or none, choose <b>{UNREADABLE_CHOICE}</b>: that is an answer like any other. "
    "Judge alone, and do not look at other people's answers. "
    "If you come upon your own drawing, answer anyway; it is not counted.</p>"
)

DRAW_NOTE = "Draw any class: people should read it at once, the model should not."
AWAY = "No answer within ten seconds? The model is away: go on and submit. What you made is kept, and judged later."
EDIT_NOTE = "Paint over the picture: people should still read it, the model should not."


def guide_note(name: str) -> str:
    """The note of the practice task. name: the class of the grey picture that is traced in it."""
    return (
        "Practice, does not count.\n"
        f"1. Trace the grey picture, a {name}, with the brush.\n"
        "2. Choose what you drew, below.\n"
        "3. Type ? in the last field, press Enter, and wait for the answer.\n"
        "4. Press Submit."
    )


def draw_page(classes: Sequence[str]) -> str:
    """What an annotator sees: the canvas, the classes, the model's answer on demand."""
    label = f"<Label value={quoteattr(PEN)} background='#e11d48' selected='true'/>"
    return _people_page(classes, label, "Draw something first", "What did you draw?")


def edit_page(classes: Sequence[str], channels: int) -> str:
    """What an annotator sees over a picture: the pens, the classes, the model's answer on demand."""
    taken = set(hotkeys(classes).values())
    labels = []
    for number, name in enumerate(pens(channels)):
        letter = next((letter for letter in name if letter not in taken), "")
        key = f" hotkey={quoteattr(letter)}" if letter else ""
        taken.add(letter)
        selected = " selected='true'" if number == 0 else ""
        text = " selectedColor='#111827'" if name == "white" else ""
        labels.append(f"<Label value={quoteattr(name)} background={quoteattr(PENS[name][1])}{text}{key}{selected}/>")
    return _people_page(classes, "".join(labels), "Paint something first", "What does a person see now?")


def pens(channels: int) -> list[str]:
    """The pens for images with that many channels."""
    return [name for name in PENS if channels == 3 or name in ("black", "white")]


def validate_page(classes: Sequence[str]) -> str:
    """What a validator sees: the image alone, the classes and `unreadable`."""
    _check(classes)
    keys = hotkeys(classes)
    if "u" not in keys.values():
        keys[UNREADABLE_CHOICE] = "u"
    return f"""<View>{_IMAGE}
<Header value="Which class is this?" size="5"/>
<Choices name="{SEEN}" toName="image" choice="single-radio" showInline="true" required="true"
 requiredMessage="Choose a class or {UNREADABLE_CHOICE}">{_choices((*classes, UNREADABLE_CHOICE), keys)}</Choices>
</View>"""


def _people_page(classes: Sequence[str], labels: str, missing: str, question: str) -> str:
    # The answer belongs to the note and not to the image: only then does Label Studio show it without a switch that
    # each annotator would have to set, and leave the ink as it is.
    _check(classes)
    return f"""<View>{_STYLE}
<View className="task"><View className="picture">{_IMAGE}
<BitmaskLabels name="{INK}" toName="image" smart="false" strokeWidth="12" required="true"
 requiredMessage={quoteattr(missing)}>{labels}</BitmaskLabels>
</View><View className="answers">
<Text name="{NOTE}" value="${NOTE}"/>
<Header value={quoteattr(question)} size="5"/>
<Choices name="{INTENDED}" toName="image" choice="single-radio" showInline="true" required="true"
 requiredMessage="Choose a class">{_choices(classes, hotkeys(classes))}</Choices>
<Header value="What does the model see?" size="5"/>
<TextArea name="{SAYS}" toName="{NOTE}" smartOnly="true" rows="1" placeholder="type ? and press Enter"/>
<View className="away"><Header value={quoteattr(AWAY)} size="6"/></View>
</View></View></View>"""


def _choices(names: Iterable[str], keys: Mapping[str, str]) -> str:
    """Radio buttons. Without a key of its own a choice gets the next free digit, 1 for the first; after ten of them
    Label Studio chooses."""
    names = list(names)
    digits = [digit for digit in "1234567890" if digit not in keys.values()]
    keys = dict(zip([name for name in names if name not in keys], digits, strict=False)) | dict(keys)
    hotkeys = {name: f" hotkey={quoteattr(key)}" for name, key in keys.items()}
    return "".join(f"<Choice value={quoteattr(name)}{hotkeys.get(name, '')}/>" for name in names)


def hotkeys(classes: Sequence[str]) -> dict[str, str]:
    """A class whose name is one letter or digit has that as its key, if no other class wants it."""
    wanted = {name: name.lower() for name in classes if len(name) == 1 and name.isascii() and name.isalnum()}
    return {name: key for name, key in wanted.items() if list(wanted.values()).count(key) == 1}


def _check(classes: Sequence[str]) -> None:
    if UNREADABLE_CHOICE in classes:
        raise ValueError(f"no class may be called {UNREADABLE_CHOICE!r}, validators choose it when they see none")
