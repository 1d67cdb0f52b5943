"""The two Label Studio projects of a round: their titles, their pages and the keys of their tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal
from xml.sax.saxutils import quoteattr

from data.layout import Round
from data.records import Candidate
from tasks.params import Params

Kind = Literal["draw", "validate"]
KINDS: tuple[Kind, ...] = ("draw", "validate")
UNREADABLE_CHOICE = "unreadable"
SIMULATED_DOMAIN = "simulated.invalid"  # reserved (RFC 2606): no person has an address there

INK, INTENDED, SEEN, ASK, SAYS = "ink", "intended", "seen", "ask", "model_says"  # names of tags

DRAW_HELP = (
    "<p>Draw one of the classes so that a person reads it at once and the model does not.</p>"
    "<ol><li>Draw with the brush.</li><li>Choose the class you meant.</li>"
    "<li>To see what the model makes of it: switch on <b>Auto-Annotation</b> and <b>Auto-Accept Suggestions</b> "
    "(once), take <b>Ask the model</b> and click the picture. The answer comes within six seconds.</li>"
    "<li>Change the drawing as often as you like, then submit.</li></ol>"
)
VALIDATE_HELP = (
    "<p>Say which class you see. If it could be several or none, choose <b>unreadable</b>. "
    "A vote on your own drawing does not count.</p>"
)


def title(campaign: str, round_: Round, kind: Kind) -> str:
    """A project's title, by which it is found again."""
    return f"{campaign} {round_.name} {kind}"


def drawing_keys(round_: Round, params: Params) -> list[str]:
    """A key for each drawing task of a round, which is also that of the candidate drawn in it."""
    return [f"{round_.name}/draw/{number:04d}" for number in range(params.collect.drawings)]


def vote_key(params: Params, candidate: Candidate) -> str:
    """The key of the task in which a candidate is voted on: it says nothing about the candidate, and it changes with
    the image, so that no vote counts for an image it was not cast on."""
    digest = hashlib.sha256()
    for part in (str(params.seed).encode(), params.campaign.encode(), candidate.key.encode(), candidate.image):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:32]


def draw_page(classes: Sequence[str]) -> str:
    """What an annotator sees: the canvas, the classes, the model's answer on demand."""
    _check(classes)
    return f"""<View>
<Style>.row{{display:flex;gap:24px;align-items:flex-start}}
.left{{flex:0 0 600px}}.right{{flex:1;min-width:240px}}</Style>
<View className="row"><View className="left">
<Image name="image" value="$image" smoothing="false" zoom="false" zoomControl="false" brightnessControl="false"
 contrastControl="false" rotateControl="false" width="560px" maxWidth="560px"/>
<BitmaskLabels name="{INK}" toName="image" smart="false" strokeWidth="12" required="true"
 requiredMessage="Draw something first"><Label value="ink" background="#e11d48" selected="true"/></BitmaskLabels>
<KeyPointLabels name="{ASK}" toName="image" smart="true" strokeWidth="5">
<Label value="Ask the model" background="#f97316"/></KeyPointLabels>
</View><View className="right">
<Header value="Class you drew" size="5"/>
<Choices name="{INTENDED}" toName="image" choice="single-radio" showInline="true" required="true"
 requiredMessage="Choose the class you drew">{_choices(classes)}</Choices>
<Header value="Model says" size="5"/>
<TextArea name="{SAYS}" toName="image" editable="false" maxSubmissions="1" rows="1"
 placeholder="(draw, then Ask the model)"/>
</View></View></View>"""


def validate_page(classes: Sequence[str]) -> str:
    """What a validator sees: the image alone, the classes and `unreadable`."""
    _check(classes)
    return f"""<View>
<Image name="image" value="$image" smoothing="false" zoom="false" zoomControl="false" brightnessControl="false"
 contrastControl="false" rotateControl="false" width="280px" maxWidth="280px"/>
<Header value="Which class is this?" size="5"/>
<Choices name="{SEEN}" toName="image" choice="single-radio" showInline="true" required="true"
 requiredMessage="Choose a class or unreadable">{_choices((*classes, UNREADABLE_CHOICE))}</Choices>
</View>"""


def _choices(names: Sequence[str]) -> str:
    """Radio buttons; a class that is one digit has that digit as its key, which is not what the page would choose."""
    keys = {name: f" hotkey={quoteattr(name)}" for name in names if len(name) == 1 and name.isdigit()}
    return "".join(f"<Choice value={quoteattr(name)}{keys.get(name, '')}/>" for name in names)


def _check(classes: Sequence[str]) -> None:
    if UNREADABLE_CHOICE in classes:
        raise ValueError(f"no class may be called {UNREADABLE_CHOICE!r}, validators choose it when they see none")
