"""Label Studio's labelling configs: the pages of the three kinds of task, their instructions and their notes.

What a page sends back is untrusted. Its texts are for people who never saw the project before. The pages rest on facts
about Label Studio that docs/label-studio.md explains; tests/browser fails where one of them changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from xml.sax.saxutils import quoteattr

from tasks.labelling.projects import ASK, INK, INTENDED, NOTE, SAYS, SEEN, UNREADABLE_CHOICE

# Name of a pen → the colour it paints, and the one it has on the page: white on white could not be seen.
PENS: dict[str, tuple[tuple[int, int, int], str]] = {
    "black": ((0, 0, 0), "#111827"),
    "white": ((255, 255, 255), "#e5e7eb"),
    "red": ((220, 38, 38), "#dc2626"),
    "green": ((22, 163, 74), "#16a34a"),
    "blue": ((37, 99, 235), "#2563eb"),
}
TOOL_KEYS = frozenset("euv")  # Label Studio's own, by which a brush is put away: eraser, unselect, arrow

# No `<`, `>`, `&` or quotation mark: Label Studio escapes them, and a style sheet does not undo that.
_FRAME = """
.lsf-sidepanels{padding:0!important}
.lsf-sidepanels__wrapper,.lsf-tabs-panel,.lsf-model-actions,.lsf-action-buttons{display:none!important}
.lsf-menu-header__context a[href$=settings]{display:none!important}
.task{display:flex;align-items:flex-start;padding-top:16px}
.answers{flex:1;min-width:200px;max-width:480px}
.small .lsf-toolbar{display:none}
@media(max-width:900px){.task{flex-wrap:wrap}.answers{padding:0 16px}}
.line *{font-size:14px!important;font-weight:400!important;line-height:1.4!important;margin:6px 0!important}
"""
_PICTURE_WIDTH, _SMALL_WIDTH = 448, 96  # CSS pixels
# The brush's slider stands right of its button, where it covers nothing of the canvas. Label Studio marks the page as
# `lsf-requesting` while it waits for the model; a question without that mark was not answered. With a canvas that
# nothing is on, its list of regions is the empty one.
_DRAWING = """
.picture{flex:0 0 496px;margin-right:56px}
.lsf-tool__controls{left:100%!important;right:auto!important;padding:0 0 0 8px!important}
.looking,.away,.nothing,.pen{display:none}
.lsf-requesting .looking{display:block}
.lsf-requesting .says{opacity:.25}
.model:has(.ask [data-testid=textarea-region]) .away{display:block;animation:late 1s}
.lsf-requesting .model .away{display:none!important}
.ask [data-testid=textarea-region]{opacity:.6}
.lsf-editor:has(.lsf-outliner [data-testid=empty-state]) .nothing{display:block}
.lsf-editor:has(.lsf-outliner [data-testid=empty-state]) .lsf-controls{pointer-events:none;opacity:.35}
@keyframes late{from{opacity:0}99%{opacity:0}to{opacity:1}}
"""
# Ink without a label is dark grey, which is lit up here: the black over what is not selected stays black.
_CANVAS = """
.picture .konvajs-content canvas:not(:first-child){
filter:brightness(2.5) sepia(1) saturate(9) hue-rotate(120deg) brightness(1.1)}
"""
_PENS = ".picture:not(:has(.lsf-label_selected)) .pen{display:block}"
_VALIDATION = ".picture{flex:0 0 448px;margin-right:32px}.picture .lsf-toolbar{display:none}"

_IMAGE = f"""<Image name="image" value="$image" smoothing="false" zoom="false" zoomControl="false"
 brightnessControl="false" contrastControl="false" rotateControl="false" width="{_PICTURE_WIDTH}px"
 maxWidth="{_PICTURE_WIDTH}px"/>"""
# The same picture as small as a person would look at it: blocks of sixteen pixels are hard to read.
_SMALL = f"""<Image name="small" value="$image" smoothing="true" zoom="false" zoomControl="false"
 brightnessControl="false" contrastControl="false" rotateControl="false" width="{_SMALL_WIDTH}px"
 maxWidth="{_SMALL_WIDTH}px"/>"""
_ASK = (
    "Ask what the model sees, as often as you like: click the field under that question, type <b>?</b> and press "
    "<b>Enter</b>. Its answer comes within six seconds."
)
_UNDO = "<b>Ctrl+Z</b> takes the last step back; a question is a step too, and goes with its answer."


def _steps(*steps: str) -> str:
    """Numbered by hand: Label Studio shows a list without its numbers."""
    return "".join(f"<p>{number}. {step}</p>" for number, step in enumerate(steps, 1))


DRAW_HELP = (
    "<p><b>Draw something that every person reads at once and that the model gets wrong.</b></p>"
    + _steps(
        "Draw with the mouse, a pen or a finger. The slider beside the brush changes its width; "
        f"the eraser is below the brush. {_UNDO}",
        "Choose the class you meant: click it, or press its key.",
        _ASK,
        "Press <b>Submit</b>, or <b>Ctrl+Enter</b>.",
    )
    + "<p>Other people will say what they see in your drawing, without knowing what you meant. It counts if they see "
    "the same as you and the model does not. The first task is a practice and does not count.</p>"
)
EDIT_HELP = (
    "<p><b>Paint over the picture so that every person still reads it and the model gets it wrong.</b></p>"
    + _steps(
        "Choose a pen below the picture and paint. Paint hides what is under it. "
        "Press <b>Escape</b> before you change the pen, and to see the picture as bright as it is. " + _UNDO,
        "Choose the class that a person sees now: click it, or press its key.",
        _ASK,
        "Press <b>Submit</b>, or <b>Ctrl+Enter</b>.",
    )
    + "<p>Other people will say what they see, without knowing what you meant or what the picture was.</p>"
)
VALIDATE_HELP = (
    "<p><b>Say which class you see.</b> Click it or press its key, then press <b>Ctrl+Enter</b> or <b>Submit</b>.</p>"
    f"<p>If it could be several or none, choose <b>{UNREADABLE_CHOICE}</b>: that is an answer like any other. "
    "Judge alone, and do not look at other people's answers. "
    "If you come upon your own drawing, answer anyway; it is not counted.</p>"
)

DRAW_NOTE = "Draw any class: people should read it at once, the model should not."
EDIT_NOTE = "Paint over the picture: people should still read it, the model should not."
LOOKING = "The model is looking at your picture …"
AWAY = (
    "No answer stands here: none came, or Ctrl+Z took it back. The bin lets you ask again. "
    "You can also go on and submit: your picture is judged later anyway."
)


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
    # A pen without a label: Label Studio puts a labelled one away with Escape, undo or a refused Submit, and says
    # nothing of it.
    return _people_page(
        classes,
        style=_CANVAS,
        pen=f'<Bitmask name="{INK}" toName="image" smart="false" strokeWidth="12"/>',
        nothing="Draw something first: nothing counts without ink.",
        question="What did you draw?",
    )


def edit_page(classes: Sequence[str], channels: int) -> str:
    """What an annotator sees over a picture: the pens, the classes, the model's answer on demand."""
    taken = TOOL_KEYS | {key for _, key in _keys(classes, hotkeys(classes, TOOL_KEYS), TOOL_KEYS)}
    labels = []
    for number, name in enumerate(pens(channels)):
        letter = next((letter for letter in name if letter not in taken), "")
        key = f" hotkey={quoteattr(letter)}" if letter else ""
        taken |= {letter}
        selected = " selected='true'" if number == 0 else ""
        text = " selectedColor='#111827'" if name == "white" else ""
        labels.append(f"<Label value={quoteattr(name)} background={quoteattr(PENS[name][1])}{text}{key}{selected}/>")
    return _people_page(
        classes,
        style=_PENS,
        pen=f'<BitmaskLabels name="{INK}" toName="image" smart="false" strokeWidth="12">{"".join(labels)}'
        f"</BitmaskLabels>{_line('pen', 'No pen is chosen, so nothing paints: click one, or press its key.')}",
        nothing="Paint something first: nothing counts without paint.",
        question="What does a person see now?",
        beside=f'{_line("", "The picture as it was:")}<View className="small">{_SMALL}</View>',
    )


