"""Every command about videos and caches in the documents runs, and every script."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents import (
    CHANGED,
    DOCUMENTS,
    NOT_RUN,
    SCRIPT_CHANGED,
    SCRIPTS_NOT_RUN,
    assert_there,
    begin,
    blocks,
    commands,
    run,
    typed,
)

HERE = commands(about_videos=True)
SCRIPTS = {document: blocks(document, "python") for document in DOCUMENTS}


@pytest.fixture(scope="module")
def after_readme(tmp_path_factory):
    """The folder of somebody who typed what the README says of videos and caches."""
    with pytest.MonkeyPatch.context() as patch:
        begin(tmp_path_factory.mktemp("reader"), patch)
        for line in HERE["README.md"]:
            run(line)
        yield


@pytest.mark.slow
def test_the_commands_of_the_readme_make_what_it_promises(after_readme):
    assert_there(
        "caches/dfd: index.h5 shards rejected.csv names.csv datacard.md SHA256SUMS timing.csv",
        ".: dfd.html dfd.h5",
    )


@pytest.mark.slow
@pytest.mark.parametrize("place", [place for place in HERE if place != "README.md"])
def test_every_other_command_runs_after_those_of_the_readme(place, after_readme):
    for line in HERE[place]:
        run(line)


@pytest.mark.slow
@pytest.mark.parametrize("document", [document for document in DOCUMENTS if SCRIPTS[document]])
def test_every_script_of_a_document_runs(document, after_readme):
    for script in SCRIPTS[document]:
        if not any(script.startswith(beginning) for beginning in SCRIPTS_NOT_RUN):
            for written, here in SCRIPT_CHANGED.items():
                script = script.replace(written, here)
            Path("script.py").write_text(script, encoding="utf-8")
            command = [sys.executable, "script.py"]  # worker processes import it anew
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, f"{document}\n{done.stdout}{done.stderr}"


def test_whatever_the_tables_name_is_in_a_document():
    lines = [line for all_lines in typed().values() for line in all_lines]
    for pattern, _, _ in CHANGED:
        assert any(re.search(pattern, line) for line in lines), pattern
    for pattern in NOT_RUN:
        assert any(re.fullmatch(pattern, line, re.DOTALL) for line in lines), pattern
    scripts = [script for document in DOCUMENTS for script in SCRIPTS[document]]
    for beginning in SCRIPTS_NOT_RUN:
        assert any(script.startswith(beginning) for script in scripts)
    for written in SCRIPT_CHANGED:
        assert any(written in script for script in scripts)
