"""Every command in the documents exists, with the options it is given."""

import importlib.util
import re
import shlex
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")]
FENCED = re.compile(r"^```.*?\n(.*?)^```", re.M | re.S)
INLINE = re.compile(r"`([^`]+)`")
COMMAND = re.compile(r"python3? -m (\S.*)")
ENDS = re.compile(r"\s[#|;&>]|;\s|$")  # a comment, a pipe, another command
OF_OTHERS = ("pip", "venv", "pytest", "http.server")


def commands(text):
    """The module and arguments of each ``python -m`` in a text in Markdown."""
    lines = "".join(FENCED.findall(text)).replace("\\\n", " ").splitlines()
    lines += [" ".join(span.split()) for span in INLINE.findall(FENCED.sub("", text))]
    for line in lines:
        for found in COMMAND.findall(line):
            words = shlex.split(found[: ENDS.search(found).start()])
            if words[0] not in OF_OTHERS:
                yield words


def check(module, arguments):
    """Raise if a command would not accept these arguments; files need not exist."""
    if importlib.util.find_spec(module) is None:
        raise ModuleNotFoundError(f"no module {module}")
    if module.startswith("benchmarks."):  # they parse their own arguments, some on import
        return
    command = importlib.import_module(module).main
    context = click.Context(command)
    options, rest, _ = command.make_parser(context).parse_args(arguments)
    if rest:
        raise click.UsageError(f"unexpected {rest}", context)
    for parameter in command.params:
        value = options.get(parameter.name)
        if isinstance(parameter.type, click.Choice | click.types.IntParamType) and value not in (
            *(None, True, False),
            parameter.metavar,
        ):
            parameter.type_cast_value(context, value)


def test_the_documents_have_commands_to_check():
    found = [words[0] for path in DOCUMENTS for words in commands(path.read_text())]
    assert {"pipeline.extract", "features.embed", "model.fit", "model.predict"} <= set(found)
    assert len(found) > 50


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_in_a_document_can_be_typed(path):
    for module, *arguments in commands(path.read_text()):
        try:
            check(module, arguments)
        except (ImportError, click.UsageError) as error:
            message = getattr(error, "message", error)
            pytest.fail(f"python -m {module} {shlex.join(arguments)}: {message}")


@pytest.mark.parametrize(
    "text",
    [
        "`python -m pipeline.nothing`",
        "`python -m\n  model.evaluate RUN --sweeep`",
        "```sh\npython -m pipeline.extract a \\\n  -o b --flow-backend nothing\n```",
        "```\npython -m pipeline.pack a b c -o d  # a comment\n```",
        "```\nfind . | python -m model.fit a -o b --tune many\n```",
    ],
)
def test_what_is_wrong_is_found(text):
    ((module, *arguments),) = commands(text)
    with pytest.raises((ImportError, click.UsageError)):
        check(module, arguments)