def pens(channels: int) -> list[str]:
    """The pens for images with that many channels."""
    return [name for name in PENS if channels == 3 or name in ("black", "white")]


def validate_page(classes: Sequence[str]) -> str:
    """What a validator sees: the image alone, large and small, the classes and `unreadable`."""
    _check(classes)
    keys = hotkeys(classes)
    if "u" not in keys.values():
        keys[UNREADABLE_CHOICE] = "u"
    return f"""<View><Style>{_FRAME}{_VALIDATION}</Style>
<View className="task"><View className="picture">{_IMAGE}</View><View className="answers">
<View className="small">{_SMALL}</View>
<Header value="Which class is this?" size="5"/>
<Choices name="{SEEN}" toName="image" choice="single-radio" showInline="true" required="true"
 requiredMessage="Choose a class or {UNREADABLE_CHOICE}">{_choices((*classes, UNREADABLE_CHOICE), keys)}</Choices>
{_line("", "Press its key, then Ctrl+Enter for the next picture.")}
</View></View></View>"""


def _people_page(classes: Sequence[str], *, style: str, pen: str, nothing: str, question: str, beside: str = "") -> str:
    # Question and answer belong to the note and not to the image: only then does Label Studio show the answer without a
    # switch that each annotator would have to set, and leave the ink as it is. The field takes one question and goes
    # until that is answered: so no class' key is typed into it.
    _check(classes)
    return f"""<View><Style>{_FRAME}{_DRAWING}{style}</Style>
<View className="task"><View className="picture">{_IMAGE}
{pen}
</View><View className="answers">
<Text name="{NOTE}" value="${NOTE}"/>
<Header value={quoteattr(question)} size="5"/>
<Choices name="{INTENDED}" toName="image" choice="single-radio" showInline="true" required="true"
 requiredMessage="Choose a class">{_choices(classes, hotkeys(classes, TOOL_KEYS), TOOL_KEYS)}</Choices>
<View className="model">
<Header value="What does the model see?" size="5"/>
<View className="ask"><TextArea name="{ASK}" toName="{NOTE}" smartOnly="true" rows="1" maxSubmissions="1"
 placeholder="type ? and press Enter"/></View>
{_line("looking", LOOKING)}
<View className="says"><TextArea name="{SAYS}" toName="{NOTE}" rows="1" maxSubmissions="0"/></View>
{_line("away", AWAY)}
</View>
{_line("nothing", nothing)}
{beside}
</View></View></View>"""


