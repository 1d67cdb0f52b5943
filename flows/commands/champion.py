"""The subcommands about the champion: what it answers, how to take it away, and how to go back to an earlier one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.shell import CHAMPION, command, resolve_cli_path, root

if TYPE_CHECKING:
    from data.layout import Round, Workspace

_Round = Annotated[
    int | None, typer.Option("--round", metavar="NNN", help="a closed round's challenger instead of the champion")
]


@command(CHAMPION, "dadc predict photos/ --explain maps/")
def predict(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="image files, or folders of them")],
    explain: Annotated[
        Path | None, typer.Option(metavar="DIR", help="write a picture of where the network looks for each file")
    ] = None,
    number: _Round = None,
    as_json: Annotated[bool, typer.Option("--json", help="a line of JSON per file, with every probability")] = False,
) -> None:
    """Print the champion's class and probability for image files."""
    from data.layout import Workspace
    from data.names import printable
    from tasks.config.params import read
    from tasks.serving import prediction

    round_ = chosen_round(Workspace(root()), number)
    paths = prediction.image_files(map(resolve_cli_path, files))
    failed = 0
    for answer in prediction.predict(
        round_.challenger.model,
        paths,
        read(round_.params).data.fit,
        None if explain is None else resolve_cli_path(explain),
    ):
        failed += answer.error is not None
        name = printable(answer.file)
        if as_json:
            probabilities = answer.probabilities or None
            print(
                json.dumps(
                    {
                        "file": name,
                        "class": answer.class_,
                        "probability": answer.probability,
                        "probabilities": probabilities,
                        "error": answer.error,
                        "explanation": answer.explanation and printable(answer.explanation),
                    },
                    ensure_ascii=False,
                )
            )
        elif answer.probability is None:
            print(f"{name}: not an image that can be read: {answer.error}")
        else:
            picture = f"   {printable(answer.explanation)}" if answer.explanation else ""
            print(f"{name}: {answer.class_} ({answer.probability:.1%}){picture}")
    if failed:
        raise typer.Exit(1)


@command(CHAMPION, "dadc export champion/")
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="the folder to write to")],
    torch_file: Annotated[bool, typer.Option("--torch", help="also write model.pt2 for torch.export.load")] = False,
    number: _Round = None,
) -> None:
    """Write the champion as ONNX and safetensors, and check both on the whole test split."""
    from data.files import write_whole
    from data.layout import Workspace
    from flows.reports.card import card
    from tasks.config.params import read
    from tasks.serving.export import export as write
    from tasks.workspace.inputs import images

    workspace = Workspace(root())
    round_ = chosen_round(workspace, number)
    params = read(round_.params)
    about = {"campaign": params.campaign, "round": round_.name, "fit": params.data.fit}
    into = resolve_cli_path(folder)
    checks = write(round_.challenger.model, into, images(workspace, "test"), about, torch_file=torch_file)
    write_whole(into / "README.md", card(round_, params, [str(check.file.name) for check in checks]))
    for check in checks:
        print(check)
    print(f"{into / 'README.md'}: what the model is, what it takes, and its figures")


@command(CHAMPION, 'dadc rollback 1 --why "002 confuses 4 and 9"')
def rollback(
    number: Annotated[int, typer.Argument(metavar="ROUND", help="the closed round whose challenger was promoted")],
    why: Annotated[str, typer.Option(metavar="REASON", help="kept in every decision.json")],
) -> None:
    """Make an earlier champion the champion again, in the next round and in MLflow."""
    from data.layout import Workspace
    from flows.commands.record import commit_decisions, log_all_rounds
    from tasks.promote import roll_back
    from tasks.workspace.rounds import closed

    workspace = Workspace(root())
    target = closed_round(workspace, number)
    refused = commit_decisions(
        workspace, f"Roll back to round {target.name}", lambda: roll_back(closed(workspace), target, why)
    )
    names = ", ".join(round_.name for round_ in refused)
    print(f"round {target.name} is the champion again; refused by hand: {names}")
    log_all_rounds(workspace)


def chosen_round(workspace: Workspace, number: int | None) -> Round:
    """The champion's round, or the closed round of that number. WorkspaceError if there is none."""
    from tasks.promote import champion
    from tasks.workspace.git import WorkspaceError
    from tasks.workspace.rounds import closed

    if number is not None:
        return closed_round(workspace, number)
    best = champion(closed(workspace))
    if best is None:
        raise WorkspaceError("there is no champion: no closed round's challenger was promoted; `dadc status` shows why")
    return best


def closed_round(workspace: Workspace, number: int) -> Round:
    """WorkspaceError if the round is not closed."""
    from tasks.workspace.git import WorkspaceError
    from tasks.workspace.rounds import State, state

    round_ = workspace.round(number)
    if state(round_) is not State.CLOSED:
        raise WorkspaceError(
            f"expected a closed round, round {round_.name} is {state(round_)}; `dadc status` lists them"
        )
    return round_