def _line(name: str, text: str) -> str:
    """A line of text. name: the class by which the style sheet knows it."""
    return f'<View className="line {name}"><Header value={quoteattr(text)} size="6"/></View>'


def _choices(names: Sequence[str], keys: Mapping[str, str], reserved: Iterable[str] = ()) -> str:
    """Radio buttons."""
    return "".join(_choice(name, key) for name, key in _keys(names, keys, reserved))


def _keys(names: Sequence[str], keys: Mapping[str, str], reserved: Iterable[str]) -> list[tuple[str, str]]:
    """Name → its key: its own, or the next free digit, 1 for the first; after ten of them the next free letter, since
    Label Studio would give it any, its tools' own too."""
    free = iter([key for key in "1234567890qtyiopasdfghjklzxcmnwrbeuv" if key not in {*keys.values(), *reserved}])
    return [(name, keys.get(name) or next(free, "")) for name in names]


def _choice(name: str, key: str) -> str:
    """A radio button. Label Studio takes `$1` for a field of the task: such a name is shown as HTML, and sent as the
    choice's alias."""
    value = f"value={quoteattr(name)}"
    if "$" in name:
        value = f"value={quoteattr(name.replace('$', '＄'))} alias={quoteattr(name)} html={quoteattr(escape(name))}"
    return f"<Choice {value}{f' hotkey={quoteattr(key)}' if key else ''}/>"


def hotkeys(classes: Sequence[str], reserved: Iterable[str] = ()) -> dict[str, str]:
    """A class whose name is one letter or digit has that as its key, if no other class wants it. reserved: keys that
    the page has another use for."""
    letters = {name: name.lower() for name in classes if len(name) == 1 and name.isascii() and name.isalnum()}
    keys = list(letters.values())
    return {name: key for name, key in letters.items() if keys.count(key) == 1 and key not in set(reserved)}


def _check(classes: Sequence[str]) -> None:
    if UNREADABLE_CHOICE in classes:
        raise ValueError(
            f"No class may be called {UNREADABLE_CHOICE!r}: validators choose that when they see none of the classes."
        )
